"""``medapp bench start``: from starting the process to the first paint of the window, against a bare Qt window."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from medapp.benchmarks.timing import row

REPEATS = 5
SLOW_LIBRARIES = ("torch", "scipy", "sqlalchemy", "pydicom", "nibabel", "highdicom")

_REPORT = """
import json, sys, time
def report():
    print(json.dumps({"at": time.time(), "loaded": [name for name in sys.argv[1:] if name in sys.modules]}), flush=True)
"""

_OURS = (
    _REPORT
    + """
from medapp.ui import app
from medapp.ui.main_window import MainWindow

class Window(MainWindow):
    def __init__(self, *given):
        super().__init__(*given)
        self.first_painted.connect(report)
        self.first_painted.connect(self.close)

app.MainWindow = Window
sys.exit(app.run_window())
"""
)

_BARE = (
    _REPORT
    + """
from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QApplication, QLabel, QMainWindow

class Window(QMainWindow):
    was_painted = False
    def paintEvent(self, event):
        super().paintEvent(event)
        if not self.was_painted:
            self.was_painted = True
            QTimer.singleShot(0, self.painted)
    def painted(self):
        report()
        self.close()

app = QApplication(sys.argv[:1])
window = Window()
window.setCentralWidget(QLabel("medapp", alignment=Qt.AlignmentFlag.AlignCenter))
window.resize(1440, 900)
window.show()
sys.exit(app.exec())
"""
)


def run() -> list[dict[str, Any]]:
    """First paint in new processes, ours and the peer's in turns; the last row says what was loaded by then."""
    ours, peer, loaded = [], [], set()
    with tempfile.TemporaryDirectory(prefix="medapp-bench-") as home:
        for script in (_OURS, _BARE):
            _first_paint(script, home)  # the files come from the disk once
        for _ in range(REPEATS):
            seconds, found = _first_paint(_OURS, home)
            ours.append(seconds * 1000)
            loaded.update(found)
            peer.append(_first_paint(_BARE, home)[0] * 1000)
    at_paint = row("slow libraries at first paint: " + (", ".join(sorted(loaded)) or "none"), [0.0])
    return [
        row("process start to first paint", ours, "bare QMainWindow with a QLabel", peer),
        {**at_paint, "ok": not loaded, "loaded": sorted(loaded), "looked_for": list(SLOW_LIBRARIES)},
    ]


def _first_paint(script: str, home: str) -> tuple[float, list[str]]:
    """Seconds from starting a process to its first paint, and which slow libraries it had loaded by then."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "MEDAPP_HOME": home}
    since = time.time()
    done = subprocess.run(
        [sys.executable, "-c", script, *SLOW_LIBRARIES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the window did not start: {done.stderr.strip()[-500:]}")
    said = json.loads(done.stdout.splitlines()[0])
    return said["at"] - since, said["loaded"]
