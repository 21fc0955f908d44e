"""Halving and doubling an image by moving pixels into channels and back."""

from __future__ import annotations

from torch import Tensor, nn


class Downsample(nn.Module):
    """Halves the image and doubles the channels, by space-to-depth.

    Reference:
        Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, section 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2)
        )  # (B, C, H, W) -> (B, 2C, H/2, W/2)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in, ``(B, 2C, H/2, W/2)`` out."""
        return self.body(features)


class Upsample(nn.Module):
    """Doubles the image and halves the channels, by depth-to-space.

    Reference:
        Zamir et al., "Restormer", CVPR 2022, section 3; Shi et al., "Real-Time Single Image and Video Super-Resolution
        Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels * 2, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in, ``(B, C/2, 2H, 2W)`` out."""
        return self.body(features)
