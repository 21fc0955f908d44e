"""AMIR: one network for MR, CT and PET slices that works out the task from the image and routes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.resampling import Downsample, Upsample
from medapp.networks.blocks.restormer import RestormerBlock
from medapp.networks.blocks.routing import ChannelRouter, SpatialRouter

ATOMS, ATOM_DIM = 32, 256
BALANCE_WEIGHT = 0.001
"""Of the balance loss beside a mean absolute error, as published."""


class InstructionNetwork(nn.Module):
    """Looks at the whole degraded image and says what is to be done, as a mixture of learnt atoms."""

    def __init__(self, inp_channels: int) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.randn(ATOMS, ATOM_DIM))
        self.CondNet = nn.Sequential(
            nn.Conv2d(inp_channels, 64, 3, stride=3),  # rows and columns left over at the far edges are not seen
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 64, 3, stride=3),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 64, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 64, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, ATOMS, 1),
        )
        self.lastOut = nn.Linear(ATOMS, ATOMS)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` in, ``(B, 256)`` out."""
        summary = self.CondNet(image).mean(dim=(2, 3))
        mixture = self.lastOut(summary).softmax(dim=1)  # (B, 32)
        return functional.gelu(mixture @ self.dictionary)


class AMIR(nn.Module):
    """Restores one grey slice of any of the modalities it was trained on, without being told which.

    Height and width must be multiples of 8 and at least 16. Images come in scaled by fixed limits per modality (the
    card says which); the output is not clamped. In training mode the output is noisy and a pair.

    Statistics of the channel attention and the instruction come from all that the network sees. When an image is
    tiled, compute ``context`` once on the whole image and pass it to every tile (our choice; the paper never tiles).

    Reference:
        Yang et al., "All-In-One Medical Image Restoration via Task-Adaptive Routing", MICCAI 2024, arXiv 2405.19769.
    """

    def __init__(
        self,
        inp_channels: int = 1,
        out_channels: int = 1,
        dim: int = 42,
        num_blocks: Sequence[int] = (5, 7, 7, 9),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = "WithBias",
        dual_pixel_task: bool = False,
    ) -> None:
        """Build it.

        Args:
            inp_channels: Of the image.
            out_channels: The same, because the input is added to the output.
            dim: Channels at full size.
            num_blocks: Per level, from full size to an eighth.
            num_refinement_blocks: At full size, at the end.
            heads: Attention heads per level.
            ffn_expansion_factor: Hidden width of feed-forwards and experts, times their channels, rounded down.
            bias: Of all convolutions of the trunk except the first.
            LayerNorm_type: ``WithBias`` or ``BiasFree``.
            dual_pixel_task: Accepted because published configurations name it; has no effect.

        Raises:
            ValueError: The numbers do not fit each other.
        """
        if inp_channels != out_channels:
            raise ValueError("inp_channels and out_channels must be equal: the input is added to the output")
        if len(num_blocks) != 4 or len(heads) != 4 or dim < 2 or dim % 2:
            raise ValueError("num_blocks and heads need four levels, and dim must be even")
        super().__init__()

        def blocks(channels: int, level: int, count: int) -> nn.Sequential:
            arguments = (channels, heads[level], ffn_expansion_factor, bias, LayerNorm_type)
            return nn.Sequential(*(RestormerBlock(*arguments) for _ in range(count)))

        def spatial_router(channels: int) -> SpatialRouter:
            return SpatialRouter(channels, ATOM_DIM, int(channels * ffn_expansion_factor))

        one, two, three, four = num_blocks
        self.patch_embed = _PatchEmbedding(inp_channels, dim)
        self.dict_generator = InstructionNetwork(inp_channels)
        self.spatial_routing_encoder_level1 = spatial_router(dim)
        self.encoder_level1 = blocks(dim, 0, one)
        self.down1_2 = Downsample(dim)
        self.spatial_routing_encoder_level2 = spatial_router(2 * dim)
        self.encoder_level2 = blocks(2 * dim, 1, two)
        self.down2_3 = Downsample(2 * dim)
        self.spatial_routing_encoder_level3 = spatial_router(4 * dim)
        self.encoder_level3 = blocks(4 * dim, 2, three)
        self.down3_4 = Downsample(4 * dim)
        self.channel_routing_latent = ChannelRouter(8 * dim, ATOM_DIM)
        self.latent = blocks(8 * dim, 3, four)
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.channel_routing_decoder_level3 = ChannelRouter(4 * dim, ATOM_DIM)
        self.decoder_level3 = blocks(4 * dim, 2, three)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.channel_routing_decoder_level2 = ChannelRouter(2 * dim, ATOM_DIM)
        self.decoder_level2 = blocks(2 * dim, 1, two)
        self.up2_1 = Upsample(2 * dim)
        self.channel_routing_decoder_level1 = ChannelRouter(2 * dim, ATOM_DIM)
        self.decoder_level1 = blocks(2 * dim, 0, one)
        self.refinement = blocks(2 * dim, 0, num_refinement_blocks)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def context(self, image: Tensor) -> dict[str, Tensor]:
        """What every tile of an image has in common.

        Args:
            image: ``(B, C, H, W)``, the whole one.

        Returns:
            ``instruction``: ``(B, 256)`` float32; pass it to ``forward``.
        """
        with torch.autocast(image.device.type, enabled=False):
            return {"instruction": self.dict_generator(image.float())}

    def forward(self, image: Tensor, instruction: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Restore.

        Args:
            image: ``(B, C, H, W)``.
            instruction: ``(B, 256)`` from ``context``; None = from this image.

        Returns:
            ``(B, C, H, W)``, not clamped. In training mode a pair: this, and the balance loss of the three spatial
            routers (a scalar), to be added to the loss with a weight of ``BALANCE_WEIGHT``.

        Raises:
            ValueError: The image has another number of channels, or a side that is no multiple of 8 or below 16.
        """
        self._check(image)
        if instruction is None:
            instruction = self.context(image)["instruction"]
        balance = []
        features = self.patch_embed(image.contiguous(memory_format=torch.channels_last))
        features, loss = self.spatial_routing_encoder_level1(features, instruction)
        balance.append(loss)
        level1 = self.encoder_level1(features)
        features, loss = self.spatial_routing_encoder_level2(self.down1_2(level1), instruction)
        balance.append(loss)
        level2 = self.encoder_level2(features)  # (B, 2C, H/2, W/2)
        features, loss = self.spatial_routing_encoder_level3(self.down2_3(level2), instruction)
        balance.append(loss)
        level3 = self.encoder_level3(features)  # (B, 4C, H/4, W/4)
        features = self.latent(self.channel_routing_latent(self.down3_4(level3), instruction))  # (B, 8C, H/8, W/8)
        features = self.reduce_chan_level3(torch.cat([self.up4_3(features), level3], dim=1))
        features = self.decoder_level3(self.channel_routing_decoder_level3(features, instruction))
        features = self.reduce_chan_level2(torch.cat([self.up3_2(features), level2], dim=1))
        features = self.decoder_level2(self.channel_routing_decoder_level2(features, instruction))
        features = torch.cat([self.up2_1(features), level1], dim=1)  # (B, 2C, H, W): no reduction here
        features = self.decoder_level1(self.channel_routing_decoder_level1(features, instruction))
        restored = self.output(self.refinement(features)) + image
        return (restored, torch.stack(balance).sum()) if self.training else restored

    def _check(self, image: Tensor) -> None:
        channels = self.dict_generator.CondNet[0].in_channels
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(f"the image must be (B, {channels}, H, W), not {tuple(image.shape)}")
        height, width = image.shape[-2:]
        if height % 8 or width % 8 or min(height, width) < 16:
            raise ValueError(f"height and width must be multiples of 8 and at least 16, not {height} x {width}")


class _PatchEmbedding(nn.Module):
    """The first convolution; a module of its own because its published key has one more word."""

    def __init__(self, inp_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 1, H, W)`` in, ``(B, C, H, W)`` out."""
        return self.proj(image)
