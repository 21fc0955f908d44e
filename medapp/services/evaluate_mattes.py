"""How good a matting model is on things it never saw, beside closed form from a rough mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.annotation.trimap import trimap_from_mask
from medapp.errors import ComputeError, TrainingError, UsageError
from medapp.matting.closed_form import solve_closed_form
from medapp.matting.matter import shown_image
from medapp.matting.metrics import best_dice, compare_mattes, energy_distance, evaluation_masks
from medapp.matting.proposer import MattingProposer
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.scan.raster import raster_scan
from medapp.scan.reading import read_all
from medapp.scan.scan import Window
from medapp.training.matting_data import LUMINANCE, load_matting_data

TASK = "matting"
SIDE_PX = 128
"""Crops are brought to it, so that sums over pixels can be compared between pictures."""
ROUGHNESS = (0.06, 0.15)
"""Of the rough masks: grown or shrunk, and shifted, by so much of the radius of a disc of their area."""
BAND_BITS = 0.3
_BOX_ERROR = 0.05
_LEAST_AREA_PX = 100
_PER_SOURCE = 14
_MASKS = 8


@dataclass(frozen=True)
class MatteCase:
    """One thing whose alpha is known.

    Attributes:
        source: ``cut-out``, ``brain``, ``skin`` or ``tumour``.
        values: ``(H, W)``, or ``(H, W, 3)`` colours.
        window: As it is shown; None for colours.
        alpha: ``(H, W)`` float32.
    """

    source: str
    values: NDArray
    window: Window | None
    alpha: NDArray[np.float32]


def evaluate_mattes(
    library: ModelLibrary, data_dir: Path, progress: Progress, model_id: str | None = None
) -> dict[str, Any]:
    """Measure a matting model on the ``val`` pictures of the data folder.

    A person's box is imitated by the true one with every side moved by up to 5 % of its length. Errors are over the
    crop, brought to 128 px. ``closed form`` starts from the true mask at a half made rough, and a trimap around it:
    it is told where the thing is, the model is only told the box.

    Returns:
        ``{"task", "model", "data_sha256", "sources": {source: {"cases", "ged", "dice", "seconds", method: {"sad",
        "mse", "soft_dice"}}}}``.

    Raises:
        UsageError: There is no matting model of this name.
        TrainingError: The data folder has no val rows.
        WeightsError: The model cannot be loaded.
        Cancelled: The user stopped it.
    """
    cards = [card for card in library.list() if card.serves == "matting" and model_id in (None, card.id)]
    if not cards:
        raise UsageError("There is no such matting model in the library.", "medapp models list")
    proposer = MattingProposer(library.load(cards[0].id))
    data = load_matting_data(data_dir, "val", progress)
    cases = [*_composites(data_dir), *_brains(data_dir)]
    for source in ("skin", "tumour"):
        specimens = data.specimens[source]
        for specimen in specimens[:: max(1, len(specimens) // _PER_SOURCE)]:
            soft = ndimage.gaussian_filter(specimen.alpha, 1.0)  # a hard label says nothing finer
            cases.append(MatteCase(source, specimen.image, Window(0.5, 1.0), soft))
    random = np.random.default_rng(0)
    progress.start(len(cases), "pictures", "measuring")
    measured: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        if np.count_nonzero(case.alpha >= 0.5) >= _LEAST_AREA_PX:
            measured.setdefault(case.source, []).append(_measure(proposer, case, random))
        progress.step()
    return {
        "task": TASK,
        "model": cards[0].id,
        "data_sha256": data.sha256,
        "sources": {source: _means(rows) for source, rows in measured.items()},
    }


def _composites(data_dir: Path) -> Iterator[MatteCase]:
    for path in sorted((data_dir / "matting" / "composite").glob("*_image.png")):
        image, alpha = (
            np.asarray(raster_scan(p, Progress()).decode(progress=Progress()).stored[0])
            for p in (path, path.with_name(path.name.replace("_image", "_alpha")))
        )
        soft: NDArray[np.float32] = (alpha / np.iinfo(alpha.dtype).max).astype(np.float32)
        yield MatteCase("cut-out", image, None, soft if soft.ndim == 2 else soft[..., 0])


def _brains(data_dir: Path) -> Iterator[MatteCase]:
    folder = data_dir / "matting" / "medical_soft"
    if not folder.is_dir():
        return
    shown, soft = (read_all(folder / f"jlfout_{name}.nii.gz")[0] for name in ("pred", "prob3"))  # 3 = white matter
    for z in range(0, shown.shape[0], 2):
        alpha = np.clip(soft.slice_values(z), 0, 1).astype(np.float32)
        yield MatteCase("brain", shown.slice_values(z), Window(0.4, 0.8), alpha)


def _measure(proposer: MattingProposer, case: MatteCase, random: np.random.Generator) -> dict[str, Any]:
    rows, columns = np.nonzero(case.alpha > 0.1)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64)
    box += random.uniform(-1, 1, 4) * _BOX_ERROR * max(box[2] - box[0], box[3] - box[1])
    x0, y0, x1, y1 = (float(v) for v in box)
    since = time.perf_counter()
    found = proposer.propose(case.values, case.window, box_xyxy=(x0, y0, x1, y1), count=_MASKS, mean_first=True)
    seconds = time.perf_counter() - since
    left, top, right, bottom = found.box_xyxy
    at_side = _sampler(max(right - left, bottom - top))
    truth = at_side(case.alpha[top:bottom, left:right])
    shown = shown_image(case.values, case.window)
    grey = at_side((shown if shown.ndim == 2 else shown @ LUMINANCE)[top:bottom, left:right])
    masks = [at_side(mask) > 0.5 for mask in found.masks]
    references = evaluation_masks(truth)
    trimap = (at_side(found.masks.mean(axis=0)) >= 0.5).astype(np.float32)
    trimap[at_side(found.uncertainty) >= BAND_BITS] = 0.5
    mattes = {"alpha": at_side(found.alpha), "band refined": _solved(grey, trimap)}
    for share in ROUGHNESS:
        rough = rough_mask(truth >= 0.5, share, random)
        mattes[f"rough mask {share}"] = rough.astype(np.float32)
        mattes[f"closed form {share}"] = _solved(grey, trimap_from_mask(rough))
    errors = {name: compare_mattes(matte, truth) for name, matte in mattes.items()}
    return {
        "ged": energy_distance(masks, references),
        "dice": best_dice(masks, references),
        "seconds": seconds,
        **{name: {"sad": e.sad, "mse": e.mse, "soft_dice": e.soft_dice} for name, e in errors.items()},
    }


def rough_mask(mask: NDArray[np.bool_], share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """The mask as a hasty hand draws it: grown or shrunk and shifted by a share of its radius."""
    by = max(1, round(share * float(np.sqrt(mask.sum() / np.pi))))
    shrunk = ndimage.binary_erosion(mask, iterations=by)
    is_shrunk = random.random() < 0.5 and np.count_nonzero(shrunk) > 20
    changed = shrunk if is_shrunk else ndimage.binary_dilation(mask, iterations=by)
    return np.asarray(ndimage.shift(changed.astype(np.uint8), random.integers(-by, by + 1, 2), order=0) > 0)


def _solved(grey: NDArray[np.float32], trimap: NDArray[np.float32]) -> NDArray[np.float32]:
    """Closed form; the trimap itself where it knows no inside or no outside."""
    try:
        return solve_closed_form(grey, trimap)
    except ComputeError:
        return trimap


def _sampler(side: int) -> Callable[[NDArray], NDArray[np.float32]]:
    scale = SIDE_PX / side

    def sample(values: NDArray) -> NDArray[np.float32]:
        smooth = ndimage.gaussian_filter(values, 0.4 / scale) if scale < 1 else values
        return np.clip(ndimage.zoom(smooth, scale, order=1), 0, 1).astype(np.float32)

    return sample


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"cases": len(rows)}
    for key, first in rows[0].items():
        if isinstance(first, dict):
            told[key] = {name: round(float(np.mean([row[key][name] for row in rows])), 4) for name in first}
        else:
            told[key] = round(float(np.mean([row[key] for row in rows])), 4)
    return told


def card_figures(result: dict[str, Any]) -> dict[str, Any]:
    """What goes on the card: per source, with the conditions.

    Raises:
        TrainingError: Nothing was measured.
    """
    if not result["sources"]:
        raise TrainingError("Nothing could be measured", "The data folder needs val rows with mattes")
    return {
        "protocol": f"medapp evaluate --task matting; val pictures, box off by up to 5 %, errors over crops of "
        f"{SIDE_PX} px, SAD / 1000; closed form starts from the true mask made rough",
        "data_sha256": result["data_sha256"],
        **result["sources"],
    }
