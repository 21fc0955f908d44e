"""Follows a run folder from the window: curves, sample pictures, and a log in plain words."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QImage

from medapp.ui.background import Background
from medapp.ui.messages import Messages
from medapp.ui.training_state import Evidence, RunReader

_LOOK_MS = 700
_KEPT_LINES = 400
_MOST_HEARD = 100

Stamps = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Seen:
    evidence: Evidence
    stamps: Stamps
    pictures: tuple[QImage, ...] | None


class RunWatch(QObject):
    """Reads what is new, on a thread, as long as a run is under way.

    Attributes:
        evidence: The curves.
        pictures: The sample pictures.
        log: Lines, oldest first.
    """

    changed = Signal()
    logged = Signal(str)

    def __init__(self, background: Background, messages: Messages, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._background, self._messages = background, messages
        self.evidence = Evidence()
        self.pictures: tuple[QImage, ...] = ()
        self.log: list[str] = []
        self._reader: RunReader | None = None
        self._stamps: Stamps = ()
        self._heard: list[tuple[int, float]] = []
        self._is_looking = False
        self._checks_told = 0
        self._clock = QTimer(self, interval=_LOOK_MS)
        self._clock.timeout.connect(self.look)

    def forget(self) -> None:
        """No run is on show."""
        self._clock.stop()
        self._reader, self._stamps, self._checks_told = None, (), 0
        self._heard.clear()
        self.evidence, self.pictures = Evidence(), ()
        self.log.clear()
        self.changed.emit()

    def follow(self, folder: Path, *, is_running: bool) -> None:
        """Look into a run folder: now, and again and again while the run is under way."""
        if self._reader is None or self._reader.folder != folder:
            self._reader, self._stamps, self._checks_told = RunReader(folder), (), 0
        self._heard.clear()
        if is_running:
            self._clock.start()
        self.look()

    def hear(self, iteration: int, loss: float) -> None:
        """A loss that the worker told before it was noted in the run folder; shown at the next look."""
        if math.isfinite(loss) and (not self._heard or iteration > self._heard[-1][0]):
            self._heard.append((iteration, loss))
            del self._heard[:-_MOST_HEARD]

    def stop(self) -> None:
        """The run came to an end: one last look."""
        self._clock.stop()
        self.look()

    def look(self) -> None:
        """Read what is new."""
        reader, stamps = self._reader, self._stamps
        if reader is None or self._is_looking:
            return
        self._is_looking = True

        def read() -> _Seen:
            evidence = reader.read()
            found = stamps_of(evidence.samples)
            return _Seen(evidence, found, tuple(QImage(path) for path, _ in found) if found != stamps else None)

        def seen(found: _Seen) -> None:
            self._is_looking = False
            if reader is self._reader:
                self._show(found)

        self._background.run(read, seen, self._messages.tell_error)

    def _show(self, found: _Seen) -> None:
        noted = found.evidence.losses[-1][0] if found.evidence.losses else 0
        newest = tuple(point for point in self._heard if point[0] > noted)
        evidence = replace(found.evidence, losses=(*found.evidence.losses, *newest))
        is_new = evidence != self.evidence
        self.evidence = evidence
        if found.pictures is not None and not any(picture.isNull() for picture in found.pictures):
            self.pictures, self._stamps, is_new = found.pictures, found.stamps, True
        for iteration, score in found.evidence.scores[self._checks_told :]:
            self.say(f"Iteration {iteration:,}: score {score:.3g}".replace("-", "−"))
        self._checks_told = len(found.evidence.scores)
        if is_new:
            self.changed.emit()

    def say(self, line: str) -> None:
        """Note a line with the time."""
        stamped = f"{time.strftime('%H:%M:%S')}  {line}"
        self.log.append(stamped)
        del self.log[:-_KEPT_LINES]
        self.logged.emit(stamped)


def stamps_of(samples: tuple[Path, ...]) -> Stamps:
    """Paths with the time they were written."""
    stamps = []
    for path in samples:
        try:
            stamps.append((str(path), path.stat().st_mtime_ns))
        except OSError:  # between two writes
            continue
    return tuple(stamps)
