"""CT denoising: low-dose noise simulated in the projection domain, judged at a quarter of the dose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.restoration.metrics import CT_DISPLAY_WINDOW, slice_noise, soft_tissue
from medapp.training.degradations.ct import Scanner, low_dose, noise_fields, pixel_seed
from medapp.training.leakage import check
from medapp.training.patches import Cropper, PatchSet, StoredSlice
from medapp.training.recipe import Recipe, RestorationRecipe
from medapp.training.references import References
from medapp.training.sources import MANIFEST, find_references
from medapp.training.tasks.restoration import RestorationTask, TuningPair, facts_of
from medapp.training.tasks.task import own_samples

TUNING_DOSE = 0.25
_NOISE_VERSION = "1"
_FAINTEST, _STRONGEST = 0.4, 1.8
"""Stored noise is scaled between these: photon noise is true only near its own dose."""


def ct_denoising(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> RestorationTask:
    """The task on the CT scans of a place; see ``task_of``."""
    assert isinstance(recipe, RestorationRecipe)
    has_manifest = (data / MANIFEST).is_file()
    split, under = ("train", "ct/") if has_manifest else (None, "")
    references = find_references(data, "CT", split, progress, under, with_real_noise=False)
    return ct_task(recipe, references, cache, progress)


def ct_task(
    recipe: RestorationRecipe, references: References, cache: Path, progress: Progress, network: nn.Module | None = None
) -> RestorationTask:
    """The task on references.

    Args:
        recipe: Noise levels, crops, network.
        references: CT in HU; a part of the patients is held out to choose the best checkpoint.
        cache: Folder for slices and simulated noise.
        progress: Counts series and slices.
        network: To go on with; None = as the recipe starts.

    Raises:
        TrainingError: Fewer than two patients, equal slices on both sides, or no slice clean enough to be a reference.
        Cancelled: The user stopped it; finished slices stay in the cache.
    """
    held_out = recipe.held_out(references.patients)
    trained = references.of_patients([patient for patient in references.patients if patient not in held_out])
    check(trained, references.of_patients(held_out))
    whole = PatchSet.build(references, cache, progress)

    def is_clean(entry: StoredSlice) -> bool:
        return slice_noise(entry.values, soft_tissue(entry.values)) <= recipe.reference_noise_limit

    clean = whole.of_patients(trained.patients).chosen(is_clean)
    if not clean.slices:
        raise TrainingError("No slice is clean enough to be a reference", "Use scans at full dose with a soft kernel")
    key = f"{_NOISE_VERSION}/{recipe.seed}/{recipe.noise_fields}/{recipe.doses}"
    noisy = clean.derived("noise", key, _noise_maker(recipe, key), progress)
    tuning = tuning_pairs(whole.of_patients(tuple(held_out)))
    facts = facts_of(references, trained.of_patients(clean.patients), whole)
    return RestorationTask(recipe, CtPairs(noisy, recipe), tuning, facts, network)


def _noise_maker(recipe: RestorationRecipe, key: str) -> Callable[[StoredSlice], NDArray]:
    """Makes ``(fields, Y, X, 2)`` float16 in HU: each realisation reconstructed with the sharp and the soft kernel."""

    def make(entry: StoredSlice) -> NDArray:
        values = entry.values
        tag = f"{key}/{entry.spacing_mm:.4f}"
        low, high = np.log(recipe.doses)
        count = recipe.noise_fields
        # one dose from each part of the range, so that few fields still cover it
        shares = (np.arange(count) + np.random.default_rng(pixel_seed(values, tag)).random(count)) / count
        doses = tuple(float(dose) for dose in np.exp(low + shares * (high - low)))
        kernels = [noise_fields(values, entry.spacing_mm, doses, Scanner(kernel=k), tag) for k in ("ramp", "hann")]
        return np.stack(kernels, axis=-1).astype(np.float16)

    return make


class CtPairs:
    """Crops with noise of every strength, patients alike, air skipped; see ``Pairs``.

    Args:
        patches: With the layer ``noise``.
        recipe: Noise levels, crops, seed.
    """

    def __init__(self, patches: PatchSet, recipe: RestorationRecipe) -> None:
        self._cropper = Cropper(patches, ("noise", "is_body"), patient_shares=recipe.patient_shares)
        self._recipe = recipe

    def batch(self, step: int, rank: int, world: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """Degraded and reference crops ``(B, 1, S, S)`` float32 in HU, and whether they count."""
        seed, crops = self._recipe.seed, self._recipe.crops
        side, count = crops[int(np.random.default_rng([seed, step]).integers(len(crops)))]
        own, is_own = own_samples(count, rank, world)
        pairs = [self._pair(side, np.random.default_rng([seed, step, index])) for index in own]
        degraded, reference = (np.stack(part)[:, None] for part in zip(*pairs, strict=True))
        return degraded, reference, is_own

    def _pair(self, side: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        layers = self._cropper.crop(side, random).layers
        reference, field = layers["reference"].astype(np.float32), layers["noise"].astype(np.float32)
        sharpness = random.random() ** 3  # soft kernels are the rule; the sharp one's noise is several times stronger
        noise = sharpness * field[..., 0] + (1 - sharpness) * field[..., 1]
        is_body = layers["is_body"].astype(bool)
        measured = float(noise[is_body].std()) if is_body.any() else float(noise.std())
        low, high = self._recipe.noise_sigma
        wanted = float(np.exp(random.uniform(np.log(low), np.log(high))))
        noise = noise * np.float32(np.clip(wanted / max(measured, 1e-3), _FAINTEST, _STRONGEST))
        return (reference + noise).astype(np.float32), reference


def tuning_pairs(patches: PatchSet) -> list[TuningPair]:
    """Quarter-dose pairs, sharp and soft kernel in turn, of the middle slice of each patient."""
    by_patient: dict[str, list[StoredSlice]] = {}
    for entry in patches.slices:
        by_patient.setdefault(entry.patient, []).append(entry)
    pairs: list[TuningPair] = []
    for patient in sorted(by_patient):
        entry = _middle(by_patient[patient])
        scanner = Scanner(kernel="hann" if len(pairs) % 2 == 0 else "ramp")
        degraded = low_dose(entry.values, entry.spacing_mm, TUNING_DOSE, scanner, tag="tuning")
        is_body = np.array(entry.layer("is_body"))
        pairs.append(TuningPair(degraded, entry.values, is_body, CT_DISPLAY_WINDOW))
    return pairs


def _middle(entries: Sequence[StoredSlice]) -> StoredSlice:
    return entries[max(0, (len(entries) - 1) // 2)]
