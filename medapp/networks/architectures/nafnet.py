"""NAFNet-style network: a U-Net of activation-free convolution blocks; a baseline, trained by us like the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medapp.networks.blocks.naf import NafBlock


class NAFNet(nn.Module):
    """Restores one slice; the input is added to the output.

    Height and width must be multiples of ``2 ** len(enc_blk_nums)``.

    Args:
        img_channel: Channels of the image.
        width: Channels at full size; they double on each level.
        middle_blk_num: Blocks at the bottom.
        enc_blk_nums: Blocks on each level of the encoder.
        dec_blk_nums: The same for the decoder, as many levels.

    Reference:
        Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, sections 3.1 and 4.
    """

    def __init__(
        self,
        img_channel: int = 1,
        width: int = 32,
        middle_blk_num: int = 12,
        enc_blk_nums: Sequence[int] = (2, 2, 4, 8),
        dec_blk_nums: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise ValueError("enc_blk_nums and dec_blk_nums need the same number of levels")
        if width < 1 or img_channel < 1:
            raise ValueError("width and img_channel must be at least 1")
        super().__init__()
        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        channels = width
        for count in enc_blk_nums:
            self.encoders.append(_blocks(channels, count))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = _blocks(channels, middle_blk_num)
        for count in dec_blk_nums:
            enlarge = nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))
            self.ups.append(enlarge)  # (B, C, H, W) -> (B, C/2, 2H, 2W)
            channels //= 2
            self.decoders.append(_blocks(channels, count))
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out, not clamped.

        Raises:
            ValueError: The image has another number of channels, or a side that cannot be halved often enough.
        """
        channels, step = self.intro.in_channels, 2 ** len(self.downs)
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(f"the image must be (B, {channels}, H, W), not {tuple(image.shape)}")
        if image.shape[2] % step or image.shape[3] % step:
            raise ValueError(f"height and width must be multiples of {step}, not {tuple(image.shape[2:])}")
        # after the convolution: an image of one channel counts as both layouts, and torch would pick the slower one
        features = self.intro(image).contiguous(memory_format=torch.channels_last)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = self.middle_blks(features)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            features = decoder(up(features) + skips.pop())
        return self.ending(features) + image


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NafBlock(channels) for _ in range(count)))
