"""MR super-resolution: whole slices lose the outside of their k-space, then crops are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.restoration.interpolation import first_filtered
from medapp.training.leakage import check
from medapp.training.patches import Cropper, PatchSet, StoredSlice
from medapp.training.recipe import Recipe, RestorationRecipe
from medapp.training.references import References
from medapp.training.sources import MANIFEST, find_references
from medapp.training.tasks.restoration import RestorationTask, TuningPair, facts_of
from medapp.training.tasks.task import own_samples

PERCENTILES = (0.5, 99.5)
"""Of a degraded slice; they stand for 0 and 1000."""
TISSUE = 100.0
"""Above it, of 1000, is the body."""
_LEAST_SIDE_PX = 64
_LEAST_TISSUE = 0.1
_ALL_SLICES = 24
"""Of longer series every second slice is enough: neighbours are alike."""


def mr_super_resolution(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> RestorationTask:
    """The task on the MR scans of a place; see ``task_of``."""
    assert isinstance(recipe, RestorationRecipe)
    has_manifest = (data / MANIFEST).is_file()
    split, under = ("train", "mri/") if has_manifest else (None, "")
    return mr_task(recipe, find_references(data, "MR", split, progress, under), cache, progress)


def mr_task(
    recipe: RestorationRecipe, references: References, cache: Path, progress: Progress, network: nn.Module | None = None
) -> RestorationTask:
    """The task on references.

    Args:
        recipe: Factor, crops, network.
        references: MR; a part of the patients is held out to choose the best checkpoint.
        cache: Folder for slices and what is left of them.
        progress: Counts series and slices.
        network: To go on with; None = as the recipe starts.

    Raises:
        TrainingError: Fewer than two patients, equal slices on both sides, or no slice large and full enough.
        Cancelled: The user stopped it; finished slices stay in the cache.
    """
    held_out = recipe.held_out(references.patients)
    trained = references.of_patients([patient for patient in references.patients if patient not in held_out])
    check(trained, references.of_patients(held_out))
    stored = PatchSet.build(references, cache, progress)
    large = _thinned(stored).chosen(lambda entry: len(entry.shape) == 2 and min(entry.shape) >= _LEAST_SIDE_PX)
    patches = large.degraded({"kind": "mr-kspace", "factor": recipe.factor}, progress)
    if recipe.first_filter:  # its measured frequencies are still those of the zero-filled slice
        patches = patches.derived("degraded", f"{recipe.first_filter} x{recipe.factor}", _filtered(recipe), progress)
    limits = {entry.sha256: percentile_limits(entry.layer("degraded")[0]) for entry in patches.slices}
    usable = patches.chosen(lambda entry: has_tissue(entry.layer("degraded")[0], limits[entry.sha256]))
    kept = usable.of_patients(trained.patients)
    if not kept.slices:
        raise TrainingError("No MR slice is large and full enough to learn from", "Use scans with larger slices")
    tuning = [
        _tuning_pair(series[(len(series)) // 2], limits, recipe)
        for series in _series(usable.of_patients(tuple(held_out)))
    ]
    return RestorationTask(
        recipe, MrPairs(kept, limits, recipe), tuning, facts_of(references, trained, usable), network
    )


class MrPairs:
    """Crops in thousandths of their slice's spread, patients alike, air skipped; see ``Pairs``.

    Args:
        patches: With the layer ``degraded``.
        limits: Values that stand for 0 and 1000, by the hash of a slice.
        recipe: Crops and seed.
    """

    def __init__(self, patches: PatchSet, limits: dict[str, tuple[float, float]], recipe: RestorationRecipe) -> None:
        self._cropper, self._limits, self._recipe = (
            Cropper(patches, patient_shares=recipe.patient_shares),
            limits,
            recipe,
        )

    def batch(self, step: int, rank: int, world: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """Degraded and reference crops ``(B, 1, S, S)`` float32, and whether they count."""
        seed, crops = self._recipe.seed, self._recipe.crops
        side, count = crops[int(np.random.default_rng([seed, step]).integers(len(crops)))]
        own, is_own = own_samples(count, rank, world)
        found = self._cropper.batch(side, count, (seed, step), own)
        degraded, reference = (
            np.stack([in_thousandths(crop.layers[name], self._limits[crop.entry.sha256]) for crop in found])[:, None]
            for name in ("degraded", "reference")
        )
        return degraded, reference, is_own


def percentile_limits(degraded: NDArray) -> tuple[float, float]:
    """Values of a degraded slice that stand for 0 and 1000, as ``Intake.limits`` of a card says."""
    low, high = np.percentile(degraded, PERCENTILES)
    return float(low), float(high)


def has_tissue(degraded: NDArray, limits: tuple[float, float]) -> bool:
    """False for slices of air, and for those without any spread."""
    low, high = limits
    return high - low > 1e-6 and float(np.mean(degraded > low + TISSUE / 1000 * (high - low))) >= _LEAST_TISSUE


def in_thousandths(values: NDArray, limits: tuple[float, float]) -> NDArray[np.float32]:
    """0 and 1000 at the limits, linear, nothing clipped."""
    low, high = limits
    return ((np.asarray(values, np.float32) - np.float32(low)) * np.float32(1000.0 / (high - low))).astype(np.float32)


def _filtered(recipe: RestorationRecipe) -> Callable[[StoredSlice], NDArray[np.float32]]:
    return lambda entry: first_filtered(entry.layer("degraded")[0], recipe.factor, recipe.first_filter)[None]


def _tuning_pair(entry: StoredSlice, limits: dict[str, tuple[float, float]], recipe: RestorationRecipe) -> TuningPair:
    own = limits[entry.sha256]
    degraded, reference = in_thousandths(entry.layer("degraded")[0], own), in_thousandths(entry.values, own)
    return TuningPair(degraded, reference, reference > TISSUE, recipe.value_range)


def _series(patches: PatchSet) -> list[list[StoredSlice]]:
    """Slices by the series they come from, in their order."""
    found: dict[str, list[StoredSlice]] = {}
    for entry in patches.slices:
        found.setdefault(entry.source.rpartition(" ")[0], []).append(entry)
    return list(found.values())


def _thinned(patches: PatchSet) -> PatchSet:
    """Every second slice of long series."""
    sizes = {id(entry): len(series) for series in _series(patches) for entry in series}
    return patches.chosen(lambda entry: sizes[id(entry)] <= _ALL_SLICES or _number(entry) % 2 == 0)


def _number(entry: StoredSlice) -> int:
    return int(entry.source.rpartition(" ")[2])
