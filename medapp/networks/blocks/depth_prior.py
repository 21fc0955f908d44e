"""What a network is told of a depth map beside its measured pixels; outside every graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medapp.networks.blocks.depth_fill import linear_fill, nearest_fill


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
