import dataclasses

import numpy as np
import pytest

from medapp.annotation.edits import Stroke
from medapp.errors import ProjectDamagedError, ProjectError, SaveFailedError
from medapp.store import keeping, tables
from medapp.store.project import DataSetCase, Project
from tests.store.painting import add_matte, make_project, make_scan, stroke


def made_case(series_id, role="training", group="P-1", z=0, **more):
    return DataSetCase(series_id, z, group, role, "0" * 64, **more)


def journalled(project, series_id, annotation, edit, kind="do"):
    edit.apply(annotation)
    project.journal(series_id, edit, kind)
    return edit


def test_a_series_marked_as_reference_stays_marked(tmp_path):
    project, series_id = make_project(tmp_path)
    assert not project.series_info(series_id).is_reference
    project.set_reference(series_id, True)
    project.close()
    with Project.open(project.path) as again:
        assert again.series_info(series_id).is_reference
        again.set_reference(series_id, False)
        assert not again.series()[0].is_reference
        with pytest.raises(ProjectError, match="no such series"):
            again.set_reference("nobody", True)
    with Project.open(project.path, mode="read") as looking, pytest.raises(SaveFailedError):
        looking.set_reference(series_id, True)


def test_a_frozen_data_set_never_changes_and_equal_cases_make_no_new_one(tmp_path):
    project, series_id = make_project(tmp_path)
    first = project.add_data_set("matting", [made_case(series_id, matte_ids=("a", "b"), readers=("Ann", "Bo"))])
    assert first.name == "mattes-1"
    assert project.add_data_set("matting", list(first.cases)) == first
    second = project.add_data_set("matting", [*first.cases, made_case(series_id, z=1)])
    assert project.data_sets("matting") == ("mattes-1", "mattes-2")
    assert project.data_sets("restoration") == ()
    assert project.data_set("mattes-1") == first
    assert first.sha256 != second.sha256
    assert project.check() == []
    project.close()


def test_a_patient_keeps_its_side_for_ever(tmp_path):
    project, series_id = make_project(tmp_path)
    other = project.add_series(make_scan(series_key="key-2"), title="Chest")
    project.add_data_set("matting", [made_case(series_id), made_case(other, "hold-out", "P-2")])
    assert project.training_roles("matting")["group:P-2"] == "hold-out"
    with pytest.raises(ValueError, match="would change"):
        project.add_data_set("matting", [made_case(series_id), made_case(other, "training", "P-2")])
    with pytest.raises(ValueError, match="would change"):  # the series was judged on, whatever its group is called now
        project.add_data_set("matting", [made_case(other, "training", "P-3")])
    assert project.data_sets("matting") == ("mattes-1",)
    assert "group:P-3" not in project.training_roles("matting")
    project.close()


def test_a_changed_data_set_is_noticed(tmp_path):
    project, series_id = make_project(tmp_path)
    project.add_data_set("restoration", [made_case(series_id)])
    with project._database.write() as connection:
        connection.execute(tables.data_sets.update().values(content=b"something else"))
    with pytest.raises(ProjectDamagedError):
        project.data_set("references-1")
    assert len(project.check()) == 1
    project.close()


def at_seconds(monkeypatch, seconds):
    stamps = iter([f"2026-11-22T10:{int(s // 60):02d}:{s % 60:06.3f}+00:00" for s in seconds])
    monkeypatch.setattr(keeping, "now", lambda: next(stamps))


def test_strokes_and_seconds_are_told_for_each_matte(tmp_path, monkeypatch):
    project, series_id = make_project(tmp_path)
    annotation = project.annotation(series_id)
    at_seconds(monkeypatch, [0, 5, 8, 11, 500, 504])
    matte = add_matte(annotation)
    journalled(project, series_id, annotation, matte)
    matte_id = matte.snapshot.matte_id
    drawn = stroke(annotation, matte_id, 0)
    accepted = dataclasses.replace(drawn, text="Accept α from Soft matting 1, seed 77")
    journalled(project, series_id, annotation, accepted)
    second = journalled(project, series_id, annotation, stroke(annotation, matte_id, 0, x=20))
    journalled(project, series_id, annotation, second.reversed(), "undo")
    journalled(project, series_id, annotation, stroke(annotation, matte_id, 2))  # after a long break
    masked = dataclasses.replace(stroke(annotation, matte_id, 2, x=25), text="Accept mask 3 of 8 from M 2, seed 1")
    journalled(project, series_id, annotation, masked)
    told = project.efforts()
    first, third = told[series_id, matte_id, 0], told[series_id, matte_id, 2]
    assert (first.strokes, first.seconds, first.way, first.models) == (1, 11.0, "alpha", ("Soft matting 1",))
    assert (third.strokes, third.seconds, third.way, third.models) == (1, 64.0, "masks", ("M 2",))

    project.save_revision(series_id)
    keeping.prune_journal(project._database, keep_steps=1, min_steps=1)
    assert project.efforts() == told  # the edits are gone, what they cost is known
    project.close()


def test_marks_and_properties_cost_no_stroke(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation = project.annotation(series_id)
    matte = journalled(project, series_id, annotation, add_matte(annotation)).snapshot
    project.journal(series_id, Stroke(matte.matte_id, ()))
    assert project.efforts() == {}
    project.close()


def test_frozen_mattes_can_be_read_again_after_they_were_changed(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation = project.annotation(series_id)
    matte_id = journalled(project, series_id, annotation, add_matte(annotation)).snapshot.matte_id
    journalled(project, series_id, annotation, stroke(annotation, matte_id, 0))
    before = annotation.matte(matte_id).slice_stored(0).copy()
    revision = project.save_revision(series_id)
    journalled(project, series_id, annotation, stroke(annotation, matte_id, 0, x=25))
    project.save_revision(series_id)
    frozen = project.load_revision(revision).matte(matte_id).slice_stored(0)
    assert np.array_equal(frozen, before)
    project.close()
