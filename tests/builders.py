"""Small things that tests are made of: phantoms as scans, tiny DICOM series, the shared data where it is at hand."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
EXPLICIT = "1.2.840.10008.1.2.1"
NAME, PATIENT_ID = "Platypusova^Ornitha", "PLT-20871-Q"


def shared_data() -> Path:
    """The folder of shared data; the test is skipped where there is none.

    It is named by ``MEDAPP_SHARED``, or lies in ``shared`` beside the checkout.
    """
    named = os.environ.get("MEDAPP_SHARED")
    folder = (Path(named) if named else Path(__file__).resolve().parents[2] / "shared") / "data"
    if not folder.is_dir():
        pytest.skip("the shared data is not here")
    return folder


def make_values(shape: tuple[int, int, int], modality: str = "CT") -> NDArray[np.int16]:
    """A bright ball and a wedge on a dark ground: no two slices, rows or columns are alike."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    centre = [(n - 1) / 2 for n in shape]
    inside = sum(((i - c) / max(c, 1)) ** 2 for i, c in zip((z, y, x), centre, strict=True)) < 0.5
    values = 7 * z + 3 * y + x + 400 * inside
    return (values - 1000 if modality == "CT" else values).astype(np.int16)


def make_scan(
    shape: tuple[int, int, int] = (4, 12, 16),
    spacing_mm: tuple[float, float, float] = (2.5, 0.75, 0.5),
    modality: str = "CT",
) -> Scan:
    """A small volume in memory with its place in space."""
    unit = {"CT": "HU", "PT": "SUV"}.get(modality, "arbitrary")
    geometry = Geometry.from_spacing(spacing_mm, (20.0, 30.0, -40.0))
    return Scan(make_values(shape, modality), geometry, modality, unit, series_key=f"phantom-{modality}")


def make_dataset(scan: Scan, z: int, **overrides: object) -> Dataset:
    """One slice of a scan as a DICOM image; overrides are set last, by keyword, ``None`` deletes."""
    ds = Dataset()
    modality = scan.modality or "OT"
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = SOP_CLASSES.get(modality, SOP_CLASSES["OT"])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.1001", "2.25.1002"
    ds.FrameOfReferenceUID, ds.SOPInstanceUID = "2.25.1003", f"2.25.1004{z:04d}"
    ds.Modality, ds.PatientName, ds.PatientID = modality, NAME, PATIENT_ID
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = "20240229"
    ds.SeriesTime = ds.AcquisitionTime = "101530"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = z + 1
    stored = np.ascontiguousarray(scan.stored[z])
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = stored.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    if scan.geometry is not None:
        affine = scan.geometry.affine_zyx.copy()
        affine[:2] *= -1  # RAS to LPS
        step = affine[:3, :3]
        lengths = np.linalg.norm(step, axis=0)
        ds.PixelSpacing = [_number(lengths[1]), _number(lengths[2])]
        ds.ImageOrientationPatient = [_number(v) for v in (*(step[:, 2] / lengths[2]), *(step[:, 1] / lengths[1]))]
        ds.ImagePositionPatient = [_number(v) for v in affine[:3, 3] + z * step[:, 0]]
    if modality == "CT":
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = scan.slope, scan.intercept, "HU"
    ds.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    ds["PixelData"].VR = "OW"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # malformed values are the point of some tests
        for keyword, value in overrides.items():
            if value is None:
                if keyword in ds:
                    del ds[keyword]
            else:
                setattr(ds, keyword, value)
    return ds


def save_dataset(path: Path, ds: Dataset, transfer_syntax: str = EXPLICIT) -> Path:
    """Write a dataset with preamble and file meta information."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(path, enforce_file_format=True)
    return path


def compress(ds: Dataset, transfer_syntax: str) -> Dataset:
    """The same image with compressed pixels."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    ds.compress(UID(transfer_syntax), generate_instance_uid=False)
    return ds


def write_dicom_series(
    folder: Path,
    scan: Scan,
    change: Callable[[Dataset, int], object] | None = None,
    transfer_syntax: str = EXPLICIT,
    **overrides: object,
) -> list[Path]:
    """Write a scan as one file per slice, ``000.dcm`` and on.

    Args:
        folder: Made when it is not there.
        scan: Its stored values are written.
        change: Called with each dataset and slice index before it is written; return ``False`` to leave it out.
        transfer_syntax: Of all files.
        overrides: Elements of every file by keyword; ``None`` deletes.
    """
    paths = []
    for z in range(scan.shape[0]):
        ds = make_dataset(scan, z, **overrides)
        if change is None or change(ds, z) is not False:
            paths.append(save_dataset(folder / f"{z:03d}.dcm", ds, transfer_syntax))
    return paths


def _number(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return f"{value:.10g}"[:16]
