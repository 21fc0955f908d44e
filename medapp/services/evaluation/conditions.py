"""How held-out slices are made worse, and which classical methods a restorer has to beat there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medapp.networks.card import MR_SUPER_RESOLUTION, PET_SYNTHESIS, Card
from medapp.progress import Progress
from medapp.restoration.classical import TUNED_PET, FilterRestorer, evaluation_filter, tuned_filter
from medapp.restoration.interpolation import resolvers
from medapp.restoration.kspace import zero_filled
from medapp.training.degradations.ct import Kernel, Scanner, low_dose, pixel_seed
from medapp.training.degradations.pet import low_counts

CT_DENOISE = "ct-denoise"
MODALITIES = {CT_DENOISE: "CT", MR_SUPER_RESOLUTION: "MR", PET_SYNTHESIS: "PT"}
KEPT = ", k-space kept"

Degrade = Callable[[NDArray[np.float32], float], NDArray[np.float32]]
"""A slice and its pixel size in mm; the degraded slice on the same grid."""
Rival = Callable[[NDArray[np.float32], Progress], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Condition:
    """One way to degrade.

    Attributes:
        title: As tables and cards show it.
        degrade: What is done to a slice.
        rivals: Classical methods by name, tuned for it on training patients.
        input_name: What the degraded slice itself is called.
        factor: Of super-resolution; 1 = none.
    """

    title: str
    degrade: Degrade
    rivals: Mapping[str, Rival]
    input_name: str = "input"
    factor: int = 1

    def takes(self, card: Card) -> bool:
        """True for models that are made for it."""
        return self.factor == 1 or card.scale == self.factor


def conditions_of(task: str, is_quick: bool = False) -> list[Condition]:
    """The conditions of a task, the headline first.

    Args:
        task: ``ct-denoise``, ``mr-super-resolution`` or ``pet-synthesis``.
        is_quick: CT at quarter dose with the soft kernel only.
    """
    if task == MR_SUPER_RESOLUTION:
        return [_of_kspace(4), _of_kspace(2)]
    if task == PET_SYNTHESIS:
        return [_of_counts(0.1)]
    main = _of_dose(0.25, "hann")
    if is_quick:
        return [main]
    others: list[tuple[float, Kernel]] = [(0.25, "ramp"), (0.1, "hann"), (0.1, "ramp"), (1.0, "hann")]
    return [main, *(_of_dose(dose, kernel) for dose, kernel in others)]


def _of_dose(dose: float, kernel: Kernel) -> Condition:
    filters = [evaluation_filter(name, kernel) for name in ("nlm", "tv", "wavelet")]
    return Condition(
        f"dose {dose:g}, {kernel} filter",
        lambda values, spacing_mm: low_dose(values, spacing_mm, dose, Scanner(kernel=kernel)),
        {one.name: _run(one) for one in filters if one is not None},
    )


def _of_counts(fraction: float) -> Condition:
    filters = [tuned_filter(name, settings) for name, settings in TUNED_PET["A"].items()]
    return Condition(
        f"{fraction:g} of the counts",
        lambda values, spacing_mm: low_counts(values, spacing_mm, fraction, pixel_seed(values, "evaluation")),
        {one.name: _run(one) for one in filters if one is not None},
        "low-dose input",
    )


def _of_kspace(factor: int) -> Condition:
    def rival(run: Callable[[NDArray[np.float32], int], NDArray[np.float32]]) -> Rival:
        return lambda degraded, progress: run(degraded, factor)

    methods = {f"{one.name}{KEPT if one.keeps_measured else ''}": rival(one.run) for one in resolvers(factor)}
    return Condition(f"x{factor}", lambda values, _: zero_filled(values, factor), methods, "zero-filled", factor)


def _run(restorer: FilterRestorer) -> Rival:
    return lambda degraded, progress: restorer.restore_slice(degraded, progress=progress).values
