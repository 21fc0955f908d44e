"""What tells one slice of a DICOM series from its neighbours: where it lies and how its numbers are meant."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.scan.dicom_file import COLOUR, PALETTE, DicomFile
from medapp.scan.header import Header
from medapp.scan.intensity import Rescale, read_rescale, read_windows
from medapp.scan.scan import Window

FLAT_MODALITIES = frozenset(
    {"CR", "DX", "MG", "IO", "PX", "XA", "RF", "US", "IVUS", "ES", "XC", "GM", "OP", "DG", "OPT", "BI", "RG", "TG"}
)
SPLIT_NAMES = (
    "number of rows or columns", "number of rows or columns", "colour", "colour", "image type", "frame of reference",
    "echo time", "echo number", "b-value", "gradient direction", "temporal position", "trigger time", "units", "stack",
)  # fmt: skip
TRIGGER = 11  # place of the trigger time in the split key


@dataclass(slots=True, eq=False)
class Frame:
    """One slice: a single-frame file, or one frame of a multi-frame file.

    Attributes:
        index: Frame in its file, from 0.
        position, orientation: Image Position and Orientation (Patient), LPS mm; None when absent.
        spacing: ``(between rows, between columns)`` in mm; None when absent or not positive.
        split: What must agree within one part, in the order of ``SPLIT_NAMES``.
        order: Instance number and frame, for series without positions.
        acquisition: What tells two full sets of slices apart.
    """

    file: DicomFile
    index: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    between: float | None
    rescale: Rescale
    windows: tuple[Window, ...]
    split: tuple[object, ...]
    order: tuple[float, int]
    acquisition: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Frame number from 1, as DICOM counts."""
        return self.index + 1


def single_frames(file: DicomFile) -> list[Frame]:
    """The frames of a file without functional groups; only a lone frame may use the position of the header.

    Raises:
        UnreadableFileError: A position, orientation, spacing or rescale holds bad text or numbers.
    """
    header = file.header
    modality = header.text("Modality")
    windows, window_notes = read_windows(header)
    notes = list(window_notes)
    is_flat = modality in FLAT_MODALITIES
    if file.frames == 1 and not is_flat:
        position, orientation = vector(header, "ImagePositionPatient", 3), vector(header, "ImageOrientationPatient", 6)
    else:
        position = orientation = None
    spacing = flat_spacing(header, modality, notes) if is_flat else positive_pair(header.numbers("PixelSpacing"))
    rescale = Rescale() if file.is_colour else read_rescale(header)
    instance = header.number("InstanceNumber", is_needed=False)
    split = (
        file.rows,
        file.columns,
        file.samples,
        family(file),
        header.texts("ImageType")[:3],
        header.text("FrameOfReferenceUID"),
        header.text("EchoTime"),
        header.text("EchoNumbers"),
        b_value(header),
        header.numbers("DiffusionGradientOrientation", is_needed=False)
        or _private(header, "00190010", "SIEMENS MR HEADER", "0019100E"),
        header.text("TemporalPositionIdentifier"),
        header.text("TriggerTime"),
        header.text("Units"),
        "",
    )
    acquisition = (
        header.text("AcquisitionNumber"),
        header.text("AcquisitionDate") + header.text("AcquisitionTime") + header.text("AcquisitionDateTime"),
    )
    thickness, between = header.number("SliceThickness", is_needed=False), header.number("SpacingBetweenSlices", False)
    return [
        Frame(
            file, index, position, orientation, spacing, thickness, between, rescale, windows, split,
            (math.inf if instance is None else instance, index), acquisition, notes,
        )
        for index in range(file.frames)
    ]  # fmt: skip


def vector(header: Header, keyword: str, count: int) -> tuple[float, ...] | None:
    """Position or orientation; None when absent.

    Raises:
        UnreadableFileError: It has the wrong count of numbers, or bad text.
    """
    values = header.numbers(keyword)
    if not values:
        return None
    if len(values) != count:
        raise UnreadableFileError(
            f"{header.name}: {keyword} has {len(values)} of {count} numbers.", "Export the image again from its source."
        )
    return values


def positive_pair(values: tuple[float, ...]) -> tuple[float, float] | None:
    """Pixel spacing when both numbers are finite and above 0; None otherwise."""
    if len(values) == 2 and all(math.isfinite(v) and v > 0 for v in values):
        return values[0], values[1]
    return None


def flat_spacing(header: Header, modality: str, notes: list[str]) -> tuple[float, float] | None:
    """Spacing of projection images and ultrasound.

    Reference:
        DICOM PS3.3 10.7.1.3 and C.8.5.5.
    """
    spacing = positive_pair(header.numbers("PixelSpacing"))
    if spacing is None and modality != "US":
        spacing = positive_pair(header.numbers("ImagerPixelSpacing"))
        if spacing is not None:
            notes.append("The pixel spacing is that at the detector, not in the patient.")
    if spacing is None:
        for region in header.items("SequenceOfUltrasoundRegions"):
            is_cm = (
                region.integer("PhysicalUnitsXDirection", False)
                == 3
                == region.integer("PhysicalUnitsYDirection", False)
            )
            if is_cm and region.integer("RegionSpatialFormat", False) in (1, 2, None):
                deltas = (region.number("PhysicalDeltaY", False), region.number("PhysicalDeltaX", False))
                spacing = positive_pair(tuple(abs(d) * 10.0 for d in deltas if d is not None))
                if spacing is not None:
                    notes.append("The pixel spacing is that of the ultrasound region; it holds only inside it.")
                    break
    return spacing


def family(file: DicomFile) -> str:
    """Photometric family: inverted grey, grey, palette or colour of so many bits."""
    if file.photometric in COLOUR:
        return f"RGB {file.bits_allocated}"
    return PALETTE if file.photometric == PALETTE else file.photometric


def b_value(header: Header) -> object:
    """Diffusion b-value from the standard, Siemens' or GE's element; None when absent."""
    value = header.number("DiffusionBValue", is_needed=False)
    if value is not None:
        return value
    siemens = _private(header, "00190010", "SIEMENS MR HEADER", "0019100C")
    if siemens is not None:
        return siemens
    ge = _private(header, "00430010", "GEMS_PARM_01", "00431039")
    return ge.split("\\")[0] if ge is not None else None


def _private(header: Header, creator: str, name: str, tag: str) -> str | None:
    if header.text(creator).upper() != name or tag not in header:
        return None
    raw = header.raw(tag)
    return raw.decode("latin-1").strip(" \0") or None


def is_valid_orientation(orientation: tuple[float, ...]) -> bool:
    """True when both directions have length 1 within 1 % and are at right angles within 1e-3."""
    r, c = np.array(orientation[:3]), np.array(orientation[3:])
    if not (np.isfinite(r).all() and np.isfinite(c).all()):
        return False
    lengths = float(np.linalg.norm(r)), float(np.linalg.norm(c))
    return all(abs(length - 1.0) <= 0.01 for length in lengths) and abs(float(r @ c)) <= 1e-3


def directions(orientation: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit directions along a row, down a column, and across the slice (LPS)."""
    r, c = np.array(orientation[:3]), np.array(orientation[3:])
    r, c = r / np.linalg.norm(r), c / np.linalg.norm(c)
    return r, c, np.cross(r, c)
