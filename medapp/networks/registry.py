"""From the name of an architecture to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from medapp.errors import WeightsError
from medapp.networks.architectures.restore_rwkv import RestoreRWKV, drop_derived_keys
from medapp.networks.architectures.sgsgan import SGSGAN


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
        global_quantities: What it pools over all it sees, in words; differs between whole slices and tiles.
        bytes_per_px: From the configuration to the memory one pixel (voxel) takes at the peak, float32, inference.
    """

    title: str
    build: Callable[..., nn.Module]
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    size_multiple: int = 1
    min_side_px: int = 1
    inputs: tuple[str, ...] = ()
    global_quantities: tuple[str, ...] = ()
    bytes_per_px: Callable[[Mapping[str, Any]], int] = lambda _config: 4000


def as_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """For architectures whose published keys are ours."""
    return weights


ARCHITECTURES: Mapping[str, Architecture] = {
    "restore_rwkv": Architecture(
        title="Restore-RWKV",
        build=RestoreRWKV,
        adapt=drop_derived_keys,
        size_multiple=8,
        min_side_px=8,
        global_quantities=("WKV decay",),
        # measured: the widest tensors are 4 x 2 dim channels at half size, or 2 dim at full size
        bytes_per_px=lambda config: 160 * int(config.get("dim", 48)),
    ),
    "sgsgan": Architecture(
        title="SGSGAN-style",
        build=SGSGAN,
        adapt=as_published,
        size_multiple=8,
        min_side_px=8,
        global_quantities=("style codes",),
        # measured: 3 x the first width enters the finest style layer, once as it is and once scaled
        bytes_per_px=lambda config: 56 * int(config.get("channels", (32,))[0]),
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
