"""Attention between two sets of tokens, and the code of where a token lies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention with queries, keys and values of their own.

    Reference:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``(B, M, C)`` queries, ``(B, N, C)`` keys and values; ``(B, M, C)`` out."""
        mixed = functional.scaled_dot_product_attention(
            self._split(self.query(queries)), self._split(self.key(keys)), self._split(self.value(values))
        )
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        B, N, C = tokens.shape
        return tokens.view(B, N, self.heads, C // self.heads).transpose(1, 2)


def feed_forward(channels: int, hidden: int) -> nn.Sequential:
    """Two linear maps with an exact GELU between."""
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


def sine_position(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """``(height * width, channels)``: sin y, cos y, sin x, cos x of the token centres in 0..1 at channels/4 octaves."""
    octaves = torch.linspace(0, 6, channels // 4, device=device)
    frequency = 2 * math.pi * 2**octaves
    y = (torch.arange(height, device=device) + 0.5)[:, None] / height * frequency  # (height, channels / 4)
    x = (torch.arange(width, device=device) + 0.5)[:, None] / width * frequency
    down = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(-1, width, -1)
    across = torch.cat([x.sin(), x.cos()], dim=1)[None].expand(height, -1, -1)
    return torch.cat([down, across], dim=2).flatten(0, 1)
