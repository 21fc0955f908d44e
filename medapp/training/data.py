"""Pairs of degraded and reference crops for CT denoising, from whole slices and stored noise fields."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import MedappError, TrainingError
from medapp.progress import Progress
from medapp.restoration.metrics import body_mask, slice_noise, soft_tissue
from medapp.scan.reading import read_all
from medapp.training.degradations.ct import Scanner, noise_fields, pixel_seed
from medapp.training.recipe import RestorationRecipe

_log = logging.getLogger(__name__)

CACHE_VERSION = "1"


@dataclass(frozen=True)
class CtSlice:
    """One full-dose slice.

    Attributes:
        patient: Patient group, so that no patient is on both sides of a split.
        values: ``(Y, X)`` float32 in HU.
        spacing_mm: Pixel size.
    """

    patient: str
    values: NDArray[np.float32]
    spacing_mm: float


@dataclass(frozen=True)
class NoisySlice:
    """A slice with simulated noise of several doses.

    Attributes:
        source: The slice.
        noise: ``(fields, 2, Y, X)`` float16 in HU: each realisation reconstructed with the sharp and the soft kernel.
        is_body: ``(Y, X)`` bool.
    """

    source: CtSlice
    noise: NDArray[np.float16]
    is_body: NDArray[np.bool_]


def read_ct_slices(path: Path) -> list[tuple[NDArray[np.float32], float]]:
    """All slices of a CT file in HU, with their pixel size in mm (1 when the file does not say).

    Raises:
        MedappError: The file cannot be read.
    """
    slices = []
    for scan in read_all(path, "CT"):
        spacing_mm = float(np.mean(scan.in_plane_spacing_mm or (1.0, 1.0)))
        slices += [(np.asarray(scan.slice_values(z), np.float32), spacing_mm) for z in range(scan.shape[0])]
    return slices


def manifest_ct(data_dir: Path, kind: str, with_real_noise: bool = True) -> list[dict[str, str]]:
    """The CT rows of a kind (``train`` or ``val``) in ``MANIFEST.csv``, sorted by path; label maps left out.

    Args:
        data_dir: Folder with the manifest.
        kind: Split.
        with_real_noise: False leaves out rows whose notes say that the scan itself is noisy: no reference.

    Raises:
        TrainingError: The folder has no manifest.
    """
    try:
        with (data_dir / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise TrainingError(
            "The data folder has no MANIFEST.csv", "Set MEDAPP_SHARED to the folder that holds data/, or use --data"
        ) from error
    chosen = [row for row in rows if row["modality"] == "CT" and row["kind"] == kind and row["path"].startswith("ct/")]
    return sorted(
        (row for row in chosen if with_real_noise or "real noise" not in row["notes"]), key=lambda row: row["path"]
    )


def patient_of(path: str) -> str:
    """Patient group of a data file, from its name."""
    stem = Path(path).name.split(".")[0]
    collection = re.match(r"(TCGA-\w+-\w+)_\d+$|(STS_\d+)_ct$|(\w+?)_sparse$", stem)
    return next(group for group in (*collection.groups(), stem) if group) if collection else stem


def load_slices(data_dir: Path, paths: Iterable[str]) -> tuple[list[CtSlice], str]:
    """All slices of the files, and one SHA-256 over their pixels.

    A file that cannot be read is left out with a line in the log.
    """
    digest = hashlib.sha256()
    slices = []
    for path in paths:
        try:
            content = read_ct_slices(data_dir / path)
        except MedappError as error:
            _log.warning("left out %s: %s", path, error.message)
            continue
        for values, spacing_mm in content:
            digest.update(np.ascontiguousarray(values).tobytes())
            slices.append(CtSlice(patient_of(path), values, spacing_mm))
    return slices, digest.hexdigest()


def with_noise(
    slices: Sequence[CtSlice], recipe: RestorationRecipe, cache: Path, progress: Progress
) -> list[NoisySlice]:
    """Simulate the noise of each slice, or take it from the cache folder.

    Raises:
        TrainingError: No slice is clean enough to be a reference.
        Cancelled: The user stopped it; finished slices stay in the cache.
    """
    clean = [
        entry
        for entry in slices
        if slice_noise(entry.values, soft_tissue(entry.values)) <= recipe.reference_noise_limit
    ]
    if not clean:
        raise TrainingError("No slice is clean enough to be a reference", "Use scans at full dose with a soft kernel")
    cache.mkdir(parents=True, exist_ok=True)
    progress.start(len(clean), "slices", "simulating low dose")
    noisy = []
    for entry in clean:
        noisy.append(NoisySlice(entry, _stored_noise(entry, recipe, cache), body_mask(entry.values)))
        progress.step()
    return noisy


def _stored_noise(entry: CtSlice, recipe: RestorationRecipe, cache: Path) -> NDArray[np.float16]:
    tag = f"{CACHE_VERSION}/{recipe.seed}/{recipe.noise_fields}/{recipe.doses}/{entry.spacing_mm:.4f}"
    seed = pixel_seed(entry.values, tag)
    path = cache / f"{seed:016x}.npy"
    if path.exists():
        stored: NDArray[np.float16] = np.load(path)
        if stored.shape == (recipe.noise_fields, 2, *entry.values.shape):
            return stored
    low, high = np.log(recipe.doses)
    # one dose from each part of the range, so that few fields still cover it
    shares = (np.arange(recipe.noise_fields) + np.random.default_rng(seed).random(recipe.noise_fields)) / (
        recipe.noise_fields
    )
    doses = tuple(float(dose) for dose in np.exp(low + shares * (high - low)))
    kernels = [noise_fields(entry.values, entry.spacing_mm, doses, Scanner(kernel=k), tag) for k in ("ramp", "hann")]
    stored = np.stack(kernels, axis=1).astype(np.float16)
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, stored)
    partial.replace(path)
    return stored


class CropSampler:
    """Draws the batch of an iteration; the same iteration always gives the same batch, so a run resumes exactly."""

    def __init__(self, slices: Sequence[NoisySlice], recipe: RestorationRecipe) -> None:
        self._recipe = recipe
        self._by_patient: dict[str, list[NoisySlice]] = {}
        for entry in slices:
            self._by_patient.setdefault(entry.source.patient, []).append(entry)
        self._patients = sorted(self._by_patient)

    def batch(self, iteration: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Degraded and reference crops, ``(B, 1, S, S)`` float32 in HU."""
        random = np.random.default_rng([self._recipe.seed, iteration])
        side, count = self._recipe.crops[random.integers(len(self._recipe.crops))]
        pairs = [self._pair(side, random) for _ in range(count)]
        degraded, reference = (np.stack(part)[:, None] for part in zip(*pairs, strict=True))
        return degraded, reference

    def _pair(self, side: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # patients alike, not slices: a long series must not outweigh the others
        of_patient = self._by_patient[self._patients[random.integers(len(self._patients))]]
        entry = of_patient[random.integers(len(of_patient))]
        box = self._box(entry, side, random)
        reference = _padded(entry.source.values[box], side, -1000.0)
        field = entry.noise[random.integers(len(entry.noise))]
        sharpness = random.random() ** 3  # soft kernels are the rule; the sharp one's noise is several times stronger
        noise = sharpness * field[0][box].astype(np.float32) + (1 - sharpness) * field[1][box].astype(np.float32)
        is_body = entry.is_body[box]
        measured = float(noise[is_body].std()) if is_body.any() else float(noise.std())
        low, high = self._recipe.noise_sigma
        wanted = float(np.exp(random.uniform(np.log(low), np.log(high))))
        # bounded: scaled photon noise is true only near its own dose
        noise = noise * np.float32(np.clip(wanted / max(measured, 1e-3), 0.4, 1.8))
        degraded = reference + _padded(noise, side, 0.0)
        if random.random() < 0.5:
            reference, degraded = reference.T, degraded.T
        turns = int(random.integers(4))
        return np.rot90(degraded, turns).copy(), np.rot90(reference, turns).copy()

    def _box(self, entry: NoisySlice, side: int, random: np.random.Generator) -> tuple[slice, slice]:
        """A window with enough body in it; the best of ten draws otherwise."""
        best, best_share = (slice(0, side), slice(0, side)), -1.0
        for _ in range(10):
            y, x = (int(random.integers(max(1, size - side + 1))) for size in entry.is_body.shape)
            box = (slice(y, y + side), slice(x, x + side))
            share = float(entry.is_body[box].mean())
            if share > best_share:
                best, best_share = box, share
            if share >= 0.4:
                break
        return best


def _padded(values: NDArray, side: int, fill: float) -> NDArray[np.float32]:
    """Fill a crop of a slice smaller than the window."""
    missing = [(0, side - size) for size in values.shape]
    return np.pad(values, missing, constant_values=fill).astype(np.float32)
