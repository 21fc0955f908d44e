"""DRMC: one network for PET of several centres; small routers mix three experts per layer, per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.channel_attention import attend_over_channels
from medapp.networks.blocks.routing import RoutingTap

HEADS = 16
HIDDEN = 16
"""Width of the state that each router hands on to the next."""


class _Norm(nn.Module):
    """Layer norm of each voxel over its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, *size)`` in; same shape out."""
        return self.norm(features.movedim(1, -1)).movedim(-1, 1)


class Router(nn.Module):
    """Looks at the pooled features and at what the last router saw, and says how loud each expert is.

    Gates are not negative and need not sum to 1; all of them may be 0, then the layer adds nothing to this image.
    """

    def __init__(self, channels: int, experts: int, dims: int) -> None:
        super().__init__()
        self.conv1 = _conv(dims)(channels + HIDDEN, HIDDEN, 1)
        self.conv3 = _conv(dims)(HIDDEN, experts, 1)
        self.tap = RoutingTap("gates")

    def forward(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Gate.

        Args:
            features: ``(B, C, *size)``.
            hidden: ``(B, 16, 1...)`` from the router before.

        Returns:
            Gates ``(B, experts)`` float32, and the hidden state for the next router.
        """
        with torch.autocast(features.device.type, enabled=False):
            sizes = tuple(range(2, features.ndim))
            pooled = features.mean(dim=sizes, keepdim=True, dtype=torch.float32)
            hidden = functional.gelu(self.conv1(torch.cat([pooled, hidden], dim=1)))
            return self.tap(self.conv3(hidden).flatten(1).relu()), hidden


class AttentionExpert(nn.Module):
    """Channel attention with heads of ``channels / 16``, then a depthwise convolution."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        conv = _conv(dims)
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv = conv(channels, 3 * channels, 1, bias=False)
        self.dwconv = conv(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.project_out = conv(channels, channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, *size)`` in; same shape out."""
        query, key, value = self.qkv(features).chunk(3, dim=1)
        return self.project_out(self.dwconv(attend_over_channels(query, key, value, self.temperature)))


class MLPExpert(nn.Module):
    """A perceptron on single voxels."""

    def __init__(self, channels: int, ratio: float, dims: int) -> None:
        super().__init__()
        self.fc1 = _conv(dims)(channels, int(channels * ratio), 1)
        self.fc2 = _conv(dims)(int(channels * ratio), channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, *size)`` in; same shape out."""
        return self.fc2(functional.gelu(self.fc1(features)))


class _AttentionBank(nn.Module):
    """Attention experts and their router."""

    def __init__(self, channels: int, experts: int, dims: int) -> None:
        super().__init__()
        self.att_experts = nn.ModuleList(AttentionExpert(channels, dims) for _ in range(experts))
        self.routing = Router(channels, experts, dims)


class _MLPBank(nn.Module):
    """Perceptron experts and their router."""

    def __init__(self, channels: int, ratios: Sequence[float], dims: int) -> None:
        super().__init__()
        self.mpl_experts = nn.ModuleList(MLPExpert(channels, ratio, dims) for ratio in ratios)  # published spelling
        self.routing = Router(channels, len(ratios), dims)


class Block(nn.Module):
    """A bank of attention experts, then one of perceptrons; what came in is scaled, what they add is not."""

    def __init__(self, channels: int, attention_experts: int, ratios: Sequence[float], dims: int) -> None:
        super().__init__()
        one = (1,) * dims
        self.norm1 = _Norm(channels)
        self.attention = _AttentionBank(channels, attention_experts, dims)
        self.beta = nn.Parameter(torch.ones(1, channels, *one))
        self.norm2 = _Norm(channels)
        self.mlp = _MLPBank(channels, ratios, dims)
        self.gamma = nn.Parameter(torch.ones(1, channels, *one))

    def forward(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, *size)`` and the hidden state in; both out."""
        seen = self.norm1(features)
        gates, hidden = self.attention.routing(seen, hidden)
        features = _add_experts(self.beta * features, self.attention.att_experts, seen, gates)
        seen = self.norm2(features)
        gates, hidden = self.mlp.routing(seen, hidden)
        return _add_experts(self.gamma * features, self.mlp.mpl_experts, seen, gates), hidden


class DRMC(nn.Module):
    """Restores low-dose PET, slices (``dims=2``) or volumes (``dims=3``), of any size and several centres.

    Values come in divided by a fixed upper limit; the output is not clamped. Gates pool all that the network sees, so
    a whole volume and a window of it are mixed differently.

    Reference:
        Yang et al., "DRMC: A Generalist Model with Dynamic Routing for Multi-Center PET Image Synthesis", MICCAI 2023,
        arXiv 2307.05249.
    """

    def __init__(
        self,
        res_num: int | None = None,
        n_feats: int = 64,
        ch_exp_list: Sequence[float] = (1, 1, 1),
        mlp_ratio_list: Sequence[float] = (2, 2, 2),
        reduction: int = 8,
        dims: int = 3,
    ) -> None:
        """Build it.

        Args:
            res_num: Blocks; None = as published, 5 in 3-D and 6 in 2-D.
            n_feats: Channels, a multiple of 16.
            ch_exp_list: One entry per attention expert; their values have no effect.
            mlp_ratio_list: One entry per perceptron expert: its hidden width over the channels.
            reduction: Accepted because published configurations name it; has no effect.
            dims: 2 for slices, 3 for volumes.

        Raises:
            ValueError: The numbers do not fit each other.
        """
        if dims not in (2, 3):
            raise ValueError(f"dims is 2 or 3, not {dims!r:.20}")
        if n_feats < HEADS or n_feats % HEADS:
            raise ValueError(f"n_feats must be a multiple of {HEADS}, not {n_feats!r:.20}")
        if not ch_exp_list or not mlp_ratio_list:
            raise ValueError("each bank needs at least one expert")
        super().__init__()
        count = (5 if dims == 3 else 6) if res_num is None else res_num
        self.dims = dims
        self.hidden = nn.Parameter(torch.ones(1, HIDDEN, *(1,) * dims))
        self.head_conv = _conv(dims)(1, n_feats, 3, padding=1)
        self.body = nn.ModuleList(Block(n_feats, len(ch_exp_list), mlp_ratio_list, dims) for _ in range(count))
        self.tail_conv = _conv(dims)(n_feats, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 1, H, W)`` or, in 3-D, ``(B, 1, D, H, W)`` in; same shape out, not clamped.

        Raises:
            ValueError: Another number of axes or channels.
        """
        if image.ndim != self.dims + 2 or image.shape[1] != 1:
            axes = "H, W" if self.dims == 2 else "D, H, W"
            raise ValueError(f"the image must be (B, 1, {axes}), not {tuple(image.shape)}")
        layout = torch.channels_last if self.dims == 2 else torch.channels_last_3d
        features = self.head_conv(image.contiguous(memory_format=layout))
        hidden = self.hidden.expand(len(image), *(-1,) * (self.dims + 1))
        for block in self.body:
            features, hidden = block(features, hidden)
        return self.tail_conv(features) + image


def _conv(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return nn.Conv2d if dims == 2 else nn.Conv3d


def _add_experts(start: Tensor, experts: nn.ModuleList, features: Tensor, gates: Tensor) -> Tensor:
    """Add each expert's answer, scaled by its gate, one at a time so that only one is alive.

    Without gradients, experts whose gate is 0 for every image are not run.
    """
    total = start
    by_expert = gates.unflatten(1, (-1, *(1,) * (features.ndim - 1)))  # (B, experts, 1, 1...)
    for index, expert in enumerate(experts):
        if torch.is_grad_enabled() or bool(gates[:, index].any()):
            total = total + by_expert[:, index] * expert(features)
    return total
