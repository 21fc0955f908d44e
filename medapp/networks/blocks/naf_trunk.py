"""The U-Net of activation-free convolution blocks that NAFNet and RAT share; they differ in what is at the bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from medapp.networks.blocks.naf import NafBlock


class NafTrunk(nn.Module):
    """Encoder, bottom, decoder with added skips; the input is added to the output by who inherits.

    Args:
        img_channel: Channels of the image.
        width: Channels at full size; they double on each level.
        enc_blk_nums: Blocks on each level of the encoder.
        dec_blk_nums: The same for the decoder, as many levels.
        middle: Makes what is at the bottom, for so many channels; becomes ``middle_blks``.

    Raises:
        ValueError: The numbers of levels differ, or there are no channels.

    Reference:
        Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, sections 3.1 and 4.
    """

    def __init__(
        self,
        img_channel: int,
        width: int,
        enc_blk_nums: Sequence[int],
        dec_blk_nums: Sequence[int],
        middle: Callable[[int], nn.Module],
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
            self.encoders.append(naf_blocks(channels, count))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = middle(channels)
        for count in dec_blk_nums:
            enlarge = nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))
            self.ups.append(enlarge)  # (B, C, H, W) -> (B, C/2, 2H, 2W)
            channels //= 2
            self.decoders.append(naf_blocks(channels, count))
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)

    @property
    def step(self) -> int:
        """Sides must be multiples of it."""
        return int(2 ** len(self.downs))

    def check_image(self, image: Tensor) -> None:
        """Refuse what is not ``(B, C, H, W)`` with the network's own channels.

        Raises:
            ValueError: It is another.
        """
        channels = self.intro.in_channels
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(f"the image must be (B, {channels}, H, W), not {tuple(image.shape)}")

    def change(self, image: Tensor, bottom: Callable[[Tensor], Tensor]) -> Tensor:
        """What is to be added to the image.

        Args:
            image: ``(B, C, H, W)``.
            bottom: From and to the features at the bottom, ``(B, C', H / step, W / step)``.
        """
        # after the convolution: an image of one channel counts as both layouts, and torch would pick the slower one
        features = self.intro(image).contiguous(memory_format=torch.channels_last)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)
        features = bottom(features)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            features = decoder(up(features) + skips.pop())
        return self.ending(features)


def naf_blocks(channels: int, count: int) -> nn.Sequential:
    """So many blocks, one after the other."""
    return nn.Sequential(*(NafBlock(channels) for _ in range(count)))
