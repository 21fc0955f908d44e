"""PET of fewer counts, simulated slice by slice from pieces in SUV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.training.leakage import check
from medapp.training.patches import Cropper, PatchSet, StoredSlice
from medapp.training.recipe import RestorationRecipe
from medapp.training.references import References
from medapp.training.tasks.restoration import RestorationTask, TuningPair, facts_of
from medapp.training.tasks.task import own_samples

REALISATIONS = 3
"""Draws of each slice, each at a fraction of its own."""
TUNING_FRACTION = 0.1


def low_count_task(
    recipe: RestorationRecipe,
    references: References,
    cache: Path,
    progress: Progress,
    network: nn.Module,
    fractions: tuple[float, float],
    most_slices: int,
) -> RestorationTask:
    """The task on references.

    Args:
        recipe: Crops, ranges, network.
        references: PET in SUV; a part of the patients is held out to choose the best checkpoint.
        cache: Folder for slices and what is left of them.
        progress: Counts series and slices.
        network: What is trained.
        fractions: Parts of the counts that are left, ``(low, high)``.
        most_slices: Of one series, evenly spread.

    Raises:
        TrainingError: The values are not in SUV, fewer than two patients, or equal slices on both sides.
        Cancelled: The user stopped it; finished slices stay in the cache.
    """
    if references.unit != "SUV":
        raise TrainingError("The PET scans are not in SUV", "Use series that say weight, dose and times")
    held_out = recipe.held_out(references.patients)
    trained = references.of_patients([patient for patient in references.patients if patient not in held_out])
    check(trained, references.of_patients(held_out))
    stored = PatchSet.build(references, cache, progress, most_slices)
    drawn = {"kind": "pet-counts", "fractions": list(fractions)}
    kept = stored.of_patients(trained.patients).degraded(drawn, progress, REALISATIONS, recipe.seed)
    if not kept.slices:
        raise TrainingError("No PET slice is large enough to learn from", "Use scans with larger slices")
    middles = _middles(stored.of_patients(tuple(held_out)))
    judged = middles.degraded({"kind": "pet-counts", "fraction": TUNING_FRACTION}, progress)
    facts = facts_of(references, trained, stored)
    sides = [side * reference.mean_spacing_mm for reference in references for side in reference.shape[1:3]]
    facts = replace(facts, extent_mm=round(max(sides), 1) if facts.spacing_mm else None)
    return RestorationTask(recipe, PetPairs(kept, recipe), [_pair(entry) for entry in judged.slices], facts, network)


class PetPairs:
    """Crops in SUV, patients alike; slices smaller than a crop are mirrored at their edges; see ``Pairs``.

    Args:
        patches: With the layer ``degraded``.
        recipe: Crops and seed.
    """

    def __init__(self, patches: PatchSet, recipe: RestorationRecipe) -> None:
        self._cropper, self._recipe = Cropper(patches, patient_shares=recipe.patient_shares), recipe

    def batch(self, step: int, rank: int, world: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """Degraded and reference crops ``(B, 1, S, S)`` float32 in SUV, and whether they count."""
        seed, crops = self._recipe.seed, self._recipe.crops
        side, count = crops[int(np.random.default_rng([seed, step]).integers(len(crops)))]
        own, is_own = own_samples(count, rank, world)
        found = self._cropper.batch(side, count, (seed, step), own)
        degraded, reference = (
            np.stack([np.asarray(crop.layers[name], np.float32) for crop in found])[:, None]
            for name in ("degraded", "reference")
        )
        return degraded, reference, is_own


def _middles(patches: PatchSet) -> PatchSet:
    """The middle slice of each patient."""
    by_patient: dict[str, list[StoredSlice]] = {}
    for entry in patches.slices:
        by_patient.setdefault(entry.patient, []).append(entry)
    return replace(patches, slices=tuple(entries[len(entries) // 2] for _, entries in sorted(by_patient.items())))


def _pair(entry: StoredSlice) -> TuningPair:
    reference = entry.values
    degraded = np.asarray(entry.layer("degraded")[0], np.float32)
    return TuningPair(degraded, reference, np.array(entry.layer("is_body")), (0.0, max(1.0, float(reference.max()))))
