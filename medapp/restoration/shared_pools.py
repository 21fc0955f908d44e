"""Tiles of a network that pools over all it sees: each gets what the whole image would have pooled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from medapp.restoration.tiling import Maps, RunTile

POOLED = "pooled channel attention"
"""What these networks say that they take over the whole; see ``networks.registry``."""

Pool = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]
"""A hook of torch: the pool, what it was given, what it made of it; something else instead, or None."""


class SharedPools:
    """Runs a network over tiles with means over the whole image in place of those over each tile.

    The means are those of one look at every tile: pools that come later in the network saw what the earlier ones made
    of the tiles, not of the whole. Measured, that leaves a fifth of the difference between tiles and whole.

    Args:
        network: Pools by ``AdaptiveAvgPool2d(1)``.
        run: Runs it on a tile.
        ready: Called with the first tile before it is looked at, for whatever runs the network by itself.
    """

    def __init__(self, network: nn.Module, run: RunTile, ready: Callable[[NDArray[np.float32], Maps], None]) -> None:
        self._pools = [module for module in network.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
        self._run, self._ready = run, ready
        self._sums: dict[int, Tensor] = {}
        self._weights: dict[int, float] = {}

    def begin(self) -> None:
        """See ``tiling.Survey``."""
        self._sums, self._weights = {}, {}

    def look(self, part: NDArray[np.float32], maps: Maps, weight: NDArray[np.float32]) -> None:
        """See ``tiling.Survey``."""
        if not self._sums:
            self._ready(part, maps)
        counted = torch.from_numpy(weight)[None, None]

        def noting(number: int) -> Pool:
            def note(_module: nn.Module, given: tuple[Tensor, ...], _made: Tensor) -> None:
                features = given[0].float()
                here = functional.adaptive_avg_pool2d(
                    counted.to(features.device), (features.shape[-2], features.shape[-1])
                )
                total = (features * here).sum(dim=(2, 3), keepdim=True)
                self._sums[number] = self._sums.get(number, 0) + total
                self._weights[number] = self._weights.get(number, 0.0) + float(here.sum())

            return note

        self._hooked(noting, part, maps)

    def __call__(self, part: NDArray[np.float32], maps: Maps) -> NDArray[np.float32]:
        """Run the network; where nothing was looked at before, as it is."""
        if not self._sums:
            return self._run(part, maps)

        def giving(number: int) -> Pool:
            mean = self._sums[number] / self._weights[number]
            return lambda _module, _given, made: mean.to(made.dtype).expand_as(made)

        return self._hooked(giving, part, maps)

    def _hooked(self, hook: Callable[[int], Pool], part: NDArray[np.float32], maps: Maps) -> NDArray[np.float32]:
        handles: list[RemovableHandle] = []
        try:
            for number, pool in enumerate(self._pools):
                handles.append(pool.register_forward_hook(hook(number)))
            return self._run(part, maps)
        finally:
            for handle in handles:
                handle.remove()
