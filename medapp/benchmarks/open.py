"""``medapp bench open``: a 300-slice CT, from files to voxels and to the first slice, against plain pydicom."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from medapp.benchmarks.timing import row, times_ms
from medapp.jobs.queue import JobQueue
from medapp.progress import ProgressEvent
from medapp.requests import Done, ImportRequest
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import Phantom
from medapp.scan.reading import read_all
from medapp.store.project import Project

SLICES, SIDE = 300, 512


def run() -> list[dict[str, Any]]:
    """Volume from files (warm), and first slice and whole import through the reader process."""
    with tempfile.TemporaryDirectory(prefix="medapp-bench-") as name:
        folder = Path(name) / "ct"
        rng = np.random.default_rng(0)
        values = rng.integers(-1000, 1500, (SLICES, SIDE, SIDE)).astype(np.float32)
        write_series(folder, Phantom(values, (1.0, 0.7, 0.7), "CT", "bench"), "BENCH")

        peer = times_ms(lambda: _plain_pydicom(folder), 5)
        ours = times_ms(lambda: read_all(folder), 5)
        rows = [row("300-slice CT, files to volume", ours, "pydicom dcmread + sort + stack", peer)]

        first, whole = [], []
        queue = JobQueue()
        queue.warm_up("reader")
        time.sleep(2)  # a window has its reader running before a person has chosen files
        try:
            for attempt in range(3):
                seconds = _import(queue, Path(name) / f"bench{attempt}.medapp", folder)
                first.append(seconds[0] * 1000)
                whole.append(seconds[1] * 1000)
        finally:
            queue.close()
        peer_first = times_ms(lambda: _plain_pydicom(folder), 3)
        rows.append(row("300-slice CT, click to first slice", first, "pydicom, whole series", peer_first))
        rows.append(row("300-slice CT, click to import done", whole, "pydicom, whole series", peer_first))
        return rows


def _plain_pydicom(folder: Path) -> np.ndarray:
    datasets = [pydicom.dcmread(path) for path in folder.iterdir()]
    datasets.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    return np.stack([ds.pixel_array for ds in datasets])


def _import(queue: JobQueue, project: Path, folder: Path) -> tuple[float, float]:
    """Seconds from asking to the first slice, and to the end."""
    Project.create(project).close()
    since = time.perf_counter()
    first: list[float] = []

    def heard(event: ProgressEvent) -> None:
        if "slice" in event.detail and not first:
            first.append(time.perf_counter() - since)

    outcome = queue.run(ImportRequest(str(project), (str(folder),)), on_progress=heard)
    if not isinstance(outcome, Done):
        raise RuntimeError(str(outcome))
    return first[0], time.perf_counter() - since
