"""From an unknown band to alpha."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import numpy as np

from medapp.matting.matter import make_matter
from medapp.progress import Progress
from medapp.requests import AlphaResult, RefineRequest
from medapp.scan.scan import Window
from medapp.services.slices import plane_values
from medapp.services.workspace import Workspace


def refine(request: RefineRequest, workspace: Workspace, progress: Progress) -> AlphaResult:
    """Solve the unknown band of one slice; pixels marked keep come back as they were.

    Raises:
        ComputeError: The band cannot be solved; says why.
        Cancelled: The user stopped it.
    """
    since = time.perf_counter()
    given = Path(request.trimap_path)
    with np.load(given) as arrays:
        trimap = arrays["trimap"].astype(np.float32) / 255
        keep = arrays["keep"].astype(bool)
        current = arrays["current"].astype(np.float32) / 65535 if "current" in arrays else None
    given.unlink(missing_ok=True)
    trimap = np.where(trimap > 0.75, 1.0, np.where(trimap < 0.25, 0.0, 0.5)).astype(np.float32)
    scan = workspace.project(request.project).scan(request.series_id)
    alpha = make_matter().matte(
        plane_values(scan, request.slice_index, request.axis),
        Window(request.window_center, request.window_width),
        trimap,
        keep if current is not None and keep.any() else None,
        current,
        progress,
    )
    path = workspace.cache_folder(request.project) / f"alpha-{uuid4().hex}.npy"
    np.save(path, np.rint(np.clip(alpha, 0, 1) * 65535).astype(np.uint16))
    return AlphaResult(str(path), request.ticket, time.perf_counter() - since)
