"""Whether a trust map tells where a restoration is wrong: does the error rise with the spread?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from medapp.progress import Progress
from medapp.restoration.metrics import judging_of
from medapp.restoration.restorer import NetworkRestorer
from medapp.restoration.trust import restore_with_trust
from medapp.services.evaluation.conditions import MODALITIES, Condition
from medapp.services.evaluation.figures import mean_interval, rounded
from medapp.services.evaluation.measuring import maps_for
from medapp.services.evaluation.subjects import Subject

DECILES = 10
BLOCK_PX = 8
"""Side of the blocks over which error and spread are averaged: one pixel's error is a single draw."""


def calibration_of(
    model: NetworkRestorer, subjects: Sequence[Subject], condition: Condition, progress: Progress
) -> dict[str, Any]:
    """Restore the middle slice of each subject eight times and compare the spread with the error.

    Returns:
        ``{name, condition, n_subjects, unit, rank_correlation, rank_ci95, block_rank_correlation, block_rank_ci95,
        error_by_decile, rises}``: Spearman's correlation of spread and absolute error over the pixels of the body, and
        over blocks of 8 px, means over patients; mean absolute error in each tenth of the pixels by spread, from the
        most trusted to the least; whether it rises from each tenth to the next.
    """
    pixels, blocks, deciles, unit = [], [], [], ""
    for subject in subjects:
        reference, spacing_mm = subject.slices[len(subject.slices) // 2]
        degraded = condition.degrade(reference, spacing_mm)
        judging = judging_of(reference, MODALITIES[model.model.card.task])
        maps = maps_for(model, degraded, judging)
        trusted = restore_with_trust(model, degraded, progress=progress, maps=maps, is_filled=model.fills)
        low, high = judging.limits
        error = np.abs(np.clip(trusted.restored.values, low, high) - np.clip(reference, low, high))
        is_seen = judging.body & (reference > low) & (reference < high)
        pixels.append(rank_correlation(trusted.spread[is_seen], error[is_seen]))
        spread_of, error_of = (_in_blocks(values, is_seen) for values in (trusted.spread, error))
        blocks.append(rank_correlation(spread_of, error_of))
        deciles.append(judging.per_native * by_decile(trusted.spread[is_seen], error[is_seen]))
        unit = judging.unit
    patients = [subject.patient for subject in subjects]
    (pixel, *pixel_ci), (block, *block_ci) = (mean_interval(values, patients) for values in (pixels, blocks))
    tenths = np.nanmean(np.stack(deciles), axis=0)
    return {
        "name": model.id,
        "condition": condition.title,
        "n_subjects": len(subjects),
        "unit": unit,
        "rank_correlation": rounded(pixel, 3),
        "rank_ci95": [rounded(value, 3) for value in pixel_ci],
        "block_rank_correlation": rounded(block, 3),
        "block_rank_ci95": [rounded(value, 3) for value in block_ci],
        "error_by_decile": [rounded(value, 3) for value in tenths],
        "rises": bool((np.diff(tenths) > 0).all()),
    }


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
