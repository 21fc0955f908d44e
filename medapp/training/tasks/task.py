"""What the one training loop asks of a task; see ``medapp.training.loop``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FILLER = "filler"
"""Key of a batch whose samples only keep a process in step: there were fewer samples than processes."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One validation image: what went in, what came out, what was wanted.

    Attributes:
        degraded, result, reference: ``(H, W)`` or ``(H, W, 3)`` float32, 0..1 as they are to be shown; all of one size.
    """

    degraded: NDArray[np.float32]
    result: NDArray[np.float32]
    reference: NDArray[np.float32]


@dataclass(frozen=True)
class Judgement:
    """How good a network is on held-out images.

    Attributes:
        score: The higher, the better; NaN is never the best. None = there is nothing to judge on: the last is kept.
        figures: What the curves show beside it, such as ``psnr_db``.
        samples: The same few images every time, at most five.
    """

    score: float | None
    figures: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class DataFacts:
    """What a run is trained on, for ``data.json`` and for the card.

    Attributes:
        sha256: Over everything that is trained and judged on.
        files: Names without a patient's name, such as paths inside of the data folder.
        patients: How many, without those held out for judging.
        collections: One entry a collection, with ``name``, ``licence`` and a count, as cards list them.
        spacing_mm: Smallest and largest in-plane pixel size; None where unknown.
        parts: Of a network for several kinds of scans: the same of each, by DICOM code.
        groups: Patient groups that are trained on, to be counted; written nowhere.
        extent_mm: Largest in-plane side, where crops of bodies are all there is; None = whole slices.
    """

    sha256: str
    files: tuple[str, ...] = ()
    patients: int = 0
    collections: tuple[Mapping[str, Any], ...] = ()
    spacing_mm: tuple[float, float] | None = None
    parts: Mapping[str, DataFacts] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    extent_mm: float | None = None


class Task(Protocol):
    """A network, its data, its loss, and how it is judged.

    Attributes:
        network: What is trained and kept.
        data: What it is trained on.
    """

    network: nn.Module
    data: DataFacts

    def parts(self) -> Mapping[str, nn.Module]:
        """Further modules with parameters that are trained along, such as learnt weights of a loss."""
        ...

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """This process's share of the batch of a step, on the CPU; the first axis of every entry counts samples.

        The same arguments give the same batch, so that a run resumes exactly, and the shares of all processes together
        are the batch of one process alone. See ``own_samples``.

        Args:
            step: Iteration, from 0.
            rank, world: Which of how many processes asks.
            share: Spent part of the budget, 0..1; the same for all processes.
        """
        ...

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """The loss as a mean over the samples, and its parts for the curves.

        Args:
            batch: Of ``batch``, on the device of the network.
            share: Spent part of the budget, 0..1.
        """
        ...

    def judge(self, network: nn.Module) -> Judgement:
        """Judge a copy of the network with averaged weights, in evaluation mode, on its device."""
        ...


def own_samples(count: int, rank: int, world: int) -> tuple[range, bool]:
    """Which samples of a batch are a process's, and whether they are its own.

    A process without any gets the first one and says ``FILLER`` in its batch, so that it takes part in the exchange of
    gradients.
    """
    own = range(rank, count, world)
    return (own, True) if own else (range(1), False)


def marked(batch: dict[str, Tensor], is_own: bool) -> dict[str, Tensor]:
    """The batch, with the mark of samples that do not count."""
    if not is_own:
        batch[FILLER] = torch.ones(len(next(iter(batch.values()))))
    return batch
