"""A restored slice beside its original: a part of the change, the source's type, gaps that stay where they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medapp.scan.finer import FinerGrid

_PER_LEVEL = 257.0
"""Of sixteen bits: what restorers see of colours is 0..255."""


def as_seen(values: NDArray) -> NDArray[np.float32]:
    """A slice as restorers see it: float32, colours of sixteen bits divided to 0..255."""
    seen = np.ascontiguousarray(values, dtype=np.float32)
    return seen / np.float32(_PER_LEVEL) if values.ndim == 3 and values.dtype == np.uint16 else seen


def typed(values: NDArray, source: NDArray) -> NDArray:
    """Colours keep their type and its range; the way back from ``as_seen``."""
    if np.issubdtype(source.dtype, np.integer) and source.ndim == 3:
        limits = np.iinfo(source.dtype)
        made = values * _PER_LEVEL if source.dtype == np.uint16 else values
        return np.clip(np.rint(made), limits.min, limits.max).astype(source.dtype)
    return values


def around_gaps(
    values: NDArray[np.float32], enlarged: Callable[[NDArray[np.float32]], NDArray[np.float32]], grid: FinerGrid
) -> NDArray[np.float32]:
    """Enlarge a slice that may hold values that are not finite: they stay where they are and spread nowhere."""
    is_gap = ~np.isfinite(values)
    if not is_gap.any():
        return enlarged(values)
    low = np.float32(values[~is_gap].min()) if not is_gap.all() else np.float32(0)
    return np.where(grid.nearest(is_gap), grid.nearest(values), enlarged(np.where(is_gap, low, values)))


def part_of_change(original: NDArray[np.float32], restored: NDArray, strength: float) -> NDArray[np.float32]:
    """A part of the change; voxels that are not finite keep their value."""
    kept = ~np.isfinite(original)
    change = restored - np.where(kept, 0, original)
    return np.where(kept, original, original + np.float32(strength) * change).astype(np.float32)
