"""What is known of checkpoints that other people publish: sizes are read off the tensors, ranges off the papers.

Used when a weights file comes without a card. What the file cannot tell (which task it was trained for, in which
range) is taken from the publication and said among the limits of the card.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from medapp.errors import WeightsError
from medapp.networks.card import Card, Intake
from medapp.networks.checkpoint import candidates, file_sha256, fitting_weights, keep_weights, read_tensors
from medapp.networks.registry import architecture

Config = dict[str, Any]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Published:
    """An architecture as its authors trained it.

    Attributes:
        config_of: Constructor arguments, read off the shapes of the weights; raises KeyError or IndexError for the
            weights of another network.
        takes: Scans and ranges of the publication; empty where it does not tell.
        serves, task: As on a card.
        limits: What a user of such a checkpoint must know.
    """

    config_of: Callable[[Weights], Config]
    takes: tuple[Intake, ...]
    task: str
    serves: str = "restoration"
    limits: tuple[str, ...] = ()


def _count(weights: Weights, stem: str) -> int:
    """How many numbered parts follow a stem."""
    found = {int(match[1]) for key in weights if (match := re.match(re.escape(stem) + r"\.(\d+)\.", key))}
    return len(found)


def _trunk(weights: Weights) -> Config:
    """What the U-shaped trunks of Restore-RWKV and AMIR have in common."""
    stem = weights["patch_embed.proj.weight" if "patch_embed.proj.weight" in weights else "patch_embed.weight"]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    return {
        "inp_channels": stem.shape[1],
        "out_channels": weights["output.weight"].shape[0],
        "dim": stem.shape[0],
        "num_blocks": [_count(weights, level) for level in levels],
        "num_refinement_blocks": _count(weights, "refinement"),
    }


def _amir(weights: Weights) -> Config:
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    return {
        **_trunk(weights),
        "heads": [weights[f"{level}.0.attn.temperature"].shape[0] for level in levels],
        "bias": "encoder_level1.0.attn.qkv.bias" in weights,
        "LayerNorm_type": "WithBias" if "encoder_level1.0.norm1.body.bias" in weights else "BiasFree",
    }


def _drmc(weights: Weights) -> Config:
    head = weights["head_conv.weight"]
    features = head.shape[0]
    experts = _count(weights, "body.0.mlp.mpl_experts")
    widths = [weights[f"body.0.mlp.mpl_experts.{i}.fc1.weight"].shape[0] for i in range(experts)]
    return {
        "res_num": _count(weights, "body"),
        "n_feats": features,
        "ch_exp_list": [1] * _count(weights, "body.0.attention.att_experts"),
        "mlp_ratio_list": [width / features for width in widths],
        "dims": head.ndim - 2,
    }


def _rat(weights: Weights) -> Config:
    stages = (_count(weights, "encoders"), _count(weights, "decoders"))
    return {
        "img_channel": weights["intro.weight"].shape[1],
        "width": weights["intro.weight"].shape[0],
        "middle_blk_num": sum(
            _count(weights, f"middle_blks.{b}.layers") for b in range(_count(weights, "middle_blks"))
        ),
        "enc_blk_nums": [_count(weights, f"encoders.{i}") for i in range(stages[0])],
        "dec_blk_nums": [_count(weights, f"decoders.{i}") for i in range(stages[1])],
    }


def _medical_matting(weights: Weights) -> Config:
    keys = {key.removeprefix("model."): value for key, value in weights.items()}
    levels = _count(keys, "prob_unet.unet.contracting_path")
    firsts = [keys[f"prob_unet.unet.contracting_path.{i}.layers.{0 if i == 0 else 1}.weight"] for i in range(levels)]
    filters = [first.shape[0] for first in firsts]
    latent, hidden = keys["prob_unet.prior.conv_layer.weight"].shape[0] // 2, keys["prob_unet.fcomb.layers.0.weight"]
    channels = firsts[0].shape[1]
    config: Config = {
        "input_channels": channels,
        "num_filters": filters,
        "latent_dim": latent,
        "num_convs_fcomb": 1 + sum(key.startswith("prob_unet.fcomb.layers.") for key in keys) // 2,
        "use_posterior": any(key.startswith("prob_unet.posterior.") for key in keys),
        "batch_norm": "prob_unet.unet.contracting_path.0.layers.1.running_mean" in keys,
        "use_matting": "matting_net.out_layer.0.weight" in keys,
    }
    if config["use_matting"]:
        block = keys["matting_net.block1.0.left.0.weight"]
        config["hidden_channel"] = block.shape[0]
        config["use_uncertainty_map"] = block.shape[1] > hidden.shape[0] + channels
    return config


def config_of(architecture_name: str, weights: Weights) -> Config | None:
    """The configuration of some weights, read off their shapes; None when they are of another network."""
    try:
        return PUBLISHED[architecture_name].config_of(weights)
    except (KeyError, IndexError, ZeroDivisionError):
        return None


_GROUP_RANGES = (
    Intake("CT", "HU", (-1024.0, 3072.0)),
    Intake("MR", "arbitrary", (0.0, 4095.0)),
    Intake("PT", "SUV", (0.0, 20.0)),
)
_NOT_MEASURED = "Brought in from a third-party checkpoint; medapp has not measured what it does."
_WHICH = "The file does not say which of these kinds of scans it was trained on; name one with --modality."

PUBLISHED: Mapping[str, Published] = {
    "restore_rwkv": Published(_trunk, _GROUP_RANGES, "restore", limits=(_NOT_MEASURED, _WHICH)),
    "amir": Published(
        _amir,
        (Intake("CT", "HU", (-1024.0, 3071.0)), *_GROUP_RANGES[1:]),
        "all-in-one",
        limits=(_NOT_MEASURED, "Checkpoints from before 2024-06-09 were trained with 3072 HU as the upper limit."),
    ),
    "drmc": Published(
        _drmc,
        (_GROUP_RANGES[2],),
        "pet-synthesis",
        limits=(
            _NOT_MEASURED,
            "The upper limit of the values is not published; 20 SUV is that of later work.",
            "Checkpoints from before 2024-02-11 had other gates or attention, which the file cannot tell.",
        ),
    ),
    "rat": Published(
        _rat,
        (),
        "restore",
        limits=(_NOT_MEASURED, "Which engine found the regions in training is not in the file."),
    ),
    "medical_matting": Published(_medical_matting, (), "matting", "matting", (_NOT_MEASURED,)),
}
"""The architectures of which third-party checkpoints may turn up."""


def import_published(
    path: Path, folder: Path, architecture_name: str = "", modality: str = "", takes: tuple[Intake, ...] = ()
) -> Card:
    """Keep a third-party checkpoint that comes without a card; the card is made from what was published.

    Args:
        path: The file.
        folder: Where models are kept.
        architecture_name: Empty = the one whose published keys fit.
        modality: The only one of the publication's that it was trained on; empty = all of them.
        takes: Scans and ranges it was trained on; empty = those of the publication.

    Returns:
        The card with the hash of the kept file.

    Raises:
        WeightsError: As ``read_weights``; or no known architecture fits, or nobody published its range.
    """
    wished, config, weights = _recognised(read_tensors(path), architecture_name)
    built, known = architecture(wished), PUBLISHED[wished]
    takes = takes or tuple(intake for intake in known.takes if modality in ("", intake.modality))
    if not takes and known.serves == "restoration":
        raise WeightsError(
            f"The file does not say which scans this {built.title} was trained on",
            "Say it on the command line: medapp models import FILE --modality CT --unit HU --range=-1024,3072",
        )
    sha256 = file_sha256(path)
    card = Card(
        id=f"{wished.replace('_', '-')}-{sha256[:8]}",
        name=built.title,
        version="1",
        architecture=wished,
        task=known.task,
        takes=takes,
        sha256=sha256,
        config=config,
        serves=known.serves,
        inputs=built.inputs,
        channels=_channels(config),
        dims=int(config.get("dims", 2)),
        size_multiple=built.size_multiple,
        min_side_px=max(built.min_side_px, 8),
        limits=tuple(line for line in known.limits if line != _WHICH or len(takes) > 1),
    )
    return keep_weights(weights, card, folder)


def _recognised(content: Mapping[str, Any], wished: str) -> tuple[str, Config, dict[str, Tensor]]:
    """Name, configuration and weights of the network in a file; ``wished`` may be empty."""
    if wished and wished not in PUBLISHED:
        raise WeightsError(
            f"Nobody published weights of {architecture(wished).title}",
            "Keep the card (.json) that was made with the weights beside the file",
        )
    for name in [wished] if wished else PUBLISHED:
        configs = [config_of(name, weights) for weights in candidates(content)]
        config = next((config for config in configs if config is not None), {} if wished else None)
        if config is None:
            continue
        try:
            return name, config, fitting_weights(content, name, config)
        except WeightsError:
            if wished:
                raise
    raise WeightsError(
        "The weights belong to no network that medapp knows", f"medapp knows: {', '.join(sorted(PUBLISHED))}, sam"
    )


def _channels(config: Mapping[str, Any]) -> int:
    """Image channels, by whatever name the paper gives them."""
    return int(next((config[key] for key in ("inp_channels", "img_channel", "input_channels") if key in config), 1))
