"""How deep the sequences of a DICOM header are nested, found without parsing it recursively."""

from __future__ import annotations

import struct

_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_OPEN_ENDED = 1 << 62


def is_deeper_than(content: bytes, limit: int, is_implicit: bool, is_little: bool) -> bool:
    """True when sequences lie in sequences more than ``limit`` levels deep.

    Args:
        content: The elements of a data set, without pixel data. Where they are not well-formed, looking stops.
        limit: Levels allowed.
        is_implicit: Implicit VR.
        is_little: Little endian.

    Reference:
        DICOM PS3.5 7.5.
    """
    item = b"\xfe\xff\x00\xe0" if is_little else b"\xff\xfe\xe0\x00"
    if content.count(item) <= limit:  # each level needs an item: nearly every header ends here
        return False
    order = "<" if is_little else ">"
    tag_of, length_of = struct.Struct(f"{order}HH"), struct.Struct(f"{order}I")
    short_of = struct.Struct(f"{order}H")
    position, size = 0, len(content)
    ends: list[int] = []  # where each open item ends; its sequence ends there or later
    while position + 8 <= size:
        while ends and position >= ends[-1]:
            ends.pop()
        group, element = tag_of.unpack_from(content, position)
        tag = group << 16 | element
        length = length_of.unpack_from(content, position + 4)[0]
        if tag == _ITEM:
            ends.append(_OPEN_ENDED if length == _UNDEFINED else position + 8 + length)
            if len(ends) > limit:
                return True
            position += 8
            continue
        if tag == _ITEM_END:
            if ends:
                ends.pop()
            position += 8
            continue
        if tag == _SEQUENCE_END:
            position += 8
            continue
        vr = content[position + 4 : position + 6]
        begins, is_sequence = position + 8, False
        if not is_implicit and vr.isalpha() and vr.isupper():
            if vr in _LONG:
                if position + 12 > size:
                    return False
                length, begins = length_of.unpack_from(content, position + 8)[0], position + 12
                is_sequence = vr in (b"SQ", b"UN")
            else:
                length = short_of.unpack_from(content, position + 6)[0]
        else:
            is_sequence = True  # implicit: a sequence when its value begins with an item
        if length == _UNDEFINED or (is_sequence and content[begins : begins + 4] == item):
            position = begins
        else:
            position = begins + length
    return False
