"""``medapp bench window``: how smoothly the window goes on while a 300-slice CT is opened, and what it holds in memory.

A clock of 5 ms ticks on the window's own event loop; the longest wait between two ticks is the worst stall.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medapp.benchmarks.timing import row, times_ms

SLICES, SIDE = 300, 512
_TICK_MS = 5
_PAINTED_SLICES = range(135, 165)
_STEPS = 60


def run() -> list[dict[str, Any]]:
    """Rows of one session in a process of its own; memory is in ``mb``."""
    from medapp.scan.phantom_files import write_series
    from medapp.scan.phantoms import Phantom

    with tempfile.TemporaryDirectory(prefix="medapp-bench-") as name:
        folder = Path(name) / "ct"
        rng = np.random.default_rng(0)
        values = rng.integers(-1000, 1500, (SLICES, SIDE, SIDE), dtype=np.int16).astype(np.float32)
        write_series(folder, Phantom(values, (1.0, 0.7, 0.7), "CT", "bench"), "BENCH")
        del values
        peer = times_ms(lambda: _plain_middle_slice(folder), 3)
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "MEDAPP_HOME": str(Path(name) / "home")}
        done = subprocess.run(
            [sys.executable, "-m", "medapp.benchmarks.window", str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=540,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError("the window of the bench ended early")
        seen = json.loads(done.stdout.splitlines()[-1])
    rows = [
        row(
            "300-slice CT, asking to first slice on screen",
            seen["first_ms"],
            "pydicom: headers, sort, middle slice",
            peer,
        )
    ]
    rows += [row(f"longest stall, {what}", [stall]) for what, stall in seen["stalls_ms"].items()]
    rows.append(row("slice step in swipe, three mattes", seen["steps_ms"]))
    return rows + [{**row(f"memory, {what}", [0.0]), "mb": round(mb)} for what, mb in seen["memory_mb"].items()]


def _plain_middle_slice(folder: Path) -> Any:
    """The least that anyone has to read before the middle slice can be shown."""
    import pydicom

    heads = [(pydicom.dcmread(path, stop_before_pixels=True), path) for path in folder.iterdir()]
    heads.sort(key=lambda head: float(head[0].ImagePositionPatient[2]))
    return pydicom.dcmread(heads[len(heads) // 2][1]).pixel_array


class _Beat:
    """Ticks on the event loop and keeps the longest wait."""

    def __init__(self, parent: Any) -> None:
        from PySide6.QtCore import Qt, QTimer

        self._last = time.perf_counter()
        self._worst_ms = 0.0
        self._timer = QTimer(parent, interval=_TICK_MS)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self._worst_ms = max(self._worst_ms, (now - self._last) * 1000 - _TICK_MS)
        self._last = now

    def take(self) -> float:
        """The longest stall since the last call, in ms."""
        self._tick()
        worst, self._worst_ms = self._worst_ms, 0.0
        return worst


def _session(folder: str) -> dict[str, Any]:
    """Open the folder in the real window with the real workers, add a derived series and mattes, look at it all."""
    from PySide6.QtCore import QEventLoop, QTimer
    from PySide6.QtWidgets import QApplication

    from medapp.jobs.queue import JobQueue
    from medapp.requests import InspectRequest
    from medapp.settings import Settings
    from medapp.ui import theme
    from medapp.ui.app import load_later
    from medapp.ui.dialogs.help_sheets import HINTS
    from medapp.ui.main_window import MainWindow

    app = QApplication([])
    theme.apply(app, "dark")
    window = MainWindow(JobQueue(), Settings(theme="dark", hints_seen=tuple(name for name, _ in HINTS)))
    document = window.document

    def wait(is_over: Callable[[], bool], seconds: float = 240.0) -> None:
        end = time.monotonic() + seconds
        while not is_over():
            if time.monotonic() > end:
                raise TimeoutError
            app.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)

    def rest(milliseconds: int) -> None:
        over: list[bool] = []
        QTimer.singleShot(milliseconds, lambda: over.append(True))
        wait(lambda: bool(over))

    window.show()
    rest(100)
    load_later()
    window.bridge.submit(InspectRequest(()), is_quiet=True)
    beat = _Beat(window)
    rest(3000)  # a person has not chosen files before that
    stalls = {"libraries loaded behind the start page": beat.take()}
    memory = {"start page": _memory_mb()}

    first: list[float] = []
    document.slice_arrived.connect(lambda *_: first or QTimer.singleShot(0, painted))

    def painted() -> None:
        window.grid.views[0].repaint()
        if not first:
            first.append((time.perf_counter() - since) * 1000)

    since = time.perf_counter()
    window.opening.open_paths([folder])
    wait(lambda: document.series is not None and not window.bridge.running())
    stalls["opening"] = beat.take()
    rest(2500)
    stalls["after opening"] = beat.take()
    memory["one CT"] = _memory_mb()

    _add_derived(document)
    beat.take()
    document.reload_series_list()
    window.session.load_series(document.series_list[0].series_id, compare_mode="swipe")
    wait(lambda: document.processed is not None and document.compare_mode == "swipe")
    rest(1000)
    stalls["restored series beside it"] = beat.take()

    _paint_mattes(document)
    wait(lambda: document.save_state[0] == "saved")
    rest(500)
    stalls["three mattes on 30 slices each"] = beat.take()

    steps = []
    for n in range(_STEPS):
        begun = time.perf_counter()
        document.go_to_slice(0, _PAINTED_SLICES[n % len(_PAINTED_SLICES)])
        window.grid.views[0].repaint()
        steps.append((time.perf_counter() - begun) * 1000)
        app.processEvents()
    for z in range(0, SLICES, 4):  # everything has been looked at once
        document.go_to_slice(0, z)
        rest(1)
    stalls["going through the slices"] = beat.take()
    memory |= {f"CT, restored in swipe, three mattes ({kind})": mb for kind, mb in _memory_parts_mb().items()}
    window.close()
    return {"first_ms": first, "stalls_ms": stalls, "steps_ms": steps, "memory_mb": memory}


def _add_derived(document: Any) -> None:
    """A restored series as a float32 voxel file."""
    project, info = document.project, document.series
    writer = project.new_voxel_file((SLICES, SIDE, SIDE), np.float32)
    for z in range(SLICES):
        writer.array[z] = document.scan.slice_values(z)
    project.add_derived(info.series_id, writer, {"model": "bench"}, title="Bench")


def _paint_mattes(document: Any) -> None:
    """Three discs with a soft rim on thirty slices each, a stroke a slice as a person makes them."""
    from PySide6.QtWidgets import QApplication

    from medapp.annotation.edits import Stroke

    y, x = np.ogrid[:SIDE, :SIDE]
    for number in range(3):
        document.new_matte()
        matte = document.active_matte
        centre = 150 + 100 * number
        for z in _PAINTED_SLICES:
            disc = np.clip((70 - np.hypot(y - centre, x - centre)) / 6 + 0.5, 0, 1)
            patch = matte.make_patch("alpha", (z, 0, 0), np.rint(disc * 65535).astype(np.uint16)[None])
            document.apply(Stroke(matte.matte_id, (patch,)))
            QApplication.processEvents()


def _memory_mb() -> float:
    return sum(_memory_parts_mb().values())


def _memory_parts_mb() -> dict[str, float]:
    """What this process holds itself, and pages of voxel files that the system can drop at any time."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {
        "its own": int(kilobytes["RssAnon"]) / 1024,
        "voxel files and libraries": (int(kilobytes["RssFile"]) + int(kilobytes["RssShmem"])) / 1024,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_session(sys.argv[1])) + "\n")
