"""A simulated person: clicks into the middle of a thing, then into the middle of what is most wrong.

Reference:
    Xu et al., "Deep Interactive Object Selection", CVPR 2016; Kirillov et al., "Segment Anything", ICCV 2023, appendix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class Click:
    """A point that belongs to the thing, or does not.

    Attributes:
        point_xy: Pixels; the centre of the first pixel is (0, 0).
        is_include: True = on the thing.
    """

    point_xy: tuple[float, float]
    is_include: bool


def next_click(truth: NDArray[np.bool_], found: NDArray[np.bool_] | None = None) -> Click | None:
    """Where a person clicks who wants ``truth`` and sees ``found``.

    In the middle (farthest from the border) of the largest connected error: include where something is missing,
    exclude where too much was found. Without ``found``, in the middle of the thing's largest part.

    Args:
        truth: ``(H, W)`` bool.
        found: ``(H, W)`` bool, or None before the first click.

    Returns:
        None when there is nothing to correct.
    """
    best: NDArray[np.bool_] | None = None
    largest, is_include = 0, True
    for wrong, is_missing in _errors(truth, found):
        labels, count = ndimage.label(wrong)
        if not count:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        if sizes.max() > largest:
            largest, best, is_include = int(sizes.max()), labels == int(sizes.argmax()) + 1, is_missing
    return None if best is None else Click(middle_of(best), is_include)


def middle_of(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """``(x, y)`` of the pixel that is farthest from the border; the edge of the slice is a border too.

    Raises:
        ValueError: The mask is empty.
    """
    rows, cols = np.nonzero(mask)
    if not rows.size:
        raise ValueError("the mask is empty")
    y0, x0 = int(rows.min()), int(cols.min())
    part = np.pad(mask[y0 : rows.max() + 1, x0 : cols.max() + 1], 1)
    depth = ndimage.distance_transform_edt(part)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x + x0), float(y + y0)


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 when both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def _errors(truth: NDArray[np.bool_], found: NDArray[np.bool_] | None) -> tuple[tuple[NDArray[np.bool_], bool], ...]:
    if found is None:
        return ((truth, True),)
    return (truth & ~found, True), (found & ~truth, False)
