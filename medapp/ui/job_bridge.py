"""Jobs as signals: the queue's callbacks come on its own threads and arrive here on the window's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from medapp.progress import ProgressEvent
from medapp.requests import Crashed, Done, Outcome, Refused, Request, Stopped

_STOP_NOW_AFTER_MS = 5000


class Queue(Protocol):
    """What the bridge needs of ``jobs.queue.JobQueue``; tests put their own in its place."""

    def submit(
        self,
        request: Request,
        *,
        on_progress: Callable[[ProgressEvent], None] | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> int: ...

    def cancel(self, job_id: int) -> None: ...

    def stop_now(self, job_id: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class Job:
    """One job as the tasks drawer shows it.

    Attributes:
        number: The bridge's own number.
        subject: On which data; no patient's name.
        state: ``waiting``, ``running``, ``cancelling``, ``done``, ``stopped``, ``refused`` or ``crashed``.
        is_quiet: True for quick interactive jobs, which show no row.
        can_stop_now: Five seconds after *Cancel*.
        stage_at: When the units that are counted now began; a job counts files first, then iterations, then cases.
        stage_done: Units that were finished then, as when a run goes on.
        stopped_text: What its row says when it was stopped; empty = Cancelled.
    """

    number: int
    request: Request
    subject: str = ""
    is_quiet: bool = False
    state: str = "waiting"
    done: int = 0
    total: int = 0
    unit: str = "steps"
    note: str = ""
    device: str = ""
    started_at: float = 0.0
    stage_at: float = 0.0
    stage_done: int = 0
    ended_at: float = 0.0
    can_stop_now: bool = False
    stopped_text: str = ""
    outcome: Outcome | None = None
    queue_id: int = 0
    on_progress: Callable[[ProgressEvent], None] | None = field(default=None, repr=False)
    on_done: Callable[[Any], None] | None = field(default=None, repr=False)
    on_failed: Callable[[Outcome], None] | None = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        """True when an outcome is there."""
        return self.outcome is not None

    @property
    def fraction(self) -> float | None:
        """0..1, or None while the total is unknown."""
        return min(1.0, self.done / self.total) if self.total > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated after three units of those that are counted now; None before, and once all are finished."""
        made = self.done - self.stage_done
        if made < 3 or not self.stage_at or self.done >= self.total:
            return None
        return (time.monotonic() - self.stage_at) / made * (self.total - self.done)


class JobBridge(QObject):
    """Submits requests and turns what comes back into signals on the window's thread.

    Signals carry the job's number; ``job(number)`` gives its row.
    """

    job_added = Signal(int)
    job_changed = Signal(int)
    job_ended = Signal(int)
    job_crashed = Signal(int, str)

    _progressed = Signal(int, object)
    _came_out = Signal(int, object)

    def __init__(self, queue: Queue, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._queue = queue
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._closed = False
        self._progressed.connect(self._on_progressed, Qt.ConnectionType.QueuedConnection)
        self._came_out.connect(self._on_came_out, Qt.ConnectionType.QueuedConnection)

    def submit(
        self,
        request: Request,
        *,
        subject: str = "",
        is_quiet: bool = False,
        on_progress: Callable[[ProgressEvent], None] | None = None,
        on_done: Callable[[Any], None] | None = None,
        on_failed: Callable[[Outcome], None] | None = None,
    ) -> int:
        """Queue a request; the callbacks come later, on the window's thread.

        Args:
            on_done: Gets the result of ``Done``.
            on_failed: Gets ``Stopped``, ``Refused`` or ``Crashed``.
        """
        number = next(self._numbers)
        job = Job(number, request, subject, is_quiet, on_progress=on_progress, on_done=on_done, on_failed=on_failed)
        self._jobs[number] = job
        self.job_added.emit(number)
        job.queue_id = self._queue.submit(
            request,
            on_progress=lambda event: self._pass_on(self._progressed, number, event),
            on_outcome=lambda outcome: self._pass_on(self._came_out, number, outcome),
        )
        return number

    def job(self, number: int) -> Job | None:
        """A job's row, or None when it was cleared."""
        return self._jobs.get(number)

    def jobs(self) -> list[Job]:
        """All jobs with a row, oldest first."""
        return [job for job in self._jobs.values() if not job.is_quiet]

    def running(self) -> list[Job]:
        """Jobs with a row that have no outcome yet."""
        return [job for job in self.jobs() if not job.is_over]

    def cancel(self, number: int) -> None:
        """Ask a job to stop; its row says so at once."""
        job = self._jobs.get(number)
        if job is None or job.is_over:
            return
        job.state = "cancelling"
        self._queue.cancel(job.queue_id)
        QTimer.singleShot(_STOP_NOW_AFTER_MS, self, lambda: self._offer_stop_now(number))
        self.job_changed.emit(number)

    def stop_now(self, number: int) -> None:
        """End the worker process of a job that does not stop on its own."""
        job = self._jobs.get(number)
        if job is not None and not job.is_over:
            self._queue.stop_now(job.queue_id)

    def clear_ended(self) -> None:
        """Forget the rows that are over."""
        self._jobs = {number: job for number, job in self._jobs.items() if not job.is_over}

    def close(self) -> None:
        """End the workers; nothing is delivered afterwards."""
        self._closed = True
        self._queue.close()

    def _pass_on(self, signal: Any, number: int, content: object) -> None:
        if self._closed:
            return
        try:
            signal.emit(number, content)
        except RuntimeError:  # the window went away while the queue's thread was calling
            self._closed = True

    def _offer_stop_now(self, number: int) -> None:
        job = self._jobs.get(number)
        if job is not None and not job.is_over:
            job.can_stop_now = True
            self.job_changed.emit(number)

    def _on_progressed(self, number: int, event: ProgressEvent) -> None:
        job = self._jobs.get(number)
        if job is None or job.is_over or self._closed:
            return
        if job.state == "waiting":
            job.state = "running"
            job.started_at = job.stage_at = time.monotonic()
        if event.total != job.total or event.unit != job.unit:
            job.total, job.unit, job.done = event.total, event.unit, event.done
            job.stage_at, job.stage_done = time.monotonic(), event.done
        job.done = max(job.done, event.done)  # the bar never goes back
        job.note = event.note or job.note
        job.device = str(event.detail.get("device", job.device))
        if job.on_progress is not None:
            job.on_progress(event)
        self.job_changed.emit(number)

    def _on_came_out(self, number: int, outcome: Outcome) -> None:
        job = self._jobs.get(number)
        if job is None or job.is_over or self._closed:
            return
        job.outcome, job.ended_at = outcome, time.monotonic()
        if isinstance(outcome, Done):
            job.state = "done"
            if job.on_done is not None:
                job.on_done(outcome.result)
        else:
            job.state = {Stopped: "stopped", Refused: "refused", Crashed: "crashed"}[type(outcome)]
            if job.on_failed is not None:
                job.on_failed(outcome)
            if isinstance(outcome, Crashed):
                self.job_crashed.emit(number, outcome.report)
        if job.is_quiet:
            del self._jobs[number]
        self.job_ended.emit(number)
