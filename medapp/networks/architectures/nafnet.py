"""NAFNet-style network: a U-Net of activation-free convolution blocks; a baseline, trained by us like the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medapp.networks.blocks.naf_trunk import NafTrunk, naf_blocks


class NAFNet(NafTrunk):
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
        super().__init__(
            img_channel,
            width,
            enc_blk_nums,
            dec_blk_nums,
            lambda channels: naf_blocks(channels, middle_blk_num),
        )

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out, not clamped.

        Raises:
            ValueError: The image has another number of channels, or a side that cannot be halved often enough.
        """
        self.check_image(image)
        if image.shape[2] % self.step or image.shape[3] % self.step:
            raise ValueError(f"height and width must be multiples of {self.step}, not {tuple(image.shape[2:])}")
        return self.change(image, self.middle_blks) + image
