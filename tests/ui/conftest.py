"""A window whose jobs run on a thread of the test's own process."""

from __future__ import annotations

import itertools
import queue
import threading

import pytest
from PySide6.QtWidgets import QApplication

from medapp.jobs.worker import run
from medapp.progress import Progress
from medapp.services.workspace import Workspace
from medapp.settings import Settings
from medapp.ui import theme
from medapp.ui.main_window import MainWindow

HINTS_SEEN = ("wheel", "contrast", "pan")


class ThreadQueue:
    """Runs requests with the real services, one after another, on a thread."""

    def __init__(self):
        self._ids = itertools.count(1)
        self._waiting = queue.Queue()
        self._stopped = set()
        self.requests = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, request, *, on_progress=None, on_outcome=None):
        number = next(self._ids)
        self.requests.append(request)
        self._waiting.put((number, request, on_progress, on_outcome))
        return number

    def cancel(self, job_id):
        self._stopped.add(job_id)

    def stop_now(self, job_id):
        self._stopped.add(job_id)

    def close(self):
        self._waiting.put(None)
        self._thread.join(20)

    def _run(self):
        workspace = Workspace()
        while (job := self._waiting.get()) is not None:
            number, request, on_progress, on_outcome = job
            progress = Progress(on_progress, lambda n=number: n in self._stopped)
            on_outcome(run(request, workspace, progress))
        workspace.close()


@pytest.fixture
def make_window(qtbot):
    """Windows of a test; all are closed at its end."""
    made = []

    def make(**preferences):
        app = QApplication.instance()
        theme.apply(app, preferences.get("theme", "dark"))
        settings = Settings(**{"theme": "dark", "hints_seen": HINTS_SEEN, **preferences})
        window = MainWindow(ThreadQueue(), settings)
        made.append(window)
        window.show()
        qtbot.waitExposed(window)
        return window

    yield make
    for window in made:
        if window.isVisible():
            window._may_close = True
            window.close()
        window.deleteLater()


@pytest.fixture
def window(make_window):
    return make_window()


@pytest.fixture
def open_files(qtbot):
    """Opens files and waits until the series is on screen."""

    def open_in(window, *paths, modality=None):
        window.opening.open_paths([str(p) for p in paths], modality)
        qtbot.waitUntil(lambda: window.document.series is not None and not window.bridge.running(), timeout=60000)

    return open_in
