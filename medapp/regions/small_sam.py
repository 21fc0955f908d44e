"""A small ``segment_anything.Sam``: its own prompt encoder and mask decoder behind a convolutional image encoder.

Reference:
    Kirillov et al., "Segment Anything", ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medapp.regions.conv_encoder import STRIDE, ConvEncoder
from medapp.regions.segment_anything_import import load_segment_anything

_SURE = 8.0  # logit
_BUMP_PX, _PIXEL = 3.0, STRIDE / 4
_FINEST = 6.0  # times as fine as SAM's own positions, which tell quarters of a picture apart, not things of 20 px


def make_small_sam(
    image_size: int = 256,
    widths: Sequence[int] = (16, 32, 64, 96, 128),
    depths: Sequence[int] = (0, 1, 2, 2, 2),
    prompt_dim: int = 96,
    decoder_depth: int = 2,
    decoder_mlp: int = 192,
    mask_channels: int = 16,
    iou_depth: int = 3,
    iou_hidden: int = 96,
    masks: int = 3,
) -> nn.Module:
    """A ``Sam`` with random weights, float32, in training mode.

    Args:
        image_size: Side of the square the encoder sees; a multiple of 32.
        widths, depths: Channels and residual blocks of the encoder's five levels; see ``ConvEncoder``.
        prompt_dim: Channels of the embedding and of the decoder; a multiple of 16.
        decoder_depth, decoder_mlp: Layers of the two-way transformer and their hidden width.
        mask_channels: Of the mask prompt; a multiple of 4.
        iou_depth, iou_hidden: Layers and width of the head that predicts IoU.
        masks: Candidates.

    Raises:
        ValueError: A size does not fit.
    """
    if prompt_dim % 16:
        raise ValueError("prompt_dim is a multiple of 16")
    load_segment_anything()
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid = image_size // STRIDE
    encoder: Any = ConvEncoder(image_size, widths, depths, prompt_dim)
    model: nn.Module = Sam(
        image_encoder=encoder.to(memory_format=torch.channels_last),
        prompt_encoder=PromptEncoder(
            embed_dim=prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=mask_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=masks,
            transformer=TwoWayTransformer(
                depth=decoder_depth, embedding_dim=prompt_dim, mlp_dim=decoder_mlp, num_heads=8
            ),
            transformer_dim=prompt_dim,
            iou_head_depth=iou_depth,
            iou_head_hidden_dim=iou_hidden,
        ),
    )
    places = model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix  # type: ignore[union-attr]
    places *= _FINEST ** torch.linspace(0, 1, places.shape[1])  # type: ignore[arg-type, operator, union-attr, index]
    return model


def draws_clicks(sam: Any) -> bool:
    """True for a ``Sam`` that wants its clicks and boxes in its mask input as well; see ``drawn_prompts``."""
    return isinstance(sam.image_encoder, ConvEncoder)


def drawn_prompts(points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, side: int) -> Tensor:
    """Clicks and boxes as a mask prompt: a bump at each click, up or down, and everything beyond a box down.

    From tokens alone a small ``Sam`` would have to learn from few pictures where a point lies in the image.

    Args:
        points: ``(M, P, 2)`` ``x, y`` in pixels of what the encoder sees, and ``(M, P)`` labels, 1 = include.
        boxes: ``(M, 4)`` in the same pixels, ordered.
        side: Of the result; each of its pixels stands for two.

    Returns:
        ``(M, 1, side, side)`` logits.
    """
    given = points[0] if points is not None else boxes
    assert given is not None
    axis = (torch.arange(side, device=given.device, dtype=torch.float32) + 0.5) * _PIXEL
    drawn = torch.zeros(len(given), side, side, device=given.device)
    if points is not None:
        places = points[0].float() + 0.5  # the centre of the first pixel is 0
        across, down = (torch.exp(-(((axis - places[..., i, None]) / _BUMP_PX) ** 2) / 2) for i in (0, 1))  # (M, P, s)
        signs = 2 * points[1].float() - 1
        drawn = drawn + _SURE * torch.einsum("mp,mpy,mpx->myx", signs, down, across)
    if boxes is not None:
        x0, y0, x1, y1 = (boxes[:, i, None] for i in range(4))
        columns, rows = (axis >= x0) & (axis <= x1 + 1), (axis >= y0) & (axis <= y1 + 1)  # (M, s)
        drawn = drawn - _SURE * (~(rows[:, :, None] & columns[:, None])).float()
    return drawn[:, None]


def with_mask(drawn: Tensor, logits: Tensor | None) -> Tensor:
    """A mask to start from, ``(M, 1, s, s)`` logits within -8..8, beneath what is drawn."""
    return drawn if logits is None else drawn + 0.5 * logits


def predict_each(decoder: Any, embeddings: Tensor, pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
    """``MaskDecoder.predict_masks`` with an image of its own for every prompt, as training needs it.

    Args:
        decoder: A ``MaskDecoder``.
        embeddings, pe, dense: ``(M, C, h, w)``: of the images, of the places in them, of the mask prompts.
        sparse: ``(M, T, C)`` point and box prompts.

    Returns:
        ``(M, masks + 1, 4 h, 4 w)`` logits and ``(M, masks + 1)`` predicted IoU.
    """
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
    hidden, image = decoder.transformer(embeddings + dense, pe, tokens)
    count = decoder.num_mask_tokens
    fine = decoder.output_upscaling(image.transpose(1, 2).reshape(embeddings.shape))
    hyper = torch.stack([net(hidden[:, 1 + i]) for i, net in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    logits = (hyper @ fine.flatten(2)).view(len(sparse), count, *fine.shape[-2:])
    return logits, decoder.iou_prediction_head(hidden[:, 0])
