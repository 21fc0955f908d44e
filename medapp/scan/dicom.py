"""Opening one DICOM file: what it is, whether its pixels are all there, and what had to be overlooked."""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import BinaryIO

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import UID

from medapp.errors import HoldsNoImageError, UnreadableFileError
from medapp.scan.dicom_checks import check_bytes, check_text, read_description
from medapp.scan.dicom_file import (
    BIG_ENDIAN,
    COMPRESSED,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    NATIVE,
    RTSTRUCT_CLASS,
    SEG_CLASSES,
    TAGS,
    DicomFile,
)
from medapp.scan.header import MAX_DEPTH, Header
from medapp.scan.nesting import is_deeper_than
from medapp.scan.quick_header import read_quickly

logger = logging.getLogger(__name__)

_PIXEL_TAGS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN", b"SQ")
_FIRST_READ = 1 << 16  # bytes; nearly every header of a single slice ends within
_COPY = "Copy the file again from its source."


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
    read_description(found)
    check_bytes(found, source, size)
    check_text(found)
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
