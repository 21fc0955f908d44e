"""A SAM checkpoint of any size: dimensions from the shapes of its tensors, network, place in the library."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medapp.errors import WeightsError
from medapp.networks.card import Card
from medapp.networks.checkpoint import candidates, file_sha256, keep_weights, read_tensors
from medapp.regions.conv_encoder import MARK, STRIDE, encoder_sizes
from medapp.regions.segment_anything_import import load_segment_anything
from medapp.regions.small_sam import make_small_sam

log = logging.getLogger(__name__)

ARCHITECTURE = "sam"
_HINT = "Use an official SAM checkpoint (sam_vit_b, sam_vit_l or sam_vit_h) or one of the same layout."
_MARK = "image_encoder.pos_embed"
_DECODER_HEADS = 8  # not to be seen in any shape; every published SAM has eight
_KNOWN = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}


@dataclass(frozen=True)
class SamShape:
    """Everything that the constructors of a ``Sam`` want to know.

    With ``widths`` and ``depths`` the image encoder is a ``ConvEncoder``; what only a transformer has is 0 then.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    heads: int
    mlp_ratio: float
    window_size: int
    global_blocks: tuple[int, ...]
    prompt_dim: int
    mask_channels: int
    masks: int
    decoder_depth: int
    decoder_mlp: int
    iou_depth: int
    iou_hidden: int
    has_qkv_bias: bool
    has_rel_pos: bool
    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()

    @property
    def variant(self) -> str:
        """``vit_b``, ``vit_l``, ``vit_h``, the dimensions of another size, or ``small`` with medapp's own encoder."""
        if self.widths:
            return "small"
        return _KNOWN.get((self.embed_dim, self.depth), f"vit_{self.embed_dim}x{self.depth}")


def infer_shape(state: Mapping[str, Tensor]) -> SamShape:
    """Read the dimensions off the tensors.

    Raises:
        WeightsError: These are no SAM weights, or of a kind whose dimensions cannot be told.
    """

    def shape(key: str) -> tuple[int, ...]:
        if key not in state:
            raise WeightsError(f"These weights are not SAM's: {key} is missing.", _HINT)
        return tuple(state[key].shape)

    def count(pattern: str) -> int:
        found = {int(m.group(1)) for key in state if (m := re.match(pattern, key))}
        if found != set(range(len(found))):
            raise WeightsError("These SAM weights have a gap in their layers.", _HINT)
        return len(found)

    try:
        if MARK in state:
            return _of_conv_encoder(state, shape, count)
        embed_dim, _, patch, _ = shape("image_encoder.patch_embed.proj.weight")
        _, grid, _, _ = shape("image_encoder.pos_embed")
        depth = count(r"image_encoder\.blocks\.(\d+)\.")
        has_rel_pos = "image_encoder.blocks.0.attn.rel_pos_h" in state
        sides = dict.fromkeys(range(depth), 0)
        heads = max(1, embed_dim // 64)
        if has_rel_pos:
            for i in range(depth):
                length, head_dim = shape(f"image_encoder.blocks.{i}.attn.rel_pos_h")
                sides[i] = (length + 1) // 2
                heads = embed_dim // head_dim
        windows = {side for side in sides.values() if side not in (0, grid)}
        if len(windows) > 1:
            raise WeightsError("These SAM weights have windows of several sizes.", _HINT)
        return SamShape(
            image_size=grid * patch,
            patch_size=patch,
            embed_dim=embed_dim,
            depth=depth,
            heads=heads,
            mlp_ratio=shape("image_encoder.blocks.0.mlp.lin1.weight")[0] / embed_dim,
            window_size=windows.pop() if windows else 0,
            global_blocks=tuple(i for i, side in sides.items() if side in (0, grid)),
            has_qkv_bias="image_encoder.blocks.0.attn.qkv.bias" in state,
            has_rel_pos=has_rel_pos,
            **_of_decoder(shape, count),
        )
    except (ValueError, IndexError, ZeroDivisionError, KeyError) as error:
        raise WeightsError("These weights are not SAM's: a tensor has an unexpected shape.", _HINT) from error


def _of_conv_encoder(
    state: Mapping[str, Tensor], shape: Callable[[str], tuple[int, ...]], count: Callable[[str], int]
) -> SamShape:
    sizes = encoder_sizes(state)
    return SamShape(
        image_size=sizes["img_size"],
        patch_size=STRIDE,
        embed_dim=sizes["out_chans"],
        depth=0,
        heads=1,
        mlp_ratio=0.0,
        window_size=0,
        global_blocks=(),
        has_qkv_bias=False,
        has_rel_pos=False,
        widths=tuple(sizes["widths"]),
        depths=tuple(sizes["depths"]),
        **_of_decoder(shape, count),
    )


def _of_decoder(shape: Callable[[str], tuple[int, ...]], count: Callable[[str], int]) -> dict[str, Any]:
    """What prompt encoder and mask decoder want to know."""
    return {
        "prompt_dim": shape("prompt_encoder.no_mask_embed.weight")[1],
        "mask_channels": shape("prompt_encoder.mask_downscaling.3.weight")[0],
        "masks": shape("mask_decoder.mask_tokens.weight")[0] - 1,
        "decoder_depth": count(r"mask_decoder\.transformer\.layers\.(\d+)\."),
        "decoder_mlp": shape("mask_decoder.transformer.layers.0.mlp.lin1.weight")[0],
        "iou_depth": count(r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
        "iou_hidden": shape("mask_decoder.iou_prediction_head.layers.0.weight")[0],
    }


def build_sam(state: Mapping[str, Tensor]) -> tuple[nn.Module, SamShape]:
    """The network with these weights, in evaluation mode, float32.

    Raises:
        WeightsError: The weights do not fit any SAM; the message lists the first missing, surplus and mis-shaped keys.
    """
    shape = infer_shape(state)
    if shape.prompt_dim % (2 * _DECODER_HEADS) or shape.embed_dim % shape.heads:
        raise WeightsError("These SAM weights have a width that its heads do not divide.", _HINT)
    with torch.device("meta"):
        model = _of_shape(shape)
    _check_keys(model, state)
    model.load_state_dict({key: _in_float32(value) for key, value in state.items()}, strict=True, assign=True)
    # Not in any checkpoint, so still without values.
    model.register_buffer("pixel_mean", torch.tensor([123.675, 116.28, 103.53]).view(-1, 1, 1), persistent=False)
    model.register_buffer("pixel_std", torch.tensor([58.395, 57.12, 57.375]).view(-1, 1, 1), persistent=False)
    return model.eval().requires_grad_(False), shape


def _of_shape(shape: SamShape) -> nn.Module:
    if shape.widths:
        decoder = ("prompt_dim", "decoder_depth", "decoder_mlp", "mask_channels", "iou_depth", "iou_hidden", "masks")
        sizes = {name: getattr(shape, name) for name in decoder}
        return make_small_sam(shape.image_size, shape.widths, shape.depths, **sizes)
    load_segment_anything()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    grid = shape.image_size // shape.patch_size
    model: nn.Module = Sam(
        image_encoder=ImageEncoderViT(
            img_size=shape.image_size,
            patch_size=shape.patch_size,
            embed_dim=shape.embed_dim,
            depth=shape.depth,
            num_heads=shape.heads,
            mlp_ratio=shape.mlp_ratio,
            out_chans=shape.prompt_dim,
            qkv_bias=shape.has_qkv_bias,
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=shape.has_rel_pos,
            window_size=shape.window_size,
            global_attn_indexes=shape.global_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=shape.prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(shape.image_size, shape.image_size),
            mask_in_chans=shape.mask_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=shape.masks,
            transformer=TwoWayTransformer(
                depth=shape.decoder_depth,
                embedding_dim=shape.prompt_dim,
                mlp_dim=shape.decoder_mlp,
                num_heads=_DECODER_HEADS,
            ),
            transformer_dim=shape.prompt_dim,
            iou_head_depth=shape.iou_depth,
            iou_head_hidden_dim=shape.iou_hidden,
        ),
    )
    return model


def _in_float32(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.is_floating_point() else value


def _check_keys(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    missing = sorted(wanted.keys() - state.keys())
    surplus = sorted(state.keys() - wanted.keys())
    shapes = [key for key in wanted.keys() & state.keys() if tuple(state[key].shape) != wanted[key]]
    if missing or surplus or shapes:
        parts = [
            f"{name}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}"
            for name, keys in (("missing", missing), ("surplus", surplus), ("other shape", sorted(shapes)))
            if keys
        ]
        raise WeightsError(f"These weights do not fit SAM ({'; '.join(parts)}).", _HINT)


def is_sam(path: Path) -> bool:
    """True when a weights file looks like SAM's by its keys.

    Raises:
        WeightsError: The file is damaged or unsafe.
    """
    return any(_is_marked(weights) for weights in candidates(read_tensors(path)))


def read_sam_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint, read safely, whatever they were wrapped in.

    Raises:
        WeightsError: The file is damaged, unsafe, or holds no SAM or several.
    """
    found = [weights for weights in candidates(read_tensors(path)) if _is_marked(weights)]
    if not found:
        raise WeightsError(f"These weights are not SAM's: {_MARK} is missing.", _HINT)
    if len(found) > 1:
        raise WeightsError("The file holds several sets of SAM weights.", "Save the wanted set alone.")
    return found[0]


def _is_marked(weights: Mapping[str, Any]) -> bool:
    return _MARK in weights or MARK in weights


def import_checkpoint(path: Path, models_dir: Path) -> str:
    """Check a foreign SAM checkpoint and keep it as safetensors with a card.

    Args:
        path: ``.pth`` or ``.safetensors``.
        models_dir: The user's model folder; made when it is not there.

    Returns:
        The model's id.

    Raises:
        WeightsError: The file is unsafe, damaged, or no SAM, or the folder cannot be written.
    """
    state = read_sam_weights(path)
    _, shape = build_sam(state)
    tensors = {key: _in_float32(value.detach()).contiguous().clone() for key, value in sorted(state.items())}
    kept = keep_weights(tensors, sam_card(shape, file_sha256(path)), models_dir)
    log.info("imported SAM %s as %s", shape.variant, kept.id)
    return kept.id


def config_of(shape: SamShape) -> dict[str, Any]:
    """The dimensions as a card keeps them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(shape).items()}


def sam_card(shape: SamShape, source_sha256: str) -> Card:
    """What the library keeps beside the weights; the hash of the kept file is filled in by ``keep_weights``."""
    return Card(
        id=f"{ARCHITECTURE}-{shape.variant.replace('_', '-')}-{source_sha256[:8]}",
        name=f"SAM {shape.variant}",
        version="1",
        architecture=ARCHITECTURE,
        task="segment",
        takes=(),
        serves="regions",
        sha256=source_sha256,
        config=config_of(shape),
        channels=3,
        size_multiple=1,
        min_side_px=1,
        limits=("Trained on photographs, not validated on medical images: every proposal needs a look.",),
    )
