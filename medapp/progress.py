"""Counting work, and noticing that the user wants it to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from medapp.errors import Cancelled


@dataclass(frozen=True)
class ProgressEvent:
    """One report of running work; plain data, crosses the pipe to the window.

    Attributes:
        done: Units finished so far.
        total: Units in all; 0 while unknown.
        unit: What is counted: ``files``, ``slices``, ``tiles``, ``batches``.
        note: One line for the task row, or empty.
        detail: Facts for the one who asked (a finished slice, a series that was found); plain data only.
        file: The file that is being parsed from now on, so that a hang can be blamed; None otherwise.
        file_limit_s: How long that file may take.
        declared_bytes: What the file says it inflates to, once known; sets the memory limit of the reader.
    """

    done: int = 0
    total: int = 0
    unit: str = "steps"
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    file_limit_s: float = 0.0
    declared_bytes: int = 0


class Progress:
    """Handed to every service: count a unit, notice Stop.

    Without arguments it counts silently and never stops, which is what tests and scripts want.
    """

    def __init__(
        self,
        report: Callable[[ProgressEvent], None] | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> None:
        self._report = report
        self._is_stopped = is_stopped
        self._lock = threading.Lock()
        self.done = 0
        self.total = 0
        self.unit = "steps"

    def start(self, total: int, unit: str, note: str = "") -> None:
        """Begin counting ``total`` units (0 = unknown)."""
        with self._lock:
            self.done, self.total, self.unit = 0, total, unit
        self._send(ProgressEvent(0, total, unit, note))
        self.check()

    def step(self, units: int = 1, note: str = "", **detail: Any) -> None:
        """Count finished units and notice Stop.

        Raises:
            Cancelled: The user stopped the work.
        """
        with self._lock:
            self.done += units
            event = ProgressEvent(self.done, self.total, self.unit, note, detail)
        self._send(event)
        self.check()

    def tell(self, note: str = "", **detail: Any) -> None:
        """Report a fact without counting a unit."""
        self._send(ProgressEvent(self.done, self.total, self.unit, note, detail))

    def parsing(self, path: str, limit_s: float = 10.0, declared_bytes: int = 0) -> None:
        """Say which foreign file is parsed from here on, so that the queue can kill a hang; ``""`` = none."""
        self._send(
            ProgressEvent(
                self.done, self.total, self.unit, file=path, file_limit_s=limit_s, declared_bytes=declared_bytes
            )
        )

    def check(self) -> None:
        """Raises ``Cancelled`` when the user stopped the work."""
        if self._is_stopped is not None and self._is_stopped():
            raise Cancelled

    def within(self, note: str = "") -> Progress:
        """A progress for work within one unit: it stops when this one does, and leaves this one's count alone.

        Args:
            note: What it counts is reported as notes that begin with this; empty = not at all.
        """

        def report(event: ProgressEvent) -> None:
            self.tell(f"{note}: {event.done} of {event.total} {event.unit}" if event.total > 1 else note)

        return Progress(report if note else None, self._is_stopped)

    def _send(self, event: ProgressEvent) -> None:
        if self._report is not None:
            self._report(event)
