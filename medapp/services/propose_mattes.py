"""Masks, their disagreement and an alpha at the click or box of a person, by a matting model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UsageError, WeightsError
from medapp.export.files import write_bytes
from medapp.export.png import write_png
from medapp.matting.proposer import MattingProposal, MattingProposer
from medapp.progress import Progress
from medapp.requests import MattingRequest, MattingResult
from medapp.scan.intensity import starting_window
from medapp.scan.reading import read_all
from medapp.scan.scan import Window
from medapp.services.slices import plane_spacing, plane_values
from medapp.services.workspace import Workspace


def propose_mattes(request: MattingRequest, workspace: Workspace, progress: Progress) -> MattingResult:
    """Propose for one plane of a series; nothing is added to the project.

    Raises:
        UsageError: The prompt points at nothing.
        WeightsError: The model is missing, serves something else, or its file has changed.
        UnsuitableModelError: The model takes other pictures.
        ComputeError: Out of memory, or a result that is not finite.
        ProjectError: The series cannot be read.
        Cancelled: The user stopped it.
    """
    since = time.perf_counter()
    rough = _taken(request.rough_path)
    proposer = matting_proposer(request.model_id, workspace)
    scan = workspace.project(request.project).scan(request.series_id)
    proposal = proposer.propose(
        plane_values(scan, request.slice_index, request.axis),
        Window(request.window_center, request.window_width),
        request.point_xy,
        request.box_xyxy,
        request.count,
        request.seed,
        request.mean_first,
        _pixel_side(plane_spacing(scan, request.axis)),
        scan.modality,
        progress,
        rough,
    )
    path = workspace.cache_folder(request.project) / f"mattes-{uuid4().hex}.npz"
    np.savez(path, masks=proposal.masks, uncertainty=proposal.uncertainty, alpha=proposal.alpha)
    return MattingResult(
        str(path),
        proposal.box_xyxy,
        proposal.seed,
        request.ticket,
        proposer.model.card.title,
        time.perf_counter() - since,
        rough is not None and proposer.takes_rough_mask,
    )


def _taken(rough_path: str) -> NDArray[np.bool_] | None:
    """The rough mask of a request; its file is of no use any more."""
    if not rough_path:
        return None
    try:
        rough: NDArray[np.bool_] = np.load(rough_path).astype(bool)
    except (OSError, ValueError) as error:
        raise UsageError("The rough mask went missing.", "Click again.") from error
    Path(rough_path).unlink(missing_ok=True)
    return rough


def matting_proposer(model_id: str, workspace: Workspace) -> MattingProposer:
    """The loaded model of this id, or the one that was adopted for it.

    Raises:
        WeightsError: It is missing, serves something else, or its file has changed.
    """
    model_id = workspace.library.in_use(model_id)
    card = workspace.library.card(model_id)
    if card.serves != "matting":
        raise WeightsError(f"The model {card.name} makes no mattes.", "Choose a model that serves matting.")
    return MattingProposer(workspace.library.load(model_id))


def matte_file(
    path: Path,
    out: Path,
    model_id: str,
    workspace: Workspace,
    point_xy: tuple[float, float] | None = None,
    box_xyxy: tuple[float, float, float, float] | None = None,
    slice_index: int | None = None,
    count: int = 8,
    seed: int = -1,
    mean_first: bool = False,
    progress: Progress | None = None,
    rough_file: Path | None = None,
) -> dict[str, Any]:
    """Propose for one slice of a file and write it down: pictures of the size of the slice, and ``matting.json``.

    ``mask-01.png`` and so on are 8 bit (probability x 255), ``uncertainty.png`` 16 bit (bits x 65535), ``alpha.png``
    16 bit.

    Args:
        path: Image file or series folder.
        out: Folder; made when missing.
        slice_index: From 0; None = the middle one.
        rough_file: Picture or volume with a rough mask: what lies above half of its range, in the same slice where it
            has as many slices.

    Returns:
        What ``matting.json`` holds.

    Raises:
        MedappError: The file, the model or the prompt cannot be used, or the folder cannot be written.
        Cancelled: The user stopped it.
    """
    proposer = matting_proposer(model_id, workspace)
    scan = read_all(path)[0]
    index = scan.shape[0] // 2 if slice_index is None else slice_index
    if not 0 <= index < scan.shape[0]:
        raise UsageError(f"The file has {scan.shape[0]} slices.", "Give --slice from 1 on.")
    values = plane_values(scan, index)
    window = starting_window(scan)
    spacing = _pixel_side(plane_spacing(scan))
    rough = None if rough_file is None else _mask_of(rough_file, scan.shape[0], index)
    proposal = proposer.propose(
        values, window, point_xy, box_xyxy, count, seed, mean_first, spacing, scan.modality, progress, rough
    )
    out.mkdir(parents=True, exist_ok=True)
    size = values.shape[:2]
    files = [f"mask-{n:02d}.png" for n in range(1, count + 1)]
    for name, mask in zip(files, proposal.masks, strict=True):
        write_png(out / name, _in_slice(mask, proposal, size, 255).astype(np.uint8))
    write_png(out / "uncertainty.png", _in_slice(proposal.uncertainty, proposal, size, 65535))
    write_png(out / "alpha.png", _in_slice(proposal.alpha, proposal, size, 65535))
    card = proposer.model.card
    told = {
        "model": card.id,
        "version": card.version,
        "sha256": card.sha256,
        "slice": index + 1,
        "crop_xyxy": list(proposal.box_xyxy),
        "network_px": list(proposal.network_px),
        "seed": proposal.seed,
        "mean_first": mean_first,
        "rough_mask": rough is not None and proposer.takes_rough_mask,
        "masks": files,
        "mask_area_px": [int((mask > 0.5).sum()) for mask in proposal.masks],
        "mean_uncertainty_bits": round(float(proposal.uncertainty.mean()), 5),
        "alpha_area_px": round(float(proposal.alpha.sum()), 1),
    }
    write_bytes(out / "matting.json", (json.dumps(told, indent=2) + "\n").encode())
    return told


def _mask_of(path: Path, slices: int, index: int) -> NDArray[np.bool_]:
    """``(H, W)`` of a mask file."""
    drawn = read_all(path)[0]
    if drawn.shape[0] not in (1, slices):
        raise UsageError(
            f"The rough mask has {drawn.shape[0]} slices, the file {slices}.", "Give a mask of one slice, or of all."
        )
    values = np.asarray(drawn.slice_values(index if drawn.shape[0] == slices else 0), dtype=np.float32)
    grey = values.max(axis=-1) if values.ndim == 3 else values
    low, high = float(grey.min()), float(grey.max())
    if not high > low:
        raise UsageError("The rough mask is the same everywhere.", "Paint what is meant brighter than the rest.")
    return np.asarray(grey > (low + high) / 2)


def _in_slice(
    values: NDArray[np.float32], proposal: MattingProposal, size: tuple[int, ...], full: int
) -> NDArray[np.uint16]:
    left, top, right, bottom = proposal.box_xyxy
    whole = np.zeros(size, dtype=np.uint16)
    whole[top:bottom, left:right] = np.rint(np.clip(values, 0, 1) * full)
    return whole


def _pixel_side(spacing: tuple[float, float] | None) -> float | None:
    """One side for pixels that are not square: that of a square of the same area."""
    return None if spacing is None else float(np.sqrt(spacing[0] * spacing[1]))
