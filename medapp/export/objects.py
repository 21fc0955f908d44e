"""What every DICOM object of ours has in common: new identity, our equipment, the scanner's, the time, the file."""

from __future__ import annotations

import copy
import io
import re
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

import medapp
from medapp.export.deidentify import Privacy, code_item
from medapp.export.files import write_bytes

MAKER = "medapp"
_IMPLEMENTATION_UID = "2.25.210353841627351907285130443264902671345"
_ACQUISITION, _MODIFYING = ("109101", "Acquisition Equipment"), ("109103", "Modifying Equipment")


def version() -> str:
    """The running medapp."""
    return medapp.__version__


def new_uid() -> str:
    """A UID that nobody else has: ``2.25.`` and a random UUID."""
    return f"2.25.{uuid.uuid4().int}"


def set_equipment(dataset: Dataset, source: Dataset) -> None:
    """Say that medapp made the object, and which scanner the source came from.

    Args:
        dataset: Changed.
        source: A source slice, with the scanner's equipment.
    """
    scanner = _scanner(source)
    ours = Dataset()
    ours.PurposeOfReferenceCodeSequence = Sequence([code_item(_MODIFYING[0], "DCM", _MODIFYING[1])])
    ours.Manufacturer = ours.ManufacturerModelName = MAKER
    ours.SoftwareVersions = version()
    dataset.ContributingEquipmentSequence = Sequence([scanner, ours])
    dataset.Manufacturer = dataset.ManufacturerModelName = MAKER
    dataset.SoftwareVersions = version()
    for keyword in ("StationName", "InstitutionName"):
        if keyword in dataset:
            delattr(dataset, keyword)


def _scanner(source: Dataset) -> Dataset:
    """The equipment a source was acquired with; of our own derived objects, what they say about theirs."""
    for item in source.get("ContributingEquipmentSequence", []):
        if item.PurposeOfReferenceCodeSequence[0].CodeValue == _ACQUISITION[0]:
            return copy.deepcopy(item)
    scanner = Dataset()
    scanner.PurposeOfReferenceCodeSequence = Sequence([code_item(_ACQUISITION[0], "DCM", _ACQUISITION[1])])
    scanner.Manufacturer = str(source.get("Manufacturer") or "") or "unknown"
    for keyword in ("ManufacturerModelName", "SoftwareVersions", "StationName", "InstitutionName"):
        if source.get(keyword):
            setattr(scanner, keyword, source.get(keyword))
    return scanner


def set_times(dataset: Dataset, source: Dataset, privacy: Privacy, group: str) -> None:
    """Content and creation time: in the source's time zone if it names one, else local; shifted with the patient."""
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", str(source.get("TimezoneOffsetFromUTC", "")))
    if offset:
        minutes = int(offset[2]) * 60 + int(offset[3])
        now = datetime.now(timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes)))
        dataset.TimezoneOffsetFromUTC = offset[0]
    else:
        now = datetime.now()
    day, time = privacy.date(now.strftime("%Y%m%d"), group), now.strftime("%H%M%S")
    dataset.ContentDate = dataset.InstanceCreationDate = day
    dataset.ContentTime = dataset.InstanceCreationTime = time


def set_file_meta(dataset: Dataset) -> None:
    """Group 0002 of a file that medapp wrote, explicit VR little endian."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    current = getattr(dataset, "file_meta", None)
    meta.TransferSyntaxUID = current.TransferSyntaxUID if current is not None else ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    meta.ImplementationVersionName = f"MEDAPP {version()}"[:16]
    dataset.file_meta = meta
    dataset.preamble = bytes(128)


def write_dicom(path: Path, dataset: Dataset, rle: bool = False) -> tuple[int, str, Dataset]:
    """Write an object and read it back.

    Args:
        path: Ends in ``.dcm``.
        dataset: With Pixel Data.
        rle: Compress with RLE Lossless; one-bit pixels stay as they are.

    Returns:
        Size, SHA-256 and what was read back from the file.

    Raises:
        ExportError: The file could not be written or reads back differently.
    """
    set_file_meta(dataset)
    if rle and dataset.BitsAllocated > 1 and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    size, sha256 = write_bytes(path, buffer.getvalue())
    return size, sha256, pydicom.dcmread(path)
