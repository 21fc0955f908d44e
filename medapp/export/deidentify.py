"""Aliases, mapped UIDs and shifted dates: the same for one project, not to be undone without its key.

DICOM objects are made from a list of allowed elements (``source_slices``), so nothing has to be found and removed;
this module says what becomes of the few identifying elements that a valid object needs.

Reference:
    DICOM PS3.15 Annex E, Basic Profile with the options Retain Patient Characteristics and Retain Longitudinal
    Temporal Information Modified Dates.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import date, timedelta

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

_SHIFT_DAYS = 3650
_METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
BURNED_IN_MODALITIES = frozenset({"US", "IVUS", "SC", "XA", "RF", "ES", "OT", "XC", "GM", "DOC"})
_HEAD = re.compile(r"HEAD|BRAIN|SKULL|FACE|NECK|ORBIT|SINUS|EAR\b", re.IGNORECASE)


@dataclass(frozen=True)
class Privacy:
    """How identities are written.

    Attributes:
        key: Secret of the project.
        is_on: False = identities are written as they are.
        busy_dates: Dates ``YYYYMMDD`` of the sources; a shifted date never falls on one of them, so that the byte
            check cannot take it for the real one.
    """

    key: bytes = field(repr=False)
    is_on: bool = True
    busy_dates: frozenset[str] = field(default=frozenset(), repr=False)

    def alias(self, group: str) -> str:
        """A stable pseudonym of a patient group, such as ``P-3F2A9C01``; the group itself when switched off."""
        return f"P-{self._mac('patient', group)[:4].hex().upper()}" if self.is_on else group

    def uid(self, source: str) -> str:
        """The UID that stands for ``source``, always the same one; ``source`` itself when switched off."""
        return self.made_uid("uid", source) if self.is_on else source

    def made_uid(self, *parts: str) -> str:
        """A UID made from names, for what must be the same in every export of a project."""
        raw = bytearray(self._mac(*parts)[:16])
        raw[6] = raw[6] & 0x0F | 0x80  # UUID version 8: made by a rule of our own
        raw[8] = raw[8] & 0x3F | 0x80
        return f"2.25.{int.from_bytes(raw, 'big')}"

    def date(self, value: str, group: str) -> str:
        """A DICOM date of one patient, shifted; empty when it is not a date. Unchanged when switched off."""
        if not self.is_on:
            return value
        try:
            day = date(int(value[:4]), int(value[4:6]), int(value[6:8]))
            return (day - timedelta(days=self.shift_days(group))).strftime("%Y%m%d")
        except (ValueError, OverflowError):
            return ""

    def date_time(self, value: str, group: str) -> str:
        """A DICOM date-time, its day shifted; empty when there is no full day in it."""
        if not self.is_on:
            return value
        day = self.date(value[:8], group)
        return day + re.sub(r"[+-]\d{4}$", "", value[8:]) if day else ""

    def shift_days(self, group: str) -> int:
        """By how many days the dates of a patient go back: 1 to 3650, hidden behind the key."""
        for turn in range(64):
            days = 1 + int.from_bytes(self._mac("days", group, str(turn))[:8], "big") % _SHIFT_DAYS
            if not any(self._falls_on_a_busy_day(value, days) for value in self.busy_dates):
                return days
        return days

    def mark(self, dataset: Dataset) -> None:
        """Say in an object that identities were removed, and by which method."""
        if not self.is_on:
            return
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "medapp: allowed elements only, UIDs mapped, dates shifted"
        dataset.LongitudinalTemporalInformationModified = "MODIFIED"
        dataset.DeidentificationMethodCodeSequence = Sequence(
            [code_item(value, "DCM", meaning) for value, meaning in _METHOD_CODES]
        )

    def _falls_on_a_busy_day(self, value: str, days: int) -> bool:
        try:
            moved = date(int(value[:4]), int(value[4:6]), int(value[6:8])) - timedelta(days=days)
        except (ValueError, OverflowError):
            return False
        return moved.strftime("%Y%m%d") in self.busy_dates

    def _mac(self, *parts: str) -> bytes:
        return hmac.new(self.key, "\0".join(parts).encode("utf-8"), hashlib.sha256).digest()


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def may_show_burned_in_text(modality: str | None, burned_in_annotation: str) -> bool:
    """True where pixels may hold a name: these modalities, screenshots, or Burned In Annotation other than NO."""
    if burned_in_annotation.strip().upper() == "YES":
        return True
    return (modality or "") in BURNED_IN_MODALITIES and burned_in_annotation.strip().upper() != "NO"


def may_show_a_face(modality: str | None, *descriptions: str) -> bool:
    """True for CT, MR and PET whose header speaks of the head."""
    return (modality or "") in ("CT", "MR", "PT") and any(_HEAD.search(text) for text in descriptions)
