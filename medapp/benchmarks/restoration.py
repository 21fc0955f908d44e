"""``medapp bench restoration``: from the click to the restored slice, and seconds a slice once warm."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from medapp import paths
from medapp.benchmarks.timing import row, times_ms
from medapp.jobs.queue import JobQueue
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.requests import Done, PrepareModelRequest, RestoreRequest
from medapp.restoration.classical import NLM_ID, classical_restorer
from medapp.restoration.restorer import NetworkRestorer
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import ct_torso
from medapp.scan.reading import read_scan
from medapp.services.import_files import import_paths
from medapp.store.project import Project

COLD_RUNS = 3


def run() -> list[dict[str, Any]]:
    """A 512 x 512 CT slice with every CT model that is shipped; the peer is non-local means on the same slice."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="medapp-bench-") as name:
        folder = Path(name) / "ct"
        write_series(folder, ct_torso((3, 512, 512), (40.0, 0.75, 0.75)), "BENCH")
        scan = read_scan(folder)
        slice_values = scan.slice_values(1)
        project = Path(name) / "bench.medapp"
        with Project.create(project) as opened:
            series = import_paths(opened, [folder], Progress()).series_ids[0]
        library = ModelLibrary(paths.shipped_models_dir(), paths.user_models_dir())
        nlm = classical_restorer(NLM_ID, "CT")
        peer = times_ms(lambda: nlm.restore_slice(slice_values), 3)
        for card in library.list():
            if card.serves != "restoration" or card.intake("CT") is None or card.dims != 2 or card.inputs:
                continue
            restorer = NetworkRestorer(library.load(card.id, "cpu"))
            warm = times_ms(partial(restorer.restore_slice, slice_values), 5)
            rows.append(row(f"{card.id}, 512 x 512 slice, warm", warm, "non-local means", peer))
            request = RestoreRequest(str(project), series, card.id, first_slice=1, only_first=True, device="cpu")
            cold = [_cold_ms(request) for _ in range(COLD_RUNS)]
            rows.append(row(f"{card.id}, click to picture, worker start included", cold, "non-local means", peer))
            ready = [_cold_ms(request, is_prepared=True) for _ in range(COLD_RUNS)]
            rows.append(row(f"{card.id}, click to picture, Restore opened before", ready, "non-local means", peer))
    return rows


def _cold_ms(request: RestoreRequest, is_prepared: bool = False) -> float:
    """From the request to the picture with a new worker; prepared as the window does when Restore is opened."""
    queue = JobQueue()
    try:
        if is_prepared:
            queue.run(PrepareModelRequest(request.model_id, request.device))
        since = time.perf_counter()
        outcome = queue.run(request)
        taken = (time.perf_counter() - since) * 1000
    finally:
        queue.close()
    if not isinstance(outcome, Done):
        raise RuntimeError(str(outcome))
    return taken
