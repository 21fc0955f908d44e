"""A series that a network may be trained towards, and a set of them: one modality, one unit, known patients."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medapp.errors import TrainingError
from medapp.scan.lazy import LazyScan
from medapp.scan.scan import Scan
from medapp.training.label_maps import looks_like_labels, says_label
from medapp.training.splits import split_by_patient

_log = logging.getLogger(__name__)

Place = Literal["data folder", "folder", "exported data set", "project"]
ARE_LABELS = "are labels, masks or mattes"


@dataclass(frozen=True, eq=False)
class Reference:
    """One series that a network may be trained towards.

    Attributes:
        patient: Patient group.
        source: Path in the place, or id of the series; told to nobody but the run folder.
        modality: DICOM code; None when nobody says.
        unit: ``HU``, ``SUV``, ``arbitrary``, ``colour`` or the file's own.
        spacing_mm: In-plane pixel size ``(y, x)``; None when unknown.
        shape: ``(Z, Y, X)``, or ``(Z, Y, X, 3)`` for colour.
        sha256: Over the values.
        slice_sha256: Of each slice, whatever way round it lies; empty text for a slice of a single value.
        load: Reads the values again: float32 of ``shape``.
        region_map: ``(Y, X)`` int32 regions of slice ``z``, or None where there are none; None = the place has none.
        licence, collection: Of the source.
        split: ``train``, ``val`` or ``test`` where the place says so; else empty.
        notes: What the place says of it.
    """

    patient: str
    source: str
    modality: str | None
    unit: str
    spacing_mm: tuple[float, float] | None
    shape: tuple[int, ...]
    sha256: str
    slice_sha256: tuple[str, ...]
    load: Callable[[], NDArray[np.float32]]
    region_map: Callable[[int], NDArray[np.int32] | None] | None = None
    licence: str = ""
    collection: str = ""
    split: str = ""
    notes: str = ""

    @property
    def mean_spacing_mm(self) -> float:
        """Pixel size as one number; 1 when unknown."""
        return float(np.mean(self.spacing_mm)) if self.spacing_mm else 1.0


@dataclass(frozen=True, eq=False)
class References:
    """What a place offers, of one modality and one unit.

    Attributes:
        place: What kind of place it was.
        entries: In an order that only depends on the place's content.
        notes: What was left out and why, one sentence each.
    """

    place: Place
    entries: tuple[Reference, ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Reference]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient groups, sorted."""
        return tuple(sorted({entry.patient for entry in self.entries}))

    @property
    def modality(self) -> str | None:
        """Of all entries."""
        return self.entries[0].modality

    @property
    def unit(self) -> str:
        """Of all entries."""
        return self.entries[0].unit

    @property
    def slices(self) -> int:
        """How many slices there are in all."""
        return sum(entry.shape[0] for entry in self.entries)

    @property
    def sha256(self) -> str:
        """Over the patient and the values of every entry, in any order."""
        lines = sorted(f"{entry.patient}\0{entry.sha256}" for entry in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def spacing_range_mm(self) -> tuple[float, float] | None:
        """Smallest and largest in-plane pixel size; None when no entry knows its own."""
        known = [side for entry in self.entries if entry.spacing_mm for side in entry.spacing_mm]
        return (min(known), max(known)) if known else None

    def of_patients(self, patients: Collection[str]) -> References:
        """Only the entries of these patients; may be empty."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.patient in patients))

    def divided(self, share: float, seed: int = 0, locked: Collection[str] = ()) -> tuple[References, References]:
        """Training and hold-out by patient; see ``splits.split_by_patient``.

        Raises:
            TrainingError: There are fewer than two patients.
        """
        train, held_out = split_by_patient(self.patients, share, seed, locked)
        return self.of_patients(train), self.of_patients(held_out)

    def collections(self) -> tuple[dict[str, object], ...]:
        """One entry a collection for the card: ``name``, ``licence``, ``patients``, ``slices``."""
        found: dict[tuple[str, str], list[Reference]] = {}
        for entry in self.entries:
            found.setdefault((entry.collection, entry.licence), []).append(entry)
        return tuple(
            {
                "name": name,
                "licence": licence,
                "patients": len({entry.patient for entry in entries}),
                "slices": sum(entry.shape[0] for entry in entries),
            }
            for (name, licence), entries in sorted(found.items())
        )


def reference_of(
    scan: Scan | LazyScan,
    values: NDArray[np.float32],
    load: Callable[[], NDArray[np.float32]],
    patient: str,
    source: str,
) -> Reference:
    """A reference from a scan whose values were read; the caller knows patient and source, and how to read it again."""
    return Reference(
        patient=patient,
        source=source,
        modality=scan.modality,
        unit="colour" if scan.is_colour else scan.unit,
        spacing_mm=scan.spacing_mm[1:] if scan.spacing_mm else scan.pixel_spacing_mm,
        shape=values.shape,
        sha256=hashlib.sha256(repr(values.shape).encode() + np.ascontiguousarray(values).tobytes()).hexdigest(),
        slice_sha256=tuple(image_hash(one) for one in values),
        load=load,
    )


def image_hash(values: NDArray) -> str:
    """SHA-256 of the values of one slice in rising order: equal however the slice is turned, flipped or cut apart.

    Empty text for a slice of a single value: pictures of nothing are all alike.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float32), axis=None)
    if ordered.size == 0 or ordered[0] == ordered[-1]:
        return ""
    return hashlib.sha256(ordered.tobytes()).hexdigest()


def values_of(scan: Scan) -> NDArray[np.float32]:
    """All values of a scan, float32, also of colours."""
    return np.asarray(scan.values(), dtype=np.float32)


def no_reference(name: str, values: NDArray[np.float32]) -> str:
    """Why a file is no reference, as the end of a sentence; empty when it is one."""
    if values.min() == values.max():
        return "hold a single value"
    return ARE_LABELS if says_label(name) or looks_like_labels(values) else ""


def counted(count: int, thing: str, why: str) -> str:
    """Such as ``2 files are small``, or ``1 file is small``."""
    verb, rest = why.split(" ", 1)
    if count == 1:
        verb = {"are": "is", "hold": "holds", "have": "has", "were": "was", "show": "shows"}.get(verb, verb)
    return f"{count} {thing}{'' if count == 1 else 's'} {verb} {rest}"


def checked(place: Place, entries: Iterable[Reference], notes: Counter[str], modality: str | None) -> References:
    """What a place offers, when it can be trained on.

    Raises:
        TrainingError: Nothing is left, or modalities or units are mixed.
    """
    found = tuple(entries)
    sentences = tuple(f"{counted(count, 'file', why)}: left out." for why, count in sorted(notes.items()))
    if not found:
        kind = f" of {modality}" if modality else ""
        if notes:
            why, count = notes.most_common(1)[0]
            raise TrainingError(
                f"The {place} holds images, but no reference{kind}: {counted(count, 'file', why)}",
                "Add scans at full dose or full resolution",
            )
        raise TrainingError(f"The {place} holds no images{kind}", "Choose a folder of scans or a project")
    for sentence in sentences:
        _log.info("%s", sentence)
    _must_be_one("modalities", [entry.modality or "unknown" for entry in found], "Say which one to use")
    _must_be_one("units", [entry.unit for entry in found], "Leave out the scans of the other unit, or convert them")
    return References(place, found, sentences)


def _must_be_one(what: str, values: Sequence[str], hint: str) -> None:
    found = Counter(values)
    if len(found) > 1:
        told = ", ".join(
            f"{count} in {name}" if what == "units" else f"{count} {name}" for name, count in found.most_common(4)
        )
        raise TrainingError(f"The data set mixes {what}: {told}", hint)
