"""CT denoising: low-dose noise simulated in the projection domain, judged at a quarter of the dose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.restoration.metrics import CT_DISPLAY_WINDOW, body_mask
from medapp.training.data import CropSampler, CtSlice, load_slices, manifest_ct, patient_of, with_noise
from medapp.training.degradations.ct import Scanner, low_dose
from medapp.training.recipe import Recipe, RestorationRecipe
from medapp.training.tasks.restoration import RestorationTask, TuningPair
from medapp.training.tasks.task import DataFacts, own_samples

TUNING_DOSE = 0.25


def ct_denoising(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> RestorationTask:
    """The task on the ``train`` rows of a folder with ``MANIFEST.csv``; see ``task_of``."""
    assert isinstance(recipe, RestorationRecipe)
    rows = manifest_ct(data, "train", with_real_noise=False)
    slices, sha256 = load_slices(data, [row["path"] for row in rows])
    if not slices:
        raise TrainingError("There is no CT scan to train on in this folder", "See the README of the data folder")
    held_out = recipe.held_out(entry.patient for entry in slices)
    noisy = with_noise([s for s in slices if s.patient not in held_out], recipe, cache, progress)
    patients = {entry.source.patient for entry in noisy}
    collections: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if patient_of(row["path"]) in patients:
            collections.setdefault((row["source repo"], row["licence"]), set()).add(patient_of(row["path"]))
    spacings = [entry.source.spacing_mm for entry in noisy]
    facts = DataFacts(
        sha256,
        tuple(row["path"] for row in rows),
        len(patients),
        tuple(
            {"name": name, "licence": licence, "patients": len(of)}
            for (name, licence), of in sorted(collections.items())
        ),
        (round(min(spacings), 3), round(max(spacings), 3)),
    )
    tuning = tuning_pairs([entry for entry in slices if entry.patient in held_out])
    return RestorationTask(recipe, _CtPairs(CropSampler(noisy, recipe)), tuning, facts)


class _CtPairs:
    def __init__(self, sampler: CropSampler) -> None:
        self._sampler = sampler

    def batch(self, step: int, rank: int, world: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """See ``Pairs``."""
        degraded, reference = self._sampler.batch(step)
        own, is_own = own_samples(len(degraded), rank, world)
        return degraded[own], reference[own], is_own


def tuning_pairs(slices: Sequence[CtSlice], per_patient: int = 1) -> list[TuningPair]:
    """Quarter-dose pairs, sharp and soft kernel in turn, from the middle slices of each patient."""
    by_patient: dict[str, list[CtSlice]] = {}
    for entry in slices:
        by_patient.setdefault(entry.patient, []).append(entry)
    pairs: list[TuningPair] = []
    for patient in sorted(by_patient):
        entries = by_patient[patient]
        first = max(0, (len(entries) - per_patient) // 2)
        for entry in entries[first : first + per_patient]:
            scanner = Scanner(kernel="hann" if len(pairs) % 2 == 0 else "ramp")
            degraded = low_dose(entry.values, entry.spacing_mm, TUNING_DOSE, scanner, tag="tuning")
            pairs.append(TuningPair(degraded, entry.values, body_mask(entry.values), CT_DISPLAY_WINDOW))
    return pairs
