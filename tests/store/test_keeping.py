"""Strokes, undo, revisions and crashes: what was acknowledged is there."""

import numpy as np
import pytest

from medapp.annotation.edits import ChangeDepthPoints, ChangeMarks, ChangeMatte, ChangeSeries, RemoveMatte
from medapp.errors import ProjectError
from medapp.store import keeping
from medapp.store.project import Project
from tests.store.painting import add_matte, crash, make_project, stroke


def paint_some(project, series_id, slices=(0, 1, 2)):
    annotation, history = project.annotation(series_id), project.history()
    edits = [add_matte(annotation)]
    for edit in edits:
        edit.apply(annotation)
        history.push(series_id, edit)
        project.journal(series_id, edit)
    (matte,) = annotation
    for z in slices:
        edit = stroke(annotation, matte.matte_id, z)
        edit.apply(annotation)
        history.push(series_id, edit)
        project.journal(series_id, edit)
    return annotation, history


def test_strokes_are_there_after_a_clean_close(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id)
    project.close()

    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)
        assert again.recovered is None


def test_strokes_are_there_after_a_crash_and_it_says_how_many(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id)
    crash(project)

    again = Project.open(project.path)
    assert again.annotation(series_id).equals(annotation)
    assert again.recovered is not None
    assert again.recovered.count == 4
    assert again.recovered.at.startswith("20")
    again.close()
    with Project.open(project.path) as third:
        assert third.recovered is None


def test_only_what_no_revision_held_counts_as_recovered(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id)
    project.save_revision(series_id)
    edit = stroke(annotation, annotation.mattes[0].matte_id, 3)
    edit.apply(annotation)
    project.journal(series_id, edit)
    crash(project)

    with Project.open(project.path) as again:
        assert again.recovered.count == 1
        assert again.annotation(series_id).equals(annotation)


def test_undo_and_redo_survive_a_restart(tmp_path):
    project, series_id = make_project(tmp_path)
    empty = project.annotation(series_id)
    annotation, history = paint_some(project, series_id)
    full = annotation.copy()
    for _ in range(2):
        undone_id, edit = history.undo()
        edit.apply(annotation)
        project.journal(undone_id, edit, "undo")
    crash(project)

    with Project.open(project.path) as again:
        annotation, history = again.annotation(series_id), again.history()
        assert (len(history), history.can_redo, history.redo_text) == (2, True, "Brush stroke")
        while history.can_redo:
            _, edit = history.redo()
            edit.apply(annotation)
        assert annotation.equals(full)
        while history.can_undo:
            _, edit = history.undo()
            edit.apply(annotation)
        assert annotation.equals(empty)


def test_undo_after_a_revision_goes_back_past_it(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id, (0,))
    before = annotation.copy()
    edit = stroke(annotation, annotation.mattes[0].matte_id, 1)
    edit.apply(annotation)
    project.journal(series_id, edit)
    project.close()

    with Project.open(project.path) as again:
        annotation, history = again.annotation(series_id), again.history()
        undone_id, edit = history.undo()
        edit.apply(annotation)
        again.journal(undone_id, edit, "undo")
        assert annotation.equals(before)
    with Project.open(project.path) as third:
        assert third.annotation(series_id).equals(before)
        assert third.history().can_redo


def test_revisions_are_added_and_each_can_be_opened(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id, (0,))
    first_state = annotation.copy()
    first = project.save_revision(series_id, "first look", "margins unclear", thumbnail=np.zeros((4, 4), np.uint8))
    edit = stroke(annotation, annotation.mattes[0].matte_id, 2, value=1.0)
    edit.apply(annotation)
    project.journal(series_id, edit)
    second = project.save_revision(series_id, origin="ct-matter 1.2 sha256:abc")

    kept = project.revisions(series_id)
    assert [r.revision_id for r in kept] == [first, second]
    assert [r.parent_id for r in kept] == [None, first]
    assert [(r.reader, r.name, r.origin) for r in kept] == [
        ("Ann", "first look", "person"),
        ("Ann", None, "ct-matter 1.2 sha256:abc"),
    ]
    assert kept[0].thumbnail.startswith(b"\x89PNG")
    assert project.load_revision(first).equals(first_state)
    assert project.load_revision(second).equals(annotation)
    with pytest.raises(ProjectError, match="no such revision"):
        project.load_revision(99)
    project.close()


def test_layers_of_two_readers_coexist(tmp_path):
    project, series_id = make_project(tmp_path)
    paint_some(project, series_id)
    project.close()
    with Project.open(project.path, reader="Bob") as second:
        annotation = second.annotation(series_id)
        edit = add_matte(annotation, "Liver, second read")
        edit.snapshot.props = edit.snapshot.props.__class__(name="Liver, second read", reader="Bob", label=2)
        second.journal(series_id, edit)
        second.save_revision(series_id)
        assert [m.reader for m in second.annotation(series_id)] == ["Ann", "Bob"]
        assert [r.reader for r in second.revisions(series_id)] == ["Ann", "Bob"]


def test_the_order_of_revisions_ignores_the_clock(tmp_path, monkeypatch):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id, (0,))
    times = iter(["2026-11-01T02:30:00.000+02:00", "2026-11-01T02:10:00.000+01:00", "1999-01-01T00:00:00.000+00:00"])
    monkeypatch.setattr("medapp.store.revisions.now", lambda: next(times))
    monkeypatch.setattr("medapp.store.keeping.now", lambda: "1980-01-01T00:00:00.000-11:00")
    numbers = []
    for z in (1, 2, 3):
        edit = stroke(annotation, annotation.mattes[0].matte_id, z)
        edit.apply(annotation)
        project.journal(series_id, edit)
        numbers.append(project.save_revision(series_id))
    assert [r.revision_id for r in project.revisions(series_id)] == numbers == sorted(numbers)
    assert project.annotation(series_id).equals(annotation)
    project.close()


def test_every_kind_of_edit_is_kept(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id)
    (matte,) = annotation
    other = add_matte(annotation, "Spleen")
    props = matte.props.__class__(**{**matte.props.__dict__, "name": "Leber", "is_visible": False, "group": "organs"})
    edits = [
        lambda: ChangeMatte(matte.matte_id, matte.props, props),
        lambda: other,
        lambda: ChangeDepthPoints(1, (), ((3.0, 4.0, 31.25),)),
        lambda: ChangeMarks({1: None}, {1: "doubtful"}),
        lambda: RemoveMatte(matte.copy(), 0),
    ]
    for make in edits:
        edit = make()
        edit.apply(annotation)
        project.journal(series_id, edit)
    crash(project)

    with Project.open(project.path) as again:
        kept = again.annotation(series_id)
        assert kept.equals(annotation)
        assert [m.name for m in kept] == ["Spleen"]
        assert kept.depth_points == {1: ((3.0, 4.0, 31.25),)}
        history = again.history()
        for edit in (history.undo()[1], history.undo()[1]):
            edit.apply(kept)
        assert [m.name for m in kept] == ["Leber", "Spleen"]
        assert not kept.marks


def test_a_state_change_is_journalled_and_undone_with_the_series(tmp_path):
    project, series_id = make_project(tmp_path)
    edit = ChangeSeries({"state": "new", "is_trashed": False}, {"state": "flagged", "is_trashed": True})
    project.journal(series_id, edit)
    assert project.series_info(series_id).state == "flagged"
    assert project.series_info(series_id).is_trashed
    project.journal(series_id, edit.reversed(), "undo")
    assert project.series_info(series_id).state == "new"
    assert not project.series_info(series_id).is_trashed
    assert project.history().can_redo
    project.close()


def test_a_changed_voxel_in_the_database_is_found(tmp_path):
    project, series_id = make_project(tmp_path)
    paint_some(project, series_id)
    project.save_revision(series_id)
    project.save_revision(series_id)
    assert project.check() == []
    with project._database.write() as connection:
        (data,) = connection.exec_driver_sql("SELECT data FROM blobs").fetchone()
        plane = bytearray(data)
        plane[-9] ^= 0x10
        connection.exec_driver_sql("UPDATE blobs SET data = ? WHERE data = ?", (bytes(plane), data))
        connection.exec_driver_sql("UPDATE revisions SET reader = 'Eve' WHERE revision_id = 1")
    found = project.check()
    assert any("revision 1" in line for line in found)
    assert any("revision 2: its parent" in line for line in found)
    project.close()


def test_a_damaged_revision_is_passed_over_and_the_journal_fills_the_gap(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id)
    project.save_revision(series_id)
    with project._database.write() as connection:
        connection.exec_driver_sql("UPDATE blobs SET data = x'00'")
    assert project.annotation(series_id).equals(annotation)
    assert any("damaged" in line for line in project.warnings)
    project.close()


def test_old_steps_leave_the_journal_when_revisions_hold_them(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation, _ = paint_some(project, series_id, [n % 4 for n in range(30)])
    project.save_revision(series_id)
    keeping.prune_journal(project._database, keep_steps=12)
    assert len(project.history()) == 12
    assert project.annotation(series_id).equals(annotation)
    keeping.prune_journal(project._database, keep_steps=10, min_steps=5, keep_bytes=1)
    assert len(project.history()) == 5
    project.close()
    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)
        assert again.check() == []
