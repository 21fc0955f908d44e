"""Dense depth from measured pixels alone; numpy only, so that processes without torch may use it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt
from scipy.spatial import QhullError


def nearest_fill(depth: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth of the nearest measured pixel, and the way to it in pixels.

    Args:
        depth: ``(H, W)``; pixels that are not above 0 are not measured, at least one is.

    Returns:
        Fill ``(H, W)`` in the unit of the input, and distance ``(H, W)`` in pixels.
    """
    far, (rows, columns) = distance_transform_edt(~(depth > 0), return_indices=True)
    return depth[rows, columns].astype(np.float32), far.astype(np.float32)


def linear_fill(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Planes over the triangles between measured pixels; the nearest pixel outside all of them.

    Args:
        depth: ``(H, W)``; pixels that are not above 0 are not measured, at least one is.

    Returns:
        Fill ``(H, W)`` in the unit of the input.
    """
    nearest, _far = nearest_fill(depth)
    points = np.argwhere(depth > 0)
    if len(points) < 3 or len(points) == depth.size:
        return nearest
    try:
        planes = LinearNDInterpolator(points, depth[points[:, 0], points[:, 1]].astype(np.float64))
    except QhullError:  # all points on one line
        return nearest
    filled = planes(tuple(np.indices(depth.shape)))
    return np.where(np.isfinite(filled), filled, nearest).astype(np.float32)
