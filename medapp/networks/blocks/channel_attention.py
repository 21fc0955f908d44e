"""Attention in which channels, not pixels, look at each other: its cost grows linearly with the image."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-12
"""Smallest norm that a query or key is divided by."""
NARROW_HEAD = 8
"""Channels a head, at most, for which the heads' products are computed as one."""


def attend_over_channels(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> Tensor:
    """Mix the channels of each head by how alike they look over the whole image.

    Args:
        query: ``(B, C, *size)``; the channels of a head lie beside each other.
        key: The same shape.
        value: The same shape.
        temperature: ``(heads, 1, 1)``; sharpens the similarity (a cosine) before the softmax.

    Returns:
        ``(B, C, *size)``, in channels-last memory.

    Reference:
        Zamir et al., "Restormer", CVPR 2022, section 3.1 (multi-Dconv head transposed attention).
    """
    weights = channel_similarity(_tokens(query), _tokens(key), temperature).softmax(dim=-1)
    # one product with a block-diagonal matrix: the result lies as the next convolution wants it
    mixed = torch.matmul(_tokens(value), _block_diagonal(weights).to(value.dtype).transpose(1, 2))  # (B, N, C)
    return mixed.unflatten(1, value.shape[2:]).movedim(-1, 1)


def channel_similarity(query: Tensor, key: Tensor, temperature: Tensor) -> Tensor:
    """Scaled cosines between the query and key channels of each head.

    The products are divided by the norms afterwards: that spares two copies as large as the features.

    Args:
        query: ``(B, N, C)``.
        key: The same shape.
        temperature: ``(heads, 1, 1)``.

    Returns:
        ``(B, heads, C/heads, C/heads)``.
    """
    heads, channels = temperature.shape[0], query.shape[2]
    width = channels // heads
    if heads > 1 and width <= NARROW_HEAD:  # many thin products are slower than a whole one and its diagonal blocks
        whole = torch.matmul(query.transpose(1, 2), key).view(-1, heads, width, heads, width)
        products = whole.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (B, heads, C/heads, C/heads)
    else:
        by_head = query.unflatten(2, (heads, width)).permute(0, 2, 3, 1)  # (B, heads, C/heads, N)
        products = torch.matmul(by_head, key.unflatten(2, (heads, width)).transpose(1, 2))
    query_norm = _norm(query).view(-1, heads, width, 1)
    key_norm = _norm(key).view(-1, heads, 1, width)
    return products.float() / query_norm / key_norm * temperature


def _norm(tokens: Tensor) -> Tensor:
    """``(B, C)`` float32: the norm of each channel over the image."""
    return tokens.float().square().sum(dim=1).clamp_min(EPSILON**2).sqrt()  # this order: the slope at 0 is 0


def _tokens(features: Tensor) -> Tensor:
    """``(B, N, C)``; a view of channels-last memory."""
    return features.flatten(2).transpose(1, 2)


def _block_diagonal(weights: Tensor) -> Tensor:
    """``(B, heads, c, c)`` to ``(B, heads c, heads c)``."""
    batch, heads, width, _ = weights.shape
    if heads == 1:
        return weights[:, 0]
    same_head = torch.eye(heads, dtype=weights.dtype, device=weights.device)
    return (weights[:, :, :, None] * same_head[:, None, :, None]).reshape(batch, heads * width, heads * width)
