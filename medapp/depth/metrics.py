"""How far a depth map is from the truth; numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-4


@dataclass(frozen=True)
class DepthScores:
    """Errors over the pixels whose true depth is known.

    Attributes:
        rmse, mae: In the unit of the depths.
        irmse, imae: Of inverse depths, in 1 / that unit.
        rel: Mean of error / true depth.
        delta_102, delta_105, delta_110, delta_125, delta_125_2, delta_125_3: Shares 0..1 of pixels whose ratio to the
            truth, either way up, is below 1.02, 1.05, 1.10, 1.25, 1.25^2, 1.25^3.
        pixels: How many were compared.
    """

    rmse: float
    mae: float
    irmse: float
    imae: float
    rel: float
    delta_102: float
    delta_105: float
    delta_110: float
    delta_125: float
    delta_125_2: float
    delta_125_3: float
    pixels: int

    def as_dict(self) -> dict[str, float]:
        """Plain data for tables and JSON."""
        return asdict(self)


_DELTAS = {
    "delta_102": 1.02,
    "delta_105": 1.05,
    "delta_110": 1.10,
    "delta_125": 1.25,
    "delta_125_2": 1.25**2,
    "delta_125_3": 1.25**3,
}


def depth_scores(predicted: NDArray, reference: NDArray) -> DepthScores:
    """Compare one depth map with the truth.

    Args:
        predicted: ``(H, W)``, any unit; what is not finite counts as 0.
        reference: The same shape and unit; pixels at most 1e-4 or not finite are left out.

    Raises:
        ValueError: The shapes differ, or nothing of the reference is known.

    Reference:
        The usual depth-completion metrics, as in NLSPN (ECCV 2020) and CompletionFormer (CVPR 2023).
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"depth {predicted.shape} and reference {reference.shape} differ in size")
    known = np.isfinite(reference) & (reference > _LEAST)
    if not known.any():
        raise ValueError("nothing of the reference is known")
    truth = reference[known].astype(np.float64)
    depth = np.nan_to_num(predicted[known].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    error = np.abs(depth - truth)
    inverse = np.where(depth > _LEAST, 1 / (np.maximum(depth, 0) + 1e-8), 0.0)
    inverse_error = np.abs(inverse - 1 / (truth + 1e-8))
    positive = np.maximum(depth, 1e-12)
    ratio = np.maximum(positive / truth, truth / positive)
    return DepthScores(
        rmse=float(np.sqrt((error**2).mean())),
        mae=float(error.mean()),
        irmse=float(np.sqrt((inverse_error**2).mean())),
        imae=float(inverse_error.mean()),
        rel=float((error / truth).mean()),
        **{name: float((ratio < most).mean()) for name, most in _DELTAS.items()},
        pixels=int(known.sum()),
    )


def mean_scores(scores: Iterable[DepthScores]) -> DepthScores:
    """Mean over images; pixels are added up.

    Raises:
        ValueError: There are none.
    """
    rows = list(scores)
    if not rows:
        raise ValueError("there is nothing to average")
    names = [entry.name for entry in fields(DepthScores) if entry.name != "pixels"]
    means = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    return DepthScores(**means, pixels=sum(row.pixels for row in rows))
