"""One series as a volume with its place in space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medapp.scan.geometry import Geometry

Kind = Literal["scan", "stack", "image"]


@dataclass(frozen=True)
class Window:
    """A display window in the scan's unit (DICOM Window Center / Width, PS3.3 C.11.2.1.2)."""

    center: float
    width: float
    name: str = ""


@dataclass(frozen=True)
class SourceInfo:
    """What is kept of the files a scan came from; holds identifiers, so it is never printed or logged.

    Attributes:
        path: The file, or the folder of the series.
        format: ``dicom``, ``nifti``, ``raster`` or ``phantom``.
        study_uid, series_uid, frame_of_reference_uid: DICOM UIDs, empty elsewhere.
        patient_id: Patient ID or empty; only for grouping and the privacy check.
        patient_name: As stored; shown in the window unless hidden.
        description: Series description.
        date: Study date ``YYYYMMDD`` or empty.
        headers: One DICOM dataset per slice as explicit-VR-little-endian bytes without pixel data, in slice order;
            empty elsewhere. What export copies from, so that sources may vanish.
        frames: ``(SOP Instance UID, frame number from 1)`` per slice, in slice order; empty elsewhere.
    """

    path: str = ""
    format: str = ""
    study_uid: str = ""
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    patient_id: str = ""
    patient_name: str = ""
    description: str = ""
    date: str = ""
    headers: tuple[bytes, ...] = field(default=(), repr=False)
    frames: tuple[tuple[str, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class Scan:
    """One series as a volume with its place in space.

    Attributes:
        stored: ``(Z, Y, X)`` integer or float32, or ``(Z, Y, X, 3)`` uint8/uint16 for colour; read-only, memory-mapped
            where it can be. ``value = stored * slope + intercept``.
        geometry: Takes a voxel index ``(z, y, x)`` to millimetres, RAS+; None where lengths or positions are unknown.
        modality: DICOM code such as ``CT``, ``MR`` or ``PT``; None when the file does not say.
        unit: ``HU``, ``SUV``, the file's PET units such as ``BQML``, or ``arbitrary``.
        kind: ``scan`` = a regular volume; ``stack`` = slices in order without 3-D measures; ``image`` = one 2-D image.
        index_spacing_mm: ``(z, y, x)`` of a regular volume whose place in the patient is not known (a NIfTI file
            without an affine): lengths can be measured, left and right cannot be told. None otherwise.
        pixel_spacing_mm: ``(y, x)`` of a stack or image whose in-plane spacing is known; None with geometry.
        notes: Whatever was repaired, split, dropped or assumed, one plain sentence each.
        windows: Display windows from the file.
        is_inverted: Display inverted (MONOCHROME1, PS3.3 C.7.6.3.1.2).
        padding: ``(Z, Y, X)`` bool, True where the voxel is padding or was not finite; None when there is none.
        alpha: ``(Z, Y, X)`` uint16 straight alpha that came with a raster image; None otherwise.
        series_key: Stable text that tells this part from its siblings; holds no identifier in clear.
        source: Where it came from.
    """

    stored: NDArray
    geometry: Geometry | None = None
    modality: str | None = None
    unit: str = "arbitrary"
    kind: Kind = "scan"
    slope: float = 1.0
    intercept: float = 0.0
    pixel_spacing_mm: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    is_inverted: bool = False
    padding: NDArray[np.bool_] | None = None
    alpha: NDArray[np.uint16] | None = None
    series_key: str = ""
    source: SourceInfo = field(default_factory=SourceInfo)
    index_spacing_mm: tuple[float, float, float] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """``(Z, Y, X)`` or ``(Z, Y, X, 3)``."""
        return tuple(int(n) for n in self.stored.shape)

    @property
    def is_colour(self) -> bool:
        """True for RGB images."""
        return self.stored.ndim == 4

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """``(z, y, x)`` in millimetres, or None where it is not known in all three directions."""
        return self.geometry.spacing_mm if self.geometry is not None else self.index_spacing_mm

    @property
    def in_plane_spacing_mm(self) -> tuple[float, float] | None:
        """``(y, x)`` of a slice in millimetres, or None: measure in px then."""
        return self.geometry.spacing_mm[1:] if self.geometry is not None else self.pixel_spacing_mm

    def slice_values(self, z: int) -> NDArray:
        """One slice in the scan's unit: ``(Y, X)`` float32, or ``(Y, X, 3)`` as stored for colour."""
        return self._to_values(self.stored[z])

    def values(self) -> NDArray:
        """All voxels in the scan's unit: ``(Z, Y, X)`` float32 (a copy), or the stored colours."""
        return self._to_values(self.stored)

    def _to_values(self, stored: NDArray) -> NDArray:
        if self.is_colour:
            return stored
        if self.slope == 1.0 and self.intercept == 0.0:
            return np.asarray(stored, dtype=np.float32)
        return (stored.astype(np.float64) * self.slope + self.intercept).astype(np.float32)
