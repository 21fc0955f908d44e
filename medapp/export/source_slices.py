"""The headers of a DICOM source as one complete, classic, pixel-free dataset per slice.

Both DICOM writers build on these: enhanced frames are flattened, only elements of a list are taken over (so private
and free-text elements never are), broken values are dropped with a note, absent required ones are completed, and
identities are mapped on the way.

Reference:
    DICOM PS3.3 A.3 (CT), A.4 (MR), A.21 (PET), A.8 (Secondary Capture); formats.md 6, "Writing".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import DSfloat, validate_value

from medapp.export.deidentify import Privacy
from medapp.export.elements import (
    ALWAYS,
    BY_MODALITY,
    CODES,
    DATE_TIMES,
    DATES,
    FRAME_NAMES,
    IDENTITY,
    INSIDE,
    KEPT_CHARACTERISTICS,
    UIDS,
)
from medapp.export.identifiers import Identifiers, read_header
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan

CT, MR, PT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CLASSIC = {"CT": CT, "MR": MR, "PT": PT}
_TEXT_LIMITS = {"LO": 64, "SH": 16, "PN": 64, "ST": 1024, "LT": 10240, "CS": 16, "AE": 16}


@dataclass(frozen=True, eq=False)
class SourceSlice:
    """One slice of the source.

    Attributes:
        dataset: Classic, complete but for pixels and the identity of the new object; identities are mapped.
        sop_class_uid, sop_instance_uid: Of the object it lies in; the instance UID is mapped.
        frame: Frame number in that object from 1; None when it is single-frame.
    """

    dataset: Dataset
    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None


@dataclass(eq=False)
class SourceHeaders:
    """All slices of a source, in slice order, and what had to be repaired.

    Attributes:
        slices: One per slice of the scan.
        group: Patient group they were made for.
        notes: One sentence each.
        burned_in: Burned In Annotation of the source, or empty.
        body_parts: Words about the body part, for the warning about faces; never written.
    """

    slices: list[SourceSlice]
    group: str = ""
    notes: list[str] = field(default_factory=list)
    burned_in: str = ""
    body_parts: tuple[str, ...] = ()


def source_headers(scan: Scan, group: str, privacy: Privacy, identifiers: Identifiers) -> SourceHeaders:
    """Make the complete datasets of a scan that was read from DICOM.

    Args:
        scan: With ``source.headers`` and ``source.frames``.
        group: Patient group, for the alias and the date shift.
        privacy: What becomes of identities.
        identifiers: Text that holds one of these is left out when de-identifying.
    """
    result = SourceHeaders([], group)
    reader = _Reader(scan, group, privacy, identifiers, result.notes)
    for number, (header, (instance, frame)) in enumerate(zip(scan.source.headers, scan.source.frames, strict=True)):
        source = reader.parsed(header)
        if number == 0:
            result.burned_in = str(source.get("BurnedInAnnotation", ""))
            words = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")
            result.body_parts = tuple(str(source.get(word, "")) for word in words)
        result.slices.append(reader.slice_of(source, instance, frame, number))
    result.notes[:] = dict.fromkeys(result.notes)
    return result


def number_text(value: float) -> DSfloat:
    """A decimal string of at most 16 characters; a plain float would write up to 21."""
    return DSfloat(float(value), auto_format=True)


def _distance_between_slices(geometry: Geometry) -> float:
    """From plane to plane in mm, at right angles to them even when the stack is sheared."""
    z, y, x = geometry.affine_zyx[:3, :3].T
    normal = np.cross(x, y)
    return float(abs(z @ normal) / np.linalg.norm(normal))


def set_number(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set one or many numbers in the form that the element's VR asks for."""
    many = list(value) if isinstance(value, list | tuple | MultiValue | np.ndarray) else [value]
    vr = dictionary_VR(keyword)
    made = [
        number_text(v) if vr == "DS" else round(float(v)) if vr in ("IS", "US", "SS", "UL") else float(v) for v in many
    ]
    setattr(dataset, keyword, made if len(made) != 1 else made[0])


class _Reader:
    """Turns the headers of one series into slices."""

    def __init__(self, scan: Scan, group: str, privacy: Privacy, identifiers: Identifiers, notes: list[str]) -> None:
        self._scan = scan
        self._group = group
        self._privacy = privacy
        self._identifiers = identifiers
        self._notes = notes
        self._modality = scan.modality or ""
        self._last: tuple[bytes, Dataset] | None = None
        self._wanted = ALWAYS + BY_MODALITY.get(self._modality, ()) + KEPT_CHARACTERISTICS
        if not privacy.is_on:
            self._wanted += IDENTITY

    def parsed(self, header: bytes) -> Dataset:
        """The dataset of a header; multi-frame sources give the same one for many slices."""
        if self._last is None or self._last[0] is not header:
            self._last = (header, read_header(header))
        return self._last[1]

    def slice_of(self, source: Dataset, instance: str, frame: int, number: int) -> SourceSlice:
        """One slice as a classic dataset."""
        groups = source.get("PerFrameFunctionalGroupsSequence") or []
        is_multi = bool(groups) or int(source.get("NumberOfFrames") or 1) > 1
        flat = Dataset()
        for keyword, value in self._elements(source, groups, frame):
            self._take(flat, keyword, value)
        instance = instance or str(source.get("SOPInstanceUID", ""))
        sop_class = str(source.get("SOPClassUID", "")) or _CLASSIC.get(self._modality, SECONDARY_CAPTURE)
        self._complete(flat, number)
        mapped = self._privacy.uid(instance or self._made("instance", str(number)))
        return SourceSlice(flat, sop_class, mapped, frame if is_multi else None)

    def _elements(self, source: Dataset, groups: Any, frame: int) -> Iterator[tuple[str, Any]]:
        """Wanted elements: of the top level, then of the shared and of the frame's own functional groups."""
        wanted = set(self._wanted)
        for keyword in self._wanted:
            if keyword in source:
                yield keyword, source.get(keyword)
        shared = source.get("SharedFunctionalGroupsSequence") or []
        own = groups[0 if len(groups) == 1 else min(frame, len(groups)) - 1 :][:1] if groups else []
        for functional in [*shared[:1], *own]:
            for macro in functional:
                if macro.VR != "SQ" or not macro.value or macro.tag.is_private:
                    continue
                for element in macro.value[0]:
                    keyword = FRAME_NAMES.get(element.keyword, element.keyword)
                    if keyword == "EchoPulseSequence":
                        continue
                    if element.keyword == "FrameAcquisitionDateTime" and element.value:
                        text = str(element.value)
                        yield "AcquisitionDate", text[:8]
                        yield "AcquisitionTime", text[8:].split("+")[0].split("-")[0]
                    elif keyword in wanted:
                        yield keyword, element.value

    def _take(self, flat: Dataset, keyword: str, value: Any) -> None:
        """Put one element into the slice, mapped and checked; a broken value is left out with a note."""
        try:
            cleaned = self._cleaned(keyword, value)
            if cleaned is None:
                return
            if self._privacy.is_on and isinstance(cleaned, str | list) and self._identifiers.is_in(str(cleaned)):
                self._notes.append(f"{keyword} of the source holds an identifying value and was left out.")
                return
            setattr(flat, keyword, cleaned)
        except Exception:  # whatever a foreign value does to pydicom, the element is optional or completed later
            self._notes.append(f"{keyword} of the source breaks the rules of DICOM and was left out.")

    def _cleaned(self, keyword: str, value: Any) -> Any:
        vr = dictionary_VR(keyword)
        if vr == "SQ":
            items = [self._inside(item) for item in (value or [])]
            return Sequence([item for item in items if len(item)])
        if value is None or value == "":
            return None
        many = list(value) if isinstance(value, list | tuple | MultiValue) else [value]
        if vr in ("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL"):
            if not all(np.isfinite(float(v)) for v in many):
                raise ValueError(keyword)
            made: list[Any] = [number_text(v) if vr == "DS" else round(float(v)) for v in many]
            if vr in ("FD", "FL"):
                made = [float(v) for v in many]
        else:
            made = [self._text(keyword, vr, str(v).strip()) for v in many]
        return made if len(made) != 1 else made[0]

    def _text(self, keyword: str, vr: str, text: str) -> str:
        if keyword in UIDS:
            return self._privacy.uid(text) if not text.startswith("1.2.840.10008.") else text
        if keyword in DATES:
            text = self._privacy.date(text.replace(".", "")[:8], self._group)
        elif keyword in DATE_TIMES:
            text = self._privacy.date_time(text, self._group)
        if keyword == "PatientAge" and self._privacy.is_on and text[:3].isdigit() and text.endswith("Y"):
            text = f"{min(int(text[:3]), 90):03d}Y"
        if vr == "CS":
            text = text.upper()
        limit = _TEXT_LIMITS.get(vr)
        if limit is not None and len(text) > limit:
            self._notes.append(f"{keyword} of the source is longer than DICOM allows and was shortened.")
            text = text[:limit].rstrip()
        validate_value(vr, text, config.RAISE)
        return text

    def _inside(self, item: Dataset) -> Dataset:
        """An item of a sequence, by the same rules: allowed elements only."""
        flat = Dataset()
        for element in item:
            if element.keyword in INSIDE or element.keyword in CODES:
                self._take(flat, element.keyword, element.value)
        return flat

    def _complete(self, flat: Dataset, number: int) -> None:
        """Fill what every object must have."""
        scan, privacy = self._scan, self._privacy
        flat.SpecificCharacterSet = "ISO_IR 192"
        flat.Modality = self._modality or "OT"
        flat.SOPClassUID = _CLASSIC.get(self._modality, SECONDARY_CAPTURE)
        if privacy.is_on:
            flat.PatientID = privacy.alias(self._group)
            flat.PatientName = f"{flat.PatientID}^"
            flat.StudyID = privacy.made_uid("study id", scan.source.study_uid)[-8:]
            privacy.mark(flat)
        empty = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID
            AccessionNumber SeriesNumber InstanceNumber Manufacturer"""
        for keyword in empty.split():
            if keyword not in flat:
                setattr(flat, keyword, None if dictionary_VR(keyword) == "IS" else "")
        if flat.PatientSex not in ("", "M", "F", "O"):
            flat.PatientSex = ""
        if "StudyInstanceUID" not in flat:
            flat.StudyInstanceUID = self._made("study")
            self._notes.append("The source has no Study Instance UID; one was made.")
        if "SeriesInstanceUID" not in flat:
            flat.SeriesInstanceUID = self._made("series")
            self._notes.append("The source has no Series Instance UID; one was made.")
        has_place = {"ImagePositionPatient", "ImageOrientationPatient"} <= {e.keyword for e in flat}
        if has_place and "FrameOfReferenceUID" not in flat:
            flat.FrameOfReferenceUID = self._made("frame of reference")
            self._notes.append("The source has no Frame of Reference UID; one was made.")
        if not has_place:
            for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
                if keyword in flat:
                    delattr(flat, keyword)
        if not (has_place and "PixelSpacing" in flat):
            flat.SOPClassUID = SECONDARY_CAPTURE  # CT, MR and PET images must have a place
        rows, columns = scan.stored.shape[1:3]
        flat.Rows, flat.Columns = int(rows), int(columns)
        if "PixelSpacing" not in flat and scan.in_plane_spacing_mm is not None:
            set_number(flat, "PixelSpacing", scan.in_plane_spacing_mm)
        if scan.geometry is not None:
            set_number(flat, "SpacingBetweenSlices", _distance_between_slices(scan.geometry))
        elif "SpacingBetweenSlices" in flat:
            del flat.SpacingBetweenSlices
        if "SliceThickness" in flat and not float(flat.SliceThickness) > 0:
            flat.SliceThickness = None
        flat.SOPInstanceUID = self._made("slice", str(number))  # told apart while writing; not a reference

    def _made(self, *parts: str) -> str:
        return UID(self._privacy.made_uid("made", self._scan.series_key or self._scan.source.series_uid, *parts))
