"""What a valid CT, MR, PET or Secondary Capture image must have beyond what its source said.

Reference:
    DICOM PS3.3 C.8.2.1 (CT Image), C.8.3.1 (MR Image), C.8.9.1 and C.8.9.4 (PET), C.8.6.1 (SC Equipment).
"""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medapp.export.deidentify import code_item
from medapp.export.elements import words
from medapp.export.source_slices import CT, MR, PT, SECONDARY_CAPTURE

_SCANNING = frozenset({"SE", "IR", "GR", "EP", "RM"})
_VARIANTS = frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"})
# Body parts that have no side (PS3.16 Annex L); for all others General Series asks for Laterality, unknown = empty.
_UNPAIRED = words(
    """
    ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS
    CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK
    HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST
    NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE RECTUM SCALP SKULL SPINE
    SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA
    VULVA WHOLEBODY
    """
)


def complete_module(dataset: Dataset, source: Dataset, slices: int, z: int) -> None:
    """Fill and repair the elements that the SOP class asks for.

    Args:
        dataset: Changed.
        source: The source slice.
        slices: How many there are.
        z: Which one.
    """
    dataset.ImageType = _image_type(dataset)
    _empty(dataset, "PositionReferenceIndicator" if "FrameOfReferenceUID" in dataset else "", "AcquisitionNumber")
    if "ImagePositionPatient" not in dataset or dataset.SOPClassUID == SECONDARY_CAPTURE:
        _empty(dataset, "PatientOrientation")
    elif "PatientOrientation" in dataset:
        del dataset.PatientOrientation
    for keyword in ("Laterality", "ImageLaterality"):
        if dataset.get(keyword) not in ("L", "R", *(("B", "U") if keyword == "ImageLaterality" else ())):
            _drop(dataset, keyword)
    if "ImageLaterality" not in dataset and str(dataset.get("BodyPartExamined", "")) not in _UNPAIRED:
        _empty(dataset, "Laterality")
    if dataset.get("LossyImageCompression") not in ("00", "01"):
        _drop(dataset, "LossyImageCompression")
    if dataset.get("LossyImageCompression") != "01":
        _drop(dataset, "LossyImageCompressionRatio", "LossyImageCompressionMethod")
    if dataset.get("BurnedInAnnotation") not in ("YES", "NO"):
        _drop(dataset, "BurnedInAnnotation")
    if "SpacingBetweenSlices" in dataset and dataset.SOPClassUID != MR:
        _drop(dataset, "SpacingBetweenSlices")
    {CT: _complete_ct, MR: _complete_mr, PT: _complete_pt}.get(str(dataset.SOPClassUID), _complete_sc)(
        dataset, source, slices, z
    )


def _image_type(dataset: Dataset) -> list[str]:
    own = [str(v) for v in _many(dataset.get("ImageType"))]
    third = own[2] if len(own) > 2 else ""
    if dataset.SOPClassUID == CT:
        return ["DERIVED", "SECONDARY", third if third in ("AXIAL", "LOCALIZER") else "AXIAL"]
    if dataset.SOPClassUID == MR:
        return ["DERIVED", "SECONDARY", third or "OTHER"]
    if dataset.SOPClassUID == PT:  # C.8.9.4.1.1 allows nothing but PRIMARY here
        return ["DERIVED", "PRIMARY"]
    return ["DERIVED", "SECONDARY", *([third] if third else [])]


def _complete_ct(dataset: Dataset, source: Dataset, slices: int, z: int) -> None:
    _empty(dataset, "KVP", "SliceThickness", "PatientPosition")
    _drop(dataset, "ImagerPixelSpacing")


def _complete_mr(dataset: Dataset, source: Dataset, slices: int, z: int) -> None:
    sequences = [v for v in _many(dataset.get("ScanningSequence")) if v in _SCANNING]
    dataset.ScanningSequence = sequences or "RM"
    dataset.SequenceVariant = [v for v in _many(dataset.get("SequenceVariant")) if v in _VARIANTS] or "NONE"
    if dataset.get("InPlanePhaseEncodingDirection") == "COLUMN":
        dataset.InPlanePhaseEncodingDirection = "COL"
    if dataset.get("InPlanePhaseEncodingDirection") not in ("ROW", "COL"):
        _drop(dataset, "InPlanePhaseEncodingDirection")
    _empty(
        dataset, "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength", "SliceThickness"
    )
    _empty(dataset, "PatientPosition")
    if "IR" not in sequences:
        _drop(dataset, "InversionTime")
    else:
        _empty(dataset, "InversionTime")
    for keyword in ("AngioFlag", "VariableFlipAngleFlag"):
        if keyword in dataset and dataset.get(keyword) not in ("Y", "N"):
            _drop(dataset, keyword)
    if len(_many(dataset.get("AcquisitionMatrix"))) not in (0, 4):
        _drop(dataset, "AcquisitionMatrix")
    _drop(dataset, "ImagerPixelSpacing")


def _complete_pt(dataset: Dataset, source: Dataset, slices: int, z: int) -> None:
    if len(_many(dataset.get("SeriesType"))) != 2:
        dataset.SeriesType = ["STATIC", "IMAGE"]
    for keyword, value in (("Units", "BQML"), ("CountsSource", "EMISSION"), ("DecayCorrection", "NONE")):
        if not dataset.get(keyword):
            setattr(dataset, keyword, value)
    kind = str(_many(dataset.SeriesType)[0])
    if kind != "DYNAMIC":
        _drop(dataset, "NumberOfTimeSlices")
    if kind != "GATED":
        _drop(dataset, "NumberOfRRIntervals")
    dataset.NumberOfSlices = slices
    dataset.ImageIndex = z + 1
    _empty(dataset, "CorrectedImage", "CollimatorType", "SliceThickness")
    if not dataset.get("EnergyWindowRangeSequence"):
        _drop(dataset, "EnergyWindowRangeSequence")
    if "RadiopharmaceuticalInformationSequence" not in dataset:
        dataset.RadiopharmaceuticalInformationSequence = Sequence([])
    for drug in dataset.RadiopharmaceuticalInformationSequence:
        _empty(drug, "RadionuclideCodeSequence")
    _put_orientation_codes(dataset)
    if not dataset.get("ActualFrameDuration"):
        dataset.ActualFrameDuration = 0
    if dataset.get("FrameReferenceTime") is None:
        dataset.FrameReferenceTime = 0
    if dataset.DecayCorrection != "NONE" and not dataset.get("DecayFactor"):
        dataset.DecayFactor = 1
    _empty(dataset, "AcquisitionDate", "AcquisitionTime", "SeriesDate", "SeriesTime")
    _drop(dataset, "ImagerPixelSpacing", "TriggerTime")


def _complete_sc(dataset: Dataset, source: Dataset, slices: int, z: int) -> None:
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.ConversionType = "WSD"
    _drop(dataset, "PatientPosition", "SliceLocation")


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)


def _empty(dataset: Dataset, *keywords: str) -> None:
    """Add what is absent with an empty value (type 2)."""
    for keyword in keywords:
        if keyword and keyword not in dataset:
            setattr(dataset, keyword, None)


def _drop(dataset: Dataset, *keywords: str) -> None:
    for keyword in keywords:
        if keyword in dataset:
            delattr(dataset, keyword)


def _put_orientation_codes(dataset: Dataset) -> None:
    """PET says how the patient lay in codes; Patient Position may not stand beside them."""
    position = str(dataset.get("PatientPosition") or "")
    if not dataset.get("PatientOrientationCodeSequence"):
        items = []
        facing = {"S": ("40199007", "supine"), "P": ("1240000", "prone")}.get(position[2:])
        if facing:
            recumbent = code_item("102538003", "SCT", "recumbent")
            recumbent.PatientOrientationModifierCodeSequence = Sequence([code_item(facing[0], "SCT", facing[1])])
            items = [recumbent]
        dataset.PatientOrientationCodeSequence = Sequence(items)
    if not dataset.get("PatientGantryRelationshipCodeSequence"):
        first = {"HF": ("102540008", "headfirst"), "FF": ("102541007", "feet-first")}.get(position[:2])
        dataset.PatientGantryRelationshipCodeSequence = Sequence(
            [code_item(first[0], "SCT", first[1])] if first else []
        )
    _drop(dataset, "PatientPosition")
