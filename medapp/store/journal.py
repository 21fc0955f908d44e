"""The window's own writer thread: strokes go in at once and are acknowledged when they are on the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from medapp.annotation.edits import Edit
from medapp.annotation.history import Kind
from medapp.errors import MedappError, ProjectError
from medapp.store.keeping import JournalEntry
from medapp.store.project import Project

log = logging.getLogger(__name__)

_BATCH_EDITS = 32
_RETRY_S = 5.0
_REVISION_EVERY = 400  # edits of a series, so that opening after a crash never replays many
_BATCH_BYTES = 8 * 2**20  # of raw voxels; keeps a transaction below 50 ms


class JournalWriter:
    """Journals edits from a thread of its own, in order, several in one transaction when they wait.

    The callbacks run in the writer's thread; a window turns them into queued signals.

    Args:
        project: Open for writing.
        on_saved: Called after COMMIT with the number of the newest saved edit and how many were saved with it.
        on_failed: Called when saving fails, with the error and how many edits are kept in memory. They stay in the
            queue: ``retry`` tries again, so does the next ``submit``, and the writer itself every few seconds.
    """

    def __init__(
        self,
        project: Project,
        on_saved: Callable[[int, int], None] = lambda number, count: None,
        on_failed: Callable[[MedappError, int], None] = lambda error, waiting: None,
    ) -> None:
        self._project, self._on_saved, self._on_failed = project, on_saved, on_failed
        self._waiting: deque[JournalEntry] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self._view_state: dict[str, Any] | None = None
        self._unsaved: Counter[str] = Counter()
        self._condition = threading.Condition()
        self._is_busy = self._has_failed = self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Edits that are not on the disk yet."""
        with self._condition:
            return len(self._waiting)

    @property
    def has_failed(self) -> bool:
        """The last attempt to save did not work; edits are kept in memory."""
        return self._has_failed

    def submit(self, series_id: str, edit: Edit, kind: Kind = "do", view_state: dict[str, Any] | None = None) -> None:
        """Hand over an edit; returns at once.

        Args:
            view_state: What the window shows, written in the same transaction.
        """
        with self._condition:
            self._waiting.append(JournalEntry(series_id, edit, kind))
            if view_state is not None:
                self._view_state = view_state
            self._has_failed = False
            self._condition.notify_all()

    def submit_view_state(self, view_state: dict[str, Any]) -> None:
        """Remember what the window shows; the newest wins, and it is written with the next edit or alone."""
        with self._condition:
            self._view_state = view_state
            self._condition.notify_all()

    def call(self, function: Callable[[], Any]) -> Future:
        """Run something on the project after every edit submitted so far, such as ``project.save_revision``."""
        future: Future = Future()
        with self._condition:
            self._calls.append((function, future))
            self._condition.notify_all()
        return future

    def retry(self) -> None:
        """Try again to save what is kept in memory."""
        with self._condition:
            self._has_failed = False
            self._condition.notify_all()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything is on the disk; False when it is not."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            while self._waiting or self._calls or self._view_state is not None or self._is_busy:
                left = deadline - time.monotonic()
                if left <= 0 or self._has_failed or not self._thread.is_alive():
                    return False
                self._condition.wait(left)
        return True

    def save_copy(self, path: Path) -> Path:
        """Write the whole project elsewhere, with the edits that could not be saved here."""
        with self._condition:
            pending = list(self._waiting)
        return self._project.save_copy(path, pending)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Save what is waiting and end the thread; False when something could not be saved."""
        done = self.flush(timeout_s)
        with self._condition:
            self._is_closing = True
            self._condition.notify_all()
        self._thread.join(timeout_s)
        return done

    # ------------------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._has_work() and not self._is_closing:
                    waited_out = not self._condition.wait(_RETRY_S if self._has_failed else None)
                    if waited_out:
                        self._has_failed = False  # perhaps there is room by now
                if self._is_closing:
                    return
                entries, view_state = self._next_batch(), self._view_state
                call = self._calls.popleft() if not entries and self._calls else None
                self._is_busy = True
            try:
                if call is not None:
                    _answer(*call)
                else:
                    self._save(entries, view_state)
            finally:
                with self._condition:
                    self._is_busy = False
                    self._condition.notify_all()

    def _has_work(self) -> bool:
        if self._has_failed:
            return False
        return bool(self._waiting or self._calls or self._view_state is not None)

    def _next_batch(self) -> list[JournalEntry]:
        batch: list[JournalEntry] = []
        size = 0
        for entry in self._waiting:
            if batch and (len(batch) >= _BATCH_EDITS or size + entry.edit.nbytes > _BATCH_BYTES):
                break
            batch.append(entry)
            size += entry.edit.nbytes
        return batch

    def _save(self, entries: list[JournalEntry], view_state: dict[str, Any] | None) -> None:
        try:
            if entries:
                numbers = self._project.journal_many(entries, view_state)
            else:
                numbers = ()
                self._project.set_view_state(view_state or {})
        except MedappError as error:
            self._fail(error)
            return
        except Exception:
            log.exception("an edit could not be journalled")
            self._fail(ProjectError("Not saved: something unexpected happened.", "Save a copy elsewhere, then Retry."))
            return
        with self._condition:
            for _ in entries:
                self._waiting.popleft()
            if self._view_state is view_state:
                self._view_state = None
        if numbers:
            self._on_saved(numbers[-1], len(numbers))
            self._unsaved.update(entry.series_id for entry in entries)
            self._save_long_rows()

    def _save_long_rows(self) -> None:
        """Keep a revision of a series that was painted on for long."""
        for series_id, count in list(self._unsaved.items()):
            if count < _REVISION_EVERY:
                continue
            self._unsaved[series_id] = 0  # also when it fails: the journal holds everything
            try:
                self._project.save_revision(series_id)
            except MedappError as error:
                log.warning("no revision was saved along the way: %s", type(error).__name__)

    def _fail(self, error: MedappError) -> None:
        with self._condition:
            self._has_failed = True
            waiting = len(self._waiting)
            self._condition.notify_all()
        self._on_failed(error, waiting)


def _answer(function: Callable[[], Any], future: Future) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
