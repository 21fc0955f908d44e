"""Retraining from the window: the run in its worker, the comparison, the decision."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal

from medapp import paths
from medapp.errors import MedappError
from medapp.progress import ProgressEvent
from medapp.requests import (
    AdoptRequest,
    AdoptResult,
    Crashed,
    Outcome,
    Refused,
    RetrainRequest,
    RetrainResult,
    RollBackRequest,
    Stopped,
)
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.job_bridge import Job, JobBridge
from medapp.ui.messages import Message, Messages
from medapp.ui.training_recipe import TrainingRecipe, title_with_version
from medapp.ui.training_state import SCORECARD, RunRecord, Scorecard, find_run, read_scorecard, with_record
from medapp.ui.training_watch import RunWatch

if TYPE_CHECKING:
    from medapp.store.project import Project

_NOTE_EVERY_S = 2.0
BUSY = ("starting", "running", "pausing", "cancelling")
PHASES = {
    "gathering": "Gathering what was accepted",
    "training": "Training",
    "comparing": "Comparing the new model with the one in use",
}


class Training(QObject):
    """The run and its outcome; one run at a time.

    Attributes:
        recipe: The fields, and what there is to train from.
        watch: Curves, pictures and log of the run on show.
        state: ``idle``, ``starting``, ``running``, ``pausing``, ``cancelling``, ``paused``, ``compared`` or ``failed``.
        record: The run on show, or None.
        scorecard: Its comparison, or None.
        problem: Why the run stopped, or None.
        phase: A key of ``PHASES``, or empty.
        is_switching: A model is being adopted or rolled back.
    """

    changed = Signal()
    progressed = Signal()
    models_switched = Signal()
    scorecard_ready = Signal()
    show_requested = Signal()

    def __init__(
        self,
        document: Document,
        bridge: JobBridge,
        background: Background,
        messages: Messages,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._bridge = document, bridge
        self._background, self._messages = background, messages
        self.recipe = TrainingRecipe(document, bridge, messages, self)
        self.recipe.changed.connect(self.changed)
        self.watch = RunWatch(background, messages, self)
        self.state = "idle"
        self.record: RunRecord | None = None
        self.scorecard: Scorecard | None = None
        self.problem: Message | None = None
        self.phase = ""
        self.is_switching = False
        self._job = 0
        self._job_project: Project | None = None
        self._note = ""
        self._noted_at = 0.0
        document.project_changed.connect(self._on_project_changed)
        bridge.job_changed.connect(self._on_job_changed)

    # --------------------------------------------------------------------------------------------------------- reading

    @property
    def is_busy(self) -> bool:
        """A run is under way."""
        return self.state in BUSY

    @property
    def job(self) -> Job | None:
        """The row of the run under way."""
        return self._bridge.job(self._job) if self._job else None

    @property
    def fraction(self) -> float | None:
        """How far the present phase is, 0..1; None while it is unknown."""
        job = self.job
        if job is None or (self.phase == "comparing" and job.unit != "cases"):
            return None
        return job.fraction

    @property
    def can_start(self) -> bool:
        """A model is chosen, something was accepted, nothing is under way, and the project can be written."""
        project = self._document.project
        is_ready = project is not None and not self._document.is_read_only and self.recipe.model is not None
        return is_ready and self.recipe.has_cases and not self.is_busy

    @property
    def can_resume(self) -> bool:
        """There is a run that did not end."""
        is_writable = self._document.project is not None and not self._document.is_read_only
        return is_writable and not self.is_busy and self.record is not None and self.record.can_go_on

    def allows(self, wish: str) -> bool:
        """Whether ``start``, ``pause``, ``resume``, ``adopt`` or ``roll_back`` would do something now."""
        is_open = self._document.project is not None and not self.is_switching
        can_adopt = self.scorecard is not None and self.record is not None and self.record.decision != "adopted"
        return {
            "start": self.can_start,
            "pause": self.state in ("starting", "running"),
            "resume": self.can_resume and self.state in ("paused", "failed"),
            "adopt": is_open and can_adopt and not self.is_busy,
            "roll_back": is_open and bool(self.recipe.adopted_id) and not self.is_busy,
        }[wish]

    @property
    def project_name(self) -> str:
        """Of the run under way, where it is not the open project."""
        project = self._job_project
        return project.name if project is not None and project is not self._document.project else ""

    # ------------------------------------------------------------------------------------------------------------ runs

    def start(self) -> None:
        """Gather, train within the budget, compare."""
        recipe, model = self.recipe, self.recipe.model
        if not self.can_start or model is None:
            return
        self._forget_run()
        self.record = RunRecord("", recipe.model_id, title_with_version(model), float(recipe.minutes), recipe.data_set)
        self._submit()

    def resume(self) -> None:
        """Go on exactly where the run stopped."""
        if self.can_resume:
            self.watch.say("Resumed")
            self._submit()

    def _submit(self) -> None:
        project, record = self._document.project, self.record
        if project is None or record is None:
            return
        self.problem, self.scorecard, self.phase = None, None, ""
        self.state, self._job_project = "starting", project
        self._job = self._bridge.submit(
            RetrainRequest(
                str(project.path),
                record.model_id,
                record.minutes,
                data_set=record.data_set,
                run=record.run,
                device=self._document.settings.device,
            ),
            subject=record.title,
            on_progress=self._on_progress,
            on_done=self._on_done,
            on_failed=self._on_failed,
        )
        if record.run:
            self.watch.follow(record.folder, is_running=True)
        self.changed.emit()

    def pause(self) -> None:
        """Stop politely; the run goes on later exactly where it was."""
        self._stop("pausing")

    def cancel(self) -> None:
        """End the run under way, or the paused one: it is not offered again, the model in use is unchanged.

        A run that does not stop within five seconds is ended with its worker by the second call.
        """
        job = self.job
        if job is not None and job.can_stop_now and self.state in ("pausing", "cancelling"):
            self._bridge.stop_now(self._job)
        elif self.is_busy:
            self._stop("cancelling")
        elif self.state in ("paused", "failed") and self.record is not None:
            self._drop()

    def _stop(self, state: str) -> None:
        job = self.job
        if job is None or job.is_over:
            return
        self.state = state
        job.stopped_text = "Paused" if state == "pausing" else ""
        self._bridge.cancel(self._job)
        self.changed.emit()

    def _on_job_changed(self, number: int) -> None:
        """Also a stop from the drawer of tasks, which keeps the run as a pause does."""
        job = self.job
        if job is None or number != self._job or job.is_over:
            return
        if job.state == "cancelling" and self.state in ("starting", "running"):
            self.state, job.stopped_text = "pausing", "Paused"
            self.changed.emit()
        elif job.can_stop_now:
            self.changed.emit()
        else:
            self.progressed.emit()

    def _on_progress(self, event: ProgressEvent) -> None:
        if self.state == "starting":
            self.state = "running"
            self.changed.emit()
        run, record = event.detail.get("run"), self.record
        if isinstance(run, str) and record is not None and run != record.run:
            self.record = RunRecord(run, record.model_id, record.title, record.minutes, record.data_set)
            self._keep_record()
            self.watch.follow(self.record.folder, is_running=True)
            self.changed.emit()
        iteration, loss = event.detail.get("iteration"), event.detail.get("loss")
        if isinstance(iteration, int) and isinstance(loss, float):
            self.watch.hear(iteration, loss)
        if event.note:
            self._take_note(event.note)

    def _take_note(self, note: str) -> None:
        """Every phase gets a line in the log; of what changes all the time, one line a while."""
        phase = next((name for name in PHASES if note.lower().startswith(name)), "")
        order = list(PHASES)
        if phase and self.phase and order.index(phase) < order.index(self.phase):
            return  # what the comparison gathers for itself
        is_new = bool(phase) and phase != self.phase
        if is_new:
            self.phase = phase
            self.changed.emit()
        if is_new or (note != self._note and time.monotonic() - self._noted_at > _NOTE_EVERY_S):
            self._note, self._noted_at = note, time.monotonic()
            is_plain = bool(phase) and note.lower().strip(" .…") == phase
            self.watch.say(PHASES[phase] if is_plain else note[:1].upper() + note[1:])

    def _on_done(self, result: RetrainResult) -> None:
        record = self.record
        self._end_job()
        if record is None:
            return
        self.record = RunRecord(result.run, record.model_id, record.title, record.minutes, record.data_set)
        self.watch.say(f"Compared after {result.iteration} iterations")
        self._keep_record()
        self._load_scorecard(self.record, result.scorecard)
        self.recipe.refresh()  # there is a new data set version
        self._messages.say(
            f"{record.title} was retrained and compared. The model in use is unchanged until you adopt the new one.",
            actions=(("Show scorecard", self.show_requested.emit),),
        )
        self._after_foreign_run()

    def _on_failed(self, outcome: Outcome) -> None:
        was, record = self.state, self.record
        self._end_job()
        if isinstance(outcome, Stopped):
            if was == "cancelling":
                self._drop()
            else:
                if record is not None and record.can_go_on:
                    self.watch.say("Paused")
                    self._go_to("paused")
                else:  # there was no run yet
                    self._forget_run()
                    self._go_to("idle")
        else:
            if isinstance(outcome, Refused) and outcome.needs_new_run:  # Start would go on with the old one
                outcome = replace(outcome, hint="Cancel this run, then start a new one.")
            can_go_on = record is not None and record.can_go_on
            self.problem = _problem(outcome, can_go_on)
            self._messages.tell_outcome(outcome, "the training")
            self.watch.say(f"Stopped: {self.problem.text}")
            self._go_to("failed")
        self._after_foreign_run()

    def _end_job(self) -> None:
        self._job = 0
        self.watch.stop()

    def _after_foreign_run(self) -> None:
        """The run belonged to a project that is not open any more: show what belongs to the open one."""
        foreign = self._job_project is not None and self._job_project is not self._document.project
        self._job_project = None
        if foreign:
            self.state = "idle"
            self._on_project_changed()

    def _drop(self) -> None:
        record = self.record
        if record is not None and record.run:
            self.record = record.decided("dropped")
            self._keep_record()
            self._messages.say(
                "The run was cancelled. The model in use is unchanged.",
                actions=(("Undo", lambda: self._undrop(record)),),
            )
        self.problem = None
        self._forget_run()
        self._go_to("idle")

    def _undrop(self, record: RunRecord) -> None:
        if not self.is_busy and record.can_go_on:
            self._show_record(record)
            self._keep_record()

    def _go_to(self, state: str) -> None:
        self.state = state
        self.changed.emit()

    def _forget_run(self) -> None:
        self.record, self.scorecard, self.problem, self.phase = None, None, None, ""
        self.watch.forget()

    # ------------------------------------------------------------------------------------------- earlier runs

    def _on_project_changed(self) -> None:
        if self.is_busy:
            self.changed.emit()
            return
        self._forget_run()
        self._go_to("idle")
        project = self._document.project
        if project is None:
            return

        def found(record: RunRecord | None) -> None:
            is_wanted = project is self._document.project and not self.is_busy and self.record is None
            if record is not None and is_wanted and record.is_there and record.decision != "dropped":
                self._show_record(record)

        runs = paths.user_data_dir() / "runs"
        self._background.run(
            lambda: find_run(runs, project.project_id, project.load_jobs()), found, self._messages.tell_error
        )

    def _show_record(self, record: RunRecord) -> None:
        """A run of an earlier start of the program: to be resumed, or to be decided."""
        self._forget_run()
        self.record = record
        self.watch.follow(record.folder, is_running=False)
        if record.is_compared:
            self._load_scorecard(record, "")
        else:
            self.watch.say("This run was interrupted; it goes on where it was")
            self._go_to("paused")

    def _load_scorecard(self, record: RunRecord, path: str) -> None:
        def shown(scorecard: Scorecard) -> None:
            if self.record is not None and self.record.run == record.run:
                self.scorecard = scorecard
                self._go_to("compared")
                self.scorecard_ready.emit()

        def failed(error: MedappError) -> None:
            if self.record is not None and self.record.run == record.run:
                self.problem = Message(error.message, "error", error.hint)
                self._go_to("failed")

        place = Path(path) if path else record.folder / SCORECARD
        self._background.run(lambda: read_scorecard(place), shown, failed)

    def _keep_record(self) -> None:
        project, record = self._job_project or self._document.project, self.record
        if project is None or record is None or project.is_read_only or project is not self._document.project:
            return
        self._background.run(
            lambda: project.save_jobs(with_record(project.load_jobs(), record)),
            lambda _none: None,
            self._messages.tell_error,
        )

    # -------------------------------------------------------------------------------------------------------- decisions

    def adopt(self) -> None:
        """Let the new model serve from now on."""
        record = self.record
        if record is None or self.scorecard is None or self.is_switching:
            return
        title = self.scorecard.challenger

        def done(result: AdoptResult) -> None:
            self._decide(record, "adopted")
            self._messages.say(
                f"{title} is in use from now on. {self.recipe.title_of(result.replaced)} is kept.",
                actions=(("Roll back", lambda: self.roll_back(record.model_id)),),
            )

        self._switch(AdoptRequest(record.run), done, "adopting the model")

    def keep_current(self) -> None:
        """Leave the model in use as it is; the new one stays in its run folder and can be adopted later."""
        if self.record is not None and self.scorecard is not None:
            self._decide(self.record, "kept")

    def roll_back(self, model_id: str = "") -> None:
        """Let the model before the adopted one serve again.

        Args:
            model_id: First of its line; empty = the one chosen in the recipe.
        """
        model_id = model_id or self.recipe.model_id
        if not model_id or self.is_switching:
            return

        def done(result: AdoptResult) -> None:
            record = self.record
            if record is not None and record.model_id == model_id and record.decision == "adopted":
                self._decide(record, "rolled back")
            serves, served = self.recipe.title_of(result.model_id), self.recipe.title_of(result.replaced)
            self._messages.say(f"{serves} is in use again. {served} is kept.")

        self._switch(RollBackRequest(model_id), done, "the roll back")

    def _switch(self, request: AdoptRequest | RollBackRequest, done: Any, what: str) -> None:
        self.is_switching = True

        def finished(result: AdoptResult) -> None:
            self.is_switching = False
            done(result)
            self.models_switched.emit()
            self.recipe.refresh()

        def failed(outcome: Outcome) -> None:
            self.is_switching = False
            self._messages.tell_outcome(outcome, what)
            self.changed.emit()

        self._bridge.submit(request, is_quiet=True, on_done=finished, on_failed=failed)
        self.changed.emit()

    def _decide(self, record: RunRecord, decision: str) -> None:
        if self.record is not None and self.record.run == record.run:
            self.record = self.record.decided(decision)
            self._keep_record()
        self.changed.emit()


def _problem(outcome: Outcome, can_go_on: bool) -> Message:
    """What happened, what is safe, what to do."""
    safe = "The model in use is unchanged, and the run is kept." if can_go_on else "The model in use is unchanged."
    if isinstance(outcome, Refused):
        return Message(f"{outcome.message.rstrip('.')}. {safe}", "error", outcome.hint)
    report = outcome.report if isinstance(outcome, Crashed) else ""
    return Message(f"Something unexpected stopped the training. {safe}", "error", "Copy the report to send it.", report)
