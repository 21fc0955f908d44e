"""From the name of an architecture to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from medapp.errors import WeightsError
from medapp.networks.architectures.restore_rwkv import RestoreRWKV, drop_derived_keys


@dataclass(frozen=True)
class Architecture:
    """How to build a network, and how to bring published weights to our keys.

    Attributes:
        build: Constructor; takes the card's ``config`` as keyword arguments.
        adapt: Drops or converts keys that published checkpoints carry beside ours.
        size_multiple: Height and width of the input must be multiples of it.
    """

    build: Callable[..., nn.Module]
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    size_multiple: int


ARCHITECTURES: Mapping[str, Architecture] = {
    "restore_rwkv": Architecture(build=RestoreRWKV, adapt=drop_derived_keys, size_multiple=8),
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
