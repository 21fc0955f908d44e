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
    return model


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
