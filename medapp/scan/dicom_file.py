"""What is known of one DICOM image file after its header was read, and the names of things in DICOM."""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from medapp.errors import ChangedWhileReadingError
from medapp.scan.codestream import Encapsulated
from medapp.scan.header import Header

logger = logging.getLogger(__name__)

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
J2K = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
JPEG = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
NATIVE = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN})
COMPRESSED = frozenset({RLE}) | JPEG_LOSSLESS | J2K | JPEG_LS | JPEG

SEG_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"})
PALETTE = "PALETTE COLOR"


# What grouping, geometry, values and the header chip need; the rest is skipped while reading (stack.md c).
TAGS: list[str | int] = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "SeriesDate", "SeriesTime",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentDate", "ContentTime", "Modality",
    "SeriesDescription", "PatientName", "PatientID", "PatientWeight", "StudyID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "EchoTime", "EchoNumbers", "TriggerTime", "DiffusionBValue",
    "DiffusionGradientOrientation", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence", "Units", "CorrectedImage",
    "DecayCorrection", "RadiopharmaceuticalInformationSequence", "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
    0x00090010, 0x0009100D, 0x00190010, 0x0019100C, 0x0019100E, 0x00430010, 0x00431039, 0x70530010, 0x70531000,
    0x70531009,
]  # fmt: skip


@dataclass(slots=True, eq=False)
class DicomFile:
    """One DICOM image file whose header is sound and whose pixel bytes are all there.

    Attributes:
        path: The file; ``name`` is what messages call it and ``shown`` what findings call it.
        stamp: Size, modification time and inode when the header was read.
        content: The whole data set when it had to be inflated; None where the file itself holds it.
        span: Where the data set begins and its pixel data element begins, in ``content`` or the file.
        pixel_offset, pixel_length: The value of the pixel data; length counts native data only.
        items: The fragments of encapsulated pixel data.
    """

    path: Path
    name: str
    shown: str
    stamp: tuple[int, int, int]
    header: Header
    transfer_syntax: str
    sop_class: str
    content: bytes | None
    span: tuple[int, int]
    is_explicit: bool
    pixel_keyword: str
    pixel_vr: str
    pixel_offset: int
    pixel_length: int
    items: Encapsulated | None
    rows: int = 0
    columns: int = 0
    samples: int = 1
    bits_allocated: int = 16
    bits_stored: int = 16
    high_bit: int = 15
    is_signed: bool = False
    photometric: str = "MONOCHROME2"
    frames: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def is_colour(self) -> bool:
        """True when decoding gives RGB."""
        return self.samples == 3 or self.photometric == PALETTE

    def open(self) -> BinaryIO:
        """The bytes that the offsets count in.

        Raises:
            ChangedWhileReadingError: The file is not what it was when the header was read.
        """
        if self.content is not None:
            return io.BytesIO(self.content)
        return open_unchanged(self.path, self.stamp, self.name)


def open_unchanged(path: Path, stamp: tuple[int, int, int], name: str) -> BinaryIO:
    """Open a file again for reading.

    Raises:
        ChangedWhileReadingError: It vanished, cannot be read any more, or is another one by now.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ChangedWhileReadingError(f"{name} vanished while it was read.", "Open it again.") from error
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns, now.st_ino) != stamp:
        file.close()
        raise ChangedWhileReadingError(f"{name} changed while it was read.", "Open it again.")
    return file
