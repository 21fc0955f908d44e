"""Phantoms as DICOM series on disk, so that the sample goes through the same door as a hospital's files."""

from __future__ import annotations

from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, PositronEmissionTomographyImageStorage

from medapp.scan.phantoms import Phantom, brain_mr, ct_torso, pet_torso

_SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def write_sample(folder: Path) -> list[Path]:
    """Write the three sample series below ``folder``; returns one folder a series."""
    written = []
    for number, phantom in enumerate((ct_torso(), brain_mr(), pet_torso()), start=1):
        target = folder / f"{number}_{phantom.modality}"
        write_series(target, phantom, patient=f"PHANTOM-{number:02d}")
        written.append(target)
    return written


def write_series(folder: Path, phantom: Phantom, patient: str) -> None:
    """Write a phantom as a classic single-frame series, feet first slice first.

    UIDs depend on the phantom's name and the patient only, so that the same sample is the same series everywhere.

    Reference:
        DICOM PS3.3 A.3 (CT), A.4 (MR), A.21 (PET).
    """
    folder.mkdir(parents=True, exist_ok=True)
    seed = f"medapp/{patient}/{phantom.name}"
    study, series, frame_of_reference = (_uid(f"{seed}/{part}") for part in ("study", "series", "frame"))
    stored, slope, intercept = _stored(phantom)
    dz, dy, dx = phantom.spacing_mm
    depth, rows, columns = stored.shape
    for z in range(depth):
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SOPClassUID = _SOP_CLASSES[phantom.modality]
        ds.SOPInstanceUID = _uid(f"{seed}/slice/{z}")
        ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260105"
        ds.StudyTime = "090000"
        ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "100000"
        ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
        ds.Modality, ds.Manufacturer, ds.SeriesDescription = phantom.modality, "medapp phantom", phantom.name
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = f"{patient}^Sample", patient, "", "O"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame_of_reference
        ds.SeriesNumber, ds.InstanceNumber, ds.PositionReferenceIndicator = 1, z + 1, ""
        if phantom.modality != "PT":  # PET says it by codes
            ds.PatientPosition = "HFS"
        ds.BodyPartExamined = "BRAIN" if phantom.modality == "MR" else "ABDOMEN"
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-(columns - 1) / 2 * dx, -(rows - 1) / 2 * dy, (z - (depth - 1) / 2) * dz]
        ds.PixelSpacing, ds.SliceThickness = [dy, dx], dz
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.BurnedInAnnotation = "NO"
        _modality_elements(ds, phantom.modality, slope, intercept)
        ds.PixelData = stored[z].tobytes()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / f"{z + 1:04d}.dcm", enforce_file_format=True)


def _modality_elements(ds: Dataset, modality: str, slope: float, intercept: float) -> None:
    if modality == "MR":
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "", "3D"
        ds.EchoTime, ds.RepetitionTime, ds.EchoTrainLength = 3.0, 2000.0, 1
        return
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    if modality == "CT":
        ds.RescaleType, ds.KVP, ds.AcquisitionNumber = "HU", 120, 1
        return
    ds.Units, ds.CountsSource, ds.SeriesType = "BQML", "EMISSION", ["STATIC", "IMAGE"]
    ds.CorrectedImage, ds.DecayCorrection, ds.CollimatorType = ["ATTN", "DECY"], "START", "NONE"
    ds.NumberOfSlices, ds.ImageIndex, ds.PatientWeight = 1, ds.InstanceNumber, 70.0
    ds.FrameReferenceTime, ds.ActualFrameDuration, ds.DecayFactor = 0.0, 180000, 1.0
    ds.PatientOrientationCodeSequence = [_code("102538003", "SCT", "recumbent")]
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = [_code("40199007", "SCT", "supine")]
    ds.PatientGantryRelationshipCodeSequence = [_code("102540008", "SCT", "headfirst")]
    dose = Dataset()
    dose.Radiopharmaceutical = "FDG"
    dose.RadiopharmaceuticalStartTime, dose.RadionuclideTotalDose = "090000", 370e6
    dose.RadionuclideHalfLife, dose.RadionuclidePositronFraction = 6586.2, 0.97
    dose.RadionuclideCodeSequence = [_code("C-111A1", "SRT", "^18^Fluorine")]
    ds.RadiopharmaceuticalInformationSequence = [dose]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _stored(phantom: Phantom) -> tuple[np.ndarray, float, float]:
    """Values as signed 16 bit with slope and intercept."""
    if phantom.modality == "PT":
        slope = float(f"{phantom.values.max() / 32767:.8g}")
        return np.rint(phantom.values / slope).astype("<i2"), slope, 0.0
    return np.rint(phantom.values).astype("<i2"), 1.0, 0.0


def _uid(name: str) -> str:
    return f"2.25.{uuid5(NAMESPACE_URL, name).int}"
