"""SAM's mask decoder for many single points on one image: the published numbers, in less than half the time.

Per point the published decoder projects all 4,096 image tokens to keys, queries and values again and again, for the
sake of seven prompt tokens. Here the products are taken in the other order: the prompt tokens carry the projections to
the image, which is the same sum in another order. Masks are only drawn for points whose predicted IoU is good enough.

Reference:
    Kirillov et al., "Segment Anything", ICCV 2023, appendix A (lightweight mask decoder).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

from medapp.regions.small_sam import drawn_prompts, draws_clicks


@dataclass(frozen=True, eq=False)
class DecodedPoints:
    """Masks that passed, of a few points.

    Attributes:
        logits: ``(K, s, s)`` float32, on the decoder's grid.
        scores: ``(K,)`` predicted IoU.
        points: ``(K,)`` int64, which of the points each belongs to.
    """

    logits: Tensor
    scores: Tensor
    points: Tensor


class PointDecoder:
    """Answers single points on one embedded image.

    Args:
        sam: A ``Sam``; it is only read.
        embedding: ``(1, C, s, s)`` float32, of the image.
        dense_pe: ``(1, C, s, s)``, positions of the image tokens.
    """

    def __init__(self, sam: Any, embedding: Tensor, dense_pe: Tensor) -> None:
        self._sam = sam
        self._decoder = sam.mask_decoder
        no_mask = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        self._grid = (int(embedding.shape[-2]), int(embedding.shape[-1]))
        self._embedding = embedding.flatten(2).transpose(1, 2)  # (1, N, C)
        self._image = (embedding + no_mask).flatten(2).transpose(1, 2).contiguous()  # (1, N, C)
        self._pe = dense_pe.flatten(2).transpose(1, 2).contiguous()  # (1, N, C)

    @torch.inference_mode()
    def decode(self, points_xy: Tensor, least_score: float) -> DecodedPoints:
        """Masks of some points, three for each, without those of a low predicted IoU.

        Args:
            points_xy: ``(B, 2)`` float32 pixels of the image as the encoder saw it.
            least_score: A mask's predicted IoU must be above it.
        """
        count = len(points_xy)
        labels = torch.ones((count, 1), dtype=torch.int32, device=points_xy.device)
        given = (points_xy[:, None], labels)
        drawn = drawn_prompts(given, None, 4 * self._grid[0]) if draws_clicks(self._sam) else None
        sparse, dense = self._sam.prompt_encoder(points=given, boxes=None, masks=drawn)
        start = self._image if drawn is None else self._embedding + dense.flatten(2).transpose(1, 2)
        decoder = self._decoder
        output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        prompt = torch.cat([output.expand(count, -1, -1), sparse], dim=1)  # (B, T, C)
        tokens, image = self._attended(prompt, start)

        scores = decoder.iou_prediction_head(tokens[:, 0])[:, 1:]  # the first mask is for prompts that leave no doubt
        chosen = scores > least_score
        point, mask = torch.nonzero(chosen, as_tuple=True)  # by point, then by mask, as published
        some = torch.nonzero(chosen.any(dim=1))[:, 0]
        hyper = torch.stack(
            [net(tokens[some, 1 + i]) for i, net in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )  # (S, masks + 1, C / 8)
        logits = self._drawn(image[some], hyper[:, 1:])
        place = torch.empty(count, dtype=torch.int64, device=some.device)
        place[some] = torch.arange(len(some), device=some.device)
        return DecodedPoints(logits[place[point], mask], scores[point, mask], point)

    # ------------------------------------------------------------------ inside

    def _attended(self, prompt: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, T, C)`` prompt tokens to these after the two-way transformer, and the image tokens ``(B, N, C)``."""
        transformer = self._decoder.transformer
        tokens = prompt  # before the first layer has drawn on it the image is mostly the same for all: (1, N, C)
        for layer in transformer.layers:
            placed = image + self._pe
            if layer.skip_first_layer_pe:
                tokens = layer.self_attn(q=tokens, k=tokens, v=tokens)
            else:
                asked = tokens + prompt
                tokens = tokens + layer.self_attn(q=asked, k=asked, v=tokens)
            tokens = layer.norm1(tokens)
            tokens = tokens + _from_image(layer.cross_attn_token_to_image, tokens + prompt, placed, image)
            tokens = layer.norm2(tokens)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            image = layer.norm4(_to_image(layer.cross_attn_image_to_token, tokens + prompt, tokens, placed, image))
        tokens = tokens + _from_image(transformer.final_attn_token_to_image, tokens + prompt, image + self._pe, image)
        return transformer.norm_final_attn(tokens), image

    def _drawn(self, image: Tensor, hyper: Tensor) -> Tensor:
        """``(S, N, C)`` image tokens and ``(S, M, C / 8)`` mask vectors to ``(S, M, 4 s, 4 s)`` logits.

        The transposed convolutions have stride and size 2: each is one product per token.
        """
        first, norm, act, second, act_2 = self._decoder.output_upscaling
        count, masks = image.shape[0], hyper.shape[1]
        rows, cols = self._grid
        fine = F.linear(image, _as_linear(first), first.bias.repeat(4)).view(count, rows * cols, 4, first.out_channels)
        fine = act(F.layer_norm(fine, (first.out_channels,), norm.weight, norm.bias, norm.eps))
        finer = act_2(F.linear(fine, _as_linear(second), second.bias.repeat(4)))  # (S, N, 4, 4 * C / 8)
        logits = finer.view(count, rows * cols * 16, second.out_channels) @ hyper.transpose(1, 2)  # (S, N * 16, M)
        logits = logits.view(count, rows, cols, 2, 2, 2, 2, masks)  # y, x, then twice the halves of each
        logits = logits.permute(0, 7, 1, 3, 5, 2, 4, 6)
        return logits.reshape(count, masks, rows * 4, cols * 4)


def _from_image(attention: Any, asked: Tensor, placed: Tensor, image: Tensor) -> Tensor:
    """What the tokens take from the image: ``softmax(q k^T / sqrt(d)) v``, with keys of the image with its positions.

    ``q k^T = (q W_k) placed^T``; the bias of the keys is the same for all image tokens and falls out of the softmax.

    Args:
        asked: ``(B, T, C)``.
        placed, image: ``(B, N, C)`` or ``(1, N, C)``, with and without positions.

    Returns:
        ``(B, T, C)``.
    """
    batch, count, channels = asked.shape
    heads = attention.num_heads
    query = _split(attention.q_proj(asked), heads)  # (B, h, T, d)
    to_key = attention.k_proj.weight.view(heads, -1, channels)  # (h, d, C)
    carried = (query @ to_key).flatten(1, 2) * query.shape[-1] ** -0.5  # (B, hT, C)
    shares = _product(carried, placed.transpose(1, 2)).softmax(dim=-1)  # (B, hT, N)
    taken = _product(shares, image).view(batch, heads, count, channels)
    to_value = attention.v_proj.weight.view(heads, -1, channels)
    values = taken @ to_value.transpose(1, 2) + attention.v_proj.bias.view(heads, 1, -1)  # (B, h, T, d)
    output: Tensor = attention.out_proj(values.transpose(1, 2).flatten(2))
    return output


def _to_image(attention: Any, keys: Tensor, tokens: Tensor, placed: Tensor, image: Tensor) -> Tensor:
    """The image plus what it takes from the tokens, with queries of the image with its positions.

    Args:
        keys, tokens: ``(B, T, C)``, with and without the prompt.
        placed, image: ``(B, N, C)`` or ``(1, N, C)``, with and without positions.

    Returns:
        ``(B, N, C)``.
    """
    batch, count, channels = keys.shape
    heads = attention.num_heads
    key = _split(attention.k_proj(keys), heads)  # (B, h, T, d)
    scale = key.shape[-1] ** -0.5
    from_query = attention.q_proj.weight.view(heads, -1, channels)
    carried = (key @ from_query).flatten(1, 2) * scale  # (B, hT, C)
    bias = (key @ attention.q_proj.bias.view(heads, -1, 1)).flatten(1) * scale  # (B, hT)
    scores = _product(carried, placed.transpose(1, 2)) + bias[:, :, None]  # (B, hT, N)
    shares = scores.view(batch, heads, count, -1).softmax(dim=2).view(batch, heads * count, -1)
    value = _split(attention.v_proj(tokens), heads)
    to_output = attention.out_proj.weight.T.view(heads, -1, channels)  # (h, d, C)
    carried_back = (value @ to_output).flatten(1, 2)  # (B, hT, C)
    return torch.baddbmm(image + attention.out_proj.bias, shares.transpose(1, 2), carried_back)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``; one large product where all of the batch share ``right``."""
    if right.shape[0] == 1:
        return (left.flatten(0, 1) @ right[0]).view(*left.shape[:2], -1)
    return left @ right


def _split(tokens: Tensor, heads: int) -> Tensor:
    """``(B, T, h d)`` to ``(B, h, T, d)``."""
    return tokens.view(*tokens.shape[:2], heads, -1).transpose(1, 2)


def _as_linear(convolution: Any) -> Tensor:
    """Weights ``(in, out, 2, 2)`` of a transposed convolution as ``(4 out, in)``, the four places outermost."""
    weight: Tensor = convolution.weight
    return weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
