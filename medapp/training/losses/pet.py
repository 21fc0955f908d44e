"""What PET synthesis makes small: the error in SUV, and the error of the hottest voxel."""

from __future__ import annotations

import torch
from torch import Tensor

_FLOOR_SUV2 = 1e-3
_FLOOR_SUV = 0.1


def uptake_error(restored: Tensor, reference: Tensor, tumour: Tensor, tumour_weight: float) -> Tensor:
    """Mean logarithm of the weighted mean square error of each image: the negative PSNR, up to scale.

    The square keeps the mean uptake unbiased; the logarithm lets faint images count as much as hot ones.

    Args:
        restored: ``(B, 1, H, W)`` in SUV.
        reference: The same shape.
        tumour: The same shape, bool.
        tumour_weight: Weight of voxels in the tumour; of the others it is 1.
    """
    weight = torch.where(tumour, tumour_weight, 1.0)
    error = (weight * (restored - reference).square()).mean(dim=(1, 2, 3)) / weight.mean(dim=(1, 2, 3))
    return (error + _FLOOR_SUV2).log().mean()


def hottest_error(restored: Tensor, reference: Tensor, tumour: Tensor) -> Tensor:
    """Mean distance of the logarithms of the highest uptake in the tumour, or in the image where none is known.

    The most likely image is smoother than any measured one, so its highest voxel lies too low, however small the mean
    square error is. This term asks for the highest value itself; being a distance, it makes it right in the median.

    Args:
        restored: ``(B, 1, H, W)`` in SUV.
        reference: The same shape.
        tumour: The same shape, bool.
    """
    counted = tumour | ~tumour.flatten(1).any(dim=1).view(-1, 1, 1, 1)
    highest = [
        image.masked_fill(~counted, 0.0).flatten(1).amax(dim=1).clamp(min=0.0) + _FLOOR_SUV
        for image in (restored, reference)
    ]
    return (highest[0].log() - highest[1].log()).abs().mean()
