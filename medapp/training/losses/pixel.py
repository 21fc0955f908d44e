"""What training makes small."""

from __future__ import annotations

import torch
from torch import Tensor


def log_error(restored: Tensor, reference: Tensor, focus: tuple[float, float], outside_weight: float) -> Tensor:
    """Mean logarithm of the weighted mean square error of each image: the negative PSNR, up to scale.

    Every image counts alike, whether its noise is light or heavy; a plain mean square error would be ruled by the
    heaviest. The square inside keeps the result unbiased, which an absolute error does not.

    Args:
        restored: ``(B, 1, H, W)`` in native units.
        reference: The same shape.
        focus: Native values ``(low, high)`` of the reference with full weight.
        outside_weight: Weight of the others.
    """
    inside = (reference >= focus[0]) & (reference <= focus[1])
    weight = torch.where(inside, 1.0, outside_weight)
    error = (weight * (restored - reference).square()).mean(dim=(1, 2, 3)) / weight.mean(dim=(1, 2, 3))
    return (error + 1.0).log().mean()  # the one (native unit squared) keeps empty images finite
