"""Opening one DICOM file: what it is, whether its pixels are all there, and what had to be overlooked."""

from __future__ import annotations

import io
import logging
import math
import os
import re
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import UID

from medapp.errors import ChangedWhileReadingError, HoldsNoImageError, UnreadableFileError
from medapp.scan.codestream import Encapsulated, walk_items
from medapp.scan.header import MAX_DEPTH, Header
from medapp.scan.nesting import is_deeper_than
from medapp.scan.quick_header import read_quickly

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

_PIXEL_TAGS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN", b"SQ")
_FIRST_READ = 1 << 16  # bytes; nearly every header of a single slice ends within
_COPY = "Copy the file again from its source."
_EXPORT = "Export the image again from its source."

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


def read_plain_header(path: Path, tags: list[str | int]) -> Header:
    """Some elements of any DICOM file, image or not.

    Raises:
        UnreadableFileError: The header cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:
                if DEFLATED.encode() in file.read(1024):
                    size = os.fstat(file.fileno()).st_size
                    dataset, _, _ = _read_deflated(file, path.name, size, _tag_list(tuple(tags)))
                else:
                    file.seek(0)
                    dataset = read_partial(file, _at_pixels, force=True, specific_tags=_tag_list(tuple(tags)))
        except UnreadableFileError:
            raise
        except RecursionError as error:
            raise UnreadableFileError(
                f"{path.name}: sequences are nested deeper than {MAX_DEPTH} levels.", "This file is not safe to open."
            ) from error
        except Exception as error:  # pydicom raises whatever the bytes provoke
            raise UnreadableFileError(f"{path.name} is damaged: its header cannot be read.", _COPY) from error
    return Header(dataset, path.name)


def open_dicom(
    path: Path, shown: str = "", tags: list[str | int] | None = None, accept: frozenset[str] = frozenset()
) -> DicomFile:
    """Read the header of a DICOM image and make sure that its pixels are there.

    Args:
        path: A regular file whose first bytes look like DICOM.
        shown: What findings call it; the path when empty.
        tags: Elements to read besides the usual ones.
        accept: SOP classes to open although they are no images to look at (SEG).

    Raises:
        HoldsNoImageError: A sound file without an image; its message says which kind.
        UnreadableFileError: Damaged, unsupported or unsafe.

    Reference:
        DICOM PS3.10, PS3.5.
    """
    name = Path(shown or path).name
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
            return _read(file, path, name, shown or str(path), stamp, TAGS + (tags or []), accept)
    except OSError as error:
        raise UnreadableFileError(
            f"{name} cannot be read: {error.strerror or 'I/O error'}.", "Check that you may open it."
        ) from error


def _read(
    file: BinaryIO,
    path: Path,
    name: str,
    shown: str,
    stamp: tuple[int, int, int],
    tags: list[str | int],
    accept: frozenset[str],
) -> DicomFile:
    opening = file.read(_FIRST_READ)
    start = opening[:1024]
    content: bytes | None = None
    tag_list = _tag_list(tuple(tags))
    notes: list[str] = []
    plain = read_quickly(opening, _tag_set(tuple(tags)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if plain is not None:
                dataset, syntax, end = plain
                source: BinaryIO = file
            elif DEFLATED.encode() in start:
                dataset, syntax, content = _read_deflated(file, name, stamp[0], tag_list)
                source = io.BytesIO(content)
                end = _find_pixels(source, tag_list)
            else:
                file.seek(0)
                dataset = read_partial(file, _at_pixels, force=True, specific_tags=tag_list)
                syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
                source, end = file, file.tell()
        except UnreadableFileError:
            raise
        except RecursionError as error:
            raise UnreadableFileError(
                f"{name}: sequences are nested deeper than {MAX_DEPTH} levels.", "This file is not safe to open."
            ) from error
        except (InvalidDicomError, Exception) as error:  # pydicom raises whatever the bytes provoke
            raise UnreadableFileError(f"{name} is damaged: its header cannot be read.", _COPY) from error
    header = Header(dataset, name)
    if start[128:132] != b"DICM":
        notes.append("The file has no DICOM preamble.")
    elif start[132:136] == b"\x02\x00\x00\x00":
        pass
    else:
        notes.append("The length of the file meta information is missing.")
    if caught:
        notes.append("The header is not written as DICOM asks; every element that medapp uses could be read.")
    sop_class = header.text("SOPClassUID") or _meta_class(dataset)
    if sop_class not in accept:
        _check_is_image(dataset, header, sop_class, name)
    is_implicit, is_little = dataset.original_encoding
    if not syntax:
        syntax = IMPLICIT if is_implicit else (EXPLICIT if is_little else BIG_ENDIAN)
        notes.append("The transfer syntax is missing; read as little endian without compression.")
    if syntax not in NATIVE | COMPRESSED:
        raise UnreadableFileError(
            f"{name} is compressed as {UID(syntax).name}, which medapp does not read.",
            "Export it uncompressed or as JPEG 2000.",
        )
    size = len(content) if content is not None else stamp[0]
    begin = _dataset_start(start) if content is None else 0
    begin = begin if begin <= end else 0  # a wrong group length
    _check_nesting(source, begin, end, bool(is_implicit), bool(is_little), name)
    keyword, vr, offset, length = _pixel_element(source, end, bool(is_implicit), bool(is_little), size, name)
    found = DicomFile(
        path=path, name=name, shown=shown, stamp=stamp, header=header, transfer_syntax=syntax, sop_class=sop_class,
        content=content, span=(begin, end), is_explicit=not is_implicit,
        pixel_keyword=keyword, pixel_vr=vr, pixel_offset=offset, pixel_length=length, items=None, notes=notes,
    )  # fmt: skip
    _read_description(found)
    _check_bytes(found, source, size)
    _check_text(found)
    found.notes.extend(note for note in header.complaints if note not in found.notes)
    return found


def _meta_class(dataset: Dataset) -> str:
    """The SOP class of the file meta information: a DICOMDIR has it nowhere else."""
    meta = getattr(dataset, "file_meta", None)
    return str(meta.get("MediaStorageSOPClassUID", "") or "") if meta is not None else ""


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in _PIXEL_TAGS


@cache
def _tag_list(tags: tuple[str | int, ...]) -> list[int]:
    return [tag if isinstance(tag, int) else int(tag_for_keyword(tag) or 0) for tag in tags]


@cache
def _tag_set(tags: tuple[str | int, ...]) -> frozenset[int]:
    return frozenset(_tag_list(tags))


def _dataset_start(start: bytes) -> int:
    """Where the data set begins, after preamble and file meta information; 0 when the length is not given."""
    if start[128:136] == b"DICM\x02\x00\x00\x00" and start[136:138] == b"UL":
        return 144 + int(struct.unpack("<I", start[140:144])[0])
    return 0


def _read_deflated(file: BinaryIO, name: str, size: int, tags: list[int]) -> tuple[Dataset, str, bytes]:
    """Inflate a deflated data set under a limit, which pydicom does not have, and read its header."""
    file.seek(0)
    start = _dataset_start(file.read(1024))
    if not start:
        raise UnreadableFileError(f"{name} is damaged: its file meta information cannot be read.", _COPY)
    file.seek(start)
    limit = min(max(256 << 20, 64 * size), 4 << 30)
    inflater, parts, total = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    pending = file.read(1 << 20)
    try:
        while pending and not inflater.eof:
            part = inflater.decompress(pending, 1 << 20)
            total += len(part)
            if total > limit:
                raise UnreadableFileError(
                    f"{name} inflates beyond {limit >> 20} MiB; it is not safe to open.", "Ask where it came from."
                )
            parts.append(part)
            pending = inflater.unconsumed_tail or file.read(1 << 20)
        parts.append(inflater.flush())
    except zlib.error as error:
        raise UnreadableFileError(f"{name} is damaged: its deflated data cannot be inflated.", _COPY) from error
    if not inflater.eof:
        raise UnreadableFileError(f"{name} is truncated: its deflated data ends early after {total} bytes.", _COPY)
    content = b"".join(parts)
    dataset = read_dataset(io.BytesIO(content), False, True, stop_when=_at_pixels, specific_tags=tags)
    return dataset, DEFLATED, content


def _find_pixels(source: BinaryIO, tags: list[int]) -> int:
    read_dataset(source, False, True, stop_when=_at_pixels, specific_tags=tags[:1])
    return source.tell()


def _check_is_image(dataset: Dataset, header: Header, sop_class: str, name: str) -> None:
    """Say which kind of object it is when it is none with pixels to look at."""
    if sop_class in SEG_CLASSES or sop_class == RTSTRUCT_CLASS:
        raise HoldsNoImageError(
            f"{name} holds {UID(sop_class).name.removesuffix(' Storage')}: import as masks.",
            "Open the series it belongs to, then import it as masks.",
        )
    known = UID_dictionary.get(sop_class)
    if known is None:
        if not len(dataset):
            raise UnreadableFileError(f"{name} holds no elements of an image.", _COPY)
        return
    label = known[0]
    if "Image Storage" in label or "Parametric Map" in label or label.startswith("Enhanced US Volume"):
        return
    raise HoldsNoImageError(
        f"{name} holds no image: it is a {label.removesuffix(' Storage')}.", "Choose the images of the study instead."
    )


def _pixel_element(
    file: BinaryIO, end: int, is_implicit: bool, is_little: bool, size: int, name: str
) -> tuple[str, str, int, int]:
    """Keyword, VR, offset and length of the pixel data element at ``end``."""
    file.seek(end)
    head = file.read(12)
    order = "<" if is_little else ">"
    tag = struct.unpack(f"{order}HH", head[:4]) if len(head) >= 8 else (0, 0)
    keyword = _PIXEL_TAGS.get(tag[0] << 16 | tag[1], "")
    if not keyword:
        raise UnreadableFileError(
            f"{name} is truncated or damaged: its Pixel Data is missing ({size} bytes found).", _COPY
        )
    if not is_implicit and head[4:6] in _LONG_VRS:
        return (
            keyword,
            head[4:6].decode(),
            end + 12,
            int(struct.unpack(f"{order}I", head[8:12])[0]) if len(head) == 12 else 0,
        )
    return keyword, "OW", end + 8, int(struct.unpack(f"{order}I", head[4:8])[0])


def _check_nesting(source: BinaryIO, start: int, end: int, is_implicit: bool, is_little: bool, name: str) -> None:
    source.seek(start)
    if is_deeper_than(source.read(end - start), MAX_DEPTH, is_implicit, is_little):
        raise UnreadableFileError(
            f"{name}: sequences are nested deeper than {MAX_DEPTH} levels.", "This file is not safe to open."
        )


def _read_description(file: DicomFile) -> None:
    """Rows, bits and the like: all there, and agreeing (DICOM PS3.3 C.7.6.3)."""
    header, name = file.header, file.name

    def needed(keyword: str) -> int:
        value = header.integer(keyword)
        if value is None:
            raise UnreadableFileError(f"{name}: {keyword} is missing, so its pixels cannot be read.", _EXPORT)
        return value

    file.rows, file.columns = needed("Rows"), needed("Columns")
    file.samples, file.bits_allocated = needed("SamplesPerPixel"), needed("BitsAllocated")
    file.photometric = header.text("PhotometricInterpretation").upper()
    if not file.photometric:
        raise UnreadableFileError(f"{name}: PhotometricInterpretation is missing.", _EXPORT)
    is_float = file.pixel_keyword != "PixelData"
    if is_float:
        file.bits_stored, file.high_bit = file.bits_allocated, file.bits_allocated - 1
    else:
        file.bits_stored, file.high_bit = needed("BitsStored"), needed("HighBit")
        file.is_signed = needed("PixelRepresentation") == 1
    frames = header.integer("NumberOfFrames")
    file.frames = 1 if frames is None else frames
    if not 0 < file.frames < 1 << 31:
        raise UnreadableFileError(f"{name}: NumberOfFrames is {file.frames}.", _EXPORT)
    if file.rows <= 0 or file.columns <= 0:
        raise UnreadableFileError(f"{name} declares {file.rows} × {file.columns} pixels.", _EXPORT)
    allowed = (32, 64) if is_float else (1, 8, 16, 32)
    is_agreed = (
        file.bits_allocated in allowed
        and 1 <= file.bits_stored <= file.bits_allocated
        and file.bits_stored - 1 <= file.high_bit < file.bits_allocated
    )
    if not is_agreed:
        raise UnreadableFileError(
            f"{name}: {file.bits_stored} bits stored in {file.bits_allocated} allocated, high bit {file.high_bit}, "
            "do not agree.",
            _EXPORT,
        )
    if file.photometric not in GREY | COLOUR | {PALETTE}:
        raise UnreadableFileError(f"{name}: colours as {file.photometric[:16]} are not supported.", "Export it as RGB.")
    if file.samples != (3 if file.photometric in COLOUR else 1) or (
        file.photometric not in GREY and (file.bits_allocated not in (8, 16) or file.is_signed)
    ):
        raise UnreadableFileError(
            f"{name}: {file.samples} samples of {file.bits_allocated} bits do not fit {file.photometric}.", _EXPORT
        )


def _check_bytes(file: DicomFile, source: BinaryIO, size: int) -> None:
    """The pixel data is complete, before anything is allocated."""
    pixels = file.rows * file.columns * file.samples
    if file.transfer_syntax in COMPRESSED:
        if file.pixel_length != 0xFFFFFFFF:
            raise UnreadableFileError(f"{file.name} is damaged: its compressed pixel data has no items.", _COPY)
        file.items = walk_items(source, file.pixel_offset, size, file.name)
        if len(file.items.fragments) < (1 if file.frames == 1 else file.frames):
            raise UnreadableFileError(
                f"{file.name} is truncated: {len(file.items.fragments)} of {file.frames} compressed frames found.",
                _COPY,
            )
        stop = file.items.end
    else:
        if file.pixel_length == 0xFFFFFFFF:
            raise UnreadableFileError(f"{file.name} is damaged: uncompressed pixel data without a length.", _COPY)
        bits = pixels * file.frames * file.bits_allocated
        if file.photometric == "YBR_FULL_422":
            bits = bits * 2 // 3
        expected, present = math.ceil(bits / 8), min(file.pixel_length, size - file.pixel_offset)
        if present < expected or file.pixel_offset + file.pixel_length > size:
            raise UnreadableFileError(
                f"{file.name} is truncated: {max(present, 0)} of {max(expected, file.pixel_length)} pixel bytes are "
                "present.",
                _COPY,
            )
        if file.pixel_length > expected + expected % 2:
            file.notes.append(f"{file.pixel_length - expected} extra bytes after the pixels were ignored.")
        stop = file.pixel_offset + file.pixel_length
    rest = size - stop
    if rest:
        source.seek(stop)
        group = source.read(2)
        if group not in (b"\xfc\xff", b"\xff\xfc", b"\xfa\xff", b"\xff\xfa", b"\xe0\x7f", b"\x7f\xe0"):
            file.notes.append(f"{rest} bytes after the end of the image were ignored.")


_LONGEST = {"StudyID": 16, "SeriesDescription": 64, "PatientID": 64, "PatientName": 194, "Modality": 16, "Units": 16}
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_UID = re.compile(rb"[0-9.]{0,64}[ \0]?")
_CHARACTER_SETS = frozenset({"SeriesDescription", "PatientName", "PatientID"})


def _check_text(file: DicomFile) -> None:
    """Note what is too long or wrongly written among the elements that are used or shown."""
    header = file.header
    for keyword, longest in _LONGEST.items():
        if len(header.raw(keyword).rstrip(b" \0")) > longest:
            file.notes.append(f"{_words(keyword)} is longer than DICOM allows.")
    if any(_UID.fullmatch(header.raw(keyword)) is None for keyword in _UIDS):
        file.notes.append("A unique identifier is not written as DICOM asks.")
    if not all(header.raw(keyword).isascii() for keyword in _CHARACTER_SETS):
        for keyword in _CHARACTER_SETS:
            if "\ufffd" in header.text(keyword) or header.complaints:
                file.notes.append("Some text could not be decoded with its character set.")
                break
    known = [k for k in ("Rows", "PixelSpacing", "ImagePositionPatient", "SOPClassUID") if _is_unknown(header, k)]
    if known:
        file.notes.append("Known elements are stored with an unknown representation; read by the dictionary.")


def _is_unknown(header: Header, keyword: str) -> bool:
    element = header._element(keyword)
    return element is not None and str(getattr(element, "VR", "")) == "UN"


def _words(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", keyword)
