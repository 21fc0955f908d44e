"""From the name of an architecture to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from medapp.errors import WeightsError
from medapp.networks.architectures.amir import AMIR
from medapp.networks.architectures.drmc import DRMC
from medapp.networks.architectures.medical_matting import MedicalMatting, published_matting
from medapp.networks.architectures.nafnet import NAFNet
from medapp.networks.architectures.pddm import PDDM
from medapp.networks.architectures.rat import RAT, drop_loss_keys
from medapp.networks.architectures.restore_rwkv import RestoreRWKV, drop_derived_keys
from medapp.networks.architectures.restormer import Restormer
from medapp.networks.architectures.sgsgan import SGSGAN
from medapp.networks.titles import TITLES


@dataclass(frozen=True)
class Architecture:
    """How to build a network, how to feed it, and how to bring published weights to our keys.

    Attributes:
        title: What people call it.
        build: Constructor; takes the card's ``config`` as keyword arguments.
        adapt: Drops or converts keys that published checkpoints carry beside ours.
        size_multiple: Each side of the input must be a multiple of it; callers pad.
        min_side_px: Smallest side it can work on.
        inputs: Keyword arguments of ``forward`` beside the image, from ``card.INPUTS``.
        serves: What it is used for; one of ``card.SERVES``.
        channels: From the configuration to the channels of its images.
        dims: 2 or 3, where the configuration does not say.
        global_quantities: What it pools over all it sees, in words; differs between whole slices and tiles.
        bytes_per_px: From the configuration to the memory one pixel (voxel) takes at the peak, float32, inference.
    """

    title: str
    build: Callable[..., nn.Module]
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    size_multiple: int = 1
    min_side_px: int = 1
    inputs: tuple[str, ...] = ()
    serves: str = "restoration"
    channels: Callable[[Mapping[str, Any]], int] = lambda _config: 1
    dims: int = 2
    global_quantities: tuple[str, ...] = ()
    bytes_per_px: Callable[[Mapping[str, Any]], int] = lambda _config: 4000


def as_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """For architectures whose published keys are ours."""
    return weights


ARCHITECTURES: Mapping[str, Architecture] = {
    "amir": Architecture(
        title=TITLES["amir"],
        build=AMIR,
        adapt=as_published,
        size_multiple=8,
        min_side_px=16,
        channels=lambda config: int(config.get("inp_channels", 1)),
        global_quantities=("channel attention",),  # the instruction is computed once, on the whole slice
        # measured: feed-forwards of 2 dim channels at full size, before and after their depthwise convolution
        bytes_per_px=lambda config: 240 * int(config.get("dim", 42)),
    ),
    "drmc": Architecture(
        title=TITLES["drmc"],
        build=DRMC,
        adapt=as_published,
        dims=3,
        global_quantities=("pooled gates", "channel attention"),
        # measured: queries, keys and values of one expert beside the features
        bytes_per_px=lambda config: 56 * int(config.get("n_feats", 64)),
    ),
    "rat": Architecture(
        title=TITLES["rat"],
        build=RAT,
        adapt=drop_loss_keys,
        size_multiple=16,
        min_side_px=16,
        inputs=("region_map",),
        channels=lambda config: int(config.get("img_channel", 1)),
        global_quantities=("pooled channel attention", "region map"),
        # measured: a block of the first level, before and after its gate, with the skip; of the output's pixels
        bytes_per_px=lambda config: 44 * int(config.get("width", 64)) * int(config.get("scale", 1)) ** 2,
    ),
    "restore_rwkv": Architecture(
        title=TITLES["restore_rwkv"],
        build=RestoreRWKV,
        adapt=drop_derived_keys,
        size_multiple=8,
        min_side_px=8,
        channels=lambda config: int(config.get("inp_channels", 1)),
        global_quantities=("WKV decay",),
        # measured: half a dozen tensors of 2 dim channels at full size, and the pieces that are worked on at once
        bytes_per_px=lambda config: 120 * int(config.get("dim", 48)),
    ),
    "nafnet": Architecture(
        title=TITLES["nafnet"],
        build=NAFNet,
        adapt=as_published,
        size_multiple=16,
        min_side_px=16,
        channels=lambda config: int(config.get("img_channel", 1)),
        global_quantities=("pooled channel attention",),
        # measured: a block of the first level, before and after its gate, with the skip
        bytes_per_px=lambda config: 44 * int(config.get("width", 32)),
    ),
    "restormer": Architecture(
        title=TITLES["restormer"],
        build=Restormer,
        adapt=as_published,
        size_multiple=8,
        min_side_px=8,
        channels=lambda config: int(config.get("inp_channels", 1)),
        global_quantities=("channel attention",),
        # measured: the feed-forward of the last level, 2 dim channels wide, before and after its depthwise convolution
        bytes_per_px=lambda config: 120 * int(config.get("dim", 48)),
    ),
    "sgsgan": Architecture(
        title=TITLES["sgsgan"],
        build=SGSGAN,
        adapt=as_published,
        size_multiple=8,
        min_side_px=8,
        dims=3,
        global_quantities=("style codes",),
        # measured: 3 x the first width enters the finest style layer, once as it is and once scaled
        bytes_per_px=lambda config: 56 * int(config.get("channels", (32,))[0]),
    ),
    "medical_matting": Architecture(
        title=TITLES["medical_matting"],
        build=MedicalMatting,
        adapt=published_matting,
        size_multiple=8,
        min_side_px=8,
        serves="matting",
        channels=lambda config: int(config.get("input_channels", 1)),
        global_quantities=("latent code", "channel gate"),
        # measured: about nine maps of the wide blocks of the matting net
        bytes_per_px=lambda config: 144 * int(config.get("hidden_channel", 32)),
    ),
    "pddm": Architecture(
        title=TITLES["pddm"],
        build=PDDM,
        adapt=as_published,
        min_side_px=16,
        inputs=("sparse_depth",),
        serves="depth",
        channels=lambda _config: 3,
        global_quantities=("depth bins",),
        # measured: hidden channels and bin scores of every fourth pixel, four maps of the first width
        bytes_per_px=lambda config: (
            8 * int(config.get("embedding", 128))
            + 16 * int(config.get("widths", (64,))[0])
            + 48 * int(config.get("seed_bins", 16))
        ),
    ),
}


def architecture(name: str) -> Architecture:
    """Look an architecture up.

    Raises:
        WeightsError: It is not known.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError as error:
        raise WeightsError(
            f"The architecture '{name[:40]}' is not known", f"medapp knows: {', '.join(sorted(ARCHITECTURES))}"
        ) from error


def build_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A fresh network of an architecture.

    Raises:
        WeightsError: The architecture is not known, or the configuration does not fit it.
    """
    try:
        return architecture(name).build(**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"The configuration does not fit the architecture '{name}'", str(error)[:200]) from error
