"""The activation-free convolution block: gates instead of activations, one pooled weight per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NORM_EPSILON = 1e-6
"""Of every layer norm in NAFNet and its descendants; torch's own default is ten times larger."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out, fastest on channels-last memory."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NafBlock(nn.Module):
    """Depthwise 3x3 with a channel weight, then a pointwise part; both gated, both behind a learnt step size.

    The channel weight pools over all that the block sees, so tiles and whole images differ. Both step sizes start at
    zero: a fresh block passes its input on.

    Reference:
        Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, section 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = ChannelNorm(channels)
        self.norm2 = ChannelNorm(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        features = features + self._spatial(features) * self.beta
        return features + self._pointwise(features) * self.gamma

    def _spatial(self, features: Tensor) -> Tensor:
        gated = _gate(self.conv2(self.conv1(self.norm1(features))))  # (B, C, H, W)
        return self.conv3(gated * self.sca(gated))

    def _pointwise(self, features: Tensor) -> Tensor:
        return self.conv5(_gate(self.conv4(self.norm2(features))))


def _gate(features: Tensor) -> Tensor:
    """``(B, 2C, H, W)`` to ``(B, C, H, W)``: one half times the other."""
    first, second = features.chunk(2, dim=1)
    return first * second
