"""Several processes, GPUs or machines that train one network together, started by ``torchrun``.

Every process draws its share of each batch; gradients are averaged, so all hold the same weights. The first one writes
the run folder, and its clock is everybody's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist

from medapp.errors import TrainingError
from medapp.networks.device import choose_device

_log = logging.getLogger(__name__)

_PATIENCE = timedelta(hours=2)
"""How long the others wait while the first process judges and writes."""


@dataclass(frozen=True)
class Crew:
    """The processes of a training, as one of them sees them.

    Attributes:
        rank: Number of this process, from 0.
        world: How many there are.
        device: What this one computes on.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True for the one that writes."""
        return self.rank == 0

    def of_first(self, content: Any) -> Any:
        """What the first process has; plain data and tensors."""
        if self.world == 1:
            return content
        box = [content if self.is_first else None]
        dist.broadcast_object_list(box, src=0, device=self.device if self.device.type == "cuda" else None)
        return box[0]

    def total(self, *numbers: float) -> list[float]:
        """Sums over all processes."""
        return self._reduced(numbers, dist.ReduceOp.SUM) if self.world > 1 else list(numbers)

    def largest(self, *numbers: float) -> list[float]:
        """Maxima over all processes."""
        return self._reduced(numbers, dist.ReduceOp.MAX) if self.world > 1 else list(numbers)

    def _reduced(self, numbers: tuple[float, ...], how: Any) -> list[float]:
        # float64 everywhere: all must come to the same decision
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(values, op=how)
        return [float(value) for value in values.cpu()]


@contextmanager
def crew(device: str = "auto") -> Iterator[Crew]:
    """Join the other processes that ``torchrun`` started, or be alone.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; with several processes on one machine each takes its own GPU.

    Raises:
        TrainingError: The environment is not one of torchrun, or the others do not answer.
        ComputeError: The device is not there.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1 or dist.is_initialized():
        there = dist.is_initialized()
        yield Crew(dist.get_rank() if there else 0, dist.get_world_size() if there else 1, _own_device(device))
        return
    chosen = _own_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            "The other processes of this training do not answer", "Start all of them with torchrun; see CONTRIBUTING"
        ) from error
    try:
        _log.info("process %d of %d on %s", dist.get_rank() + 1, world, chosen)
        yield Crew(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()


def _own_device(wish: str) -> torch.device:
    chosen = choose_device(wish)
    if chosen.type == "cuda":
        local = _number("LOCAL_RANK", 0)
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"There are {torch.cuda.device_count()} GPUs for more processes", "Lower --nproc-per-node of torchrun"
            )
        return torch.device("cuda", local)
    return chosen


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError as error:
        raise TrainingError(f"The environment variable {name} is no number", "Start with torchrun") from error
