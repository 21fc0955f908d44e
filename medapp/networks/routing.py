"""Listens to the routers of a network, so that people can see which way an image went."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from medapp.networks.blocks.routing import RoutingTap


class RouterChoice(NamedTuple):
    """What one router chose in one pass.

    Attributes:
        name: Of the router in its network, such as ``spatial_routing_encoder_level1`` or ``body.0.mlp``.
        kind: ``pixels``: shares of all pixels' gates per expert, they sum to 1. ``channels``: one number, the mean
            gate of the channels, 0..1. ``gates``: one per expert, not negative, need not sum to 1.
        shares: The numbers, means over the batch.
    """

    name: str
    kind: str
    shares: tuple[float, ...]


@contextmanager
def record_routing(network: nn.Module) -> Iterator[list[RouterChoice]]:
    """Note every router's choice while the block lasts.

    Args:
        network: Any; one without routers notes nothing.

    Yields:
        The choices in the order in which routers ran. Each pass of the network (each tile) adds its own; ``averaged``
        makes one of them per router. Clear the list between images.
    """
    choices: list[RouterChoice] = []
    handles = [
        module.register_forward_hook(_listener(name.removesuffix(".tap"), module.kind, choices))
        for name, module in network.named_modules()
        if isinstance(module, RoutingTap)
    ]
    try:
        yield choices
    finally:
        for handle in handles:
            handle.remove()


def has_routing(network: nn.Module) -> bool:
    """Whether it has routers to listen to."""
    return any(isinstance(module, RoutingTap) for module in network.modules())


def averaged(choices: Iterable[RouterChoice]) -> tuple[RouterChoice, ...]:
    """One choice per router, in the order of their first appearance: the mean over tiles or slices."""
    by_router: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for choice in choices:
        by_router.setdefault((choice.name, choice.kind), []).append(choice.shares)
    return tuple(
        RouterChoice(name, kind, tuple(sum(column) / len(rows) for column in zip(*rows, strict=True)))
        for (name, kind), rows in by_router.items()
    )


def _listener(name: str, kind: str, choices: list[RouterChoice]) -> Callable[[nn.Module, Any, Tensor], None]:
    name = name.removesuffix(".moe").removesuffix(".routing")

    def note(_module: nn.Module, _inputs: Any, gates: Tensor) -> None:
        shares = gates.detach().float().flatten(0, -2).mean(dim=0)
        if kind == "channels":
            shares = shares.mean(dim=0, keepdim=True)
        choices.append(RouterChoice(name, kind, tuple(shares.tolist())))

    return note
