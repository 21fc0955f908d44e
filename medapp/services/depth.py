"""Depth completion: a colour frame and what was measured in it become derived series of depth and its uncertainty."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from medapp import __version__
from medapp.depth.depth_map import DepthCompleter, DepthMap, add_points
from medapp.depth.fill import FILLS, FillCompleter
from medapp.errors import UnsuitableModelError, UsageError
from medapp.progress import Progress
from medapp.requests import DepthExportRequest, DepthFileRequest, DepthFileResult, DepthRequest, DepthResult
from medapp.scan.camera import Camera
from medapp.scan.depth import DepthFile, read_depth, write_depth
from medapp.scan.depth_scale import parse_scale
from medapp.scan.thumbnail import picture_png
from medapp.scan.turbo import depth_colours, sigma_colours, spread
from medapp.services.workspace import Workspace

NOT_A_MEASUREMENT = "Research use; no measurement for diagnosis."


def read_depth_file(request: DepthFileRequest, workspace: Workspace, progress: Progress) -> DepthFileResult:
    """Read a depth file by its stated scale.

    Raises:
        DepthScaleError: Nobody stated the scale, or two statements differ.
        UnreadableFileError: Damaged, or other numbers than stated.
    """
    for path, why in request.refused:
        if path == request.path:
            raise UsageError(f"{Path(path).name} was not read: {why}", "Copy the file again from its source.")
    found = stated_depth(request.path, request.scale, progress)
    path = workspace.cache_folder(request.project) / f"sparse-{uuid4().hex}.npy"
    np.save(path, found.depth_mm)
    H, W = found.depth_mm.shape
    return DepthFileResult(str(path), (H, W), found.known, found.record(), found.notes)


def stated_depth(path: str, scale: str, progress: Progress) -> DepthFile:
    """A depth file by the text of its scale; empty = its side-car must say."""
    progress.parsing(path)
    try:
        return read_depth(Path(path), parse_scale(scale) if scale else None)
    finally:
        progress.parsing("")


def completer(model_id: str, workspace: Workspace, device: str, keep_points: bool = False) -> DepthCompleter:
    """The fill or the network of this id.

    Raises:
        WeightsError: There is no such model, or it cannot be loaded.
        UnsuitableModelError: It does not complete depth.
    """
    if model_id in FILLS:
        return FillCompleter(model_id)
    from medapp.depth.estimator import DepthEstimator  # torch comes with it; fills do without

    return DepthEstimator(workspace.library.load(model_id, device), keep_points)


def complete_depth(request: DepthRequest, workspace: Workspace, progress: Progress) -> DepthResult:
    """Complete one frame; depth and sigma become derived series of it.

    Raises:
        UnsuitableModelError: The series is grey, or the model does something else.
        UsageError: Points outside the frame, or a sparse map of another size.
        ComputeError: Out of memory, or numbers that are not finite.
        Cancelled: The user stopped it; the project is unchanged.
    """
    since = time.perf_counter()
    project = workspace.project(request.project)
    scan = project.scan(request.series_id)
    if not scan.is_colour:
        raise UnsuitableModelError(
            "Depth completion needs a colour frame; this series is grey.", "Choose a photograph."
        )
    index = min(max(request.slice_index, 0), scan.shape[0] - 1)
    rgb = np.asarray(scan.slice_values(index))
    sparse = np.full(rgb.shape[:2], np.nan, dtype=np.float32)
    if request.sparse_path:
        sparse = np.load(request.sparse_path, allow_pickle=False).astype(np.float32)
        if sparse.shape != rgb.shape[:2]:
            (h, w), (H, W) = sparse.shape, rgb.shape[:2]
            raise UsageError(
                f"The depth file is {w} × {h}, the frame {W} × {H}.", "Both must come from the same picture."
            )
    sparse = add_points(sparse, request.points)
    progress.start(1, "frames", "Estimate depth")
    chosen = completer(request.model_id, workspace, request.device, request.keep_points)
    made = chosen.estimate(rgb, sparse, progress)
    report = {**depth_report(made, chosen), "seconds": round(time.perf_counter() - since, 2)}
    provenance = {**_provenance(request, workspace, index), **report, "medapp": __version__, "pair": uuid4().hex}
    low, high = spread(made.depth_mm)
    common = {"kind": "depth", "unit": "mm", "notes": (*made.notes, NOT_A_MEASUREMENT)}
    sigma_id = ""  # added first: the newest derived series is what opens beside the frame
    if made.sigma_mm is not None:
        most = spread(made.sigma_mm)[1]
        sigma_id = project.add_derived(
            request.series_id,
            _volume(made.sigma_mm, scan.shape, index),
            {**provenance, "role": "sigma", "shown_mm": [0.0, most]},
            title=f"Depth ± · {chosen.name}",
            thumbnail=picture_png(sigma_colours(made.sigma_mm, most)),
            **common,  # type: ignore[arg-type]
        )
    series_id = project.add_derived(
        request.series_id,
        _volume(made.depth_mm, scan.shape, index),
        {**provenance, "role": "depth", "shown_mm": [low, high]},
        title=f"Depth · {chosen.name}",
        thumbnail=picture_png(depth_colours(made.depth_mm, low, high)),
        **common,  # type: ignore[arg-type]
    )
    progress.step()
    return DepthResult(series_id, sigma_id, report)


def depth_report(made: DepthMap, chosen: DepthCompleter) -> dict[str, Any]:
    """What a person is told, in plain numbers."""
    sigma = made.sigma_mm
    return {
        "model": chosen.name,
        "points": made.points,
        "least_mm": round(float(made.depth_mm.min()), 3),
        "median_mm": round(float(np.median(made.depth_mm)), 3),
        "most_mm": round(float(made.depth_mm.max()), 3),
        "sigma_median_mm": None if sigma is None else round(float(np.median(sigma)), 3),
        "working_size": list(made.working_size),
        "device": chosen.device,
        "notes": list(made.notes),
    }


def export_depth(request: DepthExportRequest, workspace: Workspace, progress: Progress) -> tuple[str, ...]:
    """Write a depth series and its uncertainty to a folder.

    Raises:
        UsageError: The series holds no depth.
        ExportError: The disk is full or read-only.
    """
    project = workspace.project(request.project)
    info = project.series_info(request.series_id)
    if info.kind != "depth":
        raise UsageError("This series holds no depth.", "Choose a series named Depth.")
    facts, index = dict(info.provenance), int(info.provenance.get("slice_index", 0))
    lens = request.camera or facts.get("camera")
    camera = Camera.from_dict(lens) if lens else None
    pair = facts.get("pair", "")
    rows = [row for row in project.series() if row.provenance.get("pair") == pair] if pair else [info]
    progress.start(len(rows), "files", "Write depth files")
    written: list[str] = []
    for row in rows:
        values = np.asarray(project.scan(row.series_id).slice_values(index), dtype=np.float32)
        stem = "sigma" if row.provenance.get("role") == "sigma" else "depth"
        written += [str(p) for p in write_depth(Path(request.out), stem, values, _said(facts), camera)]
        progress.step()
    return tuple(written)


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a side-car says beside the scale; paths and names of files stay home."""
    kept = (
        "model",
        "model_id",
        "version",
        "sha256",
        "points",
        "seconds",
        "working_size",
        "notes",
        "medapp",
        "typed_points",
    )
    return {"made_by": {key: facts[key] for key in kept if key in facts}, "use": NOT_A_MEASUREMENT}


def _provenance(request: DepthRequest, workspace: Workspace, index: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "task": "depth-completion",
        "model_id": request.model_id,
        "version": "",
        "slice_index": index,
        "typed_points": [list(point) for point in request.points],
        "sparse_file": dict(request.sparse_record),
        "camera": request.camera,
        "keep_points": request.keep_points,
    }
    if request.model_id not in FILLS:
        card = workspace.library.card(request.model_id)
        made |= {"version": card.version, "sha256": card.sha256}
    return made


def _volume(values: NDArray[np.float32], shape: tuple[int, ...], index: int) -> NDArray[np.float32]:
    """On the grid of the source; 0 = unknown on the other frames of a stack."""
    volume = np.zeros(shape[:3], dtype=np.float32)
    volume[index] = values
    return volume
