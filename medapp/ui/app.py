"""Starts the window: style, first paint, everything slow afterwards, and what happens after a crash."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType

os.environ.setdefault("QT_API", "pyside6")

from PySide6.QtCore import QObject, QTimer
from PySide6.QtWidgets import QApplication

from medapp import paths, settings
from medapp.jobs.queue import JobQueue
from medapp.requests import InspectRequest
from medapp.ui import theme
from medapp.ui.dialogs.help_sheets import CrashSheet, app_version, report_head
from medapp.ui.main_window import START_SIZE, MainWindow
from medapp.ui.opening import UNKNOWN

_GRAB_STEP_MS = 200
_GRAB_SETTLE = 4  # quiet steps before the picture is taken
_GRAB_LIMIT_MS = 120_000
SAMPLE_PROJECT = "Sample"


def run_window(
    paths_to_open: list[str] | None = None,
    project: Path | None = None,
    sample: bool = False,
    grab: Path | None = None,
) -> int:
    """Show the window until it is closed.

    Args:
        paths_to_open: Images and folders to open at once.
        project: A project folder to open.
        sample: Open the bundled sample.
        grab: Write a picture of the window here as soon as everything is shown, then quit.

    Returns:
        The exit status.
    """
    running = QApplication.instance()
    app = running if isinstance(running, QApplication) else QApplication(sys.argv[:1])
    app.setApplicationName("medapp")
    app.setDesktopFileName("medapp")
    preferences = settings.load()
    theme.apply(app, preferences.theme)
    queue = JobQueue()
    window = MainWindow(queue, preferences)
    install_crash_dialog(window)

    def start() -> None:
        app.setApplicationVersion(app_version())
        load_later()
        window.bridge.submit(InspectRequest(()), is_quiet=True)  # the reader loads its libraries before they are needed
        _open_first(window, paths_to_open, project, sample, asks=grab is None)
        if grab is not None:
            _Grabber(window, grab, waits=bool(paths_to_open or project or sample))

    window.first_painted.connect(start)
    window.closed.connect(app.quit)
    window.show()
    if grab is not None:
        window.resize(START_SIZE)
    return app.exec()


def load_later() -> None:
    """Import what the window needs soon, on a thread, so that no click waits for it."""

    def work() -> None:
        import scipy.ndimage  # noqa: F401

        import medapp.scan.intensity
        import medapp.store.journal
        import medapp.store.project  # noqa: F401

    threading.Thread(target=work, name="load-later", daemon=True).start()


def _open_first(
    window: MainWindow, to_open: list[str] | None, project: Path | None, sample: bool, *, asks: bool
) -> None:
    recent = [Path(p) for p in window.document.settings.recent_projects]
    if project is not None:
        then = (lambda: window.opening.open_paths(list(to_open), None if asks else UNKNOWN)) if to_open else None
        window.session.open_project(project, then)
    elif to_open:
        window.opening.open_paths(list(to_open), None if asks else UNKNOWN)
    elif sample:
        open_sample_project(window)
    elif recent and recent[0].is_dir():
        window.session.open_project(recent[0])


def open_sample_project(window: MainWindow) -> None:
    """The sample in a project of its own, where it was left."""

    def fill() -> None:
        if not window.document.series_list:
            window.opening.open_sample()

    folder = paths.projects_dir() / f"{SAMPLE_PROJECT}.medapp"
    if folder.is_dir():
        window.session.open_project(folder, fill)
    else:
        window.session.new_project(fill, SAMPLE_PROJECT)


def install_crash_dialog(window: MainWindow) -> None:
    """An unexpected error tells that the work is saved, and offers its report."""
    shown: list[str] = []

    def on_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            window.close()
            return
        report = report_head() + "".join(traceback.format_exception(kind, error, trace)).replace(str(Path.home()), "~")
        sys.stderr.write(report)
        if report not in shown:
            shown.append(report)
            CrashSheet(window, report).present()

    sys.excepthook = on_error


class _Grabber(QObject):
    """Takes a picture of the window once nothing moves any more."""

    def __init__(self, window: MainWindow, path: Path, *, waits: bool) -> None:
        super().__init__(window)
        self._window, self._path, self._waits = window, path, waits
        self._quiet = self._elapsed = 0
        self._timer = QTimer(self, interval=_GRAB_STEP_MS)
        self._timer.timeout.connect(self._look)
        self._timer.start()

    def _look(self) -> None:
        window = self._window
        self._elapsed += _GRAB_STEP_MS
        busy = bool(window.bridge.running()) or window.session.is_opening
        busy = busy or (self._waits and window.document.series is None)
        self._quiet = 0 if busy else self._quiet + 1
        if self._quiet >= _GRAB_SETTLE or self._elapsed >= _GRAB_LIMIT_MS:
            self._timer.stop()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            window.grab().save(str(self._path))
            window.close()
