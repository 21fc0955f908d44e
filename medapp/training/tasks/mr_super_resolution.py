"""MR super-resolution: whole slices lose the outside of their k-space, then crops are drawn."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import MedappError, TrainingError
from medapp.progress import Progress
from medapp.restoration.kspace import zero_filled
from medapp.scan.reading import read_all
from medapp.training.recipe import Recipe, RestorationRecipe
from medapp.training.splits import patient_of
from medapp.training.tasks.restoration import RestorationTask, TuningPair
from medapp.training.tasks.task import DataFacts, own_samples

_log = logging.getLogger(__name__)

PERCENTILES = (0.5, 99.5)
"""Of a degraded slice; they stand for 0 and 1000."""
TISSUE = 100.0
"""Above it, of 1000, is the body."""
_LEAST_SIDE_PX = 64
_LEAST_TISSUE = 0.1
_ALL_SLICES = 24
_GOOD_CROP = 0.5
_TRIES = 6


@dataclass(frozen=True, eq=False)
class MrPair:
    """One slice and what is left of it without the outside of its k-space, in thousandths; ``(Y, X)`` float32."""

    degraded: NDArray[np.float32]
    reference: NDArray[np.float32]


def mr_super_resolution(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> RestorationTask:
    """The task on the ``train`` rows of a folder with ``MANIFEST.csv``; see ``task_of``."""
    assert isinstance(recipe, RestorationRecipe)
    rows = manifest_mr(data, "train")
    held_out = recipe.held_out(patient_of(row["path"]) for row in rows)
    digest = hashlib.sha256()
    by_patient: dict[str, list[MrPair]] = {}
    tuning: list[TuningPair] = []
    spacings: list[float] = []
    collections: dict[tuple[str, str], set[str]] = {}
    progress.start(len(rows), "files", "reading MR scans")
    for row in rows:
        patient = patient_of(row["path"])
        try:
            scans = read_all(data / row["path"], "MR")
        except MedappError as error:
            _log.warning("left out %s: %s", row["path"], error.message)
            continue
        for scan in scans:
            spacings.append(float(np.mean(scan.in_plane_spacing_mm or (1.0, 1.0))))
            count = scan.shape[0]
            chosen = range(count) if count <= _ALL_SLICES else range(0, count, 2)
            if patient in held_out:
                chosen = chosen[len(chosen) // 2 : len(chosen) // 2 + 1]
            for z in chosen:
                pair = mr_pair(np.asarray(scan.slice_values(z), np.float32), recipe.factor)
                if pair is None:
                    continue
                digest.update(np.ascontiguousarray(pair.reference).tobytes())
                if patient in held_out:
                    is_body = pair.reference > TISSUE
                    tuning.append(TuningPair(pair.degraded, pair.reference, is_body, recipe.value_range))
                else:
                    by_patient.setdefault(patient, []).append(pair)
                    collections.setdefault((row["source repo"], row["licence"]), set()).add(patient)
        progress.step()
    if not by_patient:
        raise TrainingError("There is no MR scan to train on in this folder", "See the README of the data folder")
    facts = DataFacts(
        digest.hexdigest(),
        tuple(row["path"] for row in rows),
        len(by_patient),
        tuple(
            {"name": name, "licence": licence, "patients": len(of)}
            for (name, licence), of in sorted(collections.items())
        ),
        (round(min(spacings), 3), round(max(spacings), 3)),
    )
    return RestorationTask(recipe, MrPairs(by_patient, recipe.crops, recipe.seed), tuning, facts)


def mr_pair(values: NDArray[np.float32], factor: int) -> MrPair | None:
    """A slice and its degraded self in thousandths of the degraded one's spread; None for slices of air or too small.

    The whole slice is degraded before anything is cut from it: k-space belongs to whole slices.
    """
    if values.ndim != 2 or min(values.shape) < _LEAST_SIDE_PX:
        return None
    degraded = zero_filled(values, factor)
    low, high = np.percentile(degraded, PERCENTILES)
    if high - low < 1e-6 or np.mean(degraded > low + 0.1 * (high - low)) < _LEAST_TISSUE:
        return None
    scale = 1000.0 / (high - low)
    return MrPair(*(((part - low) * scale).astype(np.float32) for part in (degraded, values)))


class MrPairs:
    """Crops of pairs, patients alike, with tissue in them, turned and mirrored; see ``Pairs``."""

    def __init__(self, by_patient: Mapping[str, Sequence[MrPair]], crops: Sequence[tuple[int, int]], seed: int) -> None:
        self._by_patient, self._crops, self._seed = by_patient, crops, seed
        self._patients = sorted(by_patient)

    def batch(self, step: int, rank: int, world: int) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """See ``Pairs``."""
        side, count = self._crops[int(np.random.default_rng([self._seed, step]).integers(len(self._crops)))]
        own, is_own = own_samples(count, rank, world)
        pairs = [self._crop(side, np.random.default_rng([self._seed, step, index])) for index in own]
        degraded, reference = (np.stack(part)[:, None] for part in zip(*pairs, strict=True))
        return degraded, reference, is_own

    def _crop(self, side: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        of_patient = self._by_patient[self._patients[int(random.integers(len(self._patients)))]]
        pair = of_patient[int(random.integers(len(of_patient)))]
        best, most = (slice(0, side), slice(0, side)), -1.0
        for _ in range(_TRIES):
            y, x = (int(random.integers(max(1, size - side + 1))) for size in pair.reference.shape)
            box = (slice(y, y + side), slice(x, x + side))
            share = float((pair.reference[box] > TISSUE).mean())
            if share > most:
                best, most = box, share
            if share > _GOOD_CROP:
                break
        is_mirrored, turns = random.random() < 0.5, int(random.integers(4))
        cut = []
        for part in (pair.degraded, pair.reference):
            crop = part[best]
            crop = np.pad(crop, [(0, side - size) for size in crop.shape], mode="reflect")
            cut.append(np.rot90(crop.T if is_mirrored else crop, turns).copy())
        return cut[0], cut[1]


def manifest_mr(data_dir: Path, kind: str) -> list[dict[str, str]]:
    """The MR rows of a kind in ``MANIFEST.csv``, sorted by path; label maps left out.

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
    chosen = [row for row in rows if row["path"].startswith("mri/") and row["kind"] == kind]
    return sorted((row for row in chosen if "label" not in row["modality"]), key=lambda row: row["path"])
