"""Whether a DICOM image agrees with itself: its description, its bytes, its text."""

from __future__ import annotations

import math
import re
from typing import BinaryIO

from medapp.errors import UnreadableFileError
from medapp.scan.codestream import walk_items
from medapp.scan.dicom_file import (
    COLOUR,
    COMPRESSED,
    GREY,
    PALETTE,
    DicomFile,
)
from medapp.scan.header import Header

_COPY = "Copy the file again from its source."
_EXPORT = "Export the image again from its source."


def read_description(file: DicomFile) -> None:
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


def check_bytes(file: DicomFile, source: BinaryIO, size: int) -> None:
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


def check_text(file: DicomFile) -> None:
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
