"""Body-weight SUV of PET series, only when every item that it needs is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from medapp.errors import UnreadableFileError
from medapp.scan.header import Header


@dataclass(frozen=True)
class SuvFactor:
    """What turns rescaled PET values into SUV, or why they stay as they are.

    Attributes:
        factor: g/ml per unit of the file; 1 when the values stay.
        unit: ``SUV``, or the file's Units.
        note: Why the values stay; empty for SUV.
    """

    factor: float
    unit: str
    note: str = ""


def suv_factor(headers: list[Header]) -> SuvFactor:
    """The factor of a PET series, from the headers of all its slices.

    Reference:
        QIBA FDG-PET/CT Profile, "SUV vendor-neutral pseudo-code"; DICOM PS3.3 C.8.9.1, C.8.9.2.
    """
    header = headers[0]
    unit = header.text("Units").upper() or "arbitrary"
    try:
        return SuvFactor(_factor(header, headers, unit), "SUV")
    except _MissingError as missing:
        return SuvFactor(1.0, unit, f"Values stay in {unit}, not SUV: {missing}.")
    except UnreadableFileError:
        return SuvFactor(1.0, unit, f"Values stay in {unit}, not SUV: an element it needs cannot be read.")


class _MissingError(Exception):
    """Why there is no SUV."""


def _factor(header: Header, headers: list[Header], unit: str) -> float:
    if unit == "GML":
        return 1.0
    to_activity = 1.0
    if unit == "CNTS":
        philips = header.text("70530010").upper().startswith("PHILIPS")
        to_suv = _positive(header, "70531000") if philips else None
        if to_suv is not None:
            return to_suv
        scale = _positive(header, "70531009") if philips else None
        if scale is None:
            raise _MissingError("counts without the scanner's scale factor")
        to_activity = scale
    elif unit != "BQML":
        raise _MissingError("only Bq/ml, counts with a scale, and g/ml can be converted")
    corrections = {text.upper() for text in header.texts("CorrectedImage")}
    if "ATTN" not in corrections or not corrections & {"DECY", "DECAY"}:  # DECY is the standard's term
        raise _MissingError("the images are not corrected for attenuation and decay")
    return to_activity * _weight(header) * 1000.0 / _dose(header, headers)


def _weight(header: Header) -> float:
    weight = header.number("PatientWeight")
    if weight is None or not 0 < weight <= 500:
        raise _MissingError("the weight is missing or out of range")
    return weight


def _dose(header: Header, headers: list[Header]) -> float:
    """Activity in Bq that the images are corrected to."""
    items = header.items("RadiopharmaceuticalInformationSequence")
    if not items:
        raise _MissingError("the dose is missing")
    drug = items[0]
    total = drug.number("RadionuclideTotalDose")
    half_life = drug.number("RadionuclideHalfLife")
    if total is None or not total > 0:
        raise _MissingError("the dose is missing")
    if half_life is None or not half_life > 0:
        raise _MissingError("the half-life is missing")
    correction = header.text("DecayCorrection").upper()
    if correction == "ADMIN":
        return total
    if correction != "START":
        raise _MissingError("the images are not decay-corrected")
    scan = _scan_time(header, headers)
    elapsed = (scan - _injection_time(drug, scan)).total_seconds()
    if elapsed < 0 or elapsed > 10 * half_life:
        raise _MissingError("injection and scan times do not fit together")
    return float(total * 2.0 ** (-elapsed / half_life))


def _scan_time(header: Header, headers: list[Header]) -> datetime:
    acquisitions = [time for time in (_acquisition_time(each) for each in headers) if time is not None]
    earliest = min(acquisitions) if acquisitions else None
    series = moment(header.text("SeriesDate"), header.text("SeriesTime"))
    if series is not None and (earliest is None or series <= earliest):
        return series
    if header.text("00090010").upper().startswith("GEMS_PETD"):
        text = header.text("0009100D")
        start = moment(text[:8], text[8:])
        if start is not None:
            return start
    if earliest is None:
        raise _MissingError("the scan time is missing")
    return earliest


def _acquisition_time(header: Header) -> datetime | None:
    date, time = header.text("AcquisitionDate"), header.text("AcquisitionTime")
    if date and time:
        return moment(date, time)
    text = header.text("AcquisitionDateTime")
    if text:
        return moment(text[:8], text[8:])
    return moment(header.text("SeriesDate"), time) if time else None


def _injection_time(drug: Header, scan: datetime) -> datetime:
    text = drug.text("RadiopharmaceuticalStartDateTime")
    start = moment(text[:8], text[8:]) if text else None
    if start is not None:
        return start
    start = moment(scan.strftime("%Y%m%d"), drug.text("RadiopharmaceuticalStartTime"))
    if start is None:
        raise _MissingError("the injection time is missing")
    return start - timedelta(days=1) if start > scan else start


def _positive(header: Header, keyword: str) -> float | None:
    value = header.number(keyword, is_needed=False)
    return value if value is not None and 0 < value < float("inf") else None


def moment(date: str, time: str) -> datetime | None:
    """A DICOM date and time, local to the scanner; None when either is missing or malformed.

    Offsets from UTC are dropped: all times of one series carry the same one.
    """
    date = date.replace(".", "").strip()
    time = time.replace(":", "").split("+")[0].split("-")[0].strip()
    if len(date) != 8 or not time:
        return None
    whole, _, fraction = time.partition(".")
    whole = whole.ljust(6, "0")
    try:
        start = datetime.strptime(date + whole, "%Y%m%d%H%M%S")  # local to the scanner, as stored
        return start + timedelta(seconds=float(f"0.{fraction}") if fraction.isdigit() else 0.0)
    except ValueError:
        return None
