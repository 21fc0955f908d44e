"""Restorers trained on a person's references, new and old crops in turn, accepted mattes painted into the regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.regions.region_map import paint_mattes
from medapp.training.inputs import make_inputs
from medapp.training.recipe import RestorationRecipe
from medapp.training.tasks.restoration import Pairs, RestorationTask, TuningPair
from medapp.training.tasks.task import DataFacts, marked, own_samples

_JITTER = (0.6, 1.5)


@dataclass(frozen=True, eq=False)
class Entry:
    """A reference and degraded versions of it, in the recipe's native units.

    Attributes:
        patient: Patient group.
        pairs: Degraded versions, each with its reference in the same units: ``(Y, X)`` float32.
        body: ``(Y, X)`` bool, where crops are worth drawing.
        mattes: ``(Y, X)`` uint8, number of the accepted matte of each pixel; 0 = none.
    """

    patient: str
    pairs: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    body: NDArray[np.bool_]
    mattes: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(Y, X)``."""
        return self.mattes.shape


class Crops:
    """Crops of entries, patients alike, with body in them, turned and mirrored.

    Args:
        entries: What to draw from.
        recipe: Sides and numbers of the crops; seed.
        is_noise: What was degraded is noise, which may be a little lighter or heavier than it was simulated.

    Attributes:
        has_mattes: Some entry has accepted mattes.
    """

    def __init__(self, entries: Sequence[Entry], recipe: RestorationRecipe, is_noise: bool) -> None:
        self._recipe, self._is_noise = recipe, is_noise
        self._by_patient: dict[str, list[Entry]] = {}
        for entry in entries:
            self._by_patient.setdefault(entry.patient, []).append(entry)
        self._patients = sorted(self._by_patient)
        self.has_mattes = any(entry.mattes.any() for entry in entries)

    def batch(self, step: int, rank: int, world: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """See ``Pairs``."""
        degraded, reference, _, is_own = self.with_mattes(step, rank, world)
        return degraded, reference, is_own

    def with_mattes(
        self, step: int, rank: int, world: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8], bool]:
        """As ``batch``, with the mattes of the crops ``(B, S, S)``."""
        random = np.random.default_rng([self._recipe.seed, step])
        side, count = self._recipe.crops[int(random.integers(len(self._recipe.crops)))]
        own, is_own = own_samples(count, rank, world)
        made = [self._crop(side, np.random.default_rng([self._recipe.seed, step, index])) for index in own]
        degraded, reference, mattes = (np.stack(part) for part in zip(*made, strict=True))
        return degraded[:, None].astype(np.float32), reference[:, None].astype(np.float32), mattes, is_own

    def _crop(self, side: int, random: np.random.Generator) -> tuple[NDArray, NDArray, NDArray]:
        of_patient = self._by_patient[self._patients[int(random.integers(len(self._patients)))]]
        entry = of_patient[int(random.integers(len(of_patient)))]
        best, most = (slice(0, side), slice(0, side)), -1.0
        for _ in range(8):
            y, x = (int(random.integers(max(1, size - side + 1))) for size in entry.shape)
            box = (slice(y, y + side), slice(x, x + side))
            share = float(entry.body[box].mean())
            if share > most:
                best, most = box, share
            if share > 0.4:
                break
        degraded, reference = (part[best] for part in entry.pairs[int(random.integers(len(entry.pairs)))])
        if self._is_noise:  # noise a little lighter or heavier than was simulated
            degraded = reference + np.float32(random.uniform(*_JITTER)) * (degraded - reference)
        is_mirrored, turns = bool(random.random() < 0.5), int(random.integers(4))
        cut = []
        for part in (degraded, reference, entry.mattes[best]):
            whole = np.pad(part, [(0, side - size) for size in part.shape], mode="edge")
            cut.append(np.rot90(whole.T if is_mirrored else whole, turns).copy())
        return cut[0], cut[1], cut[2]


class CorrectionTask(RestorationTask):
    """Trains a restorer on new and old crops in turn; accepted mattes are regions of their own."""

    def __init__(
        self,
        recipe: RestorationRecipe,
        sides: Sequence[Crops],
        tuning: Sequence[TuningPair],
        data: DataFacts,
        network: nn.Module | None = None,
    ) -> None:
        pairs: Pairs = sides[0]
        super().__init__(recipe, pairs, tuning, data, network)
        self._sides = tuple(sides)

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """As ``RestorationTask.batch``."""
        side = self._sides[step % len(self._sides)]
        degraded, reference, mattes, is_own = side.with_mattes(step, rank, world)
        inputs = make_inputs(self._needed, degraded, self._focus)
        if "region_map" in inputs and side.has_mattes:
            maps = inputs["region_map"].numpy()
            inputs["region_map"] = torch.from_numpy(
                np.stack([painted(*pair) for pair in zip(maps, mattes, strict=True)])
            )
        return marked(
            {"degraded": torch.from_numpy(degraded), "reference": torch.from_numpy(reference), **inputs}, is_own
        )


def painted(labels: NDArray[np.int32], mattes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Regions with accepted mattes painted in, each a region of its own."""
    return paint_mattes(labels, [mattes == number for number in np.unique(mattes) if number])
