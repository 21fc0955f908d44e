"""Whether a trust map tells where a restoration is wrong: does the error rise with the spread?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from medapp.progress import Progress
from medapp.restoration.metrics import Judging, judging_of
from medapp.restoration.restorer import NetworkRestorer
from medapp.restoration.tiling import Maps
from medapp.restoration.trust import restore_with_trust
from medapp.services.evaluation.conditions import Condition
from medapp.services.evaluation.figures import mean_interval, rounded
from medapp.services.evaluation.measuring import maps_for
from medapp.services.evaluation.subjects import Subject
from medapp.services.evaluation.tables import Block, interval, number

DECILES = 10
BLOCK_PX = 8
"""Side of the blocks over which error and spread are averaged: one pixel's error is a single draw."""


@dataclass(frozen=True, eq=False)
class Case:
    """One slice or picture whose trust map is held against its error.

    Attributes:
        patient: Patient group, or slide.
        degraded: ``(Y, X)`` in native units, or ``(h, w, 3)``: what the restorer is given.
        reference: On the grid of the result.
        judging: Of the reference.
        maps: What the restorer needs beside the slice.
    """

    patient: str
    degraded: NDArray
    reference: NDArray[np.float32]
    judging: Judging
    maps: Maps = field(default_factory=dict)


def calibration_of(
    model: NetworkRestorer, subjects: Sequence[Subject], condition: Condition, progress: Progress
) -> dict[str, Any]:
    """``calibration_over`` the middle slice of each subject, degraded as a condition says."""
    return calibration_over(model, _middle_slices(model, subjects, condition), condition.title, progress)


def _middle_slices(model: NetworkRestorer, subjects: Sequence[Subject], condition: Condition) -> Iterator[Case]:
    for subject in subjects:
        reference, spacing_mm = subject.slices[len(subject.slices) // 2]
        degraded = condition.degrade(reference, spacing_mm)
        judging = judging_of(reference, model.modality)
        yield Case(subject.patient, degraded, reference, judging, maps_for(model, degraded, judging))


def calibration_over(
    model: NetworkRestorer, cases: Iterable[Case], condition: str, progress: Progress
) -> dict[str, Any]:
    """Restore each case eight times and compare the spread with the error; of colours with its mean over them.

    Args:
        model: What restores.
        cases: At least one.
        condition: As tables and cards show it.
        progress: Asked for Stop before every answer.

    Returns:
        ``{name, condition, n_subjects, unit, rank_correlation, rank_ci95, block_rank_correlation, block_rank_ci95,
        error_by_decile, rises}``: Spearman's correlation of spread and absolute error over the pixels of the body, and
        over blocks of 8 px, means over patients; mean absolute error in each tenth of the pixels by spread, from the
        most trusted to the least; whether it rises from each tenth to the next.
    """
    pixels, blocks, deciles, patients, unit = [], [], [], [], ""
    for case in cases:
        judging, reference = case.judging, case.reference
        trusted = restore_with_trust(model, case.degraded, progress=progress, maps=case.maps, is_filled=model.fills)
        low, high = judging.limits
        error = np.abs(np.clip(trusted.restored.values, low, high) - np.clip(reference, low, high))
        is_seen = (reference > low) & (reference < high)
        if reference.ndim == 3:
            error, is_seen = error.mean(axis=2), is_seen.any(axis=2)
        is_seen &= judging.body
        pixels.append(rank_correlation(trusted.spread[is_seen], error[is_seen]))
        spread_of, error_of = (_in_blocks(values, is_seen) for values in (trusted.spread, error))
        blocks.append(rank_correlation(spread_of, error_of))
        deciles.append(judging.per_native * by_decile(trusted.spread[is_seen], error[is_seen]))
        patients.append(case.patient)
        unit = judging.unit
    (pixel, *pixel_ci), (block, *block_ci) = (mean_interval(values, patients) for values in (pixels, blocks))
    tenths = np.nanmean(np.stack(deciles), axis=0)
    return {
        "name": model.id,
        "condition": condition,
        "n_subjects": len(set(patients)),
        "unit": unit,
        "rank_correlation": rounded(pixel, 3),
        "rank_ci95": [rounded(value, 3) for value in pixel_ci],
        "block_rank_correlation": rounded(block, 3),
        "block_rank_ci95": [rounded(value, 3) for value in block_ci],
        "error_by_decile": [rounded(value, 3) for value in tenths],
        "rises": bool((np.diff(tenths) > 0).all()),
    }


def trust_figures(calibration: Sequence[Mapping[str, Any]], model_id: str) -> dict[str, Any]:
    """What the card of a model keeps: an entry a condition."""
    return {
        f"trust map, {told['condition']}": {
            key: value for key, value in told.items() if key not in ("name", "condition")
        }
        for told in calibration
        if told["name"] == model_id
    }


def trust_block(calibration: Sequence[Mapping[str, Any]]) -> Block:
    """The table of a task: a row a condition and model."""
    head = ("trust map of", "condition", "rank correlation", "95 %", "in 8 px blocks", "95 %")
    head += ("mean error by tenths of the spread", "rises")
    lines = []
    for told in calibration:
        tenths = " ".join(number(value, 2 if told["unit"] == "SUV" else 1) for value in told["error_by_decile"])
        lines.append(
            (
                told["name"],
                told["condition"],
                number(told["rank_correlation"], 2),
                interval(told["rank_ci95"]),
                number(told["block_rank_correlation"], 2),
                interval(told["block_rank_ci95"]),
                f"{tenths} {told['unit']}",
                "yes" if told["rises"] else "no",
            )
        )
    return Block("Does the error rise with the spread of the trust map?", head, tuple(lines), left=2)


def rank_correlation(first: NDArray, second: NDArray) -> float:
    """Spearman's: 1 where one rises whenever the other does; nan with nothing to rank."""
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def by_decile(spread: NDArray, error: NDArray) -> NDArray[np.float64]:
    """``(10,)``: mean error of the tenth with the smallest spread, and so on; nan with fewer than ten values."""
    if spread.size < DECILES:
        return np.full(DECILES, np.nan)
    order = np.argsort(spread, axis=None, kind="stable")
    return np.array([part.mean(dtype=np.float64) for part in np.array_split(error.ravel()[order], DECILES)])


def _in_blocks(values: NDArray, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Means over the blocks that lie mostly in ``where``."""
    height, width = (side // BLOCK_PX * BLOCK_PX for side in values.shape)
    parts = (height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX)
    inside = where[:height, :width].reshape(parts).astype(np.float64)
    sums = (values[:height, :width].reshape(parts).astype(np.float64) * inside).sum(axis=(1, 3))
    counts = inside.sum(axis=(1, 3))
    chosen = counts >= 0.5 * BLOCK_PX**2
    return np.asarray(sums[chosen] / counts[chosen])
