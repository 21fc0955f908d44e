"""How good a matting model is on things it never saw, beside closed form from the trimap of a disturbed mask."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.errors import ComputeError, UsageError
from medapp.matting.closed_form import solve_closed_form
from medapp.matting.matter import shown_image
from medapp.matting.metrics import best_dice, compare_mattes, energy_distance, evaluation_masks
from medapp.matting.proposer import MattingProposal, MattingProposer
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.card_words import ROUGH
from medapp.services.evaluation.figures import (
    MATTING_ERRORS,
    METRICS,
    group_mean,
    mean_interval,
    paired_change_percent,
    rounded,
)
from medapp.services.evaluation.matte_cases import PER_SOURCE, SOURCES, MatteCase, held_out_cases
from medapp.training.degradations.mattes import DISTURBANCE_PX, disturbed_mask, disturbed_trimap

TASK = "matting"
SIDE_PX = 128
"""The crop as a person looks at it is brought to this side: disturbances are pixels of it, and so are the errors."""
CROP_OF_BOX = 1.5
"""Side of the square crop over the longer side of the box, whatever the model itself looks at."""
DISTURBED_BY_PX = (2.0, 4.0, 6.0)
"""Each case has closed form start from a mask disturbed by each of these; their errors are averaged."""
CLOSED_FORM = "closed form"
ROUGH_MASK = "disturbed mask"
_BOX_ERROR = 0.05
_BEYOND_PX = 4
_MASKS = 8
_QUICK_PER_SOURCE = 4


@dataclass(frozen=True)
class Crop:
    """A case as a person sees it: the square around the box, brought to ``SIDE_PX`` on its longer side.

    Attributes:
        box_xyxy: What the person drags, in pixels of the slice.
        place: Rows and columns of the crop in the slice.
        image: ``(h, w)`` or ``(h, w, 3)`` float32, 0..1, as shown.
        truth: ``(h, w)`` float32 alpha.
        masks: Those of the readers; without readers, cuts through the alpha.
        seed: From the pixels of the case, so that every method meets the same accidents.
    """

    box_xyxy: tuple[float, float, float, float]
    place: tuple[slice, slice]
    image: NDArray[np.float32]
    truth: NDArray[np.float32]
    masks: tuple[NDArray[np.bool_], ...]
    seed: int

    @classmethod
    def of(cls, case: MatteCase) -> Crop:
        """The crop of a case; the box is off by up to 5 % of its length, as a hand is."""
        seed = _seed(case)
        random = np.random.default_rng(seed)
        rows, columns = np.nonzero(case.alpha > 0.1)
        around = case.box_xyxy or (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        box = np.array(around, dtype=np.float64)
        side = max(box[2] - box[0], box[3] - box[1])
        box += random.uniform(-1, 1, 4) * _BOX_ERROR * side
        x0, y0, x1, y1 = (float(v) for v in box)
        half = CROP_OF_BOX * max(x1 - x0, y1 - y0) / 2
        height, width = case.alpha.shape
        place = (_within((y0 + y1) / 2, half, height), _within((x0 + x1) / 2, half, width))
        image = shown_image(case.values, case.window)[place]
        drawn = tuple(_at_side(reader[place].astype(np.float32)) > 0.5 for reader in case.readers)
        truth = _at_side(case.alpha[place])
        return cls((x0, y0, x1, y1), place, _at_side(image), truth, drawn or tuple(evaluation_masks(truth)), seed)


def measure_matte(proposer: MattingProposer, case: MatteCase) -> dict[str, float]:
    """Ask a model for a case, with the box alone, and compare what it proposes with the truth.

    Returns:
        ``sad, mse, grad, conn, soft_dice, ged`` over the crop at 128 px; see ``METRICS``.

    Raises:
        UnsuitableModelError: The model takes other pictures.
        ComputeError: Out of memory, or a result that is not finite.
    """
    crop = Crop.of(case)
    return _of_proposal(_propose(proposer, case, crop), case, crop)


def measure_guided_matte(proposer: MattingProposer, case: MatteCase) -> dict[str, float]:
    """As ``measure_matte``, but the model is also told the rough masks that closed form's trimaps are made of.

    These are the true mask disturbed by each of ``DISTURBED_BY_PX`` pixels; the errors are means over them.

    Raises:
        UnsuitableModelError: The model takes other pictures.
        ComputeError: Out of memory, or a result that is not finite.
    """
    crop = Crop.of(case)
    found = []
    for px in DISTURBED_BY_PX:
        rough = in_slice(disturbed_mask(crop.truth >= 0.5, px, crop.seed), crop, case.alpha.shape)
        found.append(_of_proposal(_propose(proposer, case, crop, rough), case, crop))
    return _mean_of(found)


def in_slice(mask: NDArray[np.bool_], crop: Crop, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A mask of the crop as measured, in the pixels of the slice: the share of each pixel, so that no edge is lost.

    Returns:
        ``(H, W)`` float32, 0..1; around the crop it goes on as at its edge for a few pixels, then it is 0.
    """
    rows, columns = crop.place
    size = (rows.stop - rows.start, columns.stop - columns.start)
    whole = np.zeros(shape, np.float32)
    beyond = [
        (min(_BEYOND_PX, part.start), min(_BEYOND_PX, most - part.stop))
        for part, most in zip(crop.place, shape, strict=True)
    ]
    by = np.pad(_sampled(mask.astype(np.float32), size), beyond, mode="edge")
    first = [part.start - before for part, (before, _) in zip(crop.place, beyond, strict=True)]
    whole[first[0] : first[0] + by.shape[0], first[1] : first[1] + by.shape[1]] = by
    return whole


def evaluate_mattes(
    library: ModelLibrary,
    data_dir: Path,
    progress: Progress,
    model_id: str | None = None,
    is_quick: bool = False,
) -> dict[str, Any]:
    """Measure the matting models on the ``val`` rows of the data folder.

    Args:
        library: Where the models are.
        data_dir: The folder.
        progress: Counts cases.
        model_id: One model; None = all that serve matting.
        is_quick: Four cases of each source, to try things; not for tables.

    Returns:
        ``{task, data_sha256, side_px, disturbed_by_px, rows}``; a row a source and method ``{source, name, kind, cases,
        patients, sad, mse, grad, conn, soft_dice, ged?, dice?, seconds?}``, and for models ``below_percent`` and
        ``below_ci95`` for each of the four errors: how far the error lies below that of closed form, with its 95 %
        interval over patients. The source ``all`` holds every case. A model that takes rough masks has a second row,
        ``<id>, rough mask``.

    Raises:
        UsageError: There is no matting model of this name.
        TrainingError: The data folder has no held-out mattes.
        WeightsError: The model cannot be loaded.
        Cancelled: The user stopped it.
    """
    cards = [card for card in library.list() if card.serves == "matting" and model_id in (None, card.id)]
    if not cards:
        raise UsageError("There is no such matting model in the library.", "medapp models list")
    proposers = {card.id: MattingProposer(library.load(card.id)) for card in cards}
    cases, data_sha256 = held_out_cases(data_dir, progress, _QUICK_PER_SOURCE if is_quick else PER_SOURCE)
    progress.start(len(cases), "cases", "measuring")
    measured: list[dict[str, dict[str, float]]] = []
    for case in cases:
        crop = Crop.of(case)
        found = _rivals(crop)
        for name, proposer in proposers.items():
            since = time.perf_counter()
            proposal = _propose(proposer, case, crop)
            seconds = time.perf_counter() - since
            found[name] = {**_of_proposal(proposal, case, crop), "seconds": seconds}
            if proposer.takes_rough_mask:
                found[name + ROUGH] = measure_guided_matte(proposer, case)
        measured.append(found)
        progress.step()
    rows: list[dict[str, Any]] = []
    for source in (*SOURCES, "all"):
        members = [i for i, case in enumerate(cases) if source in (case.source, "all")]
        if members:
            of_source, patients = [measured[i] for i in members], [cases[i].patient for i in members]
            rows += [
                _row(source, name, of_source, patients, name.removesuffix(ROUGH) in proposers) for name in of_source[0]
            ]
    return {
        "task": TASK,
        "data_sha256": data_sha256,
        "side_px": SIDE_PX,
        "disturbed_by_px": list(DISTURBED_BY_PX),
        "is_quick": is_quick,
        "rows": rows,
    }


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What goes on the card of a model: its row of each source, with the conditions."""
    figures: dict[str, Any] = {
        "protocol": f"medapp evaluate --task matting; val rows, the network is told a box off by up to 5 % and no "
        f"trimap; errors over crops of {SIDE_PX} px; closed form starts from the trimap of the true mask disturbed by "
        f"{DISTURBANCE_PX[0]:g} to {DISTURBANCE_PX[1]:g} of these pixels; in the rows of a rough mask the network is "
        f"told these disturbed masks themselves, no trimap and no band",
        "data_sha256": result["data_sha256"],
    }
    for row in result["rows"]:
        if row["name"] in (model_id, model_id + ROUGH):
            kept = {key: value for key, value in row.items() if key not in ("name", "kind", "source")}
            figures[row["source"] + row["name"].removeprefix(model_id)] = kept
    return figures


def closed_form_of(crop: Crop, px: float, band_px: float | None = None) -> NDArray[np.float32]:
    """The rival: closed form in the colours of the crop, from the trimap of the true mask disturbed by ``px``.

    The unknown band is ``px`` wide on either side: of widths from 2 px to 1.5 times ``px`` the best for closed form on
    these very cases.
    """
    trimap = disturbed_trimap(crop.truth >= 0.5, px, crop.seed, px if band_px is None else band_px)
    try:
        return solve_closed_form(crop.image, trimap)
    except ComputeError:
        return trimap  # it knows no inside or no outside


def _rivals(crop: Crop) -> dict[str, dict[str, float]]:
    """Closed form at each disturbance, the mean over them, and the disturbed masks themselves."""
    solved = {px: _errors(closed_form_of(crop, px), crop.truth) for px in DISTURBED_BY_PX}
    drawn = [
        _errors(disturbed_mask(crop.truth >= 0.5, px, crop.seed).astype(np.float32), crop.truth)
        for px in DISTURBED_BY_PX
    ]
    rivals = {ROUGH_MASK: _mean_of(drawn), CLOSED_FORM: _mean_of(list(solved.values()))}
    return rivals | {f"{CLOSED_FORM}, {px:g} px": errors for px, errors in solved.items()}


def _propose(
    proposer: MattingProposer, case: MatteCase, crop: Crop, rough: NDArray[np.float32] | None = None
) -> MattingProposal:
    return proposer.propose(
        case.values,
        case.window,
        box_xyxy=crop.box_xyxy,
        count=_MASKS,
        mean_first=True,
        spacing_mm=case.spacing_mm,
        modality=case.modality if proposer.model.card.takes else None,
        rough=rough,
    )


def _of_proposal(proposal: MattingProposal, case: MatteCase, crop: Crop) -> dict[str, float]:
    """The errors of what was proposed; beyond the model's own crop its alpha is 0."""
    left, top, right, bottom = proposal.box_xyxy

    def at_crop(values: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = np.zeros(case.alpha.shape, np.float32)
        whole[top:bottom, left:right] = values
        return _at_side(whole[crop.place])

    masks = [at_crop(mask) > 0.5 for mask in proposal.masks]
    return {
        **_errors(at_crop(proposal.alpha), crop.truth),
        "ged": energy_distance(masks, crop.masks),
        "dice": best_dice(masks, crop.masks),
    }


def _errors(alpha: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, float]:
    errors = compare_mattes(alpha, truth, flat_as_zero=True)
    return {
        "sad": errors.sad,
        "mse": errors.mse,
        "grad": errors.gradient,
        "conn": errors.connectivity,
        "soft_dice": errors.soft_dice,
    }


def _mean_of(errors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in errors])) for key in errors[0]}


def _row(
    source: str, name: str, measured: Sequence[Mapping[str, Mapping[str, float]]], patients: list[str], is_model: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source": source,
        "name": name,
        "kind": "model" if is_model else "classical",
        "cases": len(measured),
        "patients": len(set(patients)),
    }
    for key in measured[0][name]:
        row[key] = rounded(group_mean([case[name][key] for case in measured], patients))
        if key in METRICS:
            row[f"{key}_ci95"] = [
                rounded(v) for v in mean_interval([case[name][key] for case in measured], patients)[1:]
            ]
    if is_model:
        row["below_percent"], row["below_ci95"] = {}, {}
        for key in MATTING_ERRORS:
            change, low, high = paired_change_percent(
                [case[name][key] for case in measured], [case[CLOSED_FORM][key] for case in measured], patients
            )
            row["below_percent"][key] = rounded(-change, 1)
            row["below_ci95"][key] = [rounded(-high, 1), rounded(-low, 1)]
    return row


def _at_side(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(H, W)`` or ``(H, W, 3)`` brought to ``SIDE_PX`` on its longer side, 0..1."""
    scale = SIDE_PX / max(values.shape[:2])
    return _sampled(values, tuple(max(3, round(side * scale)) for side in values.shape[:2]))


def _sampled(values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """``(H, W)`` or ``(H, W, 3)`` at another size, smoothed before it is shrunk, 0..1."""
    scale = max(size) / max(values.shape[:2])
    factors = [to / side for to, side in zip(size, values.shape, strict=False)]
    flat = np.atleast_3d(values.astype(np.float32))
    blur = 0.4 / scale if scale < 1 else 0.0
    layers = [ndimage.gaussian_filter(flat[..., c], blur) if blur else flat[..., c] for c in range(flat.shape[2])]
    made = [ndimage.zoom(layer, factors, order=1, grid_mode=True, mode="nearest") for layer in layers]
    sampled = np.clip(np.stack(made, axis=-1), 0, 1).astype(np.float32)
    return sampled if values.ndim == 3 else sampled[..., 0]


def _within(middle: float, half: float, size: int) -> slice:
    first = min(max(0, round(middle - half)), size - 1)
    return slice(first, max(first + 1, min(size, round(middle + half))))


def _seed(case: MatteCase) -> int:
    content = np.ascontiguousarray(case.alpha, dtype=np.float32).tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big")
