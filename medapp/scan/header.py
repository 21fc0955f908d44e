"""Typed, quick access to the elements of one DICOM header."""

from __future__ import annotations

import math
import re
import struct
import warnings
from functools import cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from medapp.errors import UnreadableFileError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf(inity)?)", re.IGNORECASE)
_TEXT_VRS = frozenset({"DS", "IS", "CS", "LO", "SH", "ST", "LT", "PN", "UI", "DA", "TM", "DT", "AS", "UN", None})
_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
MAX_DEPTH = 64  # sequence nesting (formats.md 1)


class Header:
    """The elements of one dataset, converted only when asked.

    Raw bytes are converted here for the few common representations, ten times as fast as by way of pydicom, which
    answers for the rest.

    Attributes:
        dataset: The dataset; may hold only some elements.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.name = name
        self.complaints: list[str] = []
        self._elements = {int(element.tag): element for element in dataset.values()}

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._elements

    def raw(self, keyword: str) -> bytes:
        """The value as it lies in the file, ``b""`` when it is absent or was converted."""
        element = self._element(keyword)
        return element.value or b"" if isinstance(element, RawDataElement) else b""

    def text(self, keyword: str) -> str:
        """The value as text without padding, parts joined by a backslash; ``""`` when absent or unreadable."""
        element = self._element(keyword)
        if element is None:
            return ""
        if isinstance(element, RawDataElement) and element.VR in _TEXT_VRS:
            value = element.value or b""
            if value.isascii():
                return value.decode("ascii").strip(" \0")
        try:
            return self._join(self._converted(keyword))
        except UnreadableFileError:
            self.complaints.append(f"{keyword} cannot be read and was ignored.")
            return ""

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The parts of a multi-valued text."""
        whole = self.text(keyword)
        return tuple(part.strip() for part in whole.split("\\")) if whole else ()

    def numbers(self, keyword: str, is_needed: bool = True) -> tuple[float, ...]:
        """Numbers of any representation; ``()`` when absent or empty.

        Args:
            keyword: DICOM keyword.
            is_needed: False for elements that can be done without: bad text then counts as absent, with a note.

        Raises:
            UnreadableFileError: A needed element holds text that is no number.
        """
        element = self._element(keyword)
        if element is None:
            return ()
        if isinstance(element, RawDataElement):
            value = element.value or b""
            if not value:
                return ()
            if element.VR in _BINARY:
                return self._unpack(value, _BINARY[element.VR], element.is_little_endian)
            if element.VR in ("DS", "IS") or (element.VR in (None, "UN") and _looks_like_numbers(value)):
                return self._parse(keyword, value.decode("latin-1").split("\\"), is_needed)
        value = self._converted(keyword)
        if value is None or value == "":
            return ()
        parts = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
        if isinstance(value, (str, bytes)):
            parts = str(value).split("\\")
        return self._parse(keyword, [str(part) for part in parts], is_needed)

    def number(self, keyword: str, is_needed: bool = True) -> float | None:
        """The first number, or None."""
        values = self.numbers(keyword, is_needed)
        return values[0] if values else None

    def integer(self, keyword: str, is_needed: bool = True) -> int | None:
        """The first number as an integer, or None.

        Raises:
            UnreadableFileError: It is not a whole number.
        """
        value = self.number(keyword, is_needed)
        if value is None:
            return None
        if not math.isfinite(value) or value != int(value):
            if is_needed:
                raise UnreadableFileError(f"{self.name}: {keyword} is not a whole number.", _AGAIN)
            return None
        return int(value)

    def items(self, keyword: str) -> list[Header]:
        """The items of a sequence; empty when absent.

        Raises:
            UnreadableFileError: The sequence cannot be parsed.
        """
        if self._element(keyword) is None:
            return []
        value = self._converted(keyword)
        if value is None or isinstance(value, (str, bytes)):
            return []
        try:
            return [Header(item, self.name) for item in value if isinstance(item, Dataset)]
        except TypeError:
            return []

    def value(self, keyword: str) -> Any:
        """The value as pydicom converts it, or None."""
        return self._converted(keyword) if self._element(keyword) is not None else None

    def _element(self, keyword: str) -> Any:
        return self._elements.get(_tag(keyword))

    def _converted(self, keyword: str) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = self.dataset[_tag(keyword)].value
            except RecursionError as error:
                raise UnreadableFileError(
                    f"{self.name}: sequences are nested deeper than {MAX_DEPTH} levels.", _AGAIN
                ) from error
            except Exception as error:  # pydicom's converters raise whatever the bytes provoke
                raise UnreadableFileError(f"{self.name}: {keyword} cannot be read.", _AGAIN) from error
        self.complaints.extend(f"{keyword} is not written as DICOM asks." for _ in caught[:1])
        return value

    def _unpack(self, value: bytes, code: str, is_little: bool) -> tuple[float, ...]:
        count = len(value) // struct.calcsize(code)
        return struct.unpack(f"{'<' if is_little else '>'}{count}{code}", value[: count * struct.calcsize(code)])

    def _parse(self, keyword: str, parts: list[str], is_needed: bool) -> tuple[float, ...]:
        parts = [part.strip(" \0\t\r\n") for part in parts]
        if not any(parts):
            return ()
        if not all(_NUMBER.fullmatch(part) for part in parts):
            if is_needed:
                raise UnreadableFileError(f"{self.name}: {keyword} holds text that is not a number.", _AGAIN)
            self.complaints.append(f"{keyword} holds text that is not a number and was ignored.")
            return ()
        return tuple(float(part) for part in parts)

    @staticmethod
    def _join(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, str):
            return value.strip(" \0")
        if isinstance(value, bytes):
            return value.decode("latin-1").strip(" \0")
        if hasattr(value, "__iter__") and not hasattr(value, "components"):
            return "\\".join(str(part) for part in value)
        return str(value)


_AGAIN = "Export the image again from its source."


@cache
def _tag(keyword: str) -> int:
    """The tag of a keyword, or of ``ggggeeee`` hexadecimal for private elements."""
    found = tag_for_keyword(keyword)
    return int(keyword, 16) if found is None else int(found)


def _looks_like_numbers(value: bytes) -> bool:
    return all(_NUMBER.fullmatch(part.strip(" \0")) for part in value.decode("latin-1").split("\\"))
