"""The Restormer block: channels attend to each other, then a gated feed-forward, each behind a layer norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.channel_attention import attend_over_channels

NORMS = ("WithBias", "BiasFree")
EPSILON = 1e-5


class BiasFreeNorm(nn.Module):
    """Divides each pixel by its standard deviation over the channels, without moving its mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(..., C)`` in; same shape out."""
        variance = tokens.var(dim=-1, keepdim=True, correction=0)
        return tokens / torch.sqrt(variance + EPSILON) * self.weight


class ChannelNorm(nn.Module):
    """Layer norm of each pixel over its channels."""

    def __init__(self, channels: int, kind: str = "WithBias") -> None:
        if kind not in NORMS:
            raise ValueError(f"the layer norm is {' or '.join(NORMS)}, not {kind!r:.40}")
        super().__init__()
        self.body = nn.LayerNorm(channels, eps=EPSILON) if kind == "WithBias" else BiasFreeNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        return self.body(features.movedim(1, -1)).movedim(-1, 1)  # views of channels-last memory


class TransposedAttention(nn.Module):
    """Channel attention on queries, keys and values that saw their 3x3 neighbourhood.

    Reference:
        Zamir et al., "Restormer", CVPR 2022, section 3.1.
    """

    def __init__(self, channels: int, heads: int, bias: bool = False) -> None:
        if heads < 1 or channels % heads:
            raise ValueError(f"{channels} channels cannot be shared out to {heads} heads")
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        query, key, value = self.qkv_dwconv(self.qkv(features)).chunk(3, dim=1)
        return self.project_out(attend_over_channels(query, key, value, self.temperature))


class GatedFeedForward(nn.Module):
    """Widens each pixel, looks at its 3x3 neighbourhood, and lets one half of the channels gate the other.

    Reference:
        Zamir et al., "Restormer", CVPR 2022, section 3.2.
    """

    def __init__(self, channels: int, expansion: float, bias: bool = False) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        gate, content = self.dwconv(self.project_in(features)).chunk(2, dim=1)
        return self.project_out(functional.gelu(gate) * content)


class RestormerBlock(nn.Module):
    """Channel attention, then a gated feed-forward, both added to what came in.

    Reference:
        Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, section 3.
    """

    def __init__(
        self, channels: int, heads: int, expansion: float = 2.66, bias: bool = False, norm: str = "WithBias"
    ) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, norm)
        self.attn = TransposedAttention(channels, heads, bias)
        self.norm2 = ChannelNorm(channels, norm)
        self.ffn = GatedFeedForward(channels, expansion, bias)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        features = features + self.attn(self.norm1(features))
        return features + self.ffn(self.norm2(features))
