"""Recognising files that are labels, masks or mattes and not measurements: nothing restores them, so they stay out."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_WORDS = re.compile(
    r"(^|[_\-. ])(labels?|masks?|segs?|segmentations?|gtv|contours?|trimaps?|alphas?|prob|1stHO|2ndHO|scribbles?"
    r"|annotations?)\d*([_\-. ]|$)",
    re.I,
)
_MOST_LABELS = 256


def says_label(name: str) -> bool:
    """True when a file's name or description says that it is a label map, a mask or a matte."""
    return _WORDS.search(name) is not None


def looks_like_labels(values: NDArray) -> bool:
    """True when a volume is a label map, a mask or a matte by its content.

    Labels are whole numbers from 0, few of them, and each label lies in patches: nearly all neighbours of a labelled
    pixel carry the same label. Mattes are 0 or 1 (or 0 or 255) nearly everywhere. A measurement is neither.

    Args:
        values: ``(Z, Y, X)`` in the file's unit, grey; a sample of its slices is enough.
    """
    if values.ndim != 3 or values.size == 0:
        return False
    low, high = float(values.min()), float(values.max())
    if low < 0 or low == high:  # air in HU is below 0; a file of one value is told elsewhere
        return False
    if _is_matte(values, low, high):
        return True
    if high > 65_535 or not np.array_equal(values, np.rint(values)):
        return False
    distinct = np.unique(values)
    if len(distinct) > _MOST_LABELS:
        return False
    return _share_of_equal_neighbours(values) > 0.75


def _is_matte(values: NDArray, low: float, high: float) -> bool:
    """Nearly everything at one of two ends, both of them in use."""
    at_low, at_high = float(np.mean(values == low)), float(np.mean(values == high))
    return low == 0 and high in (1.0, 255.0, 65_535.0) and at_high > 0.005 and at_low + at_high > 0.9


def _share_of_equal_neighbours(values: NDArray) -> float:
    """How many labelled pixels have an equal right and lower neighbour, more or less."""
    labelled = values > 0
    if not labelled.any():
        return 0.0
    right = (values[:, :, 1:] == values[:, :, :-1])[labelled[:, :, :-1]]
    down = (values[:, 1:] == values[:, :-1])[labelled[:, :-1]]
    return float(np.concatenate([right, down]).mean()) if right.size + down.size else 0.0
