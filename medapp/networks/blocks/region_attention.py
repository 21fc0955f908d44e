"""Attention among the pixels of one region: tokens sorted by region once, then plain attention on slices of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.naf import pointwise

FOREIGN_LOGIT = -1000.0
"""What the published mask adds to the logit of a pixel of another region."""


class Plan(Protocol):
    """How the tokens of a batch are ordered for attention, and who attends to whom."""

    def sort(self, tokens: Tensor) -> Tensor:
        """``(B * N, C)`` as they lie in, in the plan's order out."""
        ...

    def restore(self, tokens: Tensor) -> Tensor:
        """Undo ``sort``."""
        ...

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """``(B * N, heads, C / heads)`` each, sorted, to ``(B * N, C)``, sorted."""
        ...


@dataclass(frozen=True)
class RegionPlan:
    """Tokens in order of region, the regions in order of size.

    Regions of equal size lie side by side and are one batch, so the number of attention calls is the number of
    *different* sizes: at most 181 for 16,384 tokens, however many regions there are. Nothing is padded or masked, and
    nothing of size N x N exists.

    Attributes:
        order: ``(B * N,)`` int64: which token comes first, second, ...
        inverse: ``(B * N,)`` int64: where each token went.
        groups: ``(count, size)``: so many regions of so many tokens, in this order.
    """

    order: Tensor
    inverse: Tensor
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, labels: Tensor) -> RegionPlan:
        """Plan for ``(B, N)`` int64 labels; the same label in two images is two regions."""
        values, label_index = labels.unique(return_inverse=True)
        image = torch.arange(labels.shape[0], device=labels.device)[:, None]
        region = (label_index + image * len(values)).flatten()  # (B * N,)
        sizes = torch.bincount(region, minlength=labels.shape[0] * len(values))
        by_size = sizes.argsort(descending=True, stable=True)
        order = by_size.argsort()[region].argsort(stable=True)
        found = sizes[by_size].tolist()  # the one wait for the device
        groups = tuple((len(list(same)), size) for size, same in groupby(found) if size)
        return cls(order, order.argsort(), groups)

    def sort(self, tokens: Tensor) -> Tensor:
        """``(B * N, C)`` as they lie in, in order of region out."""
        return tokens.index_select(0, self.order)

    def restore(self, tokens: Tensor) -> Tensor:
        """Undo ``sort``."""
        return tokens.index_select(0, self.inverse)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """``(B * N, heads, C / heads)`` each, sorted, to ``(B * N, C)``, sorted."""
        parts, start = [], 0
        for count, size in self.groups:
            stop = start + count * size
            q, k, v = (
                tokens[start:stop].unflatten(0, (count, size)).transpose(1, 2)  # (count, heads, size, C / heads)
                for tokens in (query, key, value)
            )
            mixed = functional.scaled_dot_product_attention(q, k, v, scale=scale)
            parts.append(mixed.transpose(1, 2).reshape(count * size, -1))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class DensePlan:
    """The published form, with an N x N mask: what tests and benches hold ``RegionPlan`` against.

    Attributes:
        mask: ``(B, 1, N, N)`` float32, 0 between tokens of one region and ``FOREIGN_LOGIT`` elsewhere.
    """

    mask: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> DensePlan:
        """Plan for ``(B, N)`` int64 labels."""
        same = labels[:, :, None] == labels[:, None, :]
        return cls(torch.where(same, 0.0, FOREIGN_LOGIT)[:, None])

    def sort(self, tokens: Tensor) -> Tensor:
        """Leave the tokens as they lie."""
        return tokens

    def restore(self, tokens: Tensor) -> Tensor:
        """Leave the tokens as they lie."""
        return tokens

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """``(B * N, heads, C / heads)`` each to ``(B * N, C)``."""
        batch = self.mask.shape[0]
        q, k, v = (t.unflatten(0, (batch, -1)).transpose(1, 2) for t in (query, key, value))  # (B, heads, N, C / heads)
        weights = (q @ k.transpose(2, 3) * scale + self.mask).softmax(dim=3)
        return (weights @ v).transpose(1, 2).reshape(query.shape[0], -1)


class RegionAttention(nn.Module):
    """Every token looks at the tokens of its own region, at any distance.

    Logits are scaled by ``heads ** -0.5``, as the published network does, not by the channels of a head: weights
    trained with it need it.

    Reference:
        Yang et al., "Region Attention Transformer for Medical Image Restoration", MICCAI 2024 (region-based
        multi-head self-attention).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, tokens: Tensor, plan: Plan) -> Tensor:
        """``(B * N, C)`` sorted by the plan in; same shape and order out."""
        query, key, value = pointwise(self.qkv, tokens).unflatten(1, (3, self.heads, -1)).unbind(1)
        return pointwise(self.project_out, plan.attend(query, key, value, self.heads**-0.5))


class WindowAttention(nn.Module):
    """Every token looks at its window; windows never shift, and the scale is that of ``RegionAttention``.

    Reference:
        Yang et al., MICCAI 2024; after Liu et al., "Swin Transformer", ICCV 2021, without shift and position bias.
    """

    def __init__(self, channels: int, heads: int, window_px: int) -> None:
        super().__init__()
        self.heads = heads
        self.window_tokens = window_px**2
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B * N, C)``, window after window, in; same shape and order out."""
        qkv = self.qkv(tokens).unflatten(0, (-1, self.window_tokens)).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (windows, heads, tokens, C / heads) each
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=self.heads**-0.5)
        return self.proj_out(mixed.transpose(1, 2).reshape(tokens.shape))
