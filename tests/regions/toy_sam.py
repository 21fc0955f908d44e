"""A real, small ``Sam`` built from segment_anything's own classes."""

import functools

import torch
from torch import nn

from medapp.regions.segment_anything_import import load_segment_anything


def make_toy_sam(image_size=64, embed_dim=32, depth=3, heads=2, window=3, global_blocks=(1,), prompt_dim=32, seed=0):
    load_segment_anything()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    torch.manual_seed(seed)
    grid = image_size // 8
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=image_size,
            patch_size=8,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=heads,
            mlp_ratio=2,
            out_chans=prompt_dim,
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=global_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=8,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=prompt_dim, mlp_dim=48, num_heads=8),
            transformer_dim=prompt_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=40,
        ),
    )
    for parameter in sam.parameters():  # relative positions and position embedding start at zero: give them values
        if not parameter.detach().any() and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return sam.eval()
