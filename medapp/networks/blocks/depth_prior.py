"""What is known of a dense depth map from its measured pixels alone; numpy, outside every graph."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt
from scipy.spatial import QhullError
from torch import Tensor


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


def local_prior(sparse_depth: Tensor, middle: float, fill: str = "nearest") -> Tensor:
    """A filled depth map, and how far away the nearest measured pixel is.

    Args:
        sparse_depth: ``(B, 1, H, W)``, 0 = no measurement.
        middle: Fill of an image without any measurement; its distance is 1.
        fill: ``nearest`` or ``linear``.

    Returns:
        ``(B, 2, H, W)`` float32: fill in the unit of the input, distance / max(H, W).
    """
    if sparse_depth.is_meta:  # where only shapes are asked for
        return sparse_depth.new_empty(len(sparse_depth), 2, *sparse_depth.shape[2:])
    maps = sparse_depth.detach().float().cpu().numpy()[:, 0]
    prior = np.empty((len(maps), 2, *maps.shape[1:]), dtype=np.float32)
    for depth, (filled, distance) in zip(maps, prior, strict=True):
        if not (depth > 0).any():
            filled[...], distance[...] = middle, 1.0
            continue
        nearest, far = nearest_fill(depth)
        filled[...] = linear_fill(depth) if fill == "linear" else nearest
        distance[...] = far / max(depth.shape)
    return torch.from_numpy(prior).to(sparse_depth.device)
