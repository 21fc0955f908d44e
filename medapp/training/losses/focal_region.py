"""A mean absolute error that looks harder at the regions with the largest error."""

from __future__ import annotations

import torch
from torch import Tensor

TRAINING_BETA = 1e-3
"""Weight that the published training used; the published default is 1."""
_SMALLEST_ERROR = 1e-12


def focal_region_loss(restored: Tensor, reference: Tensor, region_map: Tensor, beta: float = TRAINING_BETA) -> Tensor:
    """Mean of ``e * (1 + beta * W)``: e the absolute error, W that of the pixel's region as a share of the largest.

    The largest region error is that of the whole batch. No gradient flows through W.

    Args:
        restored: ``(B, C, H, W)``.
        reference: The same shape.
        region_map: ``(B, H, W)`` whole non-negative numbers of any dtype; the same label in two images is two regions.
        beta: Additional weight of the region with the largest error.

    Returns:
        A scalar; zero, not NaN, where nothing differs.

    Raises:
        ValueError: Shapes do not fit.

    Reference:
        Yang et al., "Region Attention Transformer for Medical Image Restoration", MICCAI 2024, arXiv 2407.09268 (focal
        region loss).
    """
    if restored.shape != reference.shape:
        raise ValueError(f"restored {tuple(restored.shape)} and reference {tuple(reference.shape)} differ in shape")
    expected = (restored.shape[0], *restored.shape[2:])
    if tuple(region_map.shape) != expected:
        raise ValueError(f"the region map must have the shape {expected}, not {tuple(region_map.shape)}")
    error = (restored - reference).abs()
    return (error * (1 + beta * _region_weight(error.detach(), region_map)[:, None])).mean()


def _region_weight(error: Tensor, region_map: Tensor) -> Tensor:
    """``(B, H, W)``: mean error of each pixel's region, over channels too, as a share of the largest of the batch."""
    values, label_index = region_map.to(error.device, torch.int64).unique(return_inverse=True)
    image = torch.arange(error.shape[0], device=error.device)[:, None, None]
    region = (label_index + image * len(values)).flatten()  # (B * H * W,)
    sums = error.new_zeros(error.shape[0] * len(values))
    pixels = torch.bincount(region, minlength=len(sums)).clamp_min(1)
    means = sums.index_add(0, region, error.mean(dim=1).flatten()) / pixels
    share = (means / means.max().clamp_min(_SMALLEST_ERROR)).clamp(0, 1)
    return share[region].view(region_map.shape)
