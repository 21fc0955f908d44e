"""Train: the recipe at the left, what a run shows at the right, the scorecard at its end."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QPlainTextEdit,
    QProgressBar,
    QSizePolicy,
    QSpinBox,
    QStackedWidget,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from medapp.requests import TrainingSetResult
from medapp.ui import theme
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.panels.scorecard import ScorecardView
from medapp.ui.panels.tasks import shown_time
from medapp.ui.panels.toasts import Banner
from medapp.ui.panels.train_samples import SampleStrip
from medapp.ui.training import PHASES, Training
from medapp.ui.training_recipe import TrainingRecipe, title_with_version
from medapp.ui.widgets import (
    EmptyState,
    button,
    column,
    field,
    focus_first,
    label,
    line,
    refresh_style,
    row,
    scrolling,
    wrapped,
)

_RECIPE_WIDTH = 288
_FROM_NOW = "Accepted now"
_RECOMMENDED = " of the recommended "
_STATES = {
    "starting": ("Starting", ""),
    "running": ("Running", "green"),
    "pausing": ("Pausing…", "amber"),
    "cancelling": ("Cancelling…", "amber"),
    "paused": ("Paused", "amber"),
    "compared": ("Compared", "green"),
    "failed": ("Stopped", "blocked"),
}
_PAGES = _EMPTY, _EVIDENCE, _SCORECARD = range(3)


class TrainPage(QWidget):
    """Three fields, the buttons of a run, its curves, images and log, and the scorecard."""

    open_requested = Signal()
    annotate_requested = Signal()
    library_requested = Signal()

    def __init__(self, document: Document, training: Training, background: Background) -> None:
        super().__init__()
        self.setObjectName("trainPage")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._document, self._training, self._background = document, training, background
        self.curves: Any = None
        self._is_loading_curves = False
        self._banner: Banner | None = None
        whole = QHBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(self._build_recipe())
        whole.addWidget(self._build_right(), 1)
        training.changed.connect(self.refresh)
        training.progressed.connect(self._show_progress)
        training.watch.changed.connect(self._show_evidence)
        training.scorecard_ready.connect(self._show_scorecard)
        training.watch.logged.connect(lambda _line: self._show_log())
        for signal in (document.project_changed, document.settings_changed):
            signal.connect(self.refresh)
        for signal in (document.project_changed, document.series_list_changed):
            signal.connect(self._count_soon)
        document.settings_changed.connect(self._show_scorecard_again)
        self.refresh()

    # -------------------------------------------------------------------------------------------------------- building

    def _build_recipe(self) -> QWidget:
        training = self._training
        self.data_set, self.base_model = QComboBox(), QComboBox()
        for box in (self.data_set, self.base_model):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(12)
        self.data_set.setToolTip("Data set version — a new one is frozen at the start, or choose one that is there")
        self.data_set.activated.connect(lambda _i: training.recipe.set_data_set(self.data_set.currentData() or ""))
        self.base_model.setToolTip("Base model — training goes on from the version of it that is in use")
        self.base_model.activated.connect(lambda _i: training.recipe.choose(self.base_model.currentData() or ""))
        self.minutes = QSpinBox()
        self.minutes.setRange(1, 24 * 60)
        self.minutes.setSuffix(" min")
        self.minutes.lineEdit().setTextMargins(theme.GRID, 0, 0, 0)  # in line with the boxes above
        self.minutes.setValue(training.recipe.minutes)
        self.minutes.setToolTip("Time budget — training ends after it; the comparison follows")
        self.minutes.valueChanged.connect(training.recipe.set_minutes)
        self.survey = wrapped("", "")
        self.hold_out = wrapped()
        self.missing = wrapped("", "processed")
        self.survey_notes = wrapped()
        self.start = button("Start", "primary", "Start — gather, train within the budget, compare")
        self.start.clicked.connect(lambda _c=False: training.start())
        self.resume = button("Resume", "primary", "Resume — go on exactly where the run stopped")
        self.resume.clicked.connect(lambda _c=False: training.resume())
        self.pause = button("Pause", "", "Pause — the run is kept and goes on later where it was")
        self.pause.clicked.connect(lambda _c=False: training.pause())
        self.cancel = button("Cancel", "", "Cancel — end this run; the model in use is unchanged")
        self.cancel.clicked.connect(lambda _c=False: training.cancel())
        self.in_use = wrapped()
        self.roll_back = button("Roll back", "quiet", "Roll back — the model before serves again; nothing is deleted")
        self.roll_back.clicked.connect(lambda _c=False: training.roll_back())
        self._rule = line()
        inner = QWidget()
        inner.setLayout(
            column(
                label("Train", "title"),
                wrapped("A model learns from what was accepted in this project."),
                4,
                field("Data set", self.data_set),
                field("Base model", self.base_model),
                field("Time budget", self.minutes),
                4,
                self.survey,
                self.hold_out,
                self.missing,
                self.survey_notes,
                4,
                self.start,
                self.resume,
                row(self.pause, self.cancel, spacing=theme.MARGIN),
                4,
                self._rule,
                self.in_use,
                row(self.roll_back, -1),
                -1,
                margin=theme.GROUP_GAP,
                spacing=6,
            )
        )
        scroll = scrolling(inner, takes_focus=False)
        scroll.setFixedWidth(_RECIPE_WIDTH)
        return scroll

    def _build_right(self) -> QWidget:
        self.title = label("", "title")
        self.state = label()
        self.state.setProperty("look", "chip")
        self.state.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.facts = label("", "secondary")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedWidth(120)
        self.bar.setAccessibleName("Progress of the training")
        self.tabs = QTabBar()
        self.tabs.addTab("Evidence")
        self.tabs.addTab("Scorecard")
        self.tabs.setAccessibleName("Evidence or scorecard")
        self.tabs.setExpanding(False)
        self.tabs.currentChanged.connect(lambda _i: self.refresh())
        self._head = QWidget()
        self._head.setLayout(row(self.title, self.state, self.bar, self.facts, -1, self.tabs))
        self._banners = QVBoxLayout()
        self._banners.setContentsMargins(0, 0, 0, 0)
        self.empty = EmptyState("", "Open images…", self._on_empty)
        self.scorecard = ScorecardView()
        self.scorecard.adopt_requested.connect(self._training.adopt)
        self.scorecard.keep_requested.connect(self._training.keep_current)
        self.scorecard.roll_back_requested.connect(self._on_roll_back)
        self.pages = QStackedWidget()
        for page in (self.empty, self._build_evidence(), self.scorecard):
            self.pages.addWidget(page)
        right = QFrame()
        right.setObjectName("trainRight")
        layout = column(self._head, self._banners, self.pages, margin=theme.GROUP_GAP, spacing=theme.MARGIN)
        layout.setStretchFactor(self.pages, 1)
        right.setLayout(layout)
        return right

    def _build_evidence(self) -> QWidget:
        self._curves_place = QVBoxLayout()
        self._curves_place.setContentsMargins(0, 0, 0, 0)
        self._curves_wait = label("Loading the curves…", "secondary")
        self._curves_wait.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._curves_place.addWidget(self._curves_wait)
        curves = QWidget()
        curves.setLayout(self._curves_place)
        self.samples = SampleStrip()
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setProperty("role", "secondary")
        self.log.setAccessibleName("Log of the training")
        self.log.setTabChangesFocus(True)
        self.log.setMinimumSize(120, 64)
        self.log.setMaximumBlockCount(400)
        below = row(self.samples, self.log)
        below.setStretch(0, 13)
        below.setStretch(1, 6)
        layout = column(curves, below, margin=0, spacing=theme.MARGIN)
        layout.setStretchFactor(curves, 4)
        layout.setStretchFactor(below, 6)
        page = QWidget()
        page.setLayout(layout)
        return page

    # ------------------------------------------------------------------------------------------------------- life cycle

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._load_curves()
        self._training.recipe.refresh()
        self._show_evidence()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.samples.is_large = False

    def _count_soon(self) -> None:
        if self.isVisible():
            self._training.recipe.refresh_soon()

    def _load_curves(self) -> None:
        """The plotting library takes half a second to load: not at the start, and not on the window's thread."""
        if self.curves is not None or self._is_loading_curves:
            return
        self._is_loading_curves = True

        def loaded(module: Any) -> None:
            self.curves = module.CurvesView()
            self._curves_wait.hide()
            self._curves_place.addWidget(self.curves)
            self._show_evidence()

        self._background.run(lambda: import_module("medapp.ui.panels.train_curves"), loaded)

    # --------------------------------------------------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show everything but curves, images and log."""
        training = self._training
        self._show_recipe()
        self._show_survey(training.recipe.survey)
        self._show_buttons()
        self._show_head()
        self._show_problem()
        has_scorecard = training.scorecard is not None
        self.tabs.setVisible(has_scorecard)
        if training.state == "idle" and training.record is None:
            self._show_empty()
            self.pages.setCurrentIndex(_EMPTY)
        elif has_scorecard and self.tabs.currentIndex() == 1:
            self.pages.setCurrentIndex(_SCORECARD)
        else:
            self.pages.setCurrentIndex(_EVIDENCE)
        record = training.record
        self.scorecard.show_decision(
            record.decision if record is not None else "",
            can_decide=not self._document.is_read_only and not training.is_busy,
            is_switching=training.is_switching,
        )

    def _show_recipe(self) -> None:
        training = self._training
        survey = training.recipe.survey
        _fill(
            self.base_model,
            [(title_with_version(model), str(model["id"])) for model in training.recipe.models],
            training.recipe.model_id,
        )
        versions = [(version, version) for version in reversed(survey.versions)] if survey is not None else []
        _fill(self.data_set, [(_FROM_NOW, ""), *versions], training.recipe.data_set)
        self.minutes.blockSignals(True)
        self.minutes.setValue(round(training.recipe.minutes))
        self.minutes.blockSignals(False)
        is_stopped = training.state in ("paused", "failed") and training.can_resume  # a run goes on with its own recipe
        is_open = self._document.project is not None and not training.is_busy and not self._document.is_read_only
        is_open = is_open and not is_stopped
        for control in (self.data_set, self.base_model, self.minutes):
            control.setEnabled(is_open)

    def _show_survey(self, survey: TrainingSetResult | None) -> None:
        training = self._training
        problem = training.recipe.survey_problem
        self.survey.setText(survey_text(survey, training.recipe))
        self.survey.setVisible(self._document.project is not None)
        if survey is None and problem is not None:
            self.survey.setText(f"{problem.message} {problem.hint}".strip())
        self.hold_out.setText(hold_out_text(survey))
        missing, others = shortage_lines(survey)
        self.missing.setText("\n".join(missing))
        self.survey_notes.setText("\n".join(others))
        for part in (self.hold_out, self.missing, self.survey_notes):
            part.setVisible(bool(part.text()))
        adopted = training.recipe.adopted_id
        self.in_use.setText(f"{training.recipe.title_of(adopted)} was adopted and is in use." if adopted else "")
        for part in (self._rule, self.in_use, self.roll_back):
            part.setVisible(bool(adopted))
        self.roll_back.setEnabled(not training.is_switching and not training.is_busy)

    def _show_buttons(self) -> None:
        training = self._training
        is_stopped = training.state in ("paused", "failed") and training.can_resume
        job = training.job
        can_stop_now = job is not None and job.can_stop_now and training.state in ("pausing", "cancelling")
        buttons = (self.resume, self.pause, self.start, self.cancel)
        had_focus = any(made.hasFocus() for made in buttons)
        self.start.setEnabled(training.can_start)
        self.pause.setEnabled(training.state in ("starting", "running"))
        self.cancel.setEnabled(training.state != "cancelling" or can_stop_now)
        self.cancel.setText("Stop now" if can_stop_now else "Cancel")
        self.cancel.setAccessibleName(self.cancel.text())
        wanted = {self.resume: is_stopped, self.pause: training.is_busy, self.cancel: training.is_busy or is_stopped}
        wanted[self.start] = not training.is_busy and not is_stopped
        for made, is_wanted in sorted(wanted.items(), key=lambda pair: not pair[1]):
            made.setVisible(is_wanted)
        if had_focus:
            focus_first(*buttons)

    def _show_head(self) -> None:
        training = self._training
        record = training.record
        self._head.setVisible(record is not None)
        if record is None:
            return
        elsewhere = f" · in project {training.project_name}" if training.project_name else ""
        self.title.setText(training.recipe.title_of(record.title) + elsewhere)
        text, fit = _STATES.get(training.state, ("", ""))
        self.state.setText(text)
        self.state.setVisible(bool(text))
        if self.state.property("fit") != fit:
            self.state.setProperty("fit", fit)
            refresh_style(self.state)
        self.facts.setText(facts_text(training))
        self._show_progress()

    def _show_progress(self) -> None:
        """Many times a second: nothing but the bar."""
        training = self._training
        fraction = training.fraction
        self.bar.setVisible(training.is_busy)
        self.bar.setRange(0, 0 if fraction is None else 1000)
        if fraction is not None:
            self.bar.setValue(round(1000 * fraction))

    def _show_problem(self) -> None:
        problem = self._training.problem
        if self._banner is not None and self._banner.message is not problem:
            self._banners.removeWidget(self._banner)
            self._banner.hide()
            self._banner.deleteLater()
            self._banner = None
        if problem is not None and self._banner is None:
            self._banner = Banner(problem)
            self._banners.addWidget(self._banner)

    def _show_empty(self) -> None:
        sentence, text, self._empty_leads = empty_text(self._training, self._document.project is not None)
        self.empty.say(sentence)
        self.empty.button.setText(text)
        self.empty.button.setAccessibleName(text.rstrip("…"))
        self.empty.button.setVisible(bool(text))

    def _on_roll_back(self) -> None:
        record = self._training.record
        if record is not None:
            self._training.roll_back(record.model_id)

    def _on_empty(self) -> None:
        {
            "open": self.open_requested.emit,
            "annotate": self.annotate_requested.emit,
            "library": self.library_requested.emit,
            "start": self._training.start,
        }.get(self._empty_leads, self._training.recipe.refresh)()

    def _show_evidence(self) -> None:
        if not self.isVisible():
            return
        training = self._training
        if self.curves is not None:
            self.curves.show_evidence(training.watch.evidence)
        self.samples.show_pictures(training.watch.pictures)
        self._show_log()
        self._show_head()

    def _show_log(self) -> None:
        text = "\n".join(self._training.watch.log)
        if self.isVisible() and text != self.log.toPlainText():
            self.log.setPlainText(text)
            self.log.verticalScrollBar().setValue(self.log.verticalScrollBar().maximum())

    def _show_scorecard(self) -> None:
        self._show_scorecard_again()
        self.tabs.setCurrentIndex(1)
        self.refresh()

    def _show_scorecard_again(self) -> None:
        self.scorecard.show_scorecard(self._training.scorecard, hides_identity=self._document.settings.hide_identity)


# ---------------------------------------------------------------------------------------------------------------- words


def survey_text(survey: TrainingSetResult | None, recipe: TrainingRecipe) -> str:
    """How much there is to learn from."""
    if survey is None:
        if not recipe.is_listed:
            return "Looking for models…"
        if recipe.is_counting:
            return "Counting what was accepted…"
        return "" if recipe.models else "No model here can be retrained."
    if survey.kind == "matting":
        return f"{_count(survey.cases, 'accepted matte')} of {_count(survey.patients, 'patient')}"
    return f"{_count(survey.cases, 'reference slice')} of {_count(survey.patients, 'patient')}"


def hold_out_text(survey: TrainingSetResult | None) -> str:
    """What judges only."""
    if survey is None or not survey.cases:
        return ""
    if not survey.hold_out:
        return "None of them is held back to judge."
    if survey.hold_out == 1:
        return "1 of them only judges and is never trained on."
    return f"{survey.hold_out} of them only judge and are never trained on."


def shortage_lines(survey: TrainingSetResult | None) -> tuple[list[str], list[str]]:
    """What is missing to the recommended numbers, and what else a person should know."""
    if survey is None:
        return [], []
    missing = [note for note in survey.notes if _RECOMMENDED in note]
    if survey.missing > 0 and not missing:
        missing = [f"{survey.recommended} are recommended: {survey.missing} are missing. You can train anyway."]
    return missing if survey.cases else [], [note for note in survey.notes if _RECOMMENDED not in note]


def facts_text(training: Training) -> str:
    """Phase, iterations, time."""
    evidence, record, job = training.watch.evidence, training.record, training.job
    parts = []
    if training.is_busy and training.phase and training.phase != "training":
        parts.append(PHASES[training.phase])
    if evidence.iteration:
        parts.append(f"iteration {evidence.iteration:,}")
    if record is not None and evidence.seconds:
        parts.append(f"{shown_time(evidence.seconds)} of {record.minutes:g} min")
    if job is not None and job.device:
        parts.append(job.device.upper())
    if training.state == "paused":
        parts.append("goes on where it was")
    return " · ".join(parts)


def empty_text(training: Training, has_project: bool) -> tuple[str, str, str]:
    """One sentence, one button, and where it leads."""
    if not has_project:
        return (
            "Models learn here from the mattes you accept and the series you mark as reference. Open images to begin.",
            "Open images…",
            "open",
        )
    survey = training.recipe.survey
    if survey is None:
        if training.recipe.is_counting or not training.recipe.models:
            return ("Looking at what this project has to learn from.", "", "")
        return ("What this project has to learn from could not be counted.", "Try again", "retry")
    if not training.recipe.has_cases and survey.kind == "matting":
        return ("Mattes you accept become what the model learns from. None is there yet.", "Go to Annotate", "annotate")
    if not training.recipe.has_cases:
        return (
            "Series you mark as reference become what the model learns from. None is marked yet: "
            "right-click a series in the library.",
            "Go to the library",
            "library",
        )
    return ("Curves, the same five validation images and the scorecard appear here.", "Start training", "start")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _fill(box: QComboBox, rows: list[tuple[str, str]], chosen: str) -> None:
    """New entries only where they changed, so that an open list stays open."""
    if [(box.itemText(n), box.itemData(n)) for n in range(box.count())] != rows:
        box.clear()
        for text, data in rows:
            box.addItem(text, data)
    box.setCurrentIndex(box.findData(chosen))
