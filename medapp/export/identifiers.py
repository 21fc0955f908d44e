"""What identifies a patient in the sources, and a search for it in every written byte.

This is the independent check of formats.md 6: it does not trust how the files were made.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from medapp.errors import ExportError
from medapp.export.codes import KNOWN_WORDS
from medapp.export.elements import words
from medapp.scan.scan import SourceInfo

SHORTEST = 4  # characters; shorter values occur everywhere by chance
_SHORT = 6  # below this, compressed pixels hold any value by chance
_ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "shift_jis", "euc_kr", "gb18030", "iso8859_5", "iso8859_7")
_NAME_PARTS = re.compile(r"[\^=,;/\\\s]+")
_OUR_UIDS = re.compile(rb"2\.25\.\d{30,39}")
_HASHES = re.compile(rb"\b[0-9a-f]{64}\b")
_COCO_RUNS = re.compile(rb'"counts": "[^"]*"')  # pixels, written as text: long runs of few characters
_STANDARD_UID = "1.2.840.10008."


_PLACEHOLDERS = words(
    """anon anonym anonymous anonymized anonymised deidentified removed unknown none null test name patient phantom
    medapp image images alpha label labels series slice scan data derived original restored filtered tile tiles mask
    masks matte mattes photo picture sample crop frame file files export output input result"""
)
# Elements whose value points at a person, a visit or a device, wherever they stand; names (VR PN) always count.
_IDENTIFYING = words(
    """PatientID OtherPatientIDs IssuerOfPatientID PatientBirthDate PatientBirthTime PatientAddress
    PatientTelephoneNumbers PatientTelecomInformation PatientMotherBirthName MedicalRecordLocator MilitaryRank
    BranchOfService InsurancePlanIdentification PatientComments AdditionalPatientHistory Occupation
    ResponsibleOrganization AccessionNumber StudyID AdmissionID ServiceEpisodeID VisitComments ImageComments
    StudyComments InstitutionName InstitutionAddress InstitutionalDepartmentName StationName DeviceSerialNumber PlateID
    DetectorID GantryID CassetteID GeneratorID RequestedProcedureID ScheduledProcedureStepID PerformedProcedureStepID
    PerformedStationName PerformedLocation PerformedStationAETitle ScheduledStationName ScheduledStationAETitle
    PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest OrderEnteredBy
    PhysiciansOfRecord PersonAddress PersonTelephoneNumbers ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers
    RequestingService CurrentPatientLocation PatientInstitutionResidence ClinicalTrialSubjectID
    ClinicalTrialSubjectReadingID SourceApplicationEntityTitle RetrieveAETitle"""
)
_DATES = words(
    """StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate PatientBirthDate AcquisitionDateTime"""
)


@dataclass(frozen=True)
class Identifiers:
    """Identifying values of some sources; never printed.

    Attributes:
        values: Text of at least four characters.
        elements: Which elements held any, such as ``Patient's Name``: what the dry run lists.
        dates: Dates ``YYYYMMDD``.
        uids: UIDs of the sources, or what many of them begin with.
        stems: Names of files that are no DICOM and a single word. They may be any word, so in text they count where
            they stand whole, not inside longer words; the values above count anywhere.
    """

    values: frozenset[str]
    elements: tuple[str, ...]
    dates: frozenset[str]
    uids: frozenset[str]
    stems: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        count = len(self.values | self.stems)
        return f"Identifiers({count} values, {len(self.dates)} dates, {len(self.uids)} UIDs)"

    def is_in(self, text: str) -> bool:
        """Whether a text holds one of the values; for names of labels and elements before they are written."""
        low = text.lower()
        return any(value.lower() in low for value in self.values) or any(_whole(s).search(low) for s in self.stems)

    def joined(self, other: Identifiers) -> Identifiers:
        """Both together."""
        elements = tuple(sorted({*self.elements, *other.elements}))
        return Identifiers(
            self.values | other.values,
            elements,
            self.dates | other.dates,
            self.uids | other.uids,
            self.stems | other.stems,
        )


NOTHING = Identifiers(frozenset(), (), frozenset(), frozenset())


def identifiers_of(source: SourceInfo, group: str = "") -> Identifiers:
    """Everything identifying in the headers of a source, in its ids, its file name and the group it was put into."""
    values: set[str] = set()
    elements: set[str] = set()
    dates: set[str] = set()
    uids: set[str] = {source.study_uid, source.series_uid, source.frame_of_reference_uid}
    uids.update(uid for uid, _ in source.frames)
    seen: set[tuple[int, bytes]] = set()
    for header in dict.fromkeys(source.headers):  # multi-frame sources repeat theirs
        for element in _walk(read_header(header), seen):
            _collect(element, values, elements, dates, uids)
    for text in (source.patient_name, source.patient_id):
        if text.strip():
            values.update(_name_values(text))
    values.add(group)  # whole: its words may be anything
    stems: set[str] = set()
    if source.format != "dicom" and source.path:
        stem = re.sub(r"(\.nii)?\.[^.]+$", "", Path(source.path).name)
        if not _is_plain_word(stem):
            (stems if stem.strip().isalpha() else values).add(stem)
    return Identifiers(_usable(values), tuple(sorted(elements)), frozenset(dates), _shortened(uids), _usable(stems))


def _usable(values: Iterable[str]) -> frozenset[str]:
    """Those that are long enough to mean something and name somebody."""
    known = {value.strip() for value in values}
    return frozenset(v for v in known if len(v) >= SHORTEST and v.lower() not in _PLACEHOLDERS and not _is_filler(v))


def read_header(header: bytes) -> Dataset:
    """The dataset kept with a scan: explicit VR little endian, with or without file meta."""
    stream = io.BytesIO(header)
    if header[128:132] == b"DICM":
        return pydicom.dcmread(stream, stop_before_pixels=True)
    return pydicom.filereader.read_dataset(stream, is_implicit_VR=False, is_little_endian=True)


def search_folder(
    folder: Path,
    identifiers: Identifiers,
    allowed: frozenset[str] = frozenset(),
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Search every file of a folder, its name included, for identifying values.

    Args:
        folder: Searched with all its folders.
        identifiers: Of the sources.
        allowed: Values that a person said are none.
        check_stop: Called before each file; raises when the user stopped it.

    Raises:
        ExportError: One was found; the message names the file, never the value.
    """
    check = _Search(identifiers, allowed)
    for path in sorted(folder.rglob("*")):
        check_stop()
        name = path.relative_to(folder).as_posix()
        if check.is_in_text(name):
            raise _found("the name of a file")
        if path.is_file() and check.is_in_file(path):
            raise _found(name)


class _Search:
    """Patterns of some identifiers, ready to be looked for."""

    def __init__(self, identifiers: Identifiers, allowed: frozenset[str]) -> None:
        lower_allowed = {value.lower() for value in allowed}
        values = {value for value in identifiers.values if value.lower() not in lower_allowed}
        stems = {stem for stem in identifiers.stems if stem.lower() not in lower_allowed}
        self._stems = {stem.lower(): _whole(stem) for stem in sorted(stems)}
        plain = {text.lower().encode() for stem in stems for text in (stem, json.dumps(stem)[1:-1])}
        long, long_stems = ({one for one in each if len(one) >= _SHORT} for each in (values, stems))
        self._long = sorted(_patterns(long) | {value.encode() for value in identifiers.dates})
        # among other bytes nobody knows where a word ends, so there stems count anywhere too
        self._long_stems = sorted(_patterns(long_stems))
        self._odd_stems = sorted(_patterns(long_stems) - plain)
        self._uids = sorted(value.encode() for value in identifiers.uids)
        self._short = _short_patterns(values - long)
        self._short_stems = _short_patterns(stems - long_stems)

    def is_in_text(self, text: str) -> bool:
        """Whether a file name holds one."""
        low = text.lower()
        data = low.encode("utf-8")
        return (
            self._holds_long(data, self._odd_stems)
            or any(p.search(data) for p in self._short)
            or any(p.search(low) for p in self._stems.values())
        )

    def is_in_file(self, path: Path) -> bool:
        """Whether the bytes of a file hold one: long values anywhere, short ones in whatever is text."""
        data, is_json = path.read_bytes(), path.suffix == ".json"
        if is_json:
            data = _HASHES.sub(b" ", _COCO_RUNS.sub(b'"counts": ""', data))
        if self._holds_long(data, self._odd_stems if is_json else self._long_stems):
            return True
        if path.name.endswith(".gz") and self._holds_long(next(_texts(path, data)), self._long_stems):
            return True
        if is_json and self._stems and self._has_stem(json.loads(data)):
            return True
        short = self._short if is_json else [*self._short, *self._short_stems]
        return bool(short) and any(p.search(part) for part in _texts(path, data) for p in short)

    def _has_stem(self, document: object) -> bool:
        """A key of a document is one name, such as ``tile_px``; a stem in it counts only as the whole of it."""
        return any(
            text.lower() in self._stems if is_key else any(p.search(text.lower()) for p in self._stems.values())
            for text, is_key in _json_strings(document)
        )

    def _holds_long(self, data: bytes, stems: Iterable[bytes]) -> bool:
        if any(uid in data for uid in self._uids):
            return True
        masked = _HASHES.sub(
            b" ", _OUR_UIDS.sub(b" ", data)
        ).lower()  # numbers of ours, so long that they hold any digits
        return any(pattern in masked for patterns in (self._long, stems) for pattern in patterns)


def _texts(path: Path, data: bytes) -> Iterator[bytes]:
    """The parts of a file that hold text, lower case: where a value of four or five characters means something."""
    if path.suffix == ".json":
        yield from (text.lower().encode() for text, _ in _json_strings(json.loads(data)) if not _is_ours(text))
    elif path.suffix == ".dcm":
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        for element in _walk(dataset, set()):
            if element.VR in ("LO", "SH", "PN", "ST", "LT", "UT", "UC", "AE", "UI", "CS", "UR"):
                yield from (v.lower().encode() for v in _texts_of(element) if not _is_ours(v))
    elif path.name.endswith(".gz"):
        with gzip.open(path) as stream:
            yield stream.read(544).lower()
    elif path.suffix == ".png":
        position = 8
        while position + 8 <= len(data):
            length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
            if kind != b"IDAT":
                yield data[position : position + 12 + length].lower()
            position += 12 + length
    else:
        yield data.lower()


def _json_strings(node: object) -> Iterator[tuple[str, bool]]:
    """Every text of a document, and whether it is a key."""
    if isinstance(node, str):
        yield node, False
    elif isinstance(node, dict):
        for key, value in node.items():
            yield str(key), True
            yield from _json_strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _json_strings(value)


def _is_ours(text: str) -> bool:
    return text.startswith(_STANDARD_UID) or bool(re.fullmatch(r"2\.25\.\d{30,39}|[0-9a-f]{64}", text))


def _whole(stem: str) -> re.Pattern[str]:
    """Finds a word in lower-case text, not inside longer ones; digits and ``_`` end a word."""
    return re.compile(rf"(?<![^\W\d_]){re.escape(stem.lower())}(?![^\W\d_])")


def _short_patterns(values: Iterable[str]) -> list[re.Pattern[bytes]]:
    return [
        re.compile((rb"(?<!\d)%b(?!\d)" if pattern.isdigit() else b"%b") % re.escape(pattern))
        for pattern in sorted(_patterns(values))
    ]


def _patterns(values: Iterable[str]) -> set[bytes]:
    found = set()
    for value in values:
        escaped = json.dumps(value)[1:-1].encode()
        found.add(escaped.lower())
        for encoding in _ENCODINGS:
            try:
                found.add(value.encode(encoding).lower())
            except UnicodeEncodeError:
                continue
    return found


def _walk(dataset: Dataset, seen: set[tuple[int, bytes]], depth: int = 0) -> Iterator[DataElement]:
    """Every element, sequences included; a value that was seen before under its tag is passed over."""
    for tag in sorted(dataset.keys()):
        raw = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) and raw.VR != "SQ":
            if (int(tag), raw.value) in seen or tag.group == 0x7FE0:
                continue
            seen.add((int(tag), raw.value))
        try:
            element = dataset[tag]
        except Exception:  # an element that cannot be decoded is never copied either
            continue
        if element.VR == "SQ":
            if depth < 64:
                for item in element.value or ():
                    yield from _walk(item, seen, depth + 1)
        else:
            yield element


def _collect(element: DataElement, values: set[str], elements: set[str], dates: set[str], uids: set[str]) -> None:
    keyword = keyword_for_tag(element.tag)
    if element.VR == "PN" or keyword in _IDENTIFYING:
        for text in _texts_of(element):
            if text.strip():
                elements.add(element.name if not element.tag.is_private else "a private element")
                values.update(_name_values(text) if element.VR == "PN" else {text})
    if keyword in _DATES:
        dates.update(text[:8] for text in _texts_of(element) if re.match(r"\d{8}", text))
    if element.VR == "UI":
        uids.update(text for text in _texts_of(element) if not text.startswith(_STANDARD_UID))


def _texts_of(element: DataElement) -> list[str]:
    value = element.value
    if value is None or isinstance(value, bytes):
        return []
    many = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
    return [str(v) for v in many]


def _name_values(text: str) -> set[str]:
    """A name as it is, its components, and its usual ways of being written."""
    parts = [part for part in _NAME_PARTS.split(text) if part]
    whole = {text, text.rstrip("^="), " ".join(parts), "_".join(parts), "".join(parts)}
    return {value for value in {*parts, *whole} if len(value) >= SHORTEST}


def _is_plain_word(stem: str) -> bool:
    """True for file names such as ``brain`` or ``ct_liver``: they name a thing, and a label may well be called so."""
    parts = re.findall(r"[^\W\d_]{4,}", stem.lower())
    return not re.search(r"\d{4,}", stem) and all(part in _PLACEHOLDERS or part in KNOWN_WORDS for part in parts)


def _is_filler(value: str) -> bool:
    """True for values such as ``0000``, ``----`` or ``XXXX`` that name nobody."""
    return len(set(value)) == 1


def _shortened(uids: set[str]) -> frozenset[str]:
    """UIDs are cut to their first 28 characters, which those of one series share: stricter, and quicker to find."""
    result: set[str] = set()
    for uid in sorted(u for u in uids if len(u) >= 10):
        beginning = uid[:28] if len(uid) > 32 else uid
        result.add(beginning)
    return frozenset(result)


def _found(place: str) -> ExportError:
    return ExportError(
        f"An identifying value of the source was found in {place}; nothing was exported.",
        "Rename the label or series that holds it, or leave the series out.",
    )
