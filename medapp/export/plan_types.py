"""What goes into an export, how it is wanted, and what comes out of it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from medapp.annotation.annotation import Annotation
from medapp.scan.scan import Scan

Format = Literal["seg", "seg-binary", "derived", "nifti", "png", "png-cutout", "coco"]
FORMATS: frozenset[str] = frozenset({"seg", "seg-binary", "derived", "nifti", "png", "png-cutout", "coco"})
ItemKind = Literal["original", "restored", "filtered", "synthetic", "depth", "trust"]


@dataclass(frozen=True, eq=False)
class ExportItem:
    """One series to export, with its mattes.

    Attributes:
        scan: The voxels: an original scan or one made from it.
        annotation: Its mattes.
        group: Patient group; series of one group never fall into different splits. May be an identifier: with
            de-identification it is written only as an alias.
        state: ``new``, ``in work``, ``done`` or ``flagged``.
        reader: The person who annotated.
        model_hashes: SHA-256 of every weights file that took part.
        revision_id: The revision that is exported.
        title: What the library calls it; written only when not de-identifying.
        kind: Anything but ``original``, ``depth`` and ``trust`` can become a derived DICOM series.
        provenance: For made scans: ``task``, ``model``, ``sha256``, ``strength`` and whatever else is known.
        source_scan: What a made scan was made from; None for an original.
    """

    scan: Scan
    annotation: Annotation
    group: str = ""
    state: str = ""
    reader: str = ""
    model_hashes: tuple[str, ...] = ()
    revision_id: str = ""
    title: str = ""
    kind: ItemKind = "original"
    provenance: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    source_scan: Scan | None = None

    @property
    def header_scan(self) -> Scan:
        """The scan whose DICOM headers describe this one."""
        return self.source_scan if self.source_scan is not None else self.scan


@dataclass(frozen=True)
class ExportOptions:
    """How an export is wanted.

    Attributes:
        out: The folder to make; it must not exist, or be empty.
        formats: Any of ``FORMATS``.
        deidentify: Remove identifiers, map UIDs, shift dates, then search every written byte.
        alpha_meaning: What alpha of a fractional DICOM SEG means (PS3.3 C.8.20.2, Segmentation Fractional Type).
        split_fractions: Train, val and test; they are scaled to sum to 1.
        split_seed: Equal seeds and groups give equal splits.
        png_bits: 16 = linear map in the manifest, 8 = at the first display window.
        rle: Compress DICOM with RLE Lossless.
        key: Secret of the project for aliases, UIDs and date shifts; never exported. Empty = a new one for this export.
        project_id: For the manifest; not an identifier of a patient.
        cleared_series: Series keys whose images somebody has looked at for burned-in text.
        not_identifying: Values that the byte check may find, because a person said so.
    """

    out: Path
    formats: frozenset[str] = frozenset({"seg", "seg-binary", "derived", "nifti", "png"})
    deidentify: bool = True
    alpha_meaning: Literal["occupancy", "probability"] = "occupancy"
    split_fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    split_seed: int = 0
    png_bits: Literal[8, 16] = 16
    rle: bool = False
    key: bytes = field(default=b"", repr=False)
    project_id: str = ""
    cleared_series: frozenset[str] = frozenset()
    not_identifying: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class PlannedFile:
    """One file of the dry run: relative path with ``/``, role, estimated bytes and a note on the format."""

    path: str
    role: str
    size: int
    note: str = ""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        folder: Its final name.
        files: ``(relative path, bytes, role)``.
        largest_alpha_error: Largest difference between alpha as kept and as read back, over all fractional forms.
        notes: What a reader of the data set should know.
        problems: What could not be written, and why.
    """

    folder: Path
    files: tuple[tuple[str, int, str], ...]
    largest_alpha_error: float
    notes: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """One finished file inside the unfinished export.

    Attributes:
        path: Relative, with ``/``.
        role: ``image``, ``alpha``, ``labels``, ``seg``, ``derived``, ``cutout``, ``coco``, ``splits`` ...
        size: Bytes.
        sha256: Of the bytes.
        facts: More for the manifest: affine, shape, unit, value map, source key, slice.
        alpha_error: Largest difference to the kept alpha after reading back; None where the file holds no alpha.
    """

    path: str
    role: str
    size: int
    sha256: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    alpha_error: float | None = None
