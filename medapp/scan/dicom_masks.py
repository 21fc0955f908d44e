"""DICOM SEG and RTSTRUCT as masks on the grid of a series."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import HoldsNoImageError, UnreadableFileError
from medapp.progress import Progress
from medapp.scan.dicom import open_dicom, read_plain_header
from medapp.scan.dicom_file import RTSTRUCT_CLASS, SEG_CLASSES, DicomFile
from medapp.scan.dicom_voxels import time_limit
from medapp.scan.frames import directions, is_valid_orientation, positive_pair, vector
from medapp.scan.header import Header
from medapp.scan.lazy import check_memory
from medapp.scan.masks import FULL, ImportedMask, elsewhere, mismatch
from medapp.scan.pixels import FrameReader
from medapp.scan.scan import Scan

logger = logging.getLogger(__name__)

_TAGS: list[str | int] = [
    "SegmentSequence",
    "SegmentationType",
    "SegmentationFractionalType",
    "MaximumFractionalValue",
]
_CONTOUR_TAGS: list[str | int] = ["StructureSetROISequence", "ROIContourSequence", "SOPClassUID", "Modality"]
_OFF_GRID = 0.1  # voxels
_OFF_SLICE = 0.5


def dicom_masks(path: Path, scan: Scan, progress: Progress) -> tuple[ImportedMask, ...]:
    """The segments of a SEG or the regions of an RTSTRUCT.

    Raises:
        MaskMismatchError: They do not lie on the grid of the series.
        UnreadableFileError: Damaged, or another kind of object.
    """
    progress.parsing(str(path), 10.0)
    try:
        header = read_plain_header(path, _CONTOUR_TAGS)
        sop_class = header.text("SOPClassUID")
        if sop_class == RTSTRUCT_CLASS:
            return _contour_masks(header, scan, progress)
        if sop_class in SEG_CLASSES:
            return _segment_masks(open_dicom(path, tags=_TAGS, accept=SEG_CLASSES), scan, progress)
    finally:
        progress.parsing("")
    raise HoldsNoImageError(f"{path.name} holds no masks: it is neither a SEG nor an RTSTRUCT.", "Choose another file.")


def _segment_masks(file: DicomFile, scan: Scan, progress: Progress) -> tuple[ImportedMask, ...]:
    """Reference: DICOM PS3.3 C.8.20."""
    header = file.header
    per_frame, shared = _groups(header, file)
    places = [_frame_place(file, scan, own, shared, index) for index, own in enumerate(per_frame)]
    if not any(place is not None for place in places):
        raise elsewhere(file.name, (file.frames, file.rows, file.columns), scan)
    outside = sum(place is None for place in places)
    notes = (f"{outside} of its frames lie outside the series and were left out.",) if outside else ()
    kind = header.text("SegmentationType").upper()
    segments = {item.integer("SegmentNumber") or 0: item for item in header.items("SegmentSequence")}
    top = header.integer("MaximumFractionalValue", is_needed=False) or 255
    is_soft = kind == "FRACTIONAL"
    check_memory(len(segments) * int(np.prod(scan.shape[:3])) * (2 if is_soft else 1), file.name)
    arrays: dict[int, NDArray] = {}
    with FrameReader(file) as reader:
        for index, (own, z) in enumerate(zip(per_frame, places, strict=True)):
            if z is None:
                continue
            progress.parsing(file.shown, time_limit(file))
            frame = reader.frame(index)
            if kind == "LABELMAP":
                parts = {int(number): frame == number for number in np.unique(frame) if number}
            else:
                parts = {_segment_number(own, shared, file): frame}
            for number, part in parts.items():
                if number not in arrays:
                    arrays[number] = np.zeros(scan.shape[:3], dtype=np.uint16 if is_soft else bool)
                if is_soft:
                    soft = np.round(np.minimum(part.astype(np.float64) / top, 1.0) * FULL).astype(np.uint16)
                    np.maximum(arrays[number][z], soft, out=arrays[number][z])
                else:
                    arrays[number][z] |= part != 0
            progress.check()
    found = []
    for number, array in sorted(arrays.items()):
        segment = segments.get(number)
        name = segment.text("SegmentLabel")[:64] if segment is not None else ""
        lab = segment.numbers("RecommendedDisplayCIELabValue", is_needed=False) if segment is not None else ()
        found.append(ImportedMask(name or f"segment {number}", array, number, lab_colour(lab), is_soft, notes))
    return tuple(found)


def _groups(header: Header, file: DicomFile) -> tuple[list[Header], Header | None]:
    per_frame = header.items("PerFrameFunctionalGroupsSequence")
    shared = header.items("SharedFunctionalGroupsSequence")
    if len(per_frame) != file.frames:
        raise UnreadableFileError(
            f"{file.name}: {len(per_frame)} functional groups describe {file.frames} frames.",
            "Export the segmentation again from its source.",
        )
    return per_frame, shared[0] if shared else None


def _group(keyword: str, own: Header, shared: Header | None) -> Header | None:
    for source in (own, shared):
        items = source.items(keyword) if source is not None else []
        if items:
            return items[0]
    return None


def _segment_number(own: Header, shared: Header | None, file: DicomFile) -> int:
    group = _group("SegmentIdentificationSequence", own, shared)
    number = group.integer("ReferencedSegmentNumber") if group is not None else None
    if number is None:
        raise UnreadableFileError(f"{file.name}: a frame does not say its segment.", "Export it again from its source.")
    return number


def _frame_place(file: DicomFile, scan: Scan, own: Header, shared: Header | None, index: int) -> int | None:
    """The slice that a frame belongs to; None when it lies beyond the series.

    Raises:
        MaskMismatchError: Another size, spacing or orientation.
    """
    if (file.rows, file.columns) != scan.shape[1:3]:
        raise mismatch(file.name, (file.frames, file.rows, file.columns), scan)
    plane = _group("PlanePositionSequence", own, shared)
    facing = _group("PlaneOrientationSequence", own, shared)
    measures = _group("PixelMeasuresSequence", own, shared)
    position = vector(plane, "ImagePositionPatient", 3) if plane is not None else None
    orientation = vector(facing, "ImageOrientationPatient", 6) if facing is not None else None
    spacing = positive_pair(measures.numbers("PixelSpacing")) if measures is not None else None
    if scan.geometry is None or position is None or orientation is None or spacing is None:
        return _source_slice(file, scan, own, shared)
    if not is_valid_orientation(orientation):
        raise elsewhere(file.name, (file.frames, file.rows, file.columns), scan)
    r, c, _ = directions(orientation)
    first = np.array(position)
    last = first + r * spacing[1] * (file.columns - 1) + c * spacing[0] * (file.rows - 1)
    ends = scan.geometry.to_index(np.stack([first, last]) * (-1.0, -1.0, 1.0))
    expected = np.array([[0, 0], [file.rows - 1, file.columns - 1]], dtype=np.float64)
    z = round(float(ends[0, 0]))
    if np.abs(ends[:, 1:] - expected).max() > _OFF_GRID or np.abs(ends[:, 0] - z).max() > _OFF_GRID:
        raise elsewhere(file.name, (file.frames, file.rows, file.columns), scan)
    return z if 0 <= z < scan.shape[0] else None


def _source_slice(file: DicomFile, scan: Scan, own: Header, shared: Header | None) -> int | None:
    """By the image that the frame was derived from, where positions are missing."""
    derivation = _group("DerivationImageSequence", own, shared)
    for source in derivation.items("SourceImageSequence") if derivation is not None else []:
        uid = source.text("ReferencedSOPInstanceUID")
        number = source.integer("ReferencedFrameNumber", is_needed=False) or 1
        for z, frame in enumerate(scan.source.frames):
            if frame == (uid, number):
                return z
    return None


def lab_colour(lab: tuple[float, ...]) -> str | None:
    """``#rrggbb`` of a DICOM CIELab value, or None.

    Reference:
        DICOM PS3.3 C.10.7.1.1; IEC 61966-2-1.
    """
    if len(lab) != 3:
        return None
    lightness = lab[0] * 100.0 / 65535.0
    a, b = lab[1] * 255.0 / 65535.0 - 128.0, lab[2] * 255.0 / 65535.0 - 128.0
    fy = (lightness + 16.0) / 116.0
    xyz = [
        white * (f**3 if f > 6 / 29 else (f - 4 / 29) * 3 * (6 / 29) ** 2)
        for white, f in zip((0.9642, 1.0, 0.8249), (fy + a / 500.0, fy, fy - b / 200.0), strict=True)  # D50
    ]
    matrix = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = np.clip(matrix @ np.array(xyz), 0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(v) for v in np.round(srgb * 255))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _contour_masks(header: Header, scan: Scan, progress: Progress) -> tuple[ImportedMask, ...]:
    """Closed planar contours, filled; where contours of one region overlap in a slice, the overlap is a hole.

    Reference:
        DICOM PS3.3 C.8.8.6.
    """
    name = header.name
    if scan.geometry is None:
        raise elsewhere(name, (0, 0, 0), scan)
    names = {item.integer("ROINumber"): item.text("ROIName")[:64] for item in header.items("StructureSetROISequence")}
    found: list[ImportedMask] = []
    is_anywhere = False
    for region in header.items("ROIContourSequence"):
        number = region.integer("ReferencedROINumber") or 0
        mask = np.zeros(scan.shape[:3], dtype=bool)
        outside = other = 0
        for contour in region.items("ContourSequence"):
            progress.check()
            if contour.text("ContourGeometricType").upper() not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                other += 1
                continue
            numbers = contour.numbers("ContourData")
            if len(numbers) < 9 or len(numbers) % 3:
                raise UnreadableFileError(f"{name}: a contour is not a list of points.", "Export it again.")
            points = np.array(numbers).reshape(-1, 3) * (-1.0, -1.0, 1.0)
            index = scan.geometry.to_index(points)
            z = round(float(index[:, 0].mean()))
            if np.abs(index[:, 0] - z).max() > _OFF_SLICE:
                raise elsewhere(name, scan.shape[:3], scan)
            if not 0 <= z < scan.shape[0]:
                outside += 1
                continue
            mask[z] ^= fill_polygon(index[:, 2], index[:, 1], scan.shape[1], scan.shape[2])
        notes = [f"{outside} of its contours lie outside the series and were left out."] if outside else []
        notes += [f"{other} of its contours are not closed and were left out."] if other else []
        if mask.any():
            is_anywhere = True
            colour = region.numbers("ROIDisplayColor", is_needed=False)
            shown = "#" + "".join(f"{min(max(int(v), 0), 255):02x}" for v in colour) if len(colour) == 3 else None
            found.append(
                ImportedMask(names.get(number) or f"region {number}", mask, number, shown, False, tuple(notes))
            )
    if not is_anywhere:
        raise elsewhere(name, scan.shape[:3], scan)
    return tuple(found)


def fill_polygon(x: NDArray[np.float64], y: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        x: Columns of the corners, pixel centres at whole numbers.
        y: Rows of the corners.
        rows: Height of the mask.
        columns: Width of the mask.
    """
    mask = np.zeros((rows, columns), dtype=bool)
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    for row in range(max(0, int(np.ceil(y.min()))), min(rows - 1, int(np.floor(y.max()))) + 1):
        crosses = (y <= row) != (y1 <= row)
        if not crosses.any():
            continue
        at = np.sort(x[crosses] + (row - y[crosses]) * (x1[crosses] - x[crosses]) / (y1[crosses] - y[crosses]))
        for left, right in zip(at[::2], at[1::2], strict=False):
            start, stop = max(0, int(np.ceil(left))), min(columns - 1, int(np.floor(right)))
            if stop >= start:
                mask[row, start : stop + 1] ^= True
    return mask
