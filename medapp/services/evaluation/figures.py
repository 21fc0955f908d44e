"""What is measured, what is better, and how sure a difference between two methods is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000


@dataclass(frozen=True)
class Metric:
    """One figure of a table or a scorecard.

    Attributes:
        title: What people read.
        unit: Of the values; empty for shares and ratios.
        better: Which way is up; ``zero`` for figures that should be near zero whatever their sign.
        digits: That are shown.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    digits: int = 3


METRICS: dict[str, Metric] = {
    "psnr_db": Metric("PSNR", "dB", "higher", 2),
    "psnr_whole_db": Metric("PSNR of the whole slice", "dB", "higher", 2),
    "ssim": Metric("SSIM", "", "higher", 4),
    "rmse": Metric("RMSE", "", "lower", 2),
    "bias": Metric("Shift in flat regions", "", "zero", 2),
    "edge_width": Metric("Edge width against the reference", "", "zero", 3),
    "noise_power": Metric("Noise power against the input", "", "lower", 3),
    "sad": Metric("SAD", "/ 1000", "lower", 3),
    "mse": Metric("MSE", "", "lower", 4),
    "grad": Metric("Gradient error", "/ 1000", "lower", 3),
    "conn": Metric("Connectivity error", "/ 1000", "lower", 3),
    "soft_dice": Metric("Soft Dice", "", "higher", 3),
    "ged": Metric("GED", "", "lower", 3),
}
"""By the keys that ``measure_restoration`` and ``measure_matte`` give; RMSE and shift are in the unit of the scan."""
MATTING_ERRORS = ("sad", "mse", "grad", "conn")


def by_group(values: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """Mean of each group's finite values, in order of the names; groups without any are left out."""
    found: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if np.isfinite(value):
            found.setdefault(group, []).append(float(value))
    return {group: float(np.mean(found[group])) for group in sorted(found)}


def group_mean(values: Sequence[float], groups: Sequence[str]) -> float:
    """Mean over cases, then over groups; nan without any."""
    means = by_group(values, groups)
    return float(np.mean(list(means.values()))) if means else float("nan")


def mean_interval(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """Mean over cases, then groups, with its 95 % bootstrap interval over groups: ``(mean, low, high)``."""
    return paired_interval(values, [0.0] * len(values), groups, seed)


def paired_interval(
    challenger: Sequence[float], champion: Sequence[float], groups: Sequence[str], seed: int = 0
) -> tuple[float, float, float]:
    """How much higher the challenger's figure is: ``(mean difference, low, high)``.

    Args:
        challenger: A figure a case.
        champion: The same cases in the same order. Cases where either is not finite are left out.
        groups: Patient of each case; cases of a patient are averaged, and patients are resampled. Of a single patient
            the cases are resampled instead, which says nothing about other patients.
        seed: Of the resampling.

    Returns:
        Mean difference with its 95 % bootstrap interval; nan without a case, equal limits with only one.
    """
    pairs = _pairs(challenger, champion, groups)
    if not len(pairs):
        return float("nan"), float("nan"), float("nan")
    differences = pairs[:, 0] - pairs[:, 1]
    low, high = np.quantile(differences[_picks(len(pairs), seed)].mean(axis=1), (0.025, 0.975))
    return float(differences.mean()), float(low), float(high)


def paired_change_percent(
    challenger: Sequence[float], champion: Sequence[float], groups: Sequence[str], seed: int = 0
) -> tuple[float, float, float]:
    """By how many percent the challenger's mean is above the champion's: ``(percent, low, high)``.

    The ratio of means, not the mean of ratios: a case where the champion is nearly perfect does not rule the figure.
    Resampled as in ``paired_interval``; nan where the champion's mean is 0.
    """
    pairs = _pairs(challenger, champion, groups)
    if not len(pairs) or not pairs[:, 1].any():
        return float("nan"), float("nan"), float("nan")
    drawn = pairs[_picks(len(pairs), seed)].mean(axis=1)  # (draws, 2)
    drawn = drawn[drawn[:, 1] != 0]
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    whole = pairs.mean(axis=0)
    return tuple(100.0 * (float(ratio) - 1.0) for ratio in (whole[0] / whole[1], low, high))  # type: ignore[return-value]


def rounded(value: float, digits: int = 4) -> float | None:
    """For JSON, which knows no nan."""
    return round(float(value), digits) if np.isfinite(value) else None


def _pairs(challenger: Sequence[float], champion: Sequence[float], groups: Sequence[str]) -> NDArray[np.float64]:
    """``(N, 2)``: both means of each patient, or both figures of each case when there is one patient."""
    given = np.column_stack([np.asarray(challenger, np.float64), np.asarray(champion, np.float64)])
    names = np.asarray(groups, dtype=object)
    finite = np.isfinite(given).all(axis=1)
    given, names = given[finite], names[finite]
    different = sorted(set(names))
    if len(different) < 2:
        return given
    return np.stack([given[names == name].mean(axis=0) for name in different])


def _picks(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(count, size=(DRAWS, count))
