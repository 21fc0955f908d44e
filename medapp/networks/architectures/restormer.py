"""Restormer-style network: a U-Net of channel attention; a baseline, trained by us like the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medapp.networks.blocks.resampling import Downsample, Upsample
from medapp.networks.blocks.restormer import RestormerBlock


class Restormer(nn.Module):
    """Restores one slice; the input is added to the output.

    Height and width must be multiples of 8.

    Args:
        inp_channels: Channels of the image.
        dim: Channels at full size; they double on each level.
        num_blocks: Blocks on each of four levels; the three upper levels have as many on the way back.
        num_refinement_blocks: Blocks at full size before the output.
        heads: Of the attention, on each level.
        ffn_expansion_factor: Hidden channels of the feed-forward over its channels.

    Reference:
        Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, section 3.
    """

    def __init__(
        self,
        inp_channels: int = 1,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
    ) -> None:
        if len(num_blocks) != 4 or len(heads) != 4:
            raise ValueError("num_blocks and heads need one number for each of four levels")
        if dim < 2 or dim % 2:
            raise ValueError(f"dim must be even, not {dim}")
        super().__init__()
        widths = [dim * 2**level for level in range(4)]

        def stage(level: int, count: int, channels: int | None = None) -> nn.Sequential:
            wide = widths[level] if channels is None else channels
            return nn.Sequential(*(RestormerBlock(wide, heads[level], ffn_expansion_factor) for _ in range(count)))

        self.patch_embed = nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False)
        self.encoders = nn.ModuleList(stage(level, num_blocks[level]) for level in range(3))
        self.downs = nn.ModuleList(Downsample(widths[level]) for level in range(3))
        self.latent = stage(3, num_blocks[3])
        self.ups = nn.ModuleList(Upsample(widths[level + 1]) for level in (2, 1, 0))
        self.reduces = nn.ModuleList(nn.Conv2d(2 * widths[level], widths[level], 1, bias=False) for level in (2, 1))
        # the last level keeps both halves, so that the image leaves at twice the width
        self.decoders = nn.ModuleList(
            [stage(2, num_blocks[2]), stage(1, num_blocks[1]), stage(0, num_blocks[0], 2 * dim)]
        )
        self.refinement = stage(0, num_refinement_blocks, 2 * dim)
        self.output = nn.Conv2d(2 * dim, inp_channels, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out, not clamped.

        Raises:
            ValueError: The image has another number of channels, or a side that is no multiple of 8.
        """
        channels = self.patch_embed.in_channels
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(f"the image must be (B, {channels}, H, W), not {tuple(image.shape)}")
        if image.shape[2] % 8 or image.shape[3] % 8:
            raise ValueError(f"height and width must be multiples of 8, not {tuple(image.shape[2:])}")
        # after the convolution: an image of one channel counts as both layouts, and torch would pick the slower one
        features = self.patch_embed(image).contiguous(memory_format=torch.channels_last)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.latent(features)
        for step, (up, decoder) in enumerate(zip(self.ups, self.decoders, strict=True)):
            features = torch.cat([up(features), skips.pop()], dim=1)
            if step < len(self.reduces):
                features = self.reduces[step](features)
            features = decoder(features)
        return self.output(self.refinement(features)) + image
