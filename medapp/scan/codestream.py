"""Looking into compressed DICOM pixel data before a decoder does: items, JPEG and JPEG 2000 headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from medapp.errors import UnreadableFileError

_ITEM = b"\xfe\xff\x00\xe0"
_END = b"\xfe\xff\xdd\xe0"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class Encapsulated:
    """The items of encapsulated pixel data, checked up to the closing delimiter.

    Attributes:
        offsets: The Basic Offset Table: where each frame begins, from the first fragment's item; may be empty.
        fragments: ``(file offset of the value, length)`` of each item after the table.
        end: File offset after the closing delimiter.
    """

    offsets: tuple[int, ...]
    fragments: tuple[tuple[int, int], ...]
    end: int


@dataclass(frozen=True)
class Codestream:
    """What a compressed frame says about itself.

    Attributes:
        kind: ``jpeg``, ``jpeg-lossless``, ``jpeg-ls`` or ``jpeg2000``.
        is_signed: JPEG 2000 only.
        predictor: Lossless JPEG only, 0 elsewhere.
    """

    kind: str
    rows: int
    columns: int
    samples: int
    precision: int
    is_signed: bool = False
    predictor: int = 0


def walk_items(file: BinaryIO, offset: int, size: int, name: str) -> Encapsulated:
    """List the fragments of encapsulated pixel data without reading them.

    Args:
        file: The file.
        offset: Where the value of Pixel Data begins.
        size: Bytes of the file.
        name: For messages.

    Raises:
        UnreadableFileError: An item is cut, or the closing delimiter is missing.

    Reference:
        DICOM PS3.5 A.4.
    """
    fragments: list[tuple[int, int]] = []
    table: tuple[int, ...] | None = None
    position = offset
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise UnreadableFileError(
                f"{name} is truncated: its compressed pixel data has no closing delimiter after "
                f"{position - offset} bytes.",
                "Copy the file again from its source.",
            )
        tag, length = head[:4], struct.unpack("<I", head[4:])[0]
        if tag == _END:
            return Encapsulated(table or (), tuple(fragments), position + 8)
        if tag != _ITEM or length == 0xFFFFFFFF:
            raise UnreadableFileError(
                f"{name} is damaged: its compressed pixel data is not a chain of items.",
                "Copy the file again from its source.",
            )
        if position + 8 + length > size:
            raise UnreadableFileError(
                f"{name} is truncated: {size - position - 8} of {length} bytes of a compressed fragment are present.",
                "Copy the file again from its source.",
            )
        if table is None:
            value = file.read(length - length % 4)
            table = struct.unpack(f"<{len(value) // 4}I", value)
        else:
            fragments.append((position + 8, length))
        position += 8 + length


def frame_fragments(
    items: Encapsulated, frames: int, starts: tuple[int, ...], file: BinaryIO, name: str
) -> list[list[tuple[int, int]]]:
    """Which fragments make up each frame.

    Args:
        items: From ``walk_items``.
        frames: Number of Frames.
        starts: Extended Offset Table, or empty.
        file: To look for the beginnings of codestreams where no table says it.
        name: For messages.

    Raises:
        UnreadableFileError: The fragments cannot be told apart, or there are fewer than frames.
    """
    fragments = list(items.fragments)
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    table = starts or items.offsets
    if fragments and len(table) == frames:
        base = fragments[0][0] - 8
        groups: list[list[tuple[int, int]]] = [[] for _ in range(frames)]
        bounds = [*table[1:], 1 << 62]
        frame = 0
        for fragment in fragments:
            while frame < frames - 1 and fragment[0] - 8 - base >= bounds[frame]:
                frame += 1
            groups[frame].append(fragment)
        if all(groups):
            return groups
    groups = []
    for start, length in fragments:  # no table: a new frame begins where a codestream does
        file.seek(start)
        head = file.read(4)
        begins = head[:3] == b"\xff\xd8\xff" or head == b"\xff\x4f\xff\x51" or head == b"\x00\x00\x00\x0c"
        if begins or not groups:
            groups.append([])
        groups[-1].append((start, length))
    if len(groups) != frames:
        raise UnreadableFileError(
            f"{name} is damaged: {len(groups)} of {frames} compressed frames are present.",
            "Copy the file again from its source.",
        )
    return groups


def look(frame: bytes) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS or JPEG 2000 frame; None for anything else.

    Reference:
        ISO/IEC 10918-1 B.2.2, ISO/IEC 14495-1 C.2.2, ISO/IEC 15444-1 A.5.1.
    """
    try:
        if frame[:4] == b"\x00\x00\x00\x0c":
            start = frame.find(b"\xff\x4f\xff\x51", 0, _MAX_HEADER)
            return _look_j2k(frame[start:]) if start > 0 else None
        if frame[:4] == b"\xff\x4f\xff\x51":
            return _look_j2k(frame)
        if frame[:2] == b"\xff\xd8":
            return _look_jpeg(frame)
    except (IndexError, struct.error):
        return None
    return None


def _look_j2k(frame: bytes) -> Codestream:
    x1, y1, x0, y0 = struct.unpack(">4I", frame[8:24])
    samples = struct.unpack(">H", frame[40:42])[0]
    depth = frame[42]
    return Codestream("jpeg2000", y1 - y0, x1 - x0, samples, (depth & 0x7F) + 1, bool(depth & 0x80))


def _look_jpeg(frame: bytes) -> Codestream | None:
    position, found = 2, None
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            return found
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = struct.unpack(">H", frame[position + 2 : position + 4])[0]
        if marker in _SOF:
            precision, rows, columns, samples = struct.unpack(">BHHB", frame[position + 4 : position + 10])
            kind = {0xC3: "jpeg-lossless", 0xF7: "jpeg-ls"}.get(marker, "jpeg")
            found = Codestream(kind, rows, columns, samples, precision)
        elif marker == 0xDA and found is not None:
            selectors = frame[position + 4]
            predictor = frame[position + 5 + 2 * selectors] if found.kind == "jpeg-lossless" else 0
            return Codestream(found.kind, found.rows, found.columns, found.samples, found.precision, False, predictor)
        position += 2 + length
    return found
