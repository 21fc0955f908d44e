import hashlib
import sys

import numpy as np
import pytest

from medapp.errors import ProjectError, SaveFailedError
from medapp.scan.scan import Scan
from medapp.store.project import Project
from tests.store.painting import SHAPE, make_project, make_scan


def test_a_scan_comes_back_as_it_was_imported(tmp_path):
    padding = np.zeros(SHAPE, bool)
    padding[0, :3] = True
    scan = make_scan(padding=padding, slope=2.0, intercept=-1024.0, is_inverted=True)
    with Project.create(tmp_path / "work", reader="Ann") as project:
        series_id = project.add_series(scan, title="Abdomen", thumbnail=np.full((8, 9), 200, np.uint8))
    with Project.open(tmp_path / "work.medapp") as project:
        (info,) = project.series()
        again = project.scan(series_id)

    assert np.array_equal(again.stored, scan.stored)
    assert again.stored.dtype == np.int16
    assert not again.stored.flags.writeable
    assert np.array_equal(again.padding, padding)
    assert again.geometry.is_close(scan.geometry)
    assert (again.slope, again.intercept, again.is_inverted) == (2.0, -1024.0, True)
    assert (again.windows, again.notes, again.source) == (scan.windows, scan.notes, scan.source)
    assert (info.title, info.kind, info.modality, info.unit, info.state) == ("Abdomen", "original", "CT", "HU", "new")
    assert info.spacing_mm == (3.0, 1.0, 1.0)
    assert info.thumbnail.startswith(b"\x89PNG")


def test_colour_images_without_lengths_come_back(tmp_path):
    voxels = np.arange(1 * 6 * 7 * 3, dtype=np.uint8).reshape(1, 6, 7, 3)
    scan = make_scan(
        stored=voxels,
        geometry=None,
        modality=None,
        unit="arbitrary",
        kind="image",
        alpha=np.full((1, 6, 7), 999, np.uint16),
    )
    with Project.create(tmp_path / "work") as project:
        series_id = project.add_series(scan)
        again = project.scan(series_id)
        assert np.array_equal(again.stored, voxels)
        assert np.array_equal(again.alpha, scan.alpha)
        assert (again.geometry, again.modality, again.kind) == (None, None, "image")
        assert project.annotation(series_id).shape_zyx == (1, 6, 7)


def test_patient_groups_do_not_tell_the_id(tmp_path):
    project, series_id = make_project(tmp_path)
    other = project.add_series(make_scan(series_key="key-2"))
    stranger = project.add_series(make_scan(source=make_scan().source.__class__(patient_id="someone else")))
    groups = [project.series_info(s).group for s in (series_id, other, stranger)]
    project.close()

    assert groups[0] == groups[1] != groups[2]
    assert "4711" not in groups[0]


def test_voxel_files_are_named_by_their_content_and_kept_once(tmp_path):
    project, _series_id = make_project(tmp_path)
    project.add_series(make_scan(series_key="the same voxels again"))
    files = list((project.path / "voxels").iterdir())
    project.close()

    assert [f.name for f in files] == [hashlib.sha256(files[0].read_bytes()).hexdigest()]


def test_slices_can_be_looked_at_while_they_are_written(tmp_path):
    project, _ = make_project(tmp_path)
    scan = make_scan()
    writer = project.new_voxel_file(SHAPE, np.int16)
    writer.array[2] = scan.stored[2]
    seen = np.memmap(writer.path, dtype=np.int16, mode="r", shape=SHAPE)
    assert np.array_equal(seen[2], scan.stored[2])
    assert not seen[1].any()

    writer.array[...] = scan.stored
    series_id = project.add_scan_with_voxels(scan, writer)
    assert np.array_equal(project.scan(series_id).stored, scan.stored)
    assert not list((project.path / "voxels").glob("partial-*"))
    project.close()


def test_a_discarded_voxel_file_leaves_nothing(tmp_path):
    project, _ = make_project(tmp_path)
    writer = project.new_voxel_file(SHAPE, np.float32)
    writer.discard()
    assert not list((project.path / "voxels").glob("partial-*"))
    project.close()


def test_a_worker_adds_a_series_while_the_window_holds_the_project(tmp_path):
    window, series_id = make_project(tmp_path)
    worker = Project.open(window.path, mode="worker", reader="Ann")
    derived = worker.add_derived(
        series_id, np.full(SHAPE, 1.5, np.float32), {"model": "ct-denoise", "strength": 0.8}, title="Restored"
    )
    worker.close()

    info = window.series_info(derived)
    assert (info.source_id, info.kind, info.provenance["strength"]) == (series_id, "restored", 0.8)
    restored = window.scan(derived)
    assert restored.unit == "HU"
    assert restored.geometry.is_close(window.scan(series_id).geometry)
    assert restored.source.headers == make_scan().source.headers
    window.close()


def test_a_derived_series_must_lie_on_its_source(tmp_path):
    project, series_id = make_project(tmp_path)
    with pytest.raises(ValueError, match="grid"):
        project.add_derived(series_id, np.zeros((2, 2, 2), np.float32), {})
    assert len(project.series()) == 1
    assert not list((project.path / "voxels").glob("partial-*"))
    project.close()


def test_states_groups_and_trash_survive_a_restart(tmp_path):
    project, series_id = make_project(tmp_path)
    other = project.add_series(make_scan(series_key="key-2"))
    project.set_series(series_id, state="done", included=False, group="phantom 7", title="Abdomen, arterial")
    project.trash_series(other)
    project.close()

    with Project.open(tmp_path / "work.medapp") as project:
        (info,) = project.series()
        assert (info.state, info.included, info.group, info.title) == ("done", False, "phantom 7", "Abdomen, arterial")
        assert [s.is_trashed for s in project.series(include_trashed=True)] == [False, True]
        project.restore_series(other)
        assert len(project.series()) == 2


def test_the_same_file_is_recognised_by_its_key(tmp_path):
    project, series_id = make_project(tmp_path)
    assert project.find_series("key-1") == series_id
    assert project.find_series("another") is None
    project.trash_series(series_id)
    assert project.find_series("key-1") is None
    project.close()


def test_what_the_window_shows_and_the_queue_survive_a_restart(tmp_path):
    project, series_id = make_project(tmp_path)
    project.set_view_state({"series": series_id, "slice": 3, "tool": "brush"})
    project.save_jobs([{"kind": "restore", "series": series_id}, {"kind": "export"}])
    project.close()

    with Project.open(tmp_path / "work.medapp") as project:
        assert project.view_state() == {"series": series_id, "slice": 3, "tool": "brush"}
        assert [job["kind"] for job in project.load_jobs()] == ["restore", "export"]
        project.save_jobs([])
        assert project.load_jobs() == []


def test_a_read_only_project_shows_everything_and_changes_nothing(tmp_path):
    project, series_id = make_project(tmp_path)
    project.close()
    before = (project.path / "project.sqlite").read_bytes()
    reading = Project.open(project.path, mode="read")
    assert reading.is_read_only
    assert reading.scan(series_id).shape == SHAPE
    with pytest.raises(SaveFailedError, match="read-only"):
        reading.set_series(series_id, state="done")
    with pytest.raises(SaveFailedError, match="read-only"):
        reading.new_voxel_file(SHAPE, np.int16)
    reading.close()
    assert (project.path / "project.sqlite").read_bytes() == before


def test_a_copy_is_a_whole_project(tmp_path):
    project, series_id = make_project(tmp_path)
    copy = project.save_copy(tmp_path / "elsewhere" / "copy")
    project.close()

    with Project.open(copy) as again:
        assert again.check() == []
        assert np.array_equal(again.scan(series_id).stored, make_scan().stored)


def test_nothing_is_made_over_an_existing_project(tmp_path):
    project, _ = make_project(tmp_path)
    project.close()
    with pytest.raises(ProjectError, match="already"):
        Project.create(project.path)
    with pytest.raises(ProjectError, match="no medapp project"):
        Project.open(tmp_path / "nothing.medapp")


def test_the_database_is_set_as_the_format_says(tmp_path):
    project, _ = make_project(tmp_path)
    found = {
        name: project._database.pragma(name)
        for name in (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "cell_size_check",
            "trusted_schema",
            "busy_timeout",
            "mmap_size",
            "application_id",
            "user_version",
        )
    }
    project.close()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "cell_size_check": 1,
        "trusted_schema": 0,
        "busy_timeout": 5000,
        "mmap_size": found["mmap_size"],
        "application_id": 0x6D656461,
        "user_version": 5,
    }
    assert not found["mmap_size"]


def test_the_store_stays_light(tmp_path):
    import subprocess

    code = (
        "import sys; import medapp.store.project, medapp.store.journal; "
        "print([m for m in ('torch', 'scipy', 'pydicom', 'nibabel', 'alembic', 'sqlalchemy.orm', 'PIL') "
        "if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_a_voxel_size_without_a_place_in_the_patient_survives(tmp_path):
    scan = Scan(np.zeros((2, 4, 5), np.int16), index_spacing_mm=(3.0, 2.0, 1.0))
    with Project.create(tmp_path / "p.medapp") as project:
        series_id = project.add_series(scan)
    with Project.open(tmp_path / "p.medapp") as project:
        again = project.scan(series_id)

    assert again.geometry is None
    assert again.spacing_mm == (3.0, 2.0, 1.0)
    assert again.pixel_spacing_mm is None
