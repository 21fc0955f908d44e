"""Restore-RWKV: a four-level U-Net of linear-attention blocks that restores CT, MR and PET slices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medapp.networks.blocks.omni_shift import OmniShift, accept_deployed_kernel
from medapp.networks.blocks.pieces import by_pieces
from medapp.networks.blocks.resampling import Downsample, Upsample
from medapp.networks.blocks.wkv import bidirectional_wkv, channel_groups

PASSES = 2
"""One along the rows, one along the columns."""


class SpatialMix(nn.Module):
    """Lets every pixel look at the whole image: two WKV passes, gated by the receptance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.omni_shift = OmniShift(channels)
        self.spatial_decay = nn.Parameter(torch.randn(PASSES, channels))
        self.spatial_first = nn.Parameter(torch.randn(PASSES, channels))
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, H, W, C)`` in; same shape out."""
        batch, height, width, channels = features.shape
        shifted = _shift(self.omni_shift, features).reshape(batch, height * width, channels)
        by_channel = shifted.transpose(1, 2)  # (B, C, T): a view; the products below read it as it lies
        groups = channel_groups(by_channel)
        if len(groups) == 1:
            mixed = self._mix(by_channel, slice(None), height, width)
        else:
            mixed = torch.empty_like(by_channel, memory_format=torch.contiguous_format)
            for group in groups:
                mixed[:, group] = self._mix(by_channel, group, height, width)
        return self.output(mixed.transpose(1, 2)).view(batch, height, width, channels)

    def _mix(self, tokens: Tensor, group: slice, height: int, width: int) -> Tensor:
        """These channels of all tokens, ``(B, c, T)``, from ``(B, C, T)``; no channel needs another from here on."""
        key = torch.matmul(self.key.weight[group], tokens)
        value = torch.matmul(self.value.weight[group], tokens)
        for index in range(PASSES):
            by_rows = index % 2 == 0
            k = key if by_rows else _turn(key, height, width)
            v = value if by_rows else _turn(value, height, width)
            mixed = bidirectional_wkv(k, v, self.spatial_decay[index, group], self.spatial_first[index, group])
            value = mixed if by_rows else _turn(mixed, width, height)
        return torch.matmul(self.receptance.weight[group], tokens).sigmoid() * value


class ChannelMix(nn.Module):
    """Mixes the channels of each pixel through four times as many, with a squared ReLU."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        self.omni_shift = OmniShift(channels)
        self.key = nn.Linear(channels, expansion * channels, bias=False)
        self.value = nn.Linear(expansion * channels, channels, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, H, W, C)`` in; same shape out."""
        shifted = _shift(self.omni_shift, features)
        return by_pieces(self._mix, shifted, self.key.out_features)

    def _mix(self, tokens: Tensor) -> Tensor:
        hidden = self.key(tokens).relu_()  # (..., 4C)
        hidden = hidden * hidden
        return self.receptance(tokens).sigmoid() * self.value(hidden)


class Block(nn.Module):
    """Spatial mix, then channel mix, each behind a layer norm and a learnt step size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(channels)
        self.ln2 = nn.LayerNorm(channels)
        self.att = SpatialMix(channels)
        self.ffn = ChannelMix(channels)
        self.gamma1 = nn.Parameter(torch.ones(channels))
        self.gamma2 = nn.Parameter(torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        tokens = features.permute(0, 2, 3, 1)  # (B, H, W, C): a view of channels-last memory
        tokens = torch.addcmul(tokens, self.gamma1, self.att(self.ln1(tokens)))
        tokens = torch.addcmul(tokens, self.gamma2, self.ffn(self.ln2(tokens)))
        return tokens.permute(0, 3, 1, 2)


class RestoreRWKV(nn.Module):
    """Restores one grey slice; the input is added to the output, so the body learns what to change.

    Height and width must be multiples of 8. Images come in scaled by fixed limits (the card says which); the output is
    not clamped.

    Reference:
        Yang et al., "Restore-RWKV: Efficient and Effective Medical Image Restoration with RWKV", JBHI 2026,
        arXiv 2407.11087.
    """

    def __init__(
        self,
        inp_channels: int = 1,
        out_channels: int = 1,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
    ) -> None:
        if inp_channels != out_channels:
            raise ValueError("inp_channels and out_channels must be equal: the input is added to the output")
        if len(num_blocks) != 4 or dim < 2 or dim % 2:
            raise ValueError("num_blocks needs four levels, and dim must be even")
        super().__init__()
        one, two, three, four = num_blocks
        self.patch_embed = nn.Conv2d(inp_channels, dim, 3, padding=1)
        self.encoder_level1 = _blocks(dim, one)
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = _blocks(2 * dim, two)
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = _blocks(4 * dim, three)
        self.down3_4 = Downsample(4 * dim)
        self.latent = _blocks(8 * dim, four)
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1)
        self.decoder_level3 = _blocks(4 * dim, three)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1)
        self.decoder_level2 = _blocks(2 * dim, two)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = _blocks(2 * dim, one)
        self.refinement = _blocks(2 * dim, num_refinement_blocks)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 1, H, W)`` in; same shape out, not clamped.

        Raises:
            ValueError: Another number of channels, or height or width is not a multiple of 8.
        """
        channels = self.patch_embed.in_channels
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(f"the image must be (B, {channels}, H, W), not {tuple(image.shape)}")
        if image.shape[-1] % 8 or image.shape[-2] % 8:
            raise ValueError(f"height and width must be multiples of 8, not {tuple(image.shape[-2:])}")
        level1 = self.encoder_level1(_pixel_major(self.patch_embed(image)))
        level2 = self.encoder_level2(_pixel_major(self.down1_2(level1)))  # (B, 2C, H/2, W/2)
        level3 = self.encoder_level3(_pixel_major(self.down2_3(level2)))  # (B, 4C, H/4, W/4)
        latent = self.latent(_pixel_major(self.down3_4(level3)))  # (B, 8C, H/8, W/8)
        up3 = torch.cat([_pixel_major(self.up4_3(latent)), level3], dim=1)
        up3 = self.decoder_level3(_pixel_major(self.reduce_chan_level3(up3)))
        up2 = torch.cat([_pixel_major(self.up3_2(up3)), level2], dim=1)
        up2 = self.decoder_level2(_pixel_major(self.reduce_chan_level2(up2)))
        up1 = torch.cat([_pixel_major(self.up2_1(up2)), level1], dim=1)  # (B, 2C, H, W): no reduction here
        up1 = self.refinement(self.decoder_level1(up1))
        return self.output(up1) + image


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(count)))


def _pixel_major(features: Tensor) -> Tensor:
    """The same ``(B, C, H, W)`` with the channels of a pixel side by side in memory, as the blocks read it."""
    return features.contiguous(memory_format=torch.channels_last)


def _turn(tokens: Tensor, height: int, width: int) -> Tensor:
    """Re-order ``(B, C, T)`` tokens of an image of this height and width from rows to columns."""
    return tokens.unflatten(2, (height, width)).transpose(2, 3).flatten(2)


def _shift(omni_shift: OmniShift, features: Tensor) -> Tensor:
    """Run a convolution on ``(B, H, W, C)``; the permutations are views of channels-last memory."""
    return omni_shift(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def drop_derived_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring a published checkpoint to our key set.

    Leaves out the dead depthwise layer of checkpoints from before 2025-07-28, and turns merged kernels without
    branches (deployed checkpoints) into branches. Returns a new dict.
    """
    kept = {key: value for key, value in state_dict.items() if not key.endswith(".att.dwconv.weight")}
    suffix = "conv5x5_reparam.weight"
    for key in [key for key in kept if key.endswith(suffix)]:
        accept_deployed_kernel(kept, key[: -len(suffix)])
    return kept
