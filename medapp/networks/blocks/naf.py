"""The activation-free convolution block: gates instead of activations, one pooled weight per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.pieces import by_pieces

NORM_EPSILON = 1e-6
"""Of every layer norm in NAFNet and its descendants; torch's own default is ten times larger."""


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
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in, fastest in channels-last memory; same shape out."""
        pixels = features.permute(0, 2, 3, 1)  # (B, H, W, C): a view of channels-last memory
        pixels = torch.addcmul(pixels, self._spatial(pixels), self.beta.flatten())
        return by_pieces(self._channelwise, pixels, self.conv4.out_channels).permute(0, 3, 1, 2)

    def _spatial(self, pixels: Tensor) -> Tensor:
        wide = pointwise(self.conv1, self.norm1(pixels)).permute(0, 3, 1, 2)
        gated = _gate(self.conv2(wide).permute(0, 2, 3, 1))  # (B, H, W, C)
        weight = self.sca(gated.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, 1, 1, C)
        return pointwise(self.conv3, gated * weight)

    def _channelwise(self, pixels: Tensor) -> Tensor:
        change = pointwise(self.conv5, _gate(pointwise(self.conv4, self.norm2(pixels))))
        return torch.addcmul(pixels, change, self.gamma.flatten())


def pointwise(convolution: nn.Conv2d, tokens: Tensor) -> Tensor:
    """A 1x1 convolution on ``(..., C)`` tokens: one matrix product, which is what it should be on a CPU."""
    return functional.linear(tokens, convolution.weight.flatten(1), convolution.bias)


def _gate(pixels: Tensor) -> Tensor:
    """``(..., 2C)`` to ``(..., C)``: one half times the other."""
    first, second = pixels.chunk(2, dim=-1)
    return first * second
