"""Held-out patients and the slices of each that are judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import TrainingError, UsageError
from medapp.progress import Progress
from medapp.restoration import metrics
from medapp.training.references import Reference
from medapp.training.sources import MANIFEST, find_references

NOISY_REFERENCE_HU = 9.0
"""CT whose own fine-grain noise is above it is reported apart: it is no clean reference."""
CLEAN, NOISY = "clean", "noisy reference"
_FOLDERS = {"CT": "ct/", "MR": "mri/", "PT": "pet/"}
_LEAST_SIDE_PX = {"CT": 32, "MR": 64, "PT": 24}
_UNITS = {"CT": "HU", "PT": "SUV"}
"""What values must be in to be judged; MR has no unit."""
_LEAST_BODY = 0.1


@dataclass(frozen=True, eq=False)
class Subject:
    """One patient.

    Attributes:
        patient: Patient group.
        slices: ``(Y, X)`` float32 in native units, each with its pixel size in mm.
        group: ``CLEAN`` or ``NOISY``.
    """

    patient: str
    slices: tuple[tuple[NDArray[np.float32], float], ...]
    group: str = CLEAN


def held_out_subjects(
    data: Path, modality: str, slices_per_subject: int, progress: Progress
) -> tuple[list[Subject], str]:
    """The patients of the ``val`` rows, or of a folder without a manifest, and one SHA-256 over the judged pixels.

    Slices of little but air are left out; the rest is thinned evenly over each patient.

    Raises:
        UsageError: Nothing there is such a scan.
        Cancelled: The user stopped it.
    """
    is_divided = (data / MANIFEST).is_file()
    try:
        references = find_references(
            data,
            modality,
            "val" if is_divided else None,
            progress,
            under=_FOLDERS[modality] if is_divided else "",
        )
    except TrainingError as error:
        raise UsageError(error.message, error.hint) from error
    by_patient: dict[str, list[Reference]] = {}
    for reference in references:
        if reference.unit == _UNITS.get(modality, reference.unit):
            by_patient.setdefault(reference.patient, []).append(reference)
    digest = hashlib.sha256()
    subjects = []
    for patient in sorted(by_patient):
        usable = [one for reference in by_patient[patient] for one in _usable(reference, modality)]
        if not usable:
            continue
        chosen = _thinned(usable, slices_per_subject)
        for values, _ in chosen:
            digest.update(np.ascontiguousarray(values).tobytes())
        subjects.append(Subject(patient, tuple(chosen), _group(chosen, modality)))
    if not subjects:
        kind = f"{modality} slice in {_UNITS[modality]}" if modality in _UNITS else f"{modality} slice"
        raise UsageError(f"There is no {kind} here that could be judged", f"Choose a folder with {modality}")
    return subjects, digest.hexdigest()


def _usable(reference: Reference, modality: str) -> Iterator[tuple[NDArray[np.float32], float]]:
    for values in reference.load():
        if values.ndim != 2 or min(values.shape) < _LEAST_SIDE_PX[modality] or values.min() == values.max():
            continue
        if modality == "CT" or metrics.judging_of(values, modality).body.mean() >= _LEAST_BODY:
            yield np.asarray(values, np.float32), reference.mean_spacing_mm


def _thinned(slices: list[tuple[NDArray[np.float32], float]], count: int) -> list[tuple[NDArray[np.float32], float]]:
    if count >= len(slices):
        return slices
    return [slices[int(i)] for i in np.linspace(0, len(slices) - 1, count + 2)[1:-1].round()]


def _group(slices: list[tuple[NDArray[np.float32], float]], modality: str) -> str:
    if modality != "CT":
        return CLEAN
    noise = [metrics.slice_noise(values, metrics.soft_tissue(values)) for values, _ in slices]
    return NOISY if float(np.median(noise)) > NOISY_REFERENCE_HU else CLEAN
