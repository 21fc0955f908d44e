"""Retraining from the window: what there is to train from, the run in its worker, the comparison, the decision."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QImage

from medapp.errors import MedappError
from medapp.progress import ProgressEvent
from medapp.requests import (
    AdoptRequest,
    AdoptResult,
    Crashed,
    ModelsRequest,
    Outcome,
    Refused,
    RetrainRequest,
    RetrainResult,
    RollBackRequest,
    Stopped,
    TrainingSetRequest,
    TrainingSetResult,
)
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.job_bridge import Job, JobBridge
from medapp.ui.messages import Message, Messages
from medapp.ui.training_state import Evidence, RunReader, RunRecord, Scorecard, read_scorecard, with_record

if TYPE_CHECKING:
    from medapp.store.project import Project

_LOOK_MS = 700
_KEPT_LINES = 400
_MINUTES = 20
BUSY = ("starting", "running", "pausing", "cancelling")
PHASES = {
    "gathering": "Gathering what was accepted",
    "training": "Training",
    "comparing": "Comparing the new model with the one in use",
}


class Training(QObject):
    """The recipe, the run and its outcome; one run at a time.

    Attributes:
        state: ``idle``, ``starting``, ``running``, ``pausing``, ``cancelling``, ``paused``, ``compared`` or ``failed``.
        models: Models that can be retrained: dicts with ``id``, ``title``, ``version``, ``serves``.
        model_id: The chosen one.
        data_set: The chosen version; empty = what is accepted now.
        minutes: Time budget.
        survey: What there is to train from, or None while it is counted.
        survey_problem: Why it could not be counted, or None.
        record: The run on show, or None.
        evidence, pictures: Its curves; its sample pictures.
        scorecard: Its comparison, or None.
        problem: Why the run stopped, or None.
        log: Lines, oldest first.
        is_switching: A model is being adopted or rolled back.
    """

    changed = Signal()
    evidence_changed = Signal()
    logged = Signal(str)
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
        self.state = "idle"
        self.models: tuple[dict[str, Any], ...] = ()
        self.model_id = ""
        self.data_set = ""
        self.minutes = _MINUTES
        self.survey: TrainingSetResult | None = None
        self.survey_problem: Refused | None = None
        self.is_counting = False
        self.record: RunRecord | None = None
        self.evidence = Evidence()
        self.pictures: tuple[QImage, ...] = ()
        self.scorecard: Scorecard | None = None
        self.problem: Message | None = None
        self.log: list[str] = []
        self.phase = ""
        self.is_switching = False
        self._titles: dict[str, str] = {}
        self._job = 0
        self._job_project: Project | None = None
        self._ticket = 0
        self._reader: RunReader | None = None
        self._is_looking = False
        self._looked_at: tuple[tuple[str, int], ...] = ()
        self._note = ""
        self._noted_at = 0.0
        self._checks_told = 0
        self._clock = QTimer(self, interval=_LOOK_MS)
        self._clock.timeout.connect(self.look)
        document.project_changed.connect(self._on_project_changed)

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
        """Spent part of the budget, 0..1; None while it is unknown or another phase is under way."""
        if self.record is None or not self.evidence.seconds or self.phase not in ("", "training"):
            return None
        return min(1.0, self.evidence.seconds / (60 * self.record.minutes))

    @property
    def model(self) -> dict[str, Any] | None:
        """The chosen model."""
        return next((model for model in self.models if model["id"] == self.model_id), None)

    @property
    def adopted_id(self) -> str:
        """The successor that serves in place of the chosen model; empty = the chosen model itself serves."""
        model = self.model
        in_use = str(model.get("in_use", "")) if model is not None else ""
        return in_use if in_use and in_use != self.model_id else ""

    def title_of(self, model_id: str) -> str:
        """Name and version of a model."""
        return self._titles.get(model_id, model_id)

    @property
    def has_cases(self) -> bool:
        """There is something to train from, or a frozen version of it."""
        return self.survey is not None and (self.survey.cases > 0 or bool(self.survey.versions))

    @property
    def can_start(self) -> bool:
        """A model is chosen, something was accepted, nothing is under way, and the project can be written."""
        project = self._document.project
        is_ready = project is not None and not self._document.is_read_only and self.model is not None
        return is_ready and self.has_cases and not self.is_busy

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
            "roll_back": is_open and bool(self.adopted_id) and not self.is_busy,
        }[wish]

    @property
    def project_name(self) -> str:
        """Of the run under way, where it is not the open project."""
        project = self._job_project
        return project.name if project is not None and project is not self._document.project else ""

    # --------------------------------------------------------------------------------------------------------- choices

    def choose(self, model_id: str) -> None:
        """Begin from another model."""
        if model_id != self.model_id:
            self.model_id = model_id
            self.count()

    def set_data_set(self, version: str) -> None:
        """Train from a frozen version; empty = from what is accepted now."""
        self.data_set = version
        self.changed.emit()

    def set_minutes(self, minutes: int) -> None:
        """Another time budget."""
        self.minutes = minutes
        self.changed.emit()

    def refresh(self) -> None:
        """Ask which models can be retrained, and count what there is."""
        if self._document.project is None:
            self.changed.emit()
            return

        def found(rows: Any) -> None:
            self.models = trainable(rows)
            for row in rows:
                self._titles[str(row.get("in_use") or row["id"])] = title_with_version(row)
            if self.model is None:
                self.model_id = self.models[0]["id"] if self.models else ""
            self.count()

        def failed(outcome: Outcome) -> None:
            self._messages.tell_outcome(outcome, "listing the models")

        self._bridge.submit(ModelsRequest(), is_quiet=True, on_done=found, on_failed=failed)

    def count(self) -> None:
        """Count what the chosen model can be retrained from."""
        project, model_id = self._document.project, self.model_id
        self._ticket += 1
        ticket = self._ticket
        if project is None or not model_id:
            self.survey, self.survey_problem, self.is_counting = None, None, False
            self.changed.emit()
            return
        self.is_counting = True

        def done(result: TrainingSetResult) -> None:
            if ticket == self._ticket:
                self.survey, self.survey_problem, self.is_counting = result, None, False
                if self.data_set and self.data_set not in result.versions:
                    self.data_set = ""
                self.changed.emit()

        def failed(outcome: Outcome) -> None:
            if ticket == self._ticket:
                self.survey, self.is_counting = None, False
                self.survey_problem = outcome if isinstance(outcome, Refused) else None
                if not isinstance(outcome, Refused):
                    self._messages.tell_outcome(outcome, "counting the corrections")
                self.changed.emit()

        request = TrainingSetRequest(str(project.path), model_id)
        self._bridge.submit(request, is_quiet=True, on_done=done, on_failed=failed)
        self.changed.emit()

    # ------------------------------------------------------------------------------------------------------------ runs

    def start(self) -> None:
        """Gather, train within the budget, compare."""
        model = self.model
        if not self.can_start or model is None:
            return
        self._forget_run()
        self.record = RunRecord("", self.model_id, title_with_version(model), float(self.minutes), self.data_set)
        self._submit()

    def resume(self) -> None:
        """Go on exactly where the run stopped."""
        if self.can_resume:
            self.say_in_log("Resumed")
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
        self._clock.start()
        self.changed.emit()

    def pause(self) -> None:
        """Stop politely; the run goes on later exactly where it was."""
        self._stop("pausing")

    def cancel(self) -> None:
        """End the run under way, or the paused one: it is not offered again, the model in use is unchanged."""
        if self.is_busy:
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

    def _on_progress(self, event: ProgressEvent) -> None:
        if self.state == "starting":
            self.state = "running"
            self.changed.emit()
        run, record = event.detail.get("run"), self.record
        if isinstance(run, str) and record is not None and run != record.run:
            self.record = RunRecord(run, record.model_id, record.title, record.minutes, record.data_set)
            self._keep_record()
            self.changed.emit()
        if event.note:
            self._take_note(event.note)

    def _take_note(self, note: str) -> None:
        """Every phase gets a line in the log; of what changes all the time, one line a while."""
        phase = next((name for name in PHASES if note.lower().startswith(name)), "")
        is_new = bool(phase) and phase != self.phase
        if is_new:
            self.phase = phase
            self.changed.emit()
        if is_new or (note != self._note and time.monotonic() - self._noted_at > 2.0):
            self._note, self._noted_at = note, time.monotonic()
            self.say_in_log(PHASES[phase] if phase and note.lower().strip(" .…") == phase else note)

    def _on_done(self, result: RetrainResult) -> None:
        record = self.record
        self._end_job()
        if record is None:
            return
        self.record = RunRecord(result.run, record.model_id, record.title, record.minutes, record.data_set)
        self.say_in_log(f"Compared after {result.iteration} iterations")
        self._keep_record()
        self.look()
        self._load_scorecard(self.record, result.scorecard)
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
                self._go_to("paused" if record is not None and record.can_go_on else "idle")
                self.say_in_log("Paused")
        else:
            can_go_on = record is not None and record.run != "" and record.can_go_on
            self.problem = _problem(outcome, can_go_on)
            self._messages.tell_outcome(outcome, "the training")
            self.say_in_log(f"Stopped: {self.problem.text}")
            self._go_to("failed")
        self.look()
        self._after_foreign_run()

    def _end_job(self) -> None:
        self._job = 0
        self._clock.stop()

    def _after_foreign_run(self) -> None:
        """The run belonged to a project that is not open any more: show what belongs to the open one."""
        foreign = self._job_project is not None and self._job_project is not self._document.project
        self._job_project = None
        if foreign:
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

    # -------------------------------------------------------------------------------------------------------- evidence

    def look(self) -> None:
        """Read what is new in the run folder, on a thread."""
        record = self.record
        if record is None or not record.run or self._is_looking:
            return
        if self._reader is None or self._reader.folder != record.folder:
            self._reader, self._looked_at, self._checks_told = RunReader(record.folder), (), 0
        self._is_looking = True
        reader, looked_at = self._reader, self._looked_at

        def read() -> tuple[Evidence, tuple[tuple[str, int], ...], tuple[QImage, ...] | None]:
            evidence = reader.read()
            stamps = _stamps(evidence.samples)
            pictures = tuple(QImage(path) for path, _ in stamps) if stamps != looked_at else None
            return evidence, stamps, pictures

        def seen(found: tuple[Evidence, tuple[tuple[str, int], ...], tuple[QImage, ...] | None]) -> None:
            self._is_looking = False
            if reader is not self._reader:
                return
            evidence, stamps, pictures = found
            is_new = evidence != self.evidence or pictures is not None
            self.evidence = evidence
            if pictures is not None and not any(picture.isNull() for picture in pictures):
                self.pictures, self._looked_at = pictures, stamps  # one that is being written is read at the next look
            for iteration, score in evidence.scores[self._checks_told :]:
                self.say_in_log(f"Iteration {iteration:,}: score {score:.3g}".replace("-", "−"))
            self._checks_told = len(evidence.scores)
            if is_new:
                self.evidence_changed.emit()

        self._background.run(read, seen, self._messages.tell_error)

    def say_in_log(self, line: str) -> None:
        """Note a line with the time."""
        stamped = f"{time.strftime('%H:%M:%S')}  {line}"
        self.log.append(stamped)
        del self.log[:-_KEPT_LINES]
        self.logged.emit(stamped)

    def _forget_run(self) -> None:
        self.record, self.scorecard, self.problem, self._reader = None, None, None, None
        self.evidence, self.pictures, self.phase, self._looked_at = Evidence(), (), "", ()
        self.log.clear()
        self.evidence_changed.emit()

    # ------------------------------------------------------------------------------------------- earlier runs

    def _on_project_changed(self) -> None:
        if self.is_busy:
            self.changed.emit()
            return
        self.survey, self.survey_problem, self.data_set = None, None, ""
        self._forget_run()
        self._go_to("idle")
        project = self._document.project
        if project is None:
            return

        def found(jobs: list[dict[str, Any]]) -> None:
            record = RunRecord.from_jobs(jobs)
            is_wanted = project is self._document.project and not self.is_busy and self.record is None
            if record is not None and is_wanted and record.run and record.is_there and record.decision != "dropped":
                self._show_record(record)

        self._background.run(project.load_jobs, found, self._messages.tell_error)

    def _show_record(self, record: RunRecord) -> None:
        """A run of an earlier start of the program: to be resumed, or to be decided."""
        self._forget_run()
        self.record = record
        self.look()
        if record.is_compared:
            self._load_scorecard(record, "")
        else:
            self.say_in_log("This run was interrupted; it goes on where it was")
            self._go_to("paused")

    def _load_scorecard(self, record: RunRecord, path: str) -> None:
        def shown(scorecard: Scorecard) -> None:
            if self.record is not None and self.record.run == record.run:
                self.scorecard = scorecard
                self._go_to("compared")
                self.scorecard_ready.emit()

        def failed(error: MedappError) -> None:
            self.problem = Message(error.message, "error", error.hint)
            self._go_to("failed")

        place = Path(path) if path else record.folder / "scorecard.json"
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
                f"{title} is in use from now on. {self.title_of(result.replaced)} is kept.",
                actions=(("Roll back", self.roll_back),),
            )

        self._switch(AdoptRequest(record.run), done, "adopting the model")

    def keep_current(self) -> None:
        """Leave the model in use as it is; the new one stays in its run folder and can be adopted later."""
        if self.record is not None and self.scorecard is not None:
            self._decide(self.record, "kept")

    def roll_back(self) -> None:
        """Let the model before the adopted one serve again."""
        record = self.record
        model_id = self.model_id or (record.model_id if record is not None else "")
        if not model_id or self.is_switching:
            return

        def done(result: AdoptResult) -> None:
            if record is not None and record.decision == "adopted" and self.record is not None:
                self._decide(self.record, "rolled back")
            self._messages.say(
                f"{self.title_of(result.model_id)} is in use again. {self.title_of(result.replaced)} is kept."
            )

        self._switch(RollBackRequest(model_id), done, "the roll back")

    def _switch(self, request: AdoptRequest | RollBackRequest, done: Any, what: str) -> None:
        self.is_switching = True

        def finished(result: AdoptResult) -> None:
            self.is_switching = False
            done(result)
            self.models_switched.emit()
            self.refresh()

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


def title_with_version(row: Any) -> str:
    """Name and version of a model as chips show them."""
    return f"{row['title']} {row.get('version') or ''}".strip()


def trainable(rows: Any) -> tuple[dict[str, Any], ...]:
    """Models that corrections can improve: matting models, and restorers whose pairs can be made again."""
    found = [
        dict(row)
        for row in rows
        if row.get("serves") == "matting" or (row.get("serves") == "restoration" and row.get("degradation"))
    ]
    return tuple(sorted(found, key=lambda row: (row.get("serves") != "matting", str(row["title"]))))


def _stamps(samples: tuple[Path, ...]) -> tuple[tuple[str, int], ...]:
    stamps = []
    for path in samples:
        try:
            stamps.append((str(path), path.stat().st_mtime_ns))
        except OSError:  # between two writes
            continue
    return tuple(stamps)


def _problem(outcome: Outcome, can_go_on: bool) -> Message:
    """What happened, what is safe, what to do."""
    safe = "The model in use is unchanged" + ("; the run is kept and can go on." if can_go_on else ".")
    if isinstance(outcome, Refused):
        return Message(f"{outcome.message.rstrip('.')}. {safe}", "error", outcome.hint)
    report = outcome.report if isinstance(outcome, Crashed) else ""
    return Message(f"Something unexpected stopped the training. {safe}", "error", "Copy the report to send it.", report)
