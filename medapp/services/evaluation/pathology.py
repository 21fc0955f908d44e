"""Measure pathology super-resolution on held-out slides: interpolation and the models, on the same coarse pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import TrainingError, UsageError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration import metrics
from medapp.restoration.enlarging import KERNELS, enlarged_picture, sharpened_picture
from medapp.restoration.metrics import Judging
from medapp.restoration.restorer import NetworkRestorer
from medapp.scan.finer import FinerGrid
from medapp.services.evaluation.calibration import Case, calibration_over, trust_block, trust_figures
from medapp.services.evaluation.cards import cards_of
from medapp.services.evaluation.figures import (
    group_mean,
    mean_interval,
    paired_change_percent,
    paired_interval,
    rounded,
)
from medapp.services.evaluation.tables import Block, number, signed
from medapp.training.degradations.pathology import CUTOFF, low_picture
from medapp.training.sources import MANIFEST, find_references
from medapp.training.tasks.pathology import colour_psnr_db, in_levels, regions_of

TASK = "pathology-super-resolution"
FACTORS = (2, 4)
PHOTONS = 10_000.0
"""Of a white coarse pixel."""
SHARPENED = "sharpened Lanczos"
RIVALS = ("bicubic", "Lanczos", SHARPENED)
FREE = ", light free"
"""Added to a model's name where the light of the picture was not kept: what the network gives."""
ALL = "all"
WORST_SHARE = 0.1
"""Of the regions of a picture: those with the largest mean error."""
_KINDS = {"he": "H&E tiles", "nuclei": "stained nuclei", "wbc": "blood cells"}
_LEAST_SIDE_PX = 64
_TILE_PX = 64
_LIMITS = (0.0, 255.0)
_QUICK_SLIDES = 2


@dataclass(frozen=True, eq=False)
class Picture:
    """One held-out picture.

    Attributes:
        slide: What it shares with other pictures: they count as one.
        kind: Such as ``H&E tiles``.
        colours: ``(H, W, 3)`` float32, 0..255.
        seed: Of its noise; of the pixels alone.
    """

    slide: str
    kind: str
    colours: NDArray[np.float32]
    seed: int


@dataclass
class _Measured:
    kind: str
    pictures: list[dict[str, float]] = field(default_factory=list)

    def of(self, key: str, chosen: Sequence[int]) -> list[float]:
        return [self.pictures[i][key] for i in chosen]


def evaluate_pathology(
    library: ModelLibrary,
    data: Path,
    progress: Progress,
    model_id: str | None = None,
    pictures_per_slide: int = 5,
    is_quick: bool = False,
) -> dict[str, Any]:
    """Bring held-out pictures to a lower magnification, enlarge them by every method, compare with the originals.

    Args:
        library: Where the models are.
        data: A folder with ``MANIFEST.csv`` (its ``val`` rows are used), or any folder of colour pictures.
        progress: Counts pictures.
        model_id: One model; None = all models of the task.
        pictures_per_slide: The first so many of each slide.
        is_quick: One picture of each of two slides of every kind, no calibration of trust maps.

    Returns:
        ``{task, data_sha256, is_quick, cutoff, photons, rows, calibration}``. A row a condition (``x2``, ``x4``), group
        (``all`` and each kind of picture) and method: ``{condition, group, name, kind, n_subjects, n_slices, psnr_db,
        ci95, ssim, colour_shift, colour_shift_worst, worst_regions}``, means over pictures, then slides.
        ``colour_shift`` is the mean difference of the channel that moved most, in grey levels, and ``_worst`` that of
        the worst picture; ``worst_regions`` the mean absolute error in the tenth of the regions of a picture where it
        is largest, in grey levels. ``kind`` is ``classical``, ``model`` or ``variant`` (a model without the light of
        the picture kept). Models and variants have ``gain_db`` and ``gain_ci95`` over ``best_classical``, ``over``:
        ``[gain, low, high]`` in dB for each rival, and ``worst_regions_percent`` and its ``_ci95`` against the rival
        that is best there; models ``tiles_difference``, the mean absolute difference in grey levels between a picture
        restored in tiles of 64 px and as a whole (not when quick, and None where no picture is larger than a tile).
        ``calibration`` is of the middle picture of each slide.

    Raises:
        UsageError: There is no such model, or nothing there is such a picture.
        WeightsError: A model cannot be used.
        Cancelled: The user stopped it.
    """
    cards = cards_of(library, TASK, model_id)
    pictures, digest = held_out_pictures(data, progress, 1 if is_quick else pictures_per_slide)
    if is_quick:
        pictures = _quick(pictures)
    factors = [factor for factor in FACTORS if model_id is None or any(card.scale == factor for card in cards)]
    progress.start(len(factors) * len(pictures), "pictures", "evaluating")
    rows: list[dict[str, Any]] = []
    calibration: list[dict[str, Any]] = []
    for factor in factors:
        models = [NetworkRestorer(library.load(card.id)) for card in cards if card.scale == factor]
        found = _measured(pictures, factor, models, not is_quick, progress)
        if not is_quick:
            calibration += [
                calibration_over(one, _middle_pictures(pictures, factor), f"x{factor}", progress) for one in models
            ]
        for group in (ALL, *sorted({one.kind for one in pictures})):
            chosen = [i for i, one in enumerate(pictures) if group in (ALL, one.kind)]
            rows += _rows(f"x{factor}", group, found, chosen, [pictures[i].slide for i in chosen])
    return {
        "task": TASK,
        "data_sha256": digest,
        "is_quick": is_quick,
        "cutoff": CUTOFF,
        "photons": PHOTONS,
        "rows": rows,
        "calibration": calibration,
    }


def held_out_pictures(data: Path, progress: Progress, of_a_slide: int) -> tuple[list[Picture], str]:
    """The colour pictures of the ``val`` rows, or of a folder without a manifest, and one SHA-256 over their pixels.

    Raises:
        UsageError: Nothing there is such a picture.
        Cancelled: The user stopped it.
    """
    is_divided = (data / MANIFEST).is_file()
    try:
        references = find_references(
            data, "SM", "val" if is_divided else None, progress, under="pathology/" if is_divided else ""
        )
    except TrainingError as error:
        raise UsageError(error.message, error.hint) from error
    digest, pictures, counts = hashlib.sha256(), [], dict.fromkeys(references.patients, 0)
    for reference in references:
        for colours in reference.load():
            if colours.ndim != 3 or min(colours.shape[:2]) < _LEAST_SIDE_PX or counts[reference.patient] >= of_a_slide:
                continue
            counts[reference.patient] += 1
            own = hashlib.sha256(np.ascontiguousarray(colours).tobytes())
            digest.update(own.digest())
            kind = _KINDS.get(PurePosixPath(reference.source).parent.name, "pictures")
            pictures.append(Picture(reference.patient, kind, in_levels(colours), int(own.hexdigest()[:12], 16)))
    if not pictures:
        raise UsageError(
            "There is no colour picture here that could be judged",
            f"Choose a folder of RGB pictures of {_LEAST_SIDE_PX} px a side or more",
        )
    return pictures, digest.hexdigest()


def measure_picture(
    restored: NDArray, reference: NDArray[np.float32], region_map: NDArray[np.int32]
) -> dict[str, float]:
    """One restored picture against its original.

    Args:
        restored: ``(H, W, 3)``, grey levels 0..255.
        reference: The same shape.
        region_map: ``(H, W)``, non-negative.

    Returns:
        ``psnr_db, ssim, colour_shift, worst_regions``; see ``evaluate_pathology``.
    """
    difference = np.asarray(restored, np.float64) - reference
    ssim = np.mean([metrics.ssim(restored[..., c], reference[..., c], _LIMITS) for c in range(3)])
    return {
        "psnr_db": colour_psnr_db(restored, reference),
        "ssim": float(ssim),
        "colour_shift": float(np.abs(difference.mean(axis=(0, 1))).max()),
        "worst_regions": worst_regions(np.abs(difference).mean(axis=2), region_map),
    }


def worst_regions(error: NDArray[np.float64], region_map: NDArray[np.int32]) -> float:
    """Mean of the region means of an error ``(H, W)`` over the tenth of the regions where it is largest."""
    labels = region_map.ravel()
    pixels = np.bincount(labels)
    means = np.bincount(labels, error.ravel())[pixels > 0] / pixels[pixels > 0]
    count = max(1, round(WORST_SHARE * means.size))
    return float(np.sort(means)[-count:].mean())


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What the card of a model keeps: its rows, with the interpolations beside the headline."""
    figures: dict[str, Any] = {
        "measured_by": f"medapp evaluate --task {TASK}",
        "data_sha256": result["data_sha256"],
        "conditions": f"aperture to {result['cutoff']:g} cycles a coarse pixel, {result['photons']:g} photons, 8 bit",
    }
    dropped = ("condition", "group", "name", "kind", "n_subjects", "n_slices")
    for row in result["rows"]:
        if row["kind"] == "model" and row["name"] == model_id:
            entry = {key: value for key, value in row.items() if key not in dropped}
            entry |= {"slides": row["n_subjects"], "pictures": row["n_slices"]}
            same = [
                one for one in result["rows"] if (one["condition"], one["group"]) == (row["condition"], row["group"])
            ]
            entry |= {f"{one['name']}_psnr_db": one["psnr_db"] for one in same if one["kind"] == "classical"}
            figures[f"{row['condition']}, {row['group']}"] = entry
    return figures | trust_figures(result["calibration"], model_id)


def pathology_table(result: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """A table a condition, a row a group and method; then how well the trust maps tell the error; and notes."""
    head = ("pictures", "method", "n of slides", "PSNR dB", *(f"over {one}" for one in RIVALS), "SSIM")
    head = (*head, "colour shift", "of the worst", "worst tenth of regions")
    blocks = []
    for condition in dict.fromkeys(row["condition"] for row in result["rows"]):
        lines = []
        for row in (one for one in result["rows"] if one["condition"] == condition):
            gains = [_with_interval(row, rival) for rival in RIVALS]
            worst = number(row["worst_regions"], 2)
            if "worst_regions_percent" in row:
                low, high = row["worst_regions_ci95"]
                worst += f" ({signed(row['worst_regions_percent'], 1)} %, {signed(low, 1)} to {signed(high, 1)})"
            counts = f"{row['n_slices']} of {row['n_subjects']}"
            cells = (row["group"], row["name"], counts, number(row["psnr_db"], 2), *gains, number(row["ssim"], 4))
            shifts = (number(row["colour_shift"], 2), number(row["colour_shift_worst"], 2))
            lines.append((*cells, *shifts, worst))
        blocks.append(Block(condition, head, tuple(lines), left=2))
    if result["calibration"]:
        blocks.append(trust_block(result["calibration"]))
    notes = [
        "PSNR over the three colours, after rounding to 8 bit; gains with their 95 % interval over slides.",
        "Light free: as the network gives it, the light of the picture not kept.",
        "Colour shift: mean difference of the colour that moved most, grey levels, mean over pictures and the worst",
        "picture. Last: mean absolute error in the tenth of the regions where it is largest, grey levels, and percent",
        "against the best of the three. Sharpened: by a linear filter tuned for this blur on training pictures.",
        f"Simulated: aperture to {result['cutoff']:g} cycles a coarse pixel, {result['photons']:g} photons, 8 bit.",
        f"Data: {result['data_sha256'][:12]}.",
    ]
    notes += [
        f"{row['name']}: tiles of {_TILE_PX} px are {number(row['tiles_difference'], 2)} grey levels off the whole."
        for row in result["rows"]
        if row["group"] == ALL and row.get("tiles_difference") is not None
    ]
    return blocks, notes


def _with_interval(row: Mapping[str, Any], rival: str) -> str:
    if "over" not in row:
        return number(None, 2)
    gain, low, high = row["over"][rival]
    return f"{signed(gain, 2)} ({signed(low, 2)} to {signed(high, 2)})"


def _measured(
    pictures: Sequence[Picture],
    factor: int,
    models: Sequence[NetworkRestorer],
    with_tiles: bool,
    progress: Progress,
) -> dict[str, _Measured]:
    """Figures by method; a dictionary a picture, in their order."""
    found = {name: _Measured("classical") for name in (*KERNELS, SHARPENED)}
    for model in models:
        found |= {model.id: _Measured("model"), model.id + FREE: _Measured("variant")}
    grid = FinerGrid(factor, keeps_centres=False)
    for one in pictures:
        reference, coarse = _pair(one, factor)
        regions = regions_of(coarse)
        fine = grid.nearest(regions)
        made = {name: enlarged_picture(coarse, factor, kernel) for name, kernel in KERNELS.items()}
        made[SHARPENED] = sharpened_picture(coarse, factor)
        tiles: dict[str, float] = {}
        for model in models:
            whole = model.restore_slice(coarse, maps={"region_map": regions}, progress=progress.within()).values
            made[model.id] = whole
            free = NetworkRestorer(model.model, keeps_light=False)
            made[model.id + FREE] = free.restore_slice(coarse, maps={"region_map": regions}).values
            if with_tiles and max(coarse.shape[:2]) > _TILE_PX:
                cut = NetworkRestorer(model.model, tile_px=_TILE_PX).restore_slice(coarse, maps={"region_map": regions})
                tiles[model.id] = float(np.abs(cut.values.astype(np.float64) - whole).mean())
        for name, restored in made.items():
            figures = measure_picture(restored, reference, fine)
            found[name].pictures.append({**figures, "tiles_difference": tiles.get(name, float("nan"))})
        progress.step()
    return found


def _middle_pictures(pictures: Sequence[Picture], factor: int) -> Iterator[Case]:
    """One picture of each slide, at a lower magnification."""
    slides: dict[str, list[Picture]] = {}
    for one in pictures:
        slides.setdefault(one.slide, []).append(one)
    for slide, of_slide in slides.items():
        one = of_slide[len(of_slide) // 2]
        reference, coarse = _pair(one, factor)
        everywhere = np.ones(reference.shape[:2], np.bool_)
        judging = Judging(_LIMITS, everywhere, everywhere, _LIMITS, "grey levels")
        yield Case(slide, coarse, reference, judging, {"region_map": regions_of(coarse)})


def _pair(one: Picture, factor: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The whole coarse pixels of a picture, and the picture at a lower magnification."""
    height, width = (side // factor * factor for side in one.colours.shape[:2])
    reference = one.colours[:height, :width]
    return reference, low_picture(reference, factor, CUTOFF, PHOTONS, one.seed)


def _rows(
    condition: str, group: str, found: Mapping[str, _Measured], chosen: Sequence[int], slides: Sequence[str]
) -> list[dict[str, Any]]:
    best = min(RIVALS, key=lambda name: group_mean(found[name].of("worst_regions", chosen), slides))
    rows = []
    for name, measured in found.items():
        psnr = measured.of("psnr_db", chosen)
        mean, low, high = mean_interval(psnr, slides)
        shifts = measured.of("colour_shift", chosen)
        row: dict[str, Any] = {
            "condition": condition,
            "group": group,
            "name": name,
            "kind": measured.kind,
            "n_subjects": len(set(slides)),
            "n_slices": len(chosen),
            "psnr_db": rounded(mean, 3),
            "ci95": [rounded(low, 3), rounded(high, 3)],
            "ssim": rounded(group_mean(measured.of("ssim", chosen), slides)),
            "colour_shift": rounded(group_mean(shifts, slides), 3),
            "colour_shift_worst": rounded(max(shifts), 3),
            "worst_regions": rounded(group_mean(measured.of("worst_regions", chosen), slides), 3),
        }
        if measured.kind != "classical":
            over = {rival: paired_interval(psnr, found[rival].of("psnr_db", chosen), slides) for rival in RIVALS}
            row["over"] = {rival: [rounded(x, 3) for x in gain] for rival, gain in over.items()}
            row["best_classical"] = min(over, key=lambda rival: over[rival][0])
            row["gain_db"], *row["gain_ci95"] = row["over"][row["best_classical"]]
            change = paired_change_percent(
                measured.of("worst_regions", chosen), found[best].of("worst_regions", chosen), slides
            )
            row["worst_regions_percent"] = rounded(change[0], 2)
            if measured.kind == "model":
                row["tiles_difference"] = rounded(group_mean(measured.of("tiles_difference", chosen), slides), 3)
            row["worst_regions_ci95"] = [rounded(x, 2) for x in change[1:]]
        rows.append(row)
    return rows


def _quick(pictures: Sequence[Picture]) -> list[Picture]:
    of_kind: dict[str, list[Picture]] = {}
    for one in pictures:
        of_kind.setdefault(one.kind, []).append(one)
    return [one for members in of_kind.values() for one in members[:_QUICK_SLIDES]]
