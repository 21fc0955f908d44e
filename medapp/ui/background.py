"""Work of the window itself that takes longer than a blink, on a thread of its own: imports, opening, interpolating."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal

from medapp.errors import MedappError


class Background(QObject):
    """Runs plain functions on threads and delivers their results on the window's thread."""

    crashed = Signal(str)

    _delivered = Signal(object, object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._alive = True
        self._threads: set[threading.Thread] = set()
        self._delivered.connect(self._on_delivered, Qt.ConnectionType.QueuedConnection)

    def run(
        self,
        function: Callable[[], Any],
        on_done: Callable[[Any], None],
        on_failed: Callable[[MedappError], None] | None = None,
    ) -> None:
        """Call ``function`` on a thread, then ``on_done(result)`` or ``on_failed(error)`` on the window's."""

        def work() -> None:
            try:
                content: object = function()
                failed = False
            except MedappError as error:
                content, failed = error, True
            except Exception:  # a bug of ours: reported, never swallowed
                content, failed = traceback.format_exc(), True
            self._threads.discard(threading.current_thread())
            if self._alive:
                try:
                    self._delivered.emit(content, on_failed if failed else on_done, failed)
                except RuntimeError:  # the window went away meanwhile
                    self._alive = False

        thread = threading.Thread(target=work, name="window-background", daemon=True)
        self._threads.add(thread)
        thread.start()

    def close(self, wait_s: float = 2.0) -> None:
        """Deliver nothing any more; gives threads a moment to end."""
        self._alive = False
        for thread in tuple(self._threads):
            thread.join(wait_s)

    def _on_delivered(self, content: object, callback: Any, failed: bool) -> None:
        if not self._alive:
            return
        if failed and isinstance(content, str):
            self.crashed.emit(content)
        elif callback is not None:
            callback(content)
