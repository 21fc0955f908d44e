import shutil

import numpy as np
import pytest

from medapp.errors import ProjectDamagedError, ProjectError, SaveFailedError
from medapp.store.database import Database, driver
from medapp.store.opening import backups
from medapp.store.project import Project
from medapp.store.upgrading import upgrade
from tests.store.painting import SHAPE, add_matte, crash, make_project, stroke
from tests.store.test_migrations import FORMAT_1, check_content

PLANE = SHAPE[1:]


def make_labels(seed=0, highest=40):
    return np.random.default_rng(seed).integers(1, highest, PLANE).astype(np.int32)


def test_the_newest_map_of_a_slice_counts_and_earlier_ones_stay(tmp_path):
    project, series_id = make_project(tmp_path)
    first, second, large = make_labels(1), make_labels(2), make_labels(3, 70_000)
    facts = {"engine": "region tree", "settings": {"window": [40.0, 400.0]}, "mattes": 2, "mattes_sha256": "ab"}
    one = project.add_region_map(series_id, 1, first, **facts, journal_seq=5)
    project.add_region_map(series_id, 1, second, engine="SAM · vit_b", engine_id="sam-1")
    project.add_region_map(series_id, 2, large, engine="region tree")
    across = project.add_region_map(series_id, 1, make_labels()[:4].copy(), axis=1, engine="region tree")
    project.close()

    with Project.open(tmp_path / "work.medapp") as project:
        newest = project.region_map(series_id, 1)
        assert np.array_equal(newest.labels, second)
        assert newest.engine == "SAM · vit_b"
        of_tree = project.region_map(series_id, 1, engine_id="")
        assert np.array_equal(of_tree.labels, first)
        assert (of_tree.region_map_id, of_tree.mattes, of_tree.mattes_sha256, of_tree.journal_seq) == (one, 2, "ab", 5)
        assert (of_tree.settings, of_tree.reader, of_tree.regions) == (facts["settings"], "Ann", len(np.unique(first)))
        assert np.array_equal(project.region_map(series_id, 2).labels, large)
        assert project.region_map(series_id, 0) is None
        assert project.region_map(series_id, 1, axis=1).region_map_id == across
        assert [info.slice_index for info in project.region_maps(series_id)] == [1, 1, 2, 1]
        assert project.check() == []


def test_a_worker_adds_maps_while_the_window_has_the_project(tmp_path):
    window, series_id = make_project(tmp_path)
    worker = Project.open(window.path, mode="worker")
    worker.add_region_map(series_id, 0, make_labels(), engine="region tree")
    assert window.region_map(series_id, 0) is not None
    worker.close()
    window.close()


def test_what_cannot_be_kept_is_refused(tmp_path):
    project, series_id = make_project(tmp_path)
    with pytest.raises(ProjectError, match="no such series"):
        project.add_region_map("nobody", 0, make_labels(), engine="region tree")
    with pytest.raises(ProjectError, match="no such slice"):
        project.add_region_map(series_id, 4, make_labels(), engine="region tree")
    with pytest.raises(ValueError, match="do not lie"):
        project.add_region_map(series_id, 0, make_labels()[1:], engine="region tree")
    with pytest.raises(ProjectError, match="no such region map"):
        project.load_region_map(7)
    assert project.region_maps(series_id) == ()
    project.close()
    with Project.open(project.path, mode="read") as project, pytest.raises(SaveFailedError):
        project.add_region_map(series_id, 0, make_labels(), engine="region tree")


@pytest.mark.parametrize(
    "damage", ["labels = substr(labels, 1, length(labels) - 9)", "labels = x'00'", "settings = '{', regions = 3"]
)
def test_a_damaged_map_is_found_and_the_one_before_it_used(tmp_path, damage):
    project, series_id = make_project(tmp_path)
    kept = make_labels(1)
    project.add_region_map(series_id, 1, kept, engine="region tree")
    broken = project.add_region_map(series_id, 1, make_labels(2), engine="region tree")
    connection = driver().connect(str(project.path / "project.sqlite"))
    connection.execute(f"UPDATE region_maps SET {damage} WHERE region_map_id = {broken}")
    connection.commit()
    connection.close()

    assert np.array_equal(project.region_map(series_id, 1).labels, kept)
    assert len(project.region_maps(series_id)) == 2
    (problem,) = project.check()
    assert problem.startswith(f"region map {broken}")
    with pytest.raises(ProjectDamagedError):
        project.load_region_map(broken)
    project.close()


def test_maps_after_the_backup_are_read_from_the_damaged_file(tmp_path):
    project, series_id = make_project(tmp_path)
    project.close()  # makes a backup
    project = Project.open(project.path)
    labels = make_labels(4)
    project.add_region_map(series_id, 3, labels, engine="region tree")
    project._database.close()
    file = project.path / "project.sqlite"
    connection = driver().connect(str(file))
    connection.execute("PRAGMA journal_mode=DELETE")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name='ix_series_series_key'").fetchone()
    connection.close()
    crash(project)
    with file.open("r+b") as damaged:
        damaged.seek((page - 1) * 4096)
        damaged.write(b"\x5a" * 4096)

    with Project.open(project.path) as again:
        assert any("damaged" in line for line in again.warnings)
        assert np.array_equal(again.region_map(series_id, 3).labels, labels)
        assert again.check() == []


def test_an_edit_shows_in_the_state_of_the_annotation(tmp_path):
    project, series_id = make_project(tmp_path)
    other = project.add_series(project.scan(series_id))
    before, untouched = project.annotation_state(series_id), project.annotation_state(other)
    annotation = project.annotation(series_id)
    edit = add_matte(annotation)
    edit.apply(annotation)
    project.journal(series_id, edit)
    after = project.annotation_state(series_id)
    project.journal(series_id, stroke(annotation, annotation.mattes[0].matte_id, 1))
    assert len({before, after, project.annotation_state(series_id)}) == 3
    assert project.annotation_state(other) == untouched
    project.close()


def test_a_project_of_the_format_before_takes_region_maps_after_its_upgrade(tmp_path):
    path = tmp_path / "old.medapp"
    shutil.copytree(FORMAT_1, path)
    database = Database(path / "project.sqlite")
    upgrade(database, "0003")
    assert database.pragma("user_version") == 3
    database.close()

    with Project.open(path) as project:
        check_content(project)
        info = project.series()[0]
        labels = np.ones(info.shape[1:3], dtype=np.int32)
        project.add_region_map(info.series_id, 0, labels, engine="region tree")
        assert project.check() == []
    connection = driver().connect(str(backups(path)[-1]))
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    connection.close()
