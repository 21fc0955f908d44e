"""References to train on, from a folder of scans, a folder with a manifest, an exported data set, or a project.

Every place gives the same thing: series of one modality and one unit, each with its patient group, pixel size and
hash. What cannot be a reference is left out with a note.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import MedappError, TrainingError
from medapp.export.manifest import NAME as EXPORT_MANIFEST
from medapp.export.manifest import read_manifest
from medapp.progress import Progress
from medapp.scan.lazy import LazyScan
from medapp.scan.reading import FoundScan, Refused, read_all, read_path
from medapp.scan.scan import Scan
from medapp.training.label_maps import says_label
from medapp.training.project_source import references_in
from medapp.training.references import (
    ARE_LABELS,
    Reference,
    References,
    checked,
    no_reference,
    reference_of,
    values_of,
)
from medapp.training.splits import hashed_patient, patient_of

_log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.csv"
_ORDINARY = {"train", "val", "test", "validation", "ct", "mr", "mri", "pet", "pt", "images", "scans", "data"}
"""Sub-folders of these names are no patients."""
_MODALITIES = (
    ("pet", "PT", "SUV"),
    ("cardiac mr", "MR", "arbitrary"),
    ("mr ", "MR", "arbitrary"),
    ("ct", "CT", "HU"),
    ("h&e", "SM", "colour"),
    ("stained nuclei", "SM", "colour"),
    ("blood smear", "SM", "colour"),
    ("dermoscopy", "XC", "colour"),
    ("fundus", "OP", "colour"),
    ("colonoscopy", "ES", "colour"),
)


def find_references(
    place: Path,
    modality: str | None = None,
    split: str | None = None,
    progress: Progress | None = None,
    under: str = "",
    with_real_noise: bool = True,
) -> References:
    """Every reference of a place.

    Args:
        place: A folder with ``MANIFEST.csv``, a folder medapp exported, a project, or any folder of scans.
        modality: DICOM code to keep, such as ``CT``; files that do not say theirs are taken to be of it. None = the
            one modality there is.
        split: ``train``, ``val`` or ``test`` where the place is divided already; None = everything.
        progress: Counts files.
        under: Only what lies below this folder of a place with a manifest, such as ``mri/``.
        with_real_noise: False leaves out what a manifest calls noisy: no reference.

    Raises:
        TrainingError: The place is empty, holds images but no reference, is not divided, or mixes units.
        MedappError: A project or a manifest cannot be read.
        Cancelled: The user stopped it.
    """
    place, progress = Path(place), progress or Progress()
    if not place.is_dir():
        raise TrainingError("There is no data folder at this place", "Choose a folder of scans or a project")
    if (place / MANIFEST).is_file():
        files, notes = _of_manifest(place, modality, split, under, with_real_noise)
        return checked("data folder", _read_files(files, notes, progress), notes, modality)
    if (place / "project.sqlite").is_file():
        return references_in(place, modality, progress)
    if (place / EXPORT_MANIFEST).is_file():
        files, notes = _of_export(place, modality, split)
        return checked("exported data set", _read_files(files, notes, progress), notes, modality)
    if split is not None:
        raise TrainingError(
            "The folder does not say which scans are for training", "Leave the split out; medapp divides by patient"
        )
    entries, notes = _of_folder(place, modality, progress)
    return checked("folder", entries, notes, modality)


# --------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _File:
    """A file that may hold references."""

    path: Path
    source: str
    patient: str
    modality: str | None
    unit: str
    licence: str = ""
    collection: str = ""
    split: str = ""
    notes: str = ""
    slope: float = 1.0
    intercept: float = 0.0


def _read_files(files: list[_File], notes: Counter[str], progress: Progress) -> list[Reference]:
    """The references of all files; those that cannot be read are noted."""
    entries: list[Reference] = []
    progress.start(len(files), "files", "reading references")
    for file in files:
        progress.step()
        try:
            entries += _read(file, notes)
        except MedappError as error:
            _log.warning("left out a file: %s", error.message)
            notes["could not be read"] += 1
    return entries


def _read(file: _File, notes: Counter[str]) -> list[Reference]:
    """The references of one file.

    Raises:
        MedappError: It cannot be read.
    """
    found = []
    for number, scan in enumerate(read_all(file.path, file.modality)):
        values = _values(scan, file)
        why = no_reference("", values)  # the manifest named label maps already
        if why:
            notes[why] += 1
            continue

        def load(number: int = number) -> NDArray[np.float32]:
            return _values(read_all(file.path, file.modality)[number], file)

        reference = reference_of(scan, values, load, file.patient, file.source)
        found.append(
            replace(
                reference,
                modality=file.modality or scan.modality,
                unit="colour" if scan.is_colour else file.unit or scan.unit,
                licence=file.licence,
                collection=file.collection,
                split=file.split,
                notes=file.notes,
            )
        )
    return found


def _values(scan: Scan, file: _File) -> NDArray[np.float32]:
    values = values_of(scan)
    if (file.slope, file.intercept) == (1.0, 0.0):
        return values
    return (values * file.slope + file.intercept).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- places


def _of_manifest(
    place: Path, modality: str | None, split: str | None, under: str, with_real_noise: bool
) -> tuple[list[_File], Counter[str]]:
    rows = read_rows(place)
    notes: Counter[str] = Counter()
    wanted = (split,) if split is not None else ("train", "val")
    judged = {patient_of(row["path"]) for row in rows if row["kind"] == "val" and not _is_label(row)}
    files = []
    for row in rows:
        if row["kind"] not in wanted or not row["path"].startswith(under):
            continue
        code, unit = modality_of(row["modality"])
        if code is None or (modality is not None and code != modality):
            continue
        patient = patient_of(row["path"])
        if _is_label(row):
            notes[ARE_LABELS] += 1
        elif row["kind"] == "train" and patient in judged:
            notes["are for training but of patients who are for validation too"] += 1
        elif not with_real_noise and "real noise" in row["notes"]:
            notes["are noisy themselves"] += 1
        else:
            files.append(
                _File(
                    place / row["path"],
                    row["path"],
                    patient,
                    code,
                    unit,
                    row.get("licence", ""),
                    row.get("source repo", ""),
                    row["kind"],
                    row["notes"],
                )
            )
    return files, notes


def read_rows(place: Path) -> list[dict[str, str]]:
    """The rows of ``MANIFEST.csv``, sorted by path.

    Raises:
        TrainingError: It is missing, or has no column ``path``, ``modality``, ``kind`` or ``notes``.
    """
    rows = manifest_rows(place)
    if any(row.get(key) is None for row in rows for key in ("path", "modality", "kind", "notes")):
        raise TrainingError("MANIFEST.csv lacks path, modality, kind or notes", "Compare it with the shared data's")
    return sorted(rows, key=lambda row: row["path"])


def manifest_rows(place: Path) -> list[dict[str, str]]:
    """The rows of ``MANIFEST.csv`` as they stand, whatever its columns.

    Raises:
        TrainingError: It is missing or cannot be read.
    """
    try:
        with (place / MANIFEST).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(
            "The data folder has no MANIFEST.csv that can be read",
            "Set MEDAPP_SHARED to the folder that holds data/, or use --data",
        ) from error


def modality_of(words: str) -> tuple[str | None, str]:
    """DICOM code and unit for the modality column of a manifest; ``(None, "")`` for what is no measurement."""
    lower = words.lower()
    if lower.startswith("pet") and "bq" in lower:
        return "PT", "BQML"
    if lower in ("ct", "mr", "pt"):
        return words.upper(), {"ct": "HU", "pt": "SUV"}.get(lower, "arbitrary")
    return next(((code, unit) for start, code, unit in _MODALITIES if lower.startswith(start)), (None, ""))


def _is_label(row: Mapping[str, str]) -> bool:
    return says_label(row["modality"])


def _of_export(place: Path, modality: str | None, split: str | None) -> tuple[list[_File], Counter[str]]:
    """Images of an exported data set: NIfTI first, else PNG with its map back to values."""
    document = read_manifest(place)
    items = document.get("items")
    if not isinstance(items, list):
        raise TrainingError("The exported data set does not list its series", "Export it again")
    if split is not None and split not in {item.get("split") for item in items}:
        raise TrainingError(f"The exported data set has no series for '{split}'", "Export it with other shares")
    notes: Counter[str] = Counter()
    files = []
    for item in items:
        if split is not None and item.get("split") != split:
            continue
        if modality is not None and item.get("modality") not in (None, modality):
            continue
        if item.get("kind") != "original":
            notes["were made from other series"] += 1
            continue
        images = [
            entry
            for entry in document["files"]
            if entry.get("role") == "image" and str(entry["path"]).startswith(f"{item['folder']}/")
        ]
        nifti = [entry for entry in images if str(entry["path"]).endswith(".nii.gz")]
        if not images:
            notes["have mattes but no image"] += 1
        for entry in nifti or images:
            mapping = entry.get("value_map") or {}
            is_window = bool(mapping.get("window"))
            if is_window:  # eight bits of a display window are no values
                notes["are pictures of a display window"] += 1
                continue
            files.append(
                _File(
                    place / entry["path"],
                    str(entry["path"]),
                    str(item.get("group", "")),
                    item.get("modality") or modality,
                    str(item.get("unit", "")),
                    collection="exported data set",
                    split=str(item.get("split", "")),
                    slope=float(mapping.get("slope", 1.0)),
                    intercept=float(mapping.get("intercept", 0.0)),
                )
            )
    return files, notes


def _of_folder(place: Path, modality: str | None, progress: Progress) -> tuple[list[Reference], Counter[str]]:
    """Every scan in a folder; DICOM files are grouped to series first."""
    notes: Counter[str] = Counter()
    entries: list[Reference] = []
    progress.start(0, "files", "reading references")
    folders = {path.name.lower() for path in place.iterdir() if path.is_dir()}
    by_folder = len(folders) > 1 and not folders & _ORDINARY
    for finding in read_path(place, progress, modality=modality):
        progress.check()
        if isinstance(finding, Refused):
            notes["could not be read"] += 1
        if not isinstance(finding, FoundScan):
            continue
        lazy = finding.scan
        if modality is not None and lazy.modality not in (None, modality):
            notes["are of another modality"] += 1
            continue
        try:
            values = _decoded(lazy)
        except MedappError as error:
            _log.warning("left out a file: %s", error.message)
            notes["could not be read"] += 1
            continue
        path = Path(lazy.source.path or (lazy.files[0] if lazy.files else ""))
        why = no_reference(path.name, values) or no_reference(lazy.source.description, values)
        if why:
            notes[why] += 1
            continue
        source = f"{_below(path, place)} {lazy.series_key}".strip()
        reference = reference_of(lazy, values, _loader(lazy), _patient_in_folder(lazy, path, place, by_folder), source)
        entries.append(reference)
        progress.step()
    entries.sort(key=lambda entry: (entry.patient, entry.source))
    return entries, notes


def _decoded(lazy: LazyScan) -> NDArray[np.float32]:
    return values_of(lazy.decode(with_headers=False, progress=Progress()))


def _loader(lazy: LazyScan) -> Callable[[], NDArray[np.float32]]:
    return lambda: _decoded(lazy)


def _patient_in_folder(scan: LazyScan, path: Path, place: Path, by_folder: bool) -> str:
    """By patient id where the file has one (in no readable form), then by sub-folder, then by name."""
    known = scan.source.patient_id or scan.source.study_uid
    if known:
        return hashed_patient(known)
    below = _below(path, place).split("/")
    return below[0] if by_folder and len(below) > 1 else patient_of(path.name)


def _below(path: Path, place: Path) -> str:
    try:
        return path.resolve().relative_to(place.resolve()).as_posix()
    except ValueError:
        return path.name
