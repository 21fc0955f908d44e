"""The Train workspace: recipe, a run that is watched, paused and resumed, the scorecard and the decision."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtWidgets import QApplication, QLabel, QPushButton

from medapp import paths
from medapp.progress import ProgressEvent
from medapp.requests import (
    AdoptRequest,
    AdoptResult,
    Done,
    ModelsRequest,
    Refused,
    RetrainRequest,
    RetrainResult,
    RollBackRequest,
    Stopped,
    TrainingSetRequest,
    TrainingSetResult,
)
from medapp.settings import Settings
from medapp.store.project import Project
from medapp.ui import theme
from medapp.ui.main_window import MainWindow
from medapp.ui.panels.train import hold_out_text, survey_text
from tests.builders import make_scan
from tests.ui.conftest import HINTS_SEEN
from tests.ui.training_runs import plan, points, samples, scorecard

LEFT = Qt.MouseButton.LeftButton
CONTROL_ALT = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
NOTHING = TrainingSetResult("soft-matting", "matting", 0, 0, 0, 20, 20, (), (), {})
FEW = TrainingSetResult("soft-matting", "matting", 12, 3, 2, 20, 8, ("matting 1",), ("1 matte is empty.",), {})
NO_REFERENCE = TrainingSetResult("ct-rat", "restoration", 0, 0, 0, 10, 10, (), (), {})


class TrainingQueue:
    """Answers quick questions at once; a training goes as the test says."""

    def __init__(self):
        self._numbers = itertools.count(1)
        self.survey = NOTHING
        self.adopted = ""
        self.more = ()  # models
        self.asked, self.cancelled, self.killed = [], [], []
        self.progress = self.outcome = None

    def submit(self, request, *, on_progress=None, on_outcome=None):
        number = next(self._numbers)
        self.asked.append(request)
        if isinstance(request, RetrainRequest):
            self.training, self.progress, self.outcome = number, on_progress, on_outcome
        else:
            on_outcome(self._answer(request))
        return number

    def _answer(self, request):
        if isinstance(request, ModelsRequest):
            in_use = self.adopted or "soft-matting"
            version = in_use.rpartition(".")[2] if self.adopted else "1"
            mattes = {"id": "soft-matting", "title": "Soft matting", "version": version, "serves": "matting"}
            restorer = {"id": "ct-rat", "title": "CT denoising", "version": "1", "serves": "restoration"}
            plain = {"id": "filter-nlm", "title": "non-local means", "version": "", "serves": "restoration"}
            rows = ({**mattes, "in_use": in_use}, {**restorer, "degradation": {"kind": "ct-dose"}}, plain, *self.more)
            return Done(tuple({"fit": None, "reason": "", **row} for row in rows))
        if isinstance(request, TrainingSetRequest):
            return Done(NO_REFERENCE if request.model_id == "ct-rat" else self.survey)
        if isinstance(request, AdoptRequest):
            self.adopted = "soft-matting.2"
            return Done(AdoptResult("soft-matting.2", "soft-matting"))
        if isinstance(request, RollBackRequest):
            self.adopted = ""
            return Done(AdoptResult("soft-matting", "soft-matting.2"))
        return Refused("Not asked in these tests.")

    def cancel(self, job_id):
        self.cancelled.append(job_id)

    def stop_now(self, job_id):
        self.killed.append(job_id)

    def close(self):
        pass

    @property
    def trainings(self):
        return [request for request in self.asked if isinstance(request, RetrainRequest)]


@pytest.fixture
def window(qtbot, tmp_path):
    theme.apply(QApplication.instance(), "dark")
    queue = TrainingQueue()
    made = MainWindow(queue, Settings(theme="dark", hints_seen=HINTS_SEEN))
    made.queue = queue
    made.show()
    qtbot.waitExposed(made)
    yield made
    made._may_close = True
    made.close()
    made.deleteLater()
    QApplication.sendPostedEvents(made, QEvent.Type.DeferredDelete)  # else the next theme dresses it as well


@pytest.fixture(scope="module")
def made_project(tmp_path_factory):
    """A closed project with one series."""
    folder = tmp_path_factory.mktemp("made") / "story.medapp"
    with Project.create(folder) as made:
        made.add_series(make_scan(shape=(4, 32, 32), modality="CT"), title="Thorax", group="P1")
    return folder


@pytest.fixture
def project(window, made_project, qtbot):
    """The same project, open; its folder."""
    folder = shutil.copytree(made_project, paths.projects_dir() / made_project.name)
    reopen(window, folder, qtbot)
    return folder


def reopen(window, folder, qtbot):
    window.session.open_project(folder)
    qtbot.waitUntil(lambda: window.document.project is not None and window.document.series is not None, timeout=20000)


def go_to_train(window, qtbot, survey=FEW):
    window.queue.survey = survey
    qtbot.keyClick(window, Qt.Key.Key_5, CONTROL_ALT)
    qtbot.waitUntil(lambda: window.train.curves is not None, timeout=20000)
    qtbot.waitUntil(lambda: window.document.project is None or window.training.recipe.survey is not None)
    return window.train


def start(window, qtbot, run):
    """A run under way with some points and pictures."""
    page = go_to_train(window, qtbot)
    qtbot.mouseClick(page.start, LEFT)
    points(run, 6)
    samples(run)
    window.queue.progress(ProgressEvent(note="gathering"))
    window.queue.progress(ProgressEvent(30, 180, "seconds", "training", {"run": str(run), "device": "cpu"}))
    qtbot.waitUntil(lambda: page.samples.count == 5 and window.training.state == "running")
    return page


def finish(window, qtbot, run):
    scorecard(run)
    result = RetrainResult(str(run), "soft-matting", "soft-matting.2", str(run / "scorecard.json"), 150, 180.0, True)
    window.queue.outcome(Done(result))
    qtbot.waitUntil(lambda: window.training.state == "compared")


def texts(widget):
    return " | ".join(made.text() for made in widget.findChildren(QLabel) if made.isVisible())


def visible_buttons(widget):
    return {made.text().strip() for made in widget.findChildren(QPushButton) if made.isVisible()}


def column(table, place):
    return [table.item(line, place).text() for line in range(table.rowCount())]


# ------------------------------------------------------------------------------------------------- before a run


def test_without_a_project_the_page_says_what_belongs_here_and_offers_to_open(window, qtbot):
    page = go_to_train(window, qtbot)
    asked = []
    page.open_requested.disconnect()
    page.open_requested.connect(lambda: asked.append(True))

    assert "Models learn here" in texts(page)
    assert not page.start.isEnabled()
    qtbot.mouseClick(page.empty.button, LEFT)
    assert asked


def test_without_accepted_mattes_the_one_button_leads_to_annotate(window, project, qtbot):
    page = go_to_train(window, qtbot, NOTHING)

    assert not page.start.isEnabled()
    assert "None is there yet" in texts(page.empty)
    qtbot.mouseClick(page.empty.button, LEFT)
    assert window.workspace == "annotate"


def test_without_references_the_one_button_leads_to_the_library(window, project, qtbot):
    page = go_to_train(window, qtbot, NOTHING)
    page.base_model.setFocus()
    qtbot.keyClick(page.base_model, Qt.Key.Key_Down)

    qtbot.waitUntil(lambda: "0 reference slices of 0 patients" in texts(page))
    qtbot.mouseClick(page.empty.button, LEFT)
    assert window.workspace == "review"
    assert not window.docks["library"].isHidden()


def test_fewer_than_recommended_is_said_and_allowed(window, project, qtbot):
    page = go_to_train(window, qtbot)

    said = texts(page)
    assert "12 accepted mattes of 3 patients" in said
    assert "20 are recommended: 8 are missing" in said
    assert "1 matte is empty." in said
    assert page.start.isEnabled()


def test_three_fields_make_the_request(window, project, qtbot):
    page = go_to_train(window, qtbot)
    assert [page.base_model.itemText(n) for n in range(page.base_model.count())] == ["Soft matting 1", "CT denoising 1"]

    page.data_set.setFocus()
    qtbot.keyClick(page.data_set, Qt.Key.Key_Down)
    page.minutes.setFocus()
    page.minutes.selectAll()
    qtbot.keyClicks(page.minutes, "45")
    qtbot.keyClick(page.minutes, Qt.Key.Key_Tab)
    qtbot.mouseClick(page.start, LEFT)

    (request,) = window.queue.trainings
    assert (request.model_id, request.data_set, request.minutes, request.run) == ("soft-matting", "matting 1", 45.0, "")
    assert not page.minutes.isEnabled()
    assert visible_buttons(page) >= {"Pause", "Cancel"}


def test_the_matting_model_that_answers_clicks_is_the_one_to_begin_from(window, project, qtbot):
    window.queue.more = ({"id": "guided", "title": "Guided matting", "version": "1", "serves": "matting"},)
    window.document.change_settings(matting_model="soft-matting")
    page = go_to_train(window, qtbot)

    assert page.base_model.itemText(0) == "Guided matting 1"
    assert page.base_model.currentText() == "Soft matting 1"


def test_everything_can_be_reached_by_keyboard(window, project, qtbot):
    page = go_to_train(window, qtbot)
    page.data_set.setFocus()
    reached = []
    for _ in range(6):
        reached.append(QApplication.focusWidget())
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)

    assert reached[:4] == [page.data_set, page.base_model, page.minutes, page.start]
    page.start.setFocus()
    qtbot.keyClick(page.start, Qt.Key.Key_Space)
    assert window.training.is_busy
    assert QApplication.focusWidget() is page.pause


# ------------------------------------------------------------------------------------------------- while it runs


def test_curves_images_and_log_follow_the_run(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")

    assert page.state.text() == "Running"
    assert page.curves.loss.value.text() == "iteration 150: 0.1667"
    assert page.curves.score.value.text() == "iteration 150: −0.03333"
    assert "Iteration 150: score −0.0333" in page.log.toPlainText()
    assert "Gathering what was accepted" in page.log.toPlainText()
    assert page.bar.value() == round(1000 * 30 / 180)

    for iteration, loss in ((150, 9.0), (151, 0.5), (152, float("nan")), (153, 0.25)):
        told = {"iteration": iteration, "loss": loss}
        window.queue.progress(ProgressEvent(31, 180, "seconds", "training", told))
    qtbot.waitUntil(lambda: page.curves.loss.value.text() == "iteration 153: 0.25", timeout=5000)
    assert [x for x, _ in page.curves.loss.plot.points][-3:] == [150, 151, 153]
    points(tmp_path / "run", 2, first=7)
    qtbot.waitUntil(lambda: page.curves.loss.value.text().startswith("iteration 200"), timeout=5000)


def test_the_value_at_the_pointer_and_at_the_keys_is_read_off(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")
    plot = page.curves.loss.plot
    plot.setFocus()

    qtbot.keyClick(plot, Qt.Key.Key_Left)
    assert plot.cursor.isVisible()
    qtbot.keyClick(plot, Qt.Key.Key_Left)
    assert page.curves.loss.value.text() == "iteration 125: 0.2"

    at = plot.mapFromScene(plot.getViewBox().mapViewToScene(plot.getViewBox().viewRect().topLeft()))
    plot.scene().sigMouseMoved.emit(plot.mapToScene(at + QPoint(2, 2)))
    assert page.curves.loss.value.text() == "iteration 25: 1"


def test_an_image_is_looked_at_in_large_and_back(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")
    strip = page.samples
    places = {(column, line): place for column, line, place in strip.cells()}
    assert len(places) == 15
    shown = strip.grab().toImage()
    grey = shown.pixelColor(places[2, 1].center()).red()
    assert shown.pixelColor(places[2, 0].center()).red() < grey < shown.pixelColor(places[2, 2].center()).red()

    qtbot.mouseClick(strip, LEFT, pos=places[3, 1].center())
    assert (strip.is_large, strip.current) == (True, 3)
    assert {column for column, _, _ in strip.cells()} == {3}
    assert strip.cells()[0][2].width() > places[3, 0].width()
    strip.setFocus()
    qtbot.keyClick(strip, Qt.Key.Key_Right)
    assert strip.current == 4
    qtbot.keyClick(strip, Qt.Key.Key_Escape)
    assert len(strip.cells()) == 15


def test_one_goes_on_annotating_while_it_trains(window, project, qtbot, tmp_path):
    start(window, qtbot, tmp_path / "run")

    qtbot.keyClick(window, Qt.Key.Key_3, CONTROL_ALT)
    document = window.document
    document.new_matte("Liver")
    document.set_tool("brush")
    view = window.grid.views[0]
    qtbot.mouseClick(view, LEFT, pos=view.annotation_point(16, 16).toPoint())

    assert document.active_matte.slice_alpha(document.position_zyx[0]).max() > 0
    assert window.training.state == "running"
    qtbot.keyClick(window, Qt.Key.Key_5, CONTROL_ALT)
    assert window.train.state.text() == "Running"


def test_pause_keeps_the_run_and_resume_goes_on_with_it(window, project, qtbot, tmp_path):
    run = tmp_path / "run"
    page = start(window, qtbot, run)

    qtbot.mouseClick(page.pause, LEFT)
    assert window.queue.cancelled == [window.queue.training]
    assert page.state.text() == "Pausing…"
    window.queue.outcome(Stopped())
    qtbot.waitUntil(lambda: page.state.text() == "Paused")
    assert "Paused" in texts(window.tasks)
    assert not page.minutes.isEnabled()

    qtbot.mouseClick(page.resume, LEFT)
    assert window.queue.trainings[-1].run == str(run)
    assert page.curves.loss.plot.points[-1][0] == 150


def test_a_run_that_does_not_stop_can_be_stopped_now(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")
    qtbot.mouseClick(page.cancel, LEFT)
    assert not page.cancel.isEnabled()

    window.bridge._offer_stop_now(window.training.job.number)  # five seconds later
    assert page.cancel.text() == "Stop now"
    qtbot.mouseClick(page.cancel, LEFT)
    assert window.queue.killed == [window.queue.training]


def test_cancel_in_the_drawer_of_tasks_keeps_the_run(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")
    window.bridge.cancel(window.training.job.number)
    window.queue.outcome(Stopped())
    qtbot.waitUntil(lambda: page.state.text() == "Paused")
    assert page.resume.isVisible()


def test_cancel_ends_the_run_and_can_be_undone(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")

    qtbot.mouseClick(page.cancel, LEFT)
    window.queue.outcome(Stopped())
    qtbot.waitUntil(lambda: window.training.state == "idle")
    assert page.start.isVisible()
    assert "The model in use is unchanged" in window.messages.all[-1].text

    undo = dict(window.messages.all[-1].actions)["Undo"]
    undo()
    assert window.training.state == "paused"
    assert window.training.record.run == str(tmp_path / "run")


def test_a_cancelled_run_is_not_offered_again(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")
    qtbot.mouseClick(page.cancel, LEFT)
    window.queue.outcome(Stopped())
    qtbot.waitUntil(lambda: window.training.state == "idle")
    qtbot.waitUntil(lambda: window.document.project.load_jobs()[-1]["decision"] == "dropped")

    reopen(window, project, qtbot)
    qtbot.wait(300)
    assert window.training.record is None


def test_a_run_that_was_interrupted_is_found_and_resumed(window, project, qtbot):
    with Project.open(project, mode="read") as read:
        run = plan(paths.user_data_dir() / "runs" / "soft-matting-1", read.project_id)
    points(run, 4)
    page = go_to_train(window, qtbot)
    window.document.project_changed.emit()  # as when the project is opened

    qtbot.waitUntil(lambda: window.training.state == "paused")
    qtbot.waitUntil(lambda: page.curves.loss.value.text().startswith("iteration 100"))
    assert "This run was interrupted" in page.log.toPlainText()
    qtbot.mouseClick(page.resume, LEFT)
    assert window.queue.trainings[-1].run == str(run)
    assert window.queue.trainings[-1].minutes == 3.0


def test_a_refused_training_says_what_is_safe_and_what_to_do(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")

    window.queue.outcome(Refused("The disk of the run folder is full.", "Free some space, then resume."))
    qtbot.waitUntil(lambda: page.state.text() == "Stopped")

    said = "The disk of the run folder is full. The model in use is unchanged, and the run is kept. Free some"
    qtbot.waitUntil(lambda: said in texts(page))
    assert page.resume.isVisible()
    qtbot.mouseClick(page.resume, LEFT)
    assert "The disk of the run folder is full" not in texts(page)


def test_a_run_that_can_never_go_on_says_which_button_makes_way_for_a_new_one(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")

    window.queue.outcome(
        Refused("The model that this run began from has changed.", "Start a new run.", needs_new_run=True)
    )
    qtbot.waitUntil(lambda: page.state.text() == "Stopped")

    qtbot.waitUntil(lambda: "Cancel this run, then start a new one." in texts(page))
    assert page.cancel.isVisible()


def test_a_training_that_could_not_begin_leaves_the_start(window, project, qtbot):
    page = go_to_train(window, qtbot)
    qtbot.mouseClick(page.start, LEFT)
    window.queue.outcome(Refused("All of it is of one patient.", "Accept mattes of another patient."))
    qtbot.waitUntil(lambda: page.state.text() == "Stopped")

    qtbot.waitUntil(lambda: "All of it is of one patient. The model in use is unchanged." in texts(page))
    assert page.start.isVisible()
    assert not page.resume.isVisible()


def test_a_run_of_another_project_ends_without_showing_up_in_the_open_one(window, project, qtbot, tmp_path):
    run = tmp_path / "run"
    page = start(window, qtbot, run)
    first = window.document.project.project_id
    plan(run, first)
    with Project.create(paths.projects_dir() / "other"):
        pass
    window.session.open_project(paths.projects_dir() / "other.medapp")
    qtbot.waitUntil(lambda: window.document.project.project_id != first, timeout=20000)
    assert page.title.text() == "Soft matting 1 · in project story"

    scorecard(run)
    path = str(run / "scorecard.json")
    window.queue.outcome(Done(RetrainResult(str(run), "soft-matting", "soft-matting.2", path, 150, 180.0, True)))
    qtbot.waitUntil(lambda: window.training.state == "idle" and window.training.record is None)
    qtbot.wait(200)
    assert not page.scorecard.isVisible()

    reopen(window, project, qtbot)
    qtbot.waitUntil(lambda: window.training.state == "compared")
    assert window.training.record.run == str(run)


# ------------------------------------------------------------------------------------------------- the scorecard


def test_the_scorecard_tells_better_same_worse_and_the_worst_case_first(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")
    finish(window, qtbot, tmp_path / "run")
    card = page.scorecard
    assert card.isVisible()

    assert column(card.metrics, 0)[0] == "SAD ↓\n/ 1000"
    assert column(card.metrics, 1)[0].startswith("4.00 → 3.00")
    assert column(card.metrics, 2)[0].startswith("better −25.0 %\n−1.10 to −0.90")
    assert column(card.metrics, 2)[1].startswith("worse +50.0 %")
    assert [text.split()[0] for text in column(card.metrics, 4)] == ["same"] * 3
    assert column(card.cases, 0) == ["Liver of series 2", "Kidney of series 1"]
    assert "New hold-out: 2 better, 0 the same, 1 worse" in texts(card)
    assert (
        "All: 9 mattes with 14.0 strokes and 52 s each before, 4 mattes with 6.0 strokes and 20 s each after"
        in texts(card)
    )
    assert "With masks" not in texts(card)


def test_in_a_small_window_the_scorecard_scrolls_and_nothing_lies_on_anything_else(window, project, qtbot, tmp_path):
    window.resize(1024, 700)
    page = start(window, qtbot, tmp_path / "run")
    finish(window, qtbot, tmp_path / "run")
    card = page.scorecard
    card.notes.setText("\n".join(["A note that says what could not be done, and why that was so."] * 24))
    card.notes.show()
    QApplication.processEvents()
    window.grab()

    assert window.height() == 700
    parts = (card.headline, card.summary, card.metrics, card.metric_choice, card.cases, card.effort, card.notes)
    places = [(one.mapTo(card.notes.parentWidget(), QPoint(0, 0)).y(), one.height()) for one in parts]
    assert all(top + height <= below for (top, height), (below, _) in itertools.pairwise(places))
    assert card.adopt.mapTo(window, QPoint(0, card.adopt.height())).y() <= window.height()


def test_adopt_then_roll_back_is_one_click_each(window, project, qtbot, tmp_path):
    run = tmp_path / "run"
    page = start(window, qtbot, run)
    finish(window, qtbot, run)
    assert visible_buttons(page.scorecard) == {"Adopt", "Keep current"}

    qtbot.mouseClick(page.scorecard.adopt, LEFT)
    assert AdoptRequest(str(run)) in window.queue.asked
    qtbot.waitUntil(lambda: visible_buttons(page.scorecard) == {"Roll back"})
    qtbot.waitUntil(lambda: "Soft matting 2 was adopted and is in use." in texts(page))
    assert page.base_model.currentText() == "Soft matting 2"

    window.training.recipe.choose("ct-rat")  # the scorecard speaks of its own model
    qtbot.mouseClick(page.scorecard.roll_back, LEFT)
    assert window.queue.asked.count(RollBackRequest("soft-matting")) == 1
    qtbot.waitUntil(lambda: "the model before is in use again" in texts(page.scorecard))
    window.training.recipe.choose("soft-matting")
    qtbot.waitUntil(lambda: page.base_model.currentText() == "Soft matting 1")


def test_keep_current_changes_nothing_and_is_not_asked_again(window, project, qtbot, tmp_path):
    run = tmp_path / "run"
    page = start(window, qtbot, run)
    finish(window, qtbot, run)
    qtbot.mouseClick(page.scorecard.keep, LEFT)

    assert not any(isinstance(request, AdoptRequest | RollBackRequest) for request in window.queue.asked)
    assert visible_buttons(page.scorecard) == {"Adopt"}
    qtbot.waitUntil(lambda: window.document.project.load_jobs()[-1]["decision"] == "kept")
    reopen(window, project, qtbot)
    qtbot.waitUntil(lambda: window.training.state == "compared")
    assert "the model in use is unchanged" in texts(page.scorecard)


def test_the_patient_group_is_hidden_with_the_privacy_switch(window, project, qtbot, tmp_path):
    page = start(window, qtbot, tmp_path / "run")
    finish(window, qtbot, tmp_path / "run")
    assert column(page.scorecard.cases, 1) == ["P7", "P7"]

    window.document.change_settings(hide_identity=True)
    assert column(page.scorecard.cases, 1) == ["hidden", "hidden"]


def test_a_model_that_is_done_elsewhere_offers_its_scorecard(window, project, qtbot, tmp_path):
    start(window, qtbot, tmp_path / "run")
    window.set_workspace("review")
    finish(window, qtbot, tmp_path / "run")

    dict(window.messages.all[-1].actions)["Show scorecard"]()
    assert window.workspace == "train"
    assert window.train.scorecard.isVisible()


# ------------------------------------------------------------------------------------------------- references


def test_a_series_is_marked_as_reference_and_the_mark_can_be_undone(window, project, qtbot):
    qtbot.keyClick(window, Qt.Key.Key_1, CONTROL_ALT)
    series_id = window.document.series.series_id
    window.actions_by_name["series_reference"].trigger()

    assert window.document.series.is_reference
    assert "reference" in window.library._find(series_id).text(0)
    qtbot.waitUntil(lambda: window.document.save_state[0] == "saved")
    with Project.open(project, mode="read") as read:
        assert [info.is_reference for info in read.series()] == [True]
    qtbot.keyClick(window, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not window.document.series.is_reference


def test_the_mark_is_in_the_menu_of_the_library(window, project, qtbot):
    library = window.library
    item = library._find(window.document.series.series_id)
    library._tree.customContextMenuRequested.emit(library._tree.visualItemRect(item).center())
    menu = QApplication.activePopupWidget()
    mark = next(action for action in menu.actions() if action.text() == "Reference")
    assert not mark.isChecked()
    mark.trigger()
    menu.close()

    assert window.document.series.is_reference


def test_pictures_keep_their_values(tmp_path):
    from PySide6.QtGui import QImage

    from medapp.ui.panels.train_samples import parts_of

    samples(tmp_path, 1, grey=77)
    values = [part.pixelColor(8, 8).red() for part in parts_of(QImage(str(tmp_path / "samples" / "1.png")))]
    np.testing.assert_array_equal(values, [0, 77, 255])


def test_how_many_only_judge_is_said_in_words():
    assert hold_out_text(FEW) == "2 of them only judge and are never trained on."
    assert hold_out_text(replace(FEW, hold_out=1)) == "1 of them only judges and is never trained on."
    assert hold_out_text(replace(FEW, hold_out=0)) == "None of them is held back to judge."


def test_nothing_is_said_of_models_before_they_are_listed(make_window):
    window = make_window()
    assert survey_text(None, window.training.recipe) == "Looking for models…"
    window.training.recipe.is_listed = True
    assert survey_text(None, window.training.recipe) == "No model here can be retrained."


def test_a_project_that_is_opened_while_another_is_counted_is_counted_itself(make_window, tmp_path, qtbot):
    for name in ("one", "other"):
        with Project.create(tmp_path / name) as project:
            project.add_series(make_scan())
    window = make_window()
    window.session.open_project(tmp_path / "one.medapp")
    qtbot.waitUntil(lambda: window.document.series is not None, timeout=20000)
    window.set_workspace("train")
    recipe = window.training.recipe
    qtbot.waitUntil(lambda: recipe.survey is not None, timeout=20000)
    recipe.count()
    window.session.open_project(tmp_path / "other.medapp")
    qtbot.waitUntil(lambda: recipe.survey is not None and not recipe.is_counting, timeout=20000)
    assert "0 accepted mattes" in window.train.survey.text()
