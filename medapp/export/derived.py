"""A restored scan as a derived DICOM series: one instance per source slice, in the source's own unit.

Reference:
    DICOM PS3.3 C.7.6.1 (General Image, Derivation), C.8.2.1, C.8.3.1, C.8.9.4; formats.md 6, "Derived series".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from medapp.errors import ExportError
from medapp.export.deidentify import Privacy, code_item
from medapp.export.identifiers import read_header
from medapp.export.iod import complete_module
from medapp.export.objects import new_uid, set_equipment, set_times, version, write_dicom
from medapp.export.source_slices import SECONDARY_CAPTURE, SourceSlice, number_text, set_number
from medapp.scan.header import Header
from medapp.scan.scan import Scan
from medapp.scan.suv import suv_factor

LABEL = "RESTORED - NOT FOR DIAGNOSTIC USE"
_TOP = 65535
_TOP_PET = 32767
_PURPOSE = ("121322", "Source image for image processing operation")


@dataclass(frozen=True, eq=False)
class DerivedSeries:
    """Everything that all instances of one derived series share.

    Attributes:
        scan: The restored voxels.
        slices: The source, one per slice.
        provenance: ``task``, ``model``, ``sha256``.
        series_uid: New.
        slope, intercept: Of all slices; None for PET, where each slice has its own slope.
        suv_factor: Divides the values, so that PET is written in the file's units again.
        description: Series description, beginning with ``LABEL``.
        group: Patient group.
        privacy: For dates and marks.
    """

    scan: Scan
    slices: Sequence[SourceSlice]
    provenance: Mapping[str, Any]
    series_uid: str
    slope: float | None
    intercept: float
    suv_factor: float
    description: str
    group: str
    privacy: Privacy


def why_no_derived(scan: Scan, slices: Sequence[SourceSlice]) -> str:
    """Why a scan cannot become a DICOM series; empty when it can."""
    if not slices:
        return "the source is not DICOM"
    if scan.is_colour:
        return "it is in colour"
    if len(slices) != scan.shape[0]:
        return "it has another number of slices than its source"
    return ""


def derived_series(
    scan: Scan,
    source: Scan,
    slices: Sequence[SourceSlice],
    provenance: Mapping[str, Any],
    group: str,
    privacy: Privacy,
    title: str = "",
) -> DerivedSeries:
    """Choose the numbers that all instances share.

    Raises:
        ExportError: A voxel is not finite.
    """
    low, high = _range(scan)
    slope: float | None
    factor = 1.0
    if scan.modality == "PT":
        slope, intercept = None, 0.0
        if scan.unit == "SUV":
            factor = suv_factor([Header(read_header(h), "source") for h in dict.fromkeys(source.source.headers)]).factor
    elif scan.modality == "CT" and scan.unit == "HU" and high - min(-1024.0, math.floor(low)) <= _TOP:
        slope, intercept = 1.0, min(-1024.0, math.floor(low))
    else:
        slope = float(number_text((high - low) / _TOP)) if high > low else 1.0
        intercept = float(number_text(low))
    description = f"{LABEL} {title}".strip()[:64] if title and not privacy.is_on else LABEL
    return DerivedSeries(scan, slices, provenance, new_uid(), slope, intercept, factor, description, group, privacy)


def derived_dataset(series: DerivedSeries, z: int) -> Dataset:
    """One instance with pixels.

    Raises:
        ExportError: The values do not fit into 16 bits.
    """
    source = series.slices[z]
    dataset = copy.deepcopy(source.dataset)  # update() would share the elements
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = series.series_uid, new_uid()
    dataset.SeriesNumber = int(source.dataset.get("SeriesNumber") or 0) + 1000
    dataset.InstanceNumber = z + 1
    dataset.SeriesDescription = series.description
    dataset.DerivationDescription = derivation_description(series.provenance)
    _place(dataset, series.scan, source.dataset, z)
    complete_module(dataset, source.dataset, len(series.slices), z)
    _refer(dataset, series, source)
    set_equipment(dataset, source.dataset)
    set_times(dataset, source.dataset, series.privacy, series.group)
    series.privacy.mark(dataset)
    _put_pixels(dataset, series, z)
    return dataset


def derivation_description(provenance: Mapping[str, Any]) -> str:
    """``<task> by <model> sha256:<16 hex>, medapp <version>``, as far as it is known."""
    task, model = str(provenance.get("task") or "restored"), str(provenance.get("model") or "")
    digest = str(provenance.get("sha256") or "")[:16]
    made_by = f" by {model}" if model else ""
    return f"{task}{made_by}{f' sha256:{digest}' if digest else ''}, medapp {version()}"[:1024]


def write_derived(path: Path, series: DerivedSeries, z: int, rle: bool = False) -> tuple[int, str, Dataset]:
    """Write one instance and compare it, read back, with the scan.

    Returns:
        Size, SHA-256 and the dataset, without pixels.

    Raises:
        ExportError: What was read back differs by more than half a step.
    """
    dataset = derived_dataset(series, z)
    size, sha256, again = write_dicom(path, dataset, rle)
    values = again.pixel_array.astype(np.float64) * float(again.RescaleSlope) + float(again.RescaleIntercept)
    wanted = _values(series, z)
    # Half a step, plus what ten and more written digits of the slope can be off at the far end.
    limit = float(again.RescaleSlope) * 0.5 * (1 + 1e-6) + 1e-9 * max(1.0, float(np.abs(wanted).max()))
    if float(np.abs(values - wanted).max()) > limit:
        raise ExportError(f"{path.name} read back differently from the restored scan; nothing was exported.", "")
    del again.PixelData
    return size, sha256, again


def _values(series: DerivedSeries, z: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = series.scan.slice_values(z).astype(np.float64) / series.suv_factor
    return values


def _range(scan: Scan) -> tuple[float, float]:
    low, high = math.inf, -math.inf
    for z in range(scan.shape[0]):
        values = scan.slice_values(z)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ExportError("A voxel is not a finite number; nothing was exported.", "Restore the series again.")
    return low, high


def _place(dataset: Dataset, scan: Scan, source: Dataset, z: int) -> None:
    """Size and place of the slice: the source's, or the scan's own where it has other pixels."""
    rows, columns = (int(n) for n in scan.shape[1:3])
    has_source_grid = (rows, columns) == (int(source.Rows), int(source.Columns))
    dataset.Rows, dataset.Columns = rows, columns
    if has_source_grid or scan.geometry is None:
        return
    affine = scan.geometry.affine_zyx
    lps = np.diag([-1.0, -1.0, 1.0])
    set_number(dataset, "PixelSpacing", scan.geometry.spacing_mm[1:])
    if "ImagePositionPatient" in dataset:
        position = lps @ (affine[:3, 3] + z * affine[:3, 0])
        set_number(dataset, "ImagePositionPatient", position)


def _refer(dataset: Dataset, series: DerivedSeries, source: SourceSlice) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class_uid, source.sop_instance_uid
    if source.frame is not None:
        item.ReferencedFrameNumber = source.frame
    has_source_grid = (dataset.Rows, dataset.Columns) == (source.dataset.Rows, source.dataset.Columns)
    item.SpatialLocationsPreserved = "YES" if has_source_grid else "NO"
    item.PurposeOfReferenceCodeSequence = DicomSequence([code_item(_PURPOSE[0], "DCM", _PURPOSE[1])])
    dataset.SourceImageSequence = DicomSequence([item])


def _put_pixels(dataset: Dataset, series: DerivedSeries, z: int) -> None:
    """Quantise with the numbers that are written; nothing is clipped."""
    values = _values(series, z)
    is_pet = series.scan.modality == "PT"
    if series.slope is None:
        largest = float(np.abs(values).max())
        slope = float(number_text(largest / _TOP_PET)) if largest > 0 else 1.0
        if largest > slope * _TOP_PET * (1 + 0.4 / _TOP_PET):  # the written digits round down too far
            slope = float(number_text(slope * (1 + 1e-9)))
    else:
        slope = series.slope
    stored = np.rint((values - series.intercept) / slope)
    low, high = (-_TOP_PET - 1, _TOP_PET) if is_pet else (0, _TOP)
    if stored.min() < low or stored.max() > high:
        raise ExportError(
            "Values do not fit into 16 bits; nothing was exported.", "Leave out the derived DICOM series."
        )
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(is_pet)
    dataset.RescaleSlope, dataset.RescaleIntercept = number_text(slope), number_text(series.intercept)
    if series.scan.modality == "CT":
        dataset.RescaleType = "HU" if series.scan.unit == "HU" else "US"
    elif dataset.SOPClassUID == SECONDARY_CAPTURE:
        dataset.RescaleType = "US"
    padding = series.scan.padding[z] if series.scan.padding is not None else None
    if padding is not None and padding.any():
        fill = np.unique(stored[padding])
        if len(fill) == 1 and not (stored[~padding] == fill[0]).any():
            dataset.PixelPaddingValue = int(fill[0])
    _put_window(dataset, series)
    dataset.PixelData = stored.astype("<i2" if is_pet else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _put_window(dataset: Dataset, series: DerivedSeries) -> None:
    for keyword in ("WindowCenter", "WindowWidth"):
        if keyword in dataset:
            delattr(dataset, keyword)
    windows = [w for w in series.scan.windows if w.width >= 1]
    if windows and series.suv_factor == 1.0:
        set_number(dataset, "WindowCenter", windows[0].center)
        set_number(dataset, "WindowWidth", windows[0].width)
