"""A small convolutional image encoder that takes the place of SAM's transformer in a ``segment_anything.Sam``.

A transformer without pretraining needs far more pictures than a small data set has; convolutions learn edges from few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

STRIDE = 8
MARK = "image_encoder.side"
"""Entry that tells weights with this encoder from those of a transformer."""
_GROUPS = 8


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, each after its normalisation.

    Reference:
        He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
        Wu and He, "Group Normalization", ECCV 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_GROUPS, channels), nn.GroupNorm(_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape, dtype and device out."""
        made = self.conv1(self.norm1(features).relu())
        made = self.conv2(self.norm2(made).relu())
        return features + made


class ConvEncoder(nn.Module):
    """Picture -> embedding, with the interface that ``segment_anything.Sam`` asks of its image encoder.

    Five levels, each half as fine as the one before; what the coarse ones see is added to the level of stride 8.

    Reference:
        Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.

    Attributes:
        img_size: Side of the square it takes, px.
        side: The same as a buffer, so that it can be read off the weights.
    """

    side: Tensor

    def __init__(
        self,
        img_size: int = 256,
        widths: Sequence[int] = (24, 48, 96, 128, 160),
        depths: Sequence[int] = (1, 2, 2, 2, 2),
        out_chans: int = 128,
    ) -> None:
        """Build the levels.

        Args:
            img_size: A multiple of 32.
            widths: Channels of the five levels; multiples of 8.
            depths: Residual blocks of the five levels.
            out_chans: Channels of the embedding; a multiple of 8.

        Raises:
            ValueError: A size does not fit.
        """
        super().__init__()
        if img_size % 32 or len(widths) != 5 or len(depths) != 5 or any(n % _GROUPS for n in (*widths, out_chans)):
            raise ValueError("img_size is a multiple of 32; five widths and out_chans are multiples of 8")
        self.img_size = img_size
        self.register_buffer("side", torch.tensor(img_size))
        before = (3, *widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(before, widths, strict=True))
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.fine = nn.Conv2d(widths[1], out_chans, 2, stride=2)  # what stride 8 alone would lose of the edges
        self.sides = nn.ModuleList(nn.Conv2d(width, out_chans, 1) for width in widths[2:])
        self.joined = nn.Sequential(ResidualBlock(out_chans), ResidualBlock(out_chans))
        self.norm = nn.GroupNorm(_GROUPS, out_chans)

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, 3, S, S)`` normalised pixels to the ``(B, C, S / 8, S / 8)`` embedding."""
        features, found = pixels, []
        for down, level in zip(self.downs, self.levels, strict=True):
            features = level(down(features))
            found.append(features)
        _, at_4, at_8, at_16, at_32 = found
        coarse = self.sides[2](at_32)
        for side, level in ((self.sides[1], at_16), (self.sides[0], at_8)):
            coarse = side(level) + F.interpolate(coarse, level.shape[-2:], mode="bilinear", align_corners=False)
        embedding: Tensor = self.norm(self.joined(coarse + self.fine(at_4)))
        return embedding


def encoder_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of a ``ConvEncoder`` from the shapes of its weights in a ``Sam``.

    Raises:
        KeyError: An entry is missing.
    """
    prefix = "image_encoder."
    widths = [int(state[f"{prefix}downs.{i}.weight"].shape[0]) for i in range(5)]
    depths = [
        len({key.split(".")[3] for key in state if key.startswith(f"{prefix}levels.{i}.")}) for i in range(len(widths))
    ]
    out_chans = int(state[f"{prefix}fine.weight"].shape[0])
    return {"img_size": int(state[MARK]), "widths": widths, "depths": depths, "out_chans": out_chans}
