"""Bi-directional WKV: linear attention whose weights fall off with distance, by cumulative sums over blocks."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 32
"""Tokens that meet each other directly, as one matrix product; blocks exchange only their sums."""
FLOAT32_DECAY_LIMIT = 50.0
"""Above it the position factors of float32 sums overflow, and float64 is used."""
FLOAT64_DECAY_LIMIT = 400.0
"""Above it the float64 sums overflow too, and the associative scan takes over."""
GROUP_ELEMENTS = 3_000_000
"""Tokens times channels that are processed at once when no gradient is asked for; bounds the temporaries.

Twice as many float32 stay below the size that the workers' allocator hands back to the system after every use.
"""
GPU_FACTOR = 32
"""Of larger groups there: a GPU wants much work at once."""


def bidirectional_wkv(key: Tensor, value: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """Average the values of all tokens, weighted by ``exp(key)`` and by distance along the sequence.

    The decay and the bonus are divided by the token count, so the weights depend on the *relative* distance and no
    position factor exceeds ``exp(|decay|)`` over a whole image.

    Args:
        key: ``(B, C, T)``, any float dtype.
        value: ``(B, C, T)``.
        decay: ``(C,)``, before the division by ``T``; negative values favour far tokens.
        bonus: ``(C,)``, before the division by ``T``; weight of the token itself.

    Returns:
        ``(B, C, T)`` in the dtype of ``value``; float32 or better inside.

    Reference:
        Yang et al., "Restore-RWKV: Efficient and Effective Medical Image Restoration with RWKV", JBHI 2026.
    """
    # autocast would run the sums as half-precision products, whatever the type of the tensors
    with torch.autocast(key.device.type, enabled=False):
        return _wkv(key, value, decay, bonus)


def _wkv(key: Tensor, value: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """Choose precision and form by the decay; see ``bidirectional_wkv``."""
    tokens = key.shape[2]
    decay_limit = float(decay.detach().abs().max())
    has_float64 = key.device.type != "mps"
    dtype = torch.float64 if decay_limit > FLOAT32_DECAY_LIMIT and has_float64 else torch.float32
    if decay_limit > (FLOAT64_DECAY_LIMIT if has_float64 else FLOAT32_DECAY_LIMIT):
        weigh = _wkv_by_scan
    else:
        weigh = _wkv_by_blocks
    w = decay.to(dtype) / tokens
    u = bonus.to(dtype) / tokens
    groups = channel_groups(key)
    if len(groups) == 1:
        return weigh(key.to(dtype), value.to(dtype), w, u).to(value.dtype)
    mixed = torch.empty_like(value, memory_format=torch.contiguous_format)
    for group in groups:
        mixed[:, group] = weigh(key[:, group].to(dtype), value[:, group].to(dtype), w[group], u[group])
    return mixed


def channel_groups(tokens: Tensor) -> list[slice]:
    """Channels of ``(B, C, T)`` to be processed together: all where a gradient is asked for, else so many as fit."""
    channels = tokens.shape[1]
    most = GROUP_ELEMENTS if tokens.device.type == "cpu" else GPU_FACTOR * GROUP_ELEMENTS
    groups = 1 if torch.is_grad_enabled() else max(1, min(channels, -(-tokens.numel() // most)))
    return [slice(a, b) for a, b in pairwise(round(i * channels / groups) for i in range(groups + 1))]


def _wkv_by_blocks(key: Tensor, value: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """Weights inside a block as a matrix; what lies before and after the block by two cumulative sums."""
    batch, channels, tokens = key.shape
    weight = (key - key.amax(dim=2, keepdim=True).detach()).exp()
    terms = torch.stack([weight, weight * value], dim=2)  # (B, C, 2, T)
    length = min(BLOCK, tokens)  # a block longer than the sequence would overflow: w grows as the sequence shrinks
    surplus = -tokens % length
    if surplus:
        terms = functional.pad(terms, (0, surplus))  # weightless tokens at the end
    blocks = (tokens + surplus) // length
    inside, to_end, to_start = _block_weights(w, u, length)
    rows = terms.reshape(batch, channels, 2 * blocks, length)
    # what a block hands on, as seen from its last and its first token
    ends = torch.stack([to_end, to_start], dim=-1)  # (C, L, 2)
    sums = torch.matmul(rows, ends).view(batch, channels, 2, blocks, 2)
    carried = _carry(sums, w, length)  # (B, C, 2, n, 2)
    fall_off = torch.stack([to_start, to_end], dim=1)  # (C, 2, L)
    sums_at = torch.matmul(carried.reshape(batch, channels, 2 * blocks, 2), fall_off).flatten(0, 1)
    inside = inside.expand(batch, -1, -1, -1).reshape(batch * channels, length, length)
    sums_at = torch.baddbmm(sums_at, rows.flatten(0, 1), inside).view(batch, channels, 2, blocks * length)
    denominator, numerator = sums_at[:, :, 0, :tokens], sums_at[:, :, 1, :tokens]
    return numerator / denominator


def _block_weights(w: Tensor, u: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights between the tokens of a block.

    Returns:
        ``(C, L, L)`` between every two tokens; ``(C, L)`` fall-off from a token to the block's last one and to its
        first one.
    """
    place = torch.arange(length, device=w.device, dtype=w.dtype)
    distance = (place[:, None] - place[None, :]).abs()
    inside = (-(distance - 1) * w[:, None, None]).exp()
    own = torch.eye(length, device=w.device, dtype=torch.bool)
    inside = torch.where(own, u.exp()[:, None, None], inside)
    to_end = (-(length - 1 - place) * w[:, None]).exp()
    to_start = (-place * w[:, None]).exp()
    return inside, to_end, to_start


def _carry(sums: Tensor, w: Tensor, length: int) -> Tensor:
    """What all earlier blocks (last index 0) and all later ones (1) weigh, seen from the block's nearest token.

    ``sums`` is ``(B, C, 2, n, 2)``; so few numbers that float64 costs nothing, where the device has it.
    """
    dtype = torch.float32 if sums.device.type == "mps" else torch.float64
    blocks = sums.shape[3]
    place = (torch.arange(blocks, device=w.device, dtype=dtype) - (blocks - 1) / 2) * length
    rise = (place * w.to(dtype)[:, None]).exp()[:, None]  # (C, 1, n)
    fall = (-place * w.to(dtype)[:, None]).exp()[:, None]
    before, after = sums[..., 0].to(dtype) * rise, sums[..., 1].to(dtype) * fall
    past = functional.pad(before.cumsum(dim=-1)[..., :-1], (1, 0)) * fall
    # its own scan from the end: total minus prefix would cancel
    future = functional.pad(after.flip(-1).cumsum(dim=-1).flip(-1)[..., 1:], (0, 1)) * rise
    # the neighbouring block touches this one: one block length less than from start to start
    nearer = (length * w.to(dtype)).exp()[:, None, None]
    return torch.stack([past * nearer, future * nearer], dim=-1).to(sums.dtype)


def _wkv_by_scan(key: Tensor, value: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """Log-space doubling scan: slower, but stable for any decay."""
    past = _scan(key, value, w)
    future = tuple(part.flip(2) for part in _scan(key.flip(2), value.flip(2), w))
    own = (key + u[:, None], torch.ones_like(key), value)
    scale = torch.maximum(torch.maximum(past[0], future[0]), own[0])
    denominator, numerator = torch.zeros_like(key), torch.zeros_like(key)
    for log_scale, total, weighted in (past, future, own):
        factor = (log_scale - scale).exp()
        denominator = denominator + factor * total
        numerator = numerator + factor * weighted
    return numerator / denominator


def _scan(key: Tensor, value: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each token the decayed sum over all earlier ones as ``(log scale, weights, weighted values)``."""
    log_scale, total, weighted = key, torch.ones_like(key), value
    reach = 1
    while reach < key.shape[2]:
        earlier = log_scale[..., :-reach] - reach * w[:, None]
        scale = torch.maximum(earlier, log_scale[..., reach:])
        left, right = (earlier - scale).exp(), (log_scale[..., reach:] - scale).exp()
        total = torch.cat([total[..., :reach], left * total[..., :-reach] + right * total[..., reach:]], dim=2)
        sums = left * weighted[..., :-reach] + right * weighted[..., reach:]
        weighted = torch.cat([weighted[..., :reach], sums], dim=2)
        log_scale = torch.cat([log_scale[..., :reach], scale], dim=2)
        reach *= 2
    # exclusive: shift by one token; the neighbour counts with weight one
    nothing = torch.full_like(key[..., :1], -torch.inf)
    return (
        torch.cat([nothing, log_scale[..., :-1]], dim=2),
        torch.cat([torch.zeros_like(nothing), total[..., :-1]], dim=2),
        torch.cat([torch.zeros_like(nothing), weighted[..., :-1]], dim=2),
    )
