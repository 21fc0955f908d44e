"""The window's writer thread: at once for the window, durable for the user, nothing dropped on failure."""

import threading

import numpy as np
import pytest

from medapp.errors import SaveFailedError
from medapp.store.journal import JournalWriter
from medapp.store.keeping import JournalEntry
from medapp.store.project import Project
from tests.store.painting import add_matte, crash, make_project, stroke


class Listener:
    def __init__(self):
        self.saved, self.failed = [], []
        self.happened = threading.Event()

    def on_saved(self, number, count):
        self.saved.append((number, count))
        self.happened.set()

    def on_failed(self, error, waiting):
        self.failed.append((error, waiting))
        self.happened.set()


def start(project):
    listener = Listener()
    return JournalWriter(project, listener.on_saved, listener.on_failed), listener


def paint(writer, series_id, annotation, slices):
    for z in slices:
        edit = add_matte(annotation) if not len(annotation) else stroke(annotation, annotation.mattes[0].matte_id, z)
        edit.apply(annotation)
        writer.submit(series_id, edit, view_state={"slice": z})


def fill_the_disk(project):
    pages = project._database.pragma("page_count")
    project._database.engine.dispose()

    def limit(connection, _record):
        connection.execute(f"PRAGMA max_page_count={pages}")

    from sqlalchemy import event

    event.listen(project._database.engine, "connect", limit)
    return lambda: (event.remove(project._database.engine, "connect", limit), project._database.engine.dispose())


def test_strokes_are_acknowledged_in_order_and_bundled(tmp_path):
    project, series_id = make_project(tmp_path)
    writer, listener = start(project)
    annotation = project.annotation(series_id)
    paint(writer, series_id, annotation, [0] + [z % 4 for z in range(60)])
    assert writer.flush()
    assert sum(count for _, count in listener.saved) == 61
    numbers = [number for number, _ in listener.saved]
    assert numbers == sorted(numbers)
    assert project.annotation(series_id).equals(annotation)
    assert project.view_state() == {"slice": 3}
    assert writer.close()
    project.close()


def test_a_full_disk_keeps_the_strokes_until_there_is_room(tmp_path):
    project, series_id = make_project(tmp_path)
    writer, listener = start(project)
    annotation = project.annotation(series_id)
    make_room = fill_the_disk(project)
    paint(writer, series_id, annotation, [0, 0, 1, 2, 3] * 8)
    assert not writer.flush(20)

    error, waiting = listener.failed[-1]
    assert isinstance(error, SaveFailedError)
    assert "disk is full" in error.message
    assert writer.has_failed
    assert waiting == writer.pending > 0

    make_room()
    writer.retry()
    assert writer.flush()
    assert project.annotation(series_id).equals(annotation)
    writer.close()
    project.close()


def test_saving_goes_on_by_itself_when_there_is_room_again(tmp_path, monkeypatch):
    monkeypatch.setattr("medapp.store.journal._RETRY_S", 0.1)
    project, series_id = make_project(tmp_path)
    writer, listener = start(project)
    annotation = project.annotation(series_id)
    make_room = fill_the_disk(project)
    paint(writer, series_id, annotation, [0, 0, 1, 2, 3] * 8)
    while not listener.failed:
        assert listener.happened.wait(20)
        listener.happened.clear()
    make_room()
    while writer.pending:
        assert listener.happened.wait(20)
        listener.happened.clear()
    assert project.annotation(series_id).equals(annotation)
    writer.close()
    project.close()


def test_workers_add_series_while_strokes_are_saved(tmp_path):
    project, series_id = make_project(tmp_path)
    writer, listener = start(project)
    annotation = project.annotation(series_id)
    worker = Project.open(project.path, mode="worker")
    errors = []

    def work():
        try:
            for n in range(25):
                worker.add_derived(series_id, np.full((4, 40, 50), n, np.float32), {"n": n})
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    paint(writer, series_id, annotation, [0] + [z % 4 for z in range(60)])
    thread.join(60)
    assert writer.flush(30)
    assert not errors
    assert not listener.failed
    assert len(project.series()) == 26
    assert project.annotation(series_id).equals(annotation)
    worker.close()
    writer.close()
    project.close()


def test_a_copy_elsewhere_holds_the_strokes_that_could_not_be_saved(tmp_path):
    project, series_id = make_project(tmp_path)
    writer, listener = start(project)
    annotation = project.annotation(series_id)
    fill_the_disk(project)
    paint(writer, series_id, annotation, [0, 0, 1, 2, 3] * 8)
    writer.flush(20)
    assert listener.failed

    copy = writer.save_copy(tmp_path / "elsewhere")
    writer.close(1)
    crash(project)
    with Project.open(copy) as rescued:
        assert rescued.annotation(series_id).equals(annotation)


def test_a_project_on_a_full_disk_closes_and_opens_with_every_stroke(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation = project.annotation(series_id)
    for edit in (add_matte(annotation), None, None):
        edit = edit or stroke(annotation, annotation.mattes[0].matte_id, 1, x=20 - 8 * len(project.history()))
        edit.apply(annotation)
        project.journal(series_id, edit)
    make_room = fill_the_disk(project)
    project.close()
    make_room()
    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)


def test_a_failed_transaction_leaves_nothing_behind(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation = project.annotation(series_id)
    edit = add_matte(annotation)
    edit.apply(annotation)
    project.journal(series_id, edit)
    fill_the_disk(project)
    big = stroke(annotation, annotation.mattes[0].matte_id, 1, radius_px=15)
    with pytest.raises(SaveFailedError, match="disk is full"):
        project.journal_many([JournalEntry(series_id, big) for _ in range(200)])
    assert len(project.history()) == 1
    assert project._database.problems(quick=False) == []
    crash(project)


def test_a_named_version_waits_for_the_strokes_before_it(tmp_path):
    project, series_id = make_project(tmp_path)
    writer, _ = start(project)
    annotation = project.annotation(series_id)
    paint(writer, series_id, annotation, [0, 0, 1, 2, 3])
    number = writer.call(lambda: project.save_revision(series_id, "morning")).result(20)
    assert project.load_revision(number).equals(annotation)
    with pytest.raises(ZeroDivisionError):
        writer.call(lambda: 1 / 0).result(20)
    writer.close()
    project.close()


def test_the_view_is_remembered_without_a_stroke(tmp_path):
    project, _ = make_project(tmp_path)
    writer, _ = start(project)
    for z in range(50):
        writer.submit_view_state({"slice": z})
    assert writer.flush()
    writer.close()
    crash(project)
    with Project.open(project.path) as again:
        assert again.view_state() == {"slice": 49}


def test_a_long_session_is_kept_as_revisions_along_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr("medapp.store.journal._REVISION_EVERY", 20)
    project, series_id = make_project(tmp_path)
    writer, _ = start(project)
    annotation = project.annotation(series_id)
    paint(writer, series_id, annotation, [0] + [z % 4 for z in range(70)])
    assert writer.flush()
    writer.close()
    crash(project)
    with Project.open(project.path) as again:
        assert 1 <= len(again.revisions(series_id)) <= 4
        assert again.recovered is None or again.recovered.count < 45
        assert again.annotation(series_id).equals(annotation)
        assert len(again.history()) == 71
