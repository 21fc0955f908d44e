"""Whole areas at once: fill, invert, smooth, and the areas that a click or a lasso means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.matte import FULL, Matte, Patch, plane_box, to_alpha, to_stored
from medapp.errors import UsageError

Combine = Literal["add", "replace", "subtract"]


def fill(
    matte: Matte, z: int, mask: NDArray, value: float = 1.0, axis: int = 0, limit: NDArray | None = None
) -> Patch | None:
    """Bring alpha to ``value`` inside a mask of a plane; soft masks fill by their share.

    Args:
        mask: 2-D bool or float 0..1, the size of the plane.
        limit: "Only where": bool or float 0..1.

    Returns:
        The patch, or None when nothing changes.

    Raises:
        UsageError: The layer is locked.
    """
    share = mask.astype(np.float32) if limit is None else mask.astype(np.float32) * limit.astype(np.float32)
    before = matte.slice_stored(z, axis).astype(np.float32)
    target = np.float32(round(value * FULL))
    return _patch(matte, z, axis, np.rint(before + (target - before) * share).astype(np.uint16))


def combine(matte: Matte, z: int, alpha: NDArray, how: Combine = "add", axis: int = 0) -> Patch | None:
    """Merge a proposal's alpha (2-D, bool or 0..1) into a plane: the larger, the proposal itself, or what is left.

    Raises:
        UsageError: The layer is locked.
    """
    stored, before = to_stored(alpha), matte.slice_stored(z, axis)
    if how == "add":
        after = np.maximum(before, stored)
    elif how == "subtract":
        after = np.minimum(before, FULL - stored)
    else:
        after = stored
    return _patch(matte, z, axis, after)


def invert(matte: Matte, z: int, axis: int = 0) -> Patch | None:
    """Alpha becomes 1 - alpha on a plane.

    Raises:
        UsageError: The layer is locked.
    """
    return _patch(matte, z, axis, FULL - matte.slice_stored(z, axis))


def smooth(matte: Matte, z: int, sigma_px: float = 1.5, axis: int = 0, mask: NDArray | None = None) -> Patch | None:
    """Smooth alpha on a plane by a Gaussian, inside a mask if one is given.

    Raises:
        UsageError: The layer is locked.
    """
    from scipy import ndimage  # not before it is needed: importing it takes 0.2 s

    alpha = to_alpha(matte.slice_stored(z, axis))
    blurred = ndimage.gaussian_filter(alpha, sigma_px, mode="nearest")
    if mask is not None:
        blurred = alpha + (blurred - alpha) * mask.astype(np.float32)
    return _patch(matte, z, axis, to_stored(blurred))


def area_at(values: NDArray, xy: tuple[float, float], tolerance: float) -> NDArray[np.bool_]:
    """The connected area around a pixel whose values differ by at most ``tolerance``: flood fill and wand.

    Args:
        values: 2-D image or alpha.
        xy: The pixel that was clicked; outside the plane the area is empty.
    """
    from scipy import ndimage

    row, column = round(xy[1]), round(xy[0])
    if not (0 <= row < values.shape[0] and 0 <= column < values.shape[1]):
        return np.zeros(values.shape, dtype=bool)
    level = values.astype(np.float64)
    labels, _ = ndimage.label(np.abs(level - level[row, column]) <= tolerance)
    return np.asarray(labels == labels[row, column]) & bool(labels[row, column])


def area_inside(points_xy: Sequence[tuple[float, float]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside a closed outline (even-odd rule): the lasso."""
    inside = np.zeros(shape, dtype=bool)
    points = np.asarray(points_xy, dtype=np.float64)
    if len(points) < 3:
        return inside
    top = max(int(np.ceil(points[:, 1].min())), 0)
    bottom = min(int(np.floor(points[:, 1].max())), shape[0] - 1)
    ends = np.roll(points, -1, axis=0)
    for row in range(top, bottom + 1):
        crosses = (points[:, 1] <= row) != (ends[:, 1] <= row)
        start, end = points[crosses], ends[crosses]
        at = np.sort(start[:, 0] + (row - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0]))
        for left, right in zip(at[0::2], at[1::2], strict=True):
            inside[row, max(int(np.ceil(left)), 0) : max(int(np.floor(right)) + 1, 0)] = True
    return inside


def _patch(matte: Matte, z: int, axis: int, after: NDArray) -> Patch | None:
    if matte.is_locked:
        raise UsageError("This layer is locked; nothing was changed.", "Unlock it in the layer list first.")
    start, shape = plane_box(matte.shape_zyx, z, axis)
    return matte.make_patch("alpha", start, after.reshape(shape))
