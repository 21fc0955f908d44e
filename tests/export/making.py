"""Small sources for the tests of export: a DICOM series in memory as the reader keeps it, and mattes on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from medapp.annotation.annotation import Annotation
from medapp.annotation.matte import Matte
from medapp.export.data_set import plan, write
from medapp.export.plan_types import ExportItem, ExportOptions, ExportReport
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan, SourceInfo, Window

CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}
NAME, PATIENT_ID, PHYSICIAN, INSTITUTION = "Quokkason^Zebulon", "QK-4711-XY", "Wombatova^Ida", "Numbat General"
SPACING = (2.5, 0.75, 0.5)


def make_header(z: int, modality: str, uids: dict[str, str], shape=(12, 20), orientation=None, **more) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = CLASSES.get(modality, "1.2.840.10008.5.1.4.1.1.7"), f"{uids['series']}.{z + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uids["study"], uids["series"], uids["frame"]
    ds.Modality, ds.PatientName, ds.PatientID = modality, NAME, PATIENT_ID
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge, ds.PatientWeight = "19310405", "F", "093Y", 70
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20240229"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101530"
    ds.ReferringPhysicianName, ds.InstitutionName = PHYSICIAN, INSTITUTION
    ds.AccessionNumber, ds.StudyID, ds.StationName = "ACC-998877", "STUDY-5544", "ROOM-KANGA"
    ds.StudyDescription = f"Control of {NAME}"
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "Scanner Works", "Model 7", "v1.2"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = 3, z + 1, 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns = shape
    ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
    ds.ImageOrientationPatient = orientation or [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + z * SPACING[0]]
    ds.PatientPosition = "HFS"
    if modality == "CT":
        ds.KVP = 120
    elif modality == "MR":
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
        ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = 12.5, 500, 1
    elif modality == "PT":
        ds.Units, ds.CountsSource, ds.DecayCorrection = "BQML", "EMISSION", "START"
        ds.SeriesType, ds.CorrectedImage = ["STATIC", "IMAGE"], ["DECY", "ATTN", "DECAY"]
        ds.ActualFrameDuration, ds.FrameReferenceTime, ds.DecayFactor = 120000, 60000, 1.05
        ds.NumberOfSlices, ds.ImageIndex = 4, z + 1
        drug = Dataset()
        drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 370e6, 6586.2
        drug.RadiopharmaceuticalStartTime, drug.Radiopharmaceutical = "091530", "FDG"
        drug.RadiopharmaceuticalStartDateTime = "20240229091530"
        ds.RadiopharmaceuticalInformationSequence = Sequence([drug])
    block = ds.private_block(0x0011, "QUOKKA", create=True)
    block.add_new(1, "LO", NAME)
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def as_bytes(dataset: Dataset) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, dataset)
    return stream.getvalue()


def make_scan(
    modality: str = "CT", depth: int = 4, shape=(12, 20), seed: int = 0, unit: str | None = None, **more
) -> Scan:
    """A series as the DICOM reader gives it."""
    rng = np.random.default_rng(seed)
    root = generate_uid(entropy_srcs=[modality, str(seed)])
    uids = {"study": f"{root[:40]}.1", "series": f"{root[:40]}.2", "frame": f"{root[:40]}.3"}
    headers = [make_header(z, modality, uids, shape, **more) for z in range(depth)]
    stored = rng.integers(-1000, 1500, (depth, *shape)).astype(np.int16)
    slope, intercept = 1.0, 0.0
    if modality == "PT":
        stored, slope = np.abs(stored), 1.38168 / 5000
    units = {"CT": "HU", "PT": "SUV"}
    source = SourceInfo(
        path="/data/somewhere",
        format="dicom",
        study_uid=uids["study"],
        series_uid=uids["series"],
        frame_of_reference_uid=uids["frame"],
        patient_id=PATIENT_ID,
        patient_name=NAME,
        headers=tuple(as_bytes(h) for h in headers),
        frames=tuple((str(h.SOPInstanceUID), 1) for h in headers),
    )
    geometry = Geometry.from_spacing(SPACING, (30.0, 20.0, 100.0))
    windows = (Window(40, 400, "Soft tissue"),) if modality == "CT" else ()
    return Scan(
        stored,
        geometry,
        modality,
        unit or units.get(modality, "arbitrary"),
        slope=slope,
        intercept=intercept,
        windows=windows,
        series_key=f"key-{modality}-{seed}",
        source=source,
    )


def make_plain_scan(depth: int = 3, shape=(10, 14), path: str = "/data/scan.nii.gz") -> Scan:
    """A volume that did not come from DICOM."""
    stored = np.random.default_rng(1).normal(0, 50, (depth, *shape)).astype(np.float32)
    source = SourceInfo(path=path, format="nifti")
    return Scan(stored, Geometry.from_spacing(SPACING), None, "arbitrary", series_key="plain", source=source)


def make_annotation(scan: Scan, names=("Liver", "Hair"), seed: int = 0) -> Annotation:
    """Soft blobs, overlapping, on some slices."""
    annotation = Annotation("s1", scan.shape[:3])
    rng = np.random.default_rng(seed)
    for number, name in enumerate(names, start=1):
        origin = "person" if number % 2 else "SAM ViT-B 1.0 abcdef"
        matte = Matte(f"matte-{number}", scan.shape[:3], name, number, origin=origin, reader="Reader One")
        height, width = (scan.shape[1] + 1) // 2, (scan.shape[2] + 1) // 2
        depth = max(1, scan.shape[0] - 2)
        soft = rng.random((depth, height, width)).astype(np.float32)
        soft[:, 1:3, 1:3] = 1.0
        start = (min(1, scan.shape[0] - 1), min(number, scan.shape[1] - height), min(2 * number, scan.shape[2] - width))
        matte.paste(matte.make_patch("alpha", start, soft))
        annotation.add(matte)
    return annotation


def make_item(modality: str = "CT", **more) -> ExportItem:
    scan = make_scan(modality, **more)
    return ExportItem(
        scan, make_annotation(scan), group=PATIENT_ID, state="done", reader="Reader One", revision_id="r1"
    )


def make_restored(modality: str = "CT", seed: int = 0) -> ExportItem:
    """A restored series: float values, some outside the usual range."""
    source = make_scan(modality, seed=seed)
    values = source.values() + np.random.default_rng(5).normal(0, 0.01, source.shape).astype(np.float32)
    scan = Scan(
        values.astype(np.float32),
        source.geometry,
        modality,
        source.unit,
        windows=source.windows,
        series_key=f"{source.series_key}-restored",
        source=source.source,
    )
    return ExportItem(
        scan,
        make_annotation(scan),
        group=PATIENT_ID,
        kind="restored",
        provenance={"task": "denoised", "model": "Restore-RWKV 1.0", "sha256": "0123456789abcdef" * 4},
        model_hashes=("0123456789abcdef" * 4,),
        source_scan=source,
    )


def options(tmp_path: Path, *formats: str, **more) -> ExportOptions:
    chosen = frozenset(formats) if formats else frozenset({"seg", "seg-binary", "derived", "nifti", "png"})
    return ExportOptions(tmp_path / "out", chosen, key=b"secret of the project", **more)


def written(path: Path, *items: ExportItem, formats: tuple[str, ...] = (), **more) -> ExportReport:
    """Plan and write."""
    return write(plan(items, options(path, *formats, **more)))


def by_role(report: ExportReport, role: str) -> list[Path]:
    return [report.folder / name for name, _, own in report.files if own == role]


def manifest_of(report: ExportReport) -> dict:
    return json.loads((report.folder / "manifest.json").read_bytes())
