"""RAT: a NAFNet-like U-Net whose bottleneck attends inside the regions of a region map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.naf import NORM_EPSILON, pointwise
from medapp.networks.blocks.naf_trunk import NafTrunk
from medapp.networks.blocks.region_attention import Plan, RegionAttention, RegionPlan, WindowAttention

HEADS = 8
WINDOW_PX = 4
LAYERS_PER_BLOCK = 3


class Mlp(nn.Module):
    """Two pointwise layers with a GELU between, twice as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, 2 * channels, 1)
        self.fc2 = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(T, C)`` in; same shape out."""
        return pointwise(self.fc2, functional.gelu(pointwise(self.fc1, tokens)))


class Layer(nn.Module):
    """Region attention, then window attention, each followed by an MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_ra = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.ra = RegionAttention(channels, HEADS)
        self.norm_ra_mlp = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.mlp_ra = Mlp(channels)
        self.norm_wa = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.wa = WindowAttention(channels, HEADS, WINDOW_PX)
        self.norm_wa_mlp = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.mlp_wa = Mlp(channels)
        self.lambda_ra = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.lambda_wa = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, tokens: Tensor, plan: Plan) -> Tensor:
        """``(B * N, C)``, window after window, in; same shape and order out.

        The first half is pointwise but for the attention, so it runs in the plan's order and tokens move twice only.
        """
        tokens = plan.sort(tokens)
        tokens = tokens + self.ra(self.norm_ra(tokens), plan) * self.lambda_ra.flatten()
        tokens = tokens + self.mlp_ra(self.norm_ra_mlp(tokens))
        tokens = plan.restore(tokens)
        tokens = tokens + self.wa(self.norm_wa(tokens)) * self.lambda_wa.flatten()
        return tokens + self.mlp_wa(self.norm_wa_mlp(tokens))


class MiddleBlock(nn.Module):
    """Three layers and a closing convolution behind one skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(channels) for _ in range(LAYERS_PER_BLOCK))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, plan: Plan) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        tokens = _by_windows(features.permute(0, 2, 3, 1)).flatten(0, -2)  # (B * N, C)
        for layer in self.layers:
            tokens = layer(tokens, plan)
        return features + self.conv(_from_windows(tokens, features.shape))


class RAT(NafTrunk):
    """Restores one slice with the help of its region map; the (enlarged) input is added to the output.

    Height and width, after the enlargement, must be multiples of 16. Images come in scaled to 0..1; the output is not
    clamped. A region may be scattered, labels need not be consecutive, and their order has no meaning.

    Args:
        img_channel: Channels of the image: 1, or 3 for colour.
        width: Channels at full size.
        middle_blk_num: Transformer layers in the bottleneck, a multiple of three.
        enc_blk_nums: Convolution blocks on each level of the encoder.
        dec_blk_nums: The same for the decoder, as many levels.
        scale: The output is so many times larger than the input; region maps are those of the output.

    Reference:
        Yang et al., "Region Attention Transformer for Medical Image Restoration", MICCAI 2024, arXiv 2407.09268.
    """

    def __init__(
        self,
        img_channel: int = 1,
        width: int = 64,
        middle_blk_num: int = 12,
        enc_blk_nums: Sequence[int] = (2, 2),
        dec_blk_nums: Sequence[int] = (2, 2),
        scale: int = 1,
    ) -> None:
        bottom = width * 2 ** len(enc_blk_nums)
        if middle_blk_num % LAYERS_PER_BLOCK:
            raise ValueError(f"middle_blk_num must be a multiple of {LAYERS_PER_BLOCK}, not {middle_blk_num}")
        if bottom % HEADS:
            raise ValueError(f"the bottleneck has {bottom} channels, which {HEADS} heads cannot share")
        if scale < 1:
            raise ValueError(f"scale must be 1 or more, not {scale}")
        blocks = middle_blk_num // LAYERS_PER_BLOCK
        super().__init__(
            img_channel,
            width,
            enc_blk_nums,
            dec_blk_nums,
            lambda channels: nn.ModuleList(MiddleBlock(channels) for _ in range(blocks)),
        )
        self.scale = scale

    def forward(self, image: Tensor, region_map: Tensor | None = None) -> Tensor:
        """Restore a batch of slices.

        Args:
            image: ``(B, C, H, W)``, 0..1.
            region_map: ``(B, scale * H, scale * W)``, whole non-negative numbers of any integer or float dtype.

        Returns:
            ``(B, C, scale * H, scale * W)``, not clamped.

        Raises:
            ValueError: The image has another number of channels or a side that is no multiple of 16, or the region map
                is missing, of another size, or holds no labels.
        """
        self.check_image(image)
        if self.scale > 1:
            image = functional.interpolate(image, scale_factor=self.scale, mode="bilinear", align_corners=False)
        step = self.step
        if image.shape[2] % (step * WINDOW_PX) or image.shape[3] % (step * WINDOW_PX):
            sides = tuple(image.shape[2:])
            raise ValueError(f"height and width must be multiples of {step * WINDOW_PX}, not {sides}")
        labels = _checked_labels(region_map, image)[:, ::step, ::step]  # (B, H/4, W/4): the first pixel of each cell
        plan = self.plan_regions(_by_windows(labels[..., None]).flatten(1))

        def bottom(features: Tensor) -> Tensor:
            middle = features
            for block in cast("nn.ModuleList", self.middle_blks):
                middle = block(middle, plan)
            return features + middle

        return self.change(image, bottom) + image

    def plan_regions(self, labels: Tensor) -> Plan:
        """What all layers of one pass share, from ``(B, N)`` int64 labels; a bench puts the published form here."""
        return RegionPlan.of(labels)


def _by_windows(tokens: Tensor) -> Tensor:
    """``(B, H, W, C)`` to ``(B, windows, tokens of a window, C)``, both row by row."""
    rows = tokens.unflatten(2, (-1, WINDOW_PX)).unflatten(1, (-1, WINDOW_PX))
    return rows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _from_windows(tokens: Tensor, shape: torch.Size) -> Tensor:
    """``(B * N, C)`` window after window, to ``(B, C, H, W)`` of this shape in channels-last memory."""
    batch, channels, height, width = shape
    windows = tokens.view(batch, height // WINDOW_PX, width // WINDOW_PX, WINDOW_PX, WINDOW_PX, channels)
    return windows.transpose(2, 3).reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def _checked_labels(region_map: Tensor | None, image: Tensor) -> Tensor:
    """The region map as int64 on the device of the image; see ``RAT.forward`` for what is refused."""
    if region_map is None:
        raise ValueError("RAT needs a region map beside the image")
    expected = (image.shape[0], *image.shape[2:])
    if tuple(region_map.shape) != expected:
        raise ValueError(f"the region map must have the shape {expected} of the output, not {tuple(region_map.shape)}")
    labels = region_map.to(image.device, torch.int64)
    if region_map.is_floating_point() and not torch.equal(labels.to(region_map.dtype), region_map.to(image.device)):
        raise ValueError("the region map must hold whole numbers")
    if labels.numel() and int(labels.min()) < 0:
        raise ValueError("the region map must not hold negative numbers")
    return labels


def drop_loss_keys(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what a loss with parameters adds to a training checkpoint. Returns a new dict."""
    return {key: value for key, value in state_dict.items() if not key.startswith("loss_fun.")}
