"""Native values to what a network sees, and exactly back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medapp.networks.card import Intake

PERCENTILES = (0.5, 99.5)
"""Of the finite values of a slice, for models whose limits are the slice's own."""
TINY_SPREAD = 1e-6
"""Of the larger limit; a slice between closer limits has no spread."""


def own_intake(intake: Intake, values: NDArray) -> Intake | None:
    """The intake with native limits for these values: as the card says, or by their own percentiles.

    Args:
        intake: Of the card.
        values: The slice or volume as it is given, degraded, in native units.

    Returns:
        An intake with fixed limits, for ``to_network`` and ``from_network``; None for values without spread, which
        pass unchanged.
    """
    if intake.limits != "percentiles":
        return intake
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = (float(value) for value in np.percentile(finite.astype(np.float64), PERCENTILES))
    if high - low <= TINY_SPREAD * max(abs(low), abs(high)):
        return None
    return replace(intake, value_range=(low, high), limits="fixed")


def to_network(values: NDArray, intake: Intake) -> NDArray[np.float32]:
    """Native values to what the network sees; ``own_intake`` gives the intake of a model with percentiles."""
    _needs_fixed(intake)
    (low, high), (bottom, top) = intake.value_range, intake.network_range
    share = (values.astype(np.float64) - low) / (high - low)
    if intake.curve == "log":
        share = np.log1p(share * (high - low)) / np.log1p(high - low)
    return (share * (top - bottom) + bottom).astype(np.float32)


def from_network(values: NDArray, intake: Intake) -> NDArray[np.float32]:
    """The way back; to a hundredth of a HU and better, because it is computed in double."""
    _needs_fixed(intake)
    (low, high), (bottom, top) = intake.value_range, intake.network_range
    share = (values.astype(np.float64) - bottom) / (top - bottom)
    if intake.curve == "log":
        share = np.expm1(share * np.log1p(high - low)) / (high - low)
    return (share * (high - low) + low).astype(np.float32)


def _needs_fixed(intake: Intake) -> None:
    if intake.limits != "fixed":
        raise ValueError("the limits are those of each slice: ask own_intake first")
