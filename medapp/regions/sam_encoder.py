"""SAM's image encoder, run as fast as the machine can: bfloat16 where the CPU has it, fused attention."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

_MASK_ELEMENTS = 20_000_000


def cpu_has_bf16() -> bool:
    """True when the CPU multiplies bfloat16 in hardware; without it bfloat16 is slower than float32."""
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if check is None or not torch.backends.mkldnn.is_available():
        return False
    capability = torch.backends.cpu.get_cpu_capability()
    flags = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return bool(check()) and capability.startswith("AVX512") and bool(flags)


class FastEncoder:
    """Runs the encoder of a ``Sam`` without changing the model.

    Attributes:
        dtype: bfloat16 where the device multiplies it in hardware and the encoder is a transformer, else float32.
    """

    def __init__(self, sam: Any, dtype: torch.dtype | None = None) -> None:
        self._sam = sam
        device = sam.device
        if dtype is None and not hasattr(sam.image_encoder, "patch_embed"):
            dtype = torch.float32  # small convolutions are several times slower in bfloat16
        if dtype is None:
            on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
            dtype = torch.bfloat16 if on_gpu or (device.type == "cpu" and cpu_has_bf16()) else torch.float32
        self.dtype = dtype
        encoder = sam.image_encoder
        self._encoder = encoder if dtype == torch.float32 else copy.deepcopy(encoder).to(dtype)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """``(1, 3, S, S)`` float32, normalised and padded, to the ``(1, C, s, s)`` float32 embedding."""
        encoder = self._encoder
        if not hasattr(encoder, "patch_embed"):
            whole: Tensor = encoder(pixels.to(self.dtype, memory_format=torch.channels_last))
            return whole.float()
        tokens = encoder.patch_embed(pixels.to(self.dtype))  # (1, s, s, D)
        if encoder.pos_embed is not None:
            tokens = tokens + encoder.pos_embed
        for block in encoder.blocks:
            tokens = tokens + self._attended(block, block.norm1(tokens))
            tokens = tokens + block.mlp(block.norm2(tokens))
        embedding: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
        return embedding.float()

    def _attended(self, block: nn.Module, tokens: Tensor) -> Tensor:
        size = int(block.window_size)  # type: ignore[arg-type]
        _, height, width, channels = tokens.shape
        if size == 0:
            return _attention(block.attn, tokens)
        down, right = -height % size, -width % size
        padded = F.pad(tokens, (0, 0, 0, right, 0, down))
        rows, cols = (height + down) // size, (width + right) // size
        windows = padded.view(rows, size, cols, size, channels).permute(0, 2, 1, 3, 4)
        windows = _attention(block.attn, windows.reshape(-1, size, size, channels))
        joined = windows.view(rows, cols, size, size, channels).permute(0, 2, 1, 3, 4)
        return joined.reshape(1, height + down, width + right, channels)[:, :height, :width]


def _attention(attention: Any, tokens: Tensor) -> Tensor:
    """``(B, h, w, D)`` in and out, with the decomposed relative positions as an additive mask."""
    batch, height, width, channels = tokens.shape
    heads, count = attention.num_heads, height * width
    qkv = attention.qkv(tokens).view(batch, count, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    query, key, value = qkv[0], qkv[1], qkv[2]  # (B, heads, count, d)
    rows = cols = None
    if attention.use_rel_pos:
        rows = _relative(attention.rel_pos_h, height)  # (h, h, d)
        cols = _relative(attention.rel_pos_w, width)
    parts = []
    sums: Tensor | None = None
    together = max(1, _MASK_ELEMENTS // (batch * count * count))  # as many heads as keep the mask small
    for first in range(0, heads, together):
        some = slice(first, first + together)
        mask = None
        if rows is not None and cols is not None:
            asked = query[:, some].reshape(batch, -1, height, width, channels // heads)
            by_row = torch.einsum("bnhwc,hkc->bnhwk", asked, rows)
            by_col = torch.einsum("bnhwc,wkc->bnhwk", asked, cols)
            if sums is None or sums.shape[1] != by_row.shape[1]:  # written over group after group: fresh pages are slow
                sums = by_row.new_empty(*by_row.shape[:4], height, width)
            torch.add(by_row[..., :, None], by_col[..., None, :], out=sums)
            mask = sums.view(batch, -1, count, count)
        parts.append(
            F.scaled_dot_product_attention(
                query[:, some], key[:, some], value[:, some], attn_mask=mask, scale=attention.scale
            )
        )
    joined = torch.cat(parts, dim=1).transpose(1, 2).reshape(batch, height, width, channels)
    projected: Tensor = attention.proj(joined)
    return projected


def _relative(table: Tensor, size: int) -> Tensor:
    """``(2 * size - 1, d)`` table to ``(size, size, d)``; another length is stretched, as the original does."""
    if table.shape[0] != 2 * size - 1:
        table = F.interpolate(table.float().T[None], size=2 * size - 1, mode="linear")[0].T.to(table.dtype)
    steps = torch.arange(size, device=table.device)
    return table[steps[:, None] - steps[None, :] + size - 1]
