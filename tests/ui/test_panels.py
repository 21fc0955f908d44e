"""Layers, tasks, save state, messages: what each panel shows and does."""

from __future__ import annotations

import itertools
import time

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QColorDialog, QLabel, QPushButton

from medapp.errors import SaveFailedError
from medapp.progress import ProgressEvent
from medapp.requests import Crashed, Done, ModelsRequest, Refused, RestoreRequest, Stopped
from medapp.store.project import Project
from medapp.ui.grouping import DEFAULT_PATTERN, groups_by_pattern
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Message, Messages
from medapp.ui.panels.restore import report_text
from medapp.ui.panels.status import value_text
from medapp.ui.panels.tasks import TasksDrawer
from medapp.ui.panels.toasts import Toast, ToastHost
from tests.builders import make_scan, write_dicom_series


class HandQueue:
    """Answers only when the test says so."""

    def __init__(self):
        self.jobs = {}
        self.cancelled, self.killed = [], []

    def submit(self, request, *, on_progress=None, on_outcome=None):
        number = len(self.jobs) + 1
        self.jobs[number] = (on_progress, on_outcome)
        return number

    def cancel(self, job_id):
        self.cancelled.append(job_id)

    def stop_now(self, job_id):
        self.killed.append(job_id)

    def close(self):
        pass


@pytest.fixture
def drawer(qtbot):
    queue = HandQueue()
    bridge = JobBridge(queue)
    messages = Messages()
    made = TasksDrawer(bridge, messages)
    qtbot.addWidget(made)
    made.show()
    made.queue, made.bridge, made.messages = queue, bridge, messages
    return made


def texts(widget):
    return " | ".join(made.text() for made in widget.findChildren(QLabel) if not made.isHidden())


def request():
    return RestoreRequest("p", "s", "m")


# ---------------------------------------------------------------------------------------------------------------- tasks


def test_a_job_shows_what_on_which_data_and_how_far(drawer, qtbot):
    number = drawer.bridge.submit(request(), subject="Thorax")
    drawer.queue.jobs[1][0](ProgressEvent(3, 40, "slices", detail={"device": "cpu"}))
    qtbot.waitUntil(lambda: drawer.bridge.job(number).done == 3)

    assert "Restore series · Thorax" in texts(drawer.row_of(number))
    assert "3 of 40 slices" in texts(drawer.row_of(number))
    assert "CPU" in texts(drawer.row_of(number))
    assert "3 of 40 slices" in texts(drawer)


def test_time_left_is_told_after_three_units_of_a_long_job(drawer, qtbot):
    number = drawer.bridge.submit(request())
    drawer.queue.jobs[1][0](ProgressEvent(0, 40, "slices"))
    qtbot.waitUntil(lambda: drawer.bridge.job(number).state == "running")
    job = drawer.bridge.job(number)
    job.started_at = job.stage_at = time.monotonic() - 12
    drawer.queue.jobs[1][0](ProgressEvent(4, 40, "slices"))
    qtbot.waitUntil(lambda: job.done == 4)

    assert "about 1 min 48 s left" in texts(drawer.row_of(number))


def test_time_left_is_of_the_units_that_are_counted_now(drawer, qtbot):
    number = drawer.bridge.submit(request())
    say = drawer.queue.jobs[1][0]
    say(ProgressEvent(900, 900, "iterations"))
    qtbot.waitUntil(lambda: drawer.bridge.job(number).done == 900)
    job = drawer.bridge.job(number)
    job.started_at -= 500
    drawer.bridge.job_changed.emit(number)
    assert "left" not in texts(drawer.row_of(number))  # all is done, and nobody knows yet what comes

    say(ProgressEvent(0, 40, "cases", "comparing"))
    qtbot.waitUntil(lambda: job.total == 40)
    job.stage_at -= 12
    say(ProgressEvent(4, 40, "cases", "comparing"))
    qtbot.waitUntil(lambda: job.done == 4)
    assert "about 1 min 48 s left" in texts(drawer.row_of(number))


def test_the_bar_never_goes_back(drawer, qtbot):
    number = drawer.bridge.submit(request())
    for done in (5, 3):
        drawer.queue.jobs[1][0](ProgressEvent(done, 40, "slices"))
    drawer.queue.jobs[1][1](Done(None))
    qtbot.waitUntil(lambda: drawer.bridge.job(number).is_over)

    assert drawer.bridge.job(number).done == 5


def test_cancel_says_so_at_once_and_later_offers_to_stop_now(drawer, qtbot):
    number = drawer.bridge.submit(request())
    row = drawer.row_of(number)

    qtbot.mouseClick(row.cancel, Qt.MouseButton.LeftButton)
    assert drawer.queue.cancelled == [1]
    assert "Cancelling…" in texts(row)

    drawer.bridge._offer_stop_now(number)
    assert row.cancel.text() == "Stop now"
    qtbot.mouseClick(row.cancel, Qt.MouseButton.LeftButton)
    assert drawer.queue.killed == [1]

    drawer.queue.jobs[1][1](Stopped())
    qtbot.waitUntil(lambda: "Cancelled" in texts(row))
    assert row.cancel.isHidden()


def test_a_refused_job_says_why(drawer, qtbot):
    heard = []
    number = drawer.bridge.submit(request(), on_failed=heard.append)
    drawer.queue.jobs[1][1](Refused("The GPU is full. Your image is unchanged.", "Use the CPU."))
    qtbot.waitUntil(lambda: bool(heard))

    assert "The GPU is full" in texts(drawer.row_of(number))


def test_a_crash_keeps_its_report_for_copying(drawer, qtbot):
    crashed = []
    drawer.bridge.job_crashed.connect(lambda _number, report: crashed.append(report))
    drawer.bridge.submit(request())
    drawer.queue.jobs[1][1](Crashed("Traceback"))
    qtbot.waitUntil(lambda: crashed == ["Traceback"])


def test_quick_interactive_jobs_get_no_row(drawer):
    number = drawer.bridge.submit(ModelsRequest("p", "s"), is_quiet=True)

    assert drawer.row_of(number) is None


def test_nothing_is_delivered_after_closing(drawer, qtbot):
    heard = []
    drawer.bridge.submit(request(), on_done=heard.append)
    drawer.bridge.close()
    drawer.queue.jobs[1][1](Done("late"))
    qtbot.wait(50)

    assert heard == []


# --------------------------------------------------------------------------------------------------------------- layers


@pytest.fixture
def ct_window(window, open_files, tmp_path):
    write_dicom_series(tmp_path / "ct", make_scan((4, 32, 32)))
    open_files(window, tmp_path / "ct")
    window.set_workspace("annotate")
    return window


def test_layers_are_added_named_hidden_locked_and_deleted(ct_window, qtbot):
    document, layers = ct_window.document, ct_window.layers
    qtbot.mouseClick(layers._empty.button, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(layers._add, Qt.MouseButton.LeftButton)
    assert [m.label for m in document.annotation] == [1, 2]
    assert len({m.colour for m in document.annotation}) == 2

    layers._name.selectAll()
    qtbot.keyClicks(layers._name, "Kidney")
    qtbot.keyClick(layers._name, Qt.Key.Key_Return)
    assert document.active_matte.name == "Kidney"

    qtbot.mouseClick(layers._rows[1].eye, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(layers._rows[1].lock, Qt.MouseButton.LeftButton)
    assert not document.active_matte.is_visible
    assert document.active_matte.is_locked

    qtbot.mouseClick(layers._delete, Qt.MouseButton.LeftButton)
    assert len(document.annotation) == 1
    document.undo()
    assert document.annotation.mattes[1].name == "Kidney"


def test_a_click_on_a_row_takes_that_layer_in_hand(ct_window, qtbot):
    document = ct_window.document
    first = document.new_matte()
    document.new_matte()

    qtbot.mouseClick(ct_window.layers._rows[0], Qt.MouseButton.LeftButton)

    assert document.active_matte.matte_id == first.matte_id


def test_a_layers_group_and_label_can_be_changed_and_undone(ct_window):
    document, layers = ct_window.document, ct_window.layers
    document.new_matte()

    layers._group.setCurrentText("organs")
    layers._on_group()
    layers._label.setValue(7)

    assert (document.active_matte.group, document.active_matte.label) == ("organs", 7)
    document.undo()
    document.undo()
    assert (document.active_matte.group, document.active_matte.label) == (None, 1)


def test_a_colour_is_chosen_without_blocking_the_window(ct_window, qtbot):
    document = ct_window.document
    matte = document.new_matte()

    ct_window.layers.choose_colour(matte.matte_id)

    dialog = ct_window.layers.findChild(QColorDialog)
    dialog.colorSelected.emit(dialog.currentColor().fromString("#123456"))
    assert document.active_matte.colour == "#123456"
    dialog.close()


# ------------------------------------------------------------------------------------------------ save state, messages


def test_failed_saving_is_red_persistent_and_can_be_retried(ct_window, qtbot, monkeypatch):
    document, project = ct_window.document, ct_window.document.project
    real = type(project).journal_many

    def full(*_args, **_named):
        raise SaveFailedError("Not saved: the disk is full.", "Free some space.")

    monkeypatch.setattr(type(project), "journal_many", full)
    document.new_matte()
    qtbot.waitUntil(lambda: document.save_state[0] == "not saved", timeout=10000)
    assert ct_window.status.saved.text() == "✗ not saved: the disk is full"
    assert ct_window.status.saved.property("role") == "danger"
    assert ct_window.status._retry.isVisible()
    assert ct_window.status._copy.isVisible()
    assert ct_window.banners.isVisible()

    monkeypatch.setattr(type(project), "journal_many", real)
    ct_window.status._retry.click()
    qtbot.waitUntil(lambda: document.save_state[0] == "saved", timeout=10000)
    assert not ct_window.status._retry.isVisible()
    assert not ct_window.banners.isVisible()
    assert len(project.annotation(document.annotation.series_id)) == 1


def test_a_project_that_is_open_elsewhere_opens_for_reading_and_says_so(ct_window, make_window, qtbot):
    path = ct_window.document.project.path
    other = make_window()

    other.session.open_project(path)
    qtbot.waitUntil(lambda: other.document.series is not None, timeout=20000)

    assert other.document.is_read_only
    assert other.banners.isVisible()
    assert other.status.saved.text() == "read-only"
    assert other.document.new_matte() is None


def test_the_same_message_again_counts_up(window):
    window.messages.say("The disk is slow.")
    window.messages.say("The disk is slow.")

    assert len(window.messages.all) == 1
    assert window.messages.all[0].count == 2
    assert window.toasts.texts == ["The disk is slow."]


def test_three_messages_with_buttons_are_shown_in_full(window):
    host = window.findChild(ToastHost)
    for place in range(3):
        words = f"Message {place} is so long that it takes two lines of the corner, as messages of this kind do."
        window.messages.say(words, kind="error", hint="And a hint." * place, actions=(("Show list", lambda: None),))
    QApplication.processEvents()

    toasts = sorted(host.findChildren(Toast), key=lambda toast: toast.y())
    assert len(toasts) == 3
    for upper, lower in itertools.pairwise(toasts):
        assert upper.geometry().bottom() < lower.geometry().top()
    assert toasts[-1].geometry().bottom() < host.height()


def test_a_banner_stays_until_its_state_is_over(window):
    window.messages.show_banner("x", Message("Read-only."))
    assert window.banners.isVisible()

    window.messages.show_banner("x", None)
    assert not window.banners.isVisible()


def test_hiding_identity_hides_the_patient_group(ct_window):
    assert ct_window.document.series.group.startswith("P-")

    ct_window.document.change_settings(hide_identity=True)

    assert ct_window.document.series.group not in texts(ct_window.info)
    groups = [ct_window.library._tree.topLevelItem(0).text(0)]
    assert groups == ["Patient 1"]


# -------------------------------------------------------------------------------------------------------------- words


def test_a_report_describes_change_and_never_quality():
    report = {"model": "CT denoiser", "mean_shift": -0.25, "unit": "HU", "noise_change_percent": -41.0, "seconds": 3.0}

    text = report_text(report)

    assert "Mean shift -0.25 HU" in text
    assert "Noise estimate down 41 %" in text
    assert "improved" not in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (40.0, "HU", "value 40 HU"),
        (2.345, "SUV", "value 2.35 SUV"),
        ((1, 2, 3), "", "RGB 1 2 3"),
        (7.0, "arbitrary", "value 7"),
    ],
)
def test_values_carry_their_unit(value, unit, text):
    assert value_text(value, unit) == text


def test_a_pattern_groups_titles_and_a_wrong_one_is_told():
    titles = {"a": "pat07_left", "b": "pat07_right", "c": "scan"}

    assert groups_by_pattern(titles, DEFAULT_PATTERN) == {"a": "pat07", "b": "pat07"}
    assert groups_by_pattern(titles, r"[a-z]+") == {"a": "pat", "b": "pat", "c": "scan"}
    with pytest.raises(ValueError, match="no pattern"):
        groups_by_pattern(titles, "(")


def sheet_titled(words):
    """The dialog on screen whose title holds the words."""
    return next((w for w in QApplication.topLevelWidgets() if words in w.windowTitle() and w.isVisible()), None)


def button_of(sheet, text):
    return next(b for b in sheet.findChildren(QPushButton) if b.text() == text)


def test_quitting_with_edits_that_cannot_be_saved_asks_and_loses_nothing(ct_window, qtbot, monkeypatch, tmp_path):
    document, project = ct_window.document, ct_window.document.project
    real = type(project).journal_many

    def full(*_args, **_named):
        raise SaveFailedError("Not saved: the disk is full.", "Free some space.")

    monkeypatch.setattr(type(project), "journal_many", full)
    document.new_matte()
    qtbot.waitUntil(lambda: document.save_state[0] == "not saved", timeout=10000)

    ct_window.close()
    sheet = sheet_titled("1 edit not saved")
    assert ct_window.isVisible()
    assert sheet is not None
    assert not button_of(sheet, "Discard 1 edit and quit").isDefault()

    ct_window.session.open_project(tmp_path / "other.medapp")
    qtbot.waitUntil(lambda: not ct_window.session.is_opening, timeout=10000)
    assert document.project is project
    assert "this project stays open" in ct_window.messages.all[-1].text

    monkeypatch.setattr(type(project), "journal_many", real)
    button_of(sheet, "Retry and quit").click()
    assert not ct_window.isVisible()
    again = Project.open(project.path)
    assert len(again.annotation(again.series()[0].series_id)) == 1
    again.close()


def test_a_copy_elsewhere_lets_the_window_quit(ct_window, qtbot, monkeypatch, tmp_path):
    document, project = ct_window.document, ct_window.document.project
    real = type(project).journal_many

    def full(this, *args, **named):
        if this is project:
            raise SaveFailedError("Not saved: the disk is full.", "Free some space.")
        return real(this, *args, **named)

    monkeypatch.setattr(type(project), "journal_many", full)
    document.new_matte()
    qtbot.waitUntil(lambda: document.save_state[0] == "not saved", timeout=10000)

    copied = []
    ct_window.session.save_copy(tmp_path / "Copy", lambda: copied.append(True))
    qtbot.waitUntil(lambda: bool(copied), timeout=10000)
    ct_window.close()

    assert not ct_window.isVisible()
    copy = Project.open(tmp_path / "Copy.medapp")
    assert len(copy.annotation(copy.series()[0].series_id)) == 1
    copy.close()
