"""Bi-directional WKV: linear attention whose weights fall off with distance, by cumulative sums."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

FLOAT32_DECAY_LIMIT = 50.0
"""Above it the position factors of the float32 sums overflow."""
FLOAT64_DECAY_LIMIT = 400.0
"""Above it the float64 sums overflow too, and the associative scan takes over."""
GROUP_ELEMENTS = 4_000_000
"""Tokens times channels that are processed at once when no gradient is asked for; bounds the temporaries."""


def bidirectional_wkv(key: Tensor, value: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """Average the values of all tokens, weighted by ``exp(key)`` and by distance along the sequence.

    The decay and the bonus are divided by the token count, so the weights depend on the *relative* distance and no
    position factor exceeds ``exp(|decay|)`` over a whole image.

    Args:
        key: ``(B, T, C)``, any float dtype.
        value: ``(B, T, C)``.
        decay: ``(C,)``, before the division by ``T``; negative values favour far tokens.
        bonus: ``(C,)``, before the division by ``T``; weight of the token itself.

    Returns:
        ``(B, T, C)`` in the dtype of ``value``; float32 or better inside.

    Reference:
        Yang et al., "Restore-RWKV: Efficient and Effective Medical Image Restoration with RWKV", JBHI 2026.
    """
    tokens = key.shape[1]
    decay_limit = float(decay.detach().abs().max())
    dtype = _sum_dtype(decay_limit, key.device)
    if decay_limit > FLOAT64_DECAY_LIMIT or (dtype is torch.float32 and decay_limit > FLOAT32_DECAY_LIMIT):
        weigh = _wkv_by_scan
    else:
        weigh = _wkv_by_sums
    w = decay.to(dtype) / tokens
    u = bonus.to(dtype) / tokens
    if torch.is_grad_enabled():
        return weigh(key.to(dtype), value.to(dtype), w, u).to(value.dtype)
    groups = max(1, min(key.shape[2], -(-key.numel() // GROUP_ELEMENTS)))
    edges = [round(i * key.shape[2] / groups) for i in range(groups + 1)]
    parts = [
        weigh(key[..., a:b].to(dtype), value[..., a:b].to(dtype), w[a:b], u[a:b]).to(value.dtype)
        for a, b in pairwise(edges)
    ]
    return parts[0] if groups == 1 else torch.cat(parts, dim=2)


def _sum_dtype(decay_limit: float, device: torch.device) -> torch.dtype:
    """Float32 where its cumulative sum is exact enough, float64 elsewhere; MPS has no float64."""
    if device.type == "mps":
        return torch.float32
    # torch accumulates a float32 cumulative sum in double on a CPU; other devices do not promise that
    if device.type == "cpu" and decay_limit <= FLOAT32_DECAY_LIMIT:
        return torch.float32
    return torch.float64


def _wkv_by_sums(key: Tensor, value: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """Two exclusive prefix and two exclusive suffix sums; all terms of the denominator are positive."""
    tokens = key.shape[1]
    weight = (key - key.amax(dim=1, keepdim=True).detach()).exp()  # (B, T, C)
    place = torch.arange(tokens, device=key.device, dtype=key.dtype) - (tokens - 1) / 2
    rise = (place[:, None] * w).exp()  # (T, C)
    fall = (-place[:, None] * w).exp()
    step, own = w.exp(), u.exp()
    weighted = weight * value
    denominator = step * (fall * _before(weight * rise) + rise * _after(weight * fall)) + own * weight
    numerator = step * (fall * _before(weighted * rise) + rise * _after(weighted * fall)) + own * weighted
    return numerator / denominator


def _before(terms: Tensor) -> Tensor:
    """Sum of all earlier tokens. Removing the own term is safe: it enters the result with weight about one."""
    return terms.cumsum(dim=1) - terms


def _after(terms: Tensor) -> Tensor:
    """Sum of all later tokens, by its own scan: total minus prefix would cancel."""
    return terms.flip(1).cumsum(dim=1).flip(1) - terms


def _wkv_by_scan(key: Tensor, value: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """Log-space doubling scan: slower, but stable for any decay."""
    past = _scan(key, value, w)
    future = tuple(part.flip(1) for part in _scan(key.flip(1), value.flip(1), w))
    own = (key + u, torch.ones_like(key), value)
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
    while reach < key.shape[1]:
        earlier = log_scale[:, :-reach] - reach * w
        scale = torch.maximum(earlier, log_scale[:, reach:])
        left, right = (earlier - scale).exp(), (log_scale[:, reach:] - scale).exp()
        total = torch.cat([total[:, :reach], left * total[:, :-reach] + right * total[:, reach:]], dim=1)
        weighted = torch.cat([weighted[:, :reach], left * weighted[:, :-reach] + right * weighted[:, reach:]], dim=1)
        log_scale = torch.cat([log_scale[:, :reach], scale], dim=1)
        reach *= 2
    # exclusive: shift by one token; the neighbour counts with weight one
    nothing = torch.full_like(key[:, :1], -torch.inf)
    return (
        torch.cat([nothing, log_scale[:, :-1]], dim=1),
        torch.cat([torch.zeros_like(nothing), total[:, :-1]], dim=1),
        torch.cat([torch.zeros_like(nothing), weighted[:, :-1]], dim=1),
    )
