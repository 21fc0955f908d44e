"""Mattes as DICOM SEG: FRACTIONAL with 255 steps, and the BINARY twin at alpha >= 0.5 that every viewer shows.

Reference:
    DICOM PS3.3 A.51 and C.8.20.
"""

from __future__ import annotations

import copy
import logging
import re
import uuid
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medapp.annotation.matte import FULL, Matte
from medapp.errors import ExportError
from medapp.export.codes import segment_codes
from medapp.export.deidentify import Privacy
from medapp.export.objects import MAKER, new_uid, set_equipment, set_times, version, write_dicom
from medapp.export.source_slices import SourceSlice

_TRACKING = uuid.UUID("7f2b6c5e-0f5b-4b53-9d3c-3a8a5d1c9e10")
_STEPS = 255


@dataclass(frozen=True)
class SegFile:
    """A written SEG: bytes, SHA-256, largest alpha error (None for BINARY) and how many frames it has."""

    size: int
    sha256: str
    largest_alpha_error: float | None
    frames: int


@dataclass(frozen=True)
class SegStyle:
    """How a SEG is written.

    Attributes:
        kind: ``FRACTIONAL`` or ``BINARY``.
        alpha_meaning: ``occupancy`` (share of the voxel) or ``probability`` (chance of belonging).
        rle: Compress the fractional one.
        creator: Content Creator's Name; only when identities are written.
    """

    kind: Literal["FRACTIONAL", "BINARY"]
    alpha_meaning: Literal["occupancy", "probability"] = "occupancy"
    rle: bool = False
    creator: str = ""


def tracking_uid(matte_id: str) -> str:
    """The UID that stays with a matte over revisions and exports."""
    return f"2.25.{uuid.uuid5(_TRACKING, matte_id).int}"


def why_no_seg(slices: Sequence[SourceSlice]) -> str:
    """Why a SEG cannot refer to these slices; empty when it can."""
    if not slices:
        return "the source is not DICOM"
    with_place = [s for s in slices if "ImagePositionPatient" in s.dataset]
    if len(slices) > 1 and len(with_place) < len(slices):
        return "its slices have no position, which DICOM SEG needs for more than one slice"
    if len(slices) > 1:
        places = {tuple(float(v) for v in s.dataset.ImagePositionPatient) for s in slices}
        if len(places) < len(slices):
            return "two of its slices have the same position"
    if with_place and "PixelSpacing" not in slices[0].dataset:
        return "its pixels have no size in mm, which DICOM SEG needs with a position"
    return ""


def write_seg(
    path: Path,
    mattes: Sequence[Matte],
    slices: Sequence[SourceSlice],
    style: SegStyle,
    privacy: Privacy,
    group: str,
    description: str,
) -> SegFile:
    """Write mattes as one SEG object and compare it, read back, with alpha and with the source's positions.

    Args:
        path: Ends in ``.dcm``.
        mattes: Each with some alpha (at least 0.5 somewhere for BINARY).
        slices: The source, in slice order; the mattes lie on its grid.
        style: Kind and meaning.
        privacy: For dates.
        group: Patient group.
        description: Series description.

    Raises:
        ExportError: What was read back differs.
    """
    used = sorted({z for matte in mattes for z in matte.annotated_slices()})
    first, last = used[0], used[-1]  # contiguous, so that the spacing between slices stays true
    alpha = np.zeros((last - first + 1, *mattes[0].shape_zyx[1:], len(mattes)), dtype=np.float32)
    for number, matte in enumerate(mattes):
        for z in matte.annotated_slices():
            alpha[z - first, ..., number] = matte.slice_stored(z) * np.float32(1 / FULL)
    if style.kind == "BINARY":
        pixels: NDArray = (alpha >= 0.5).astype(np.uint8)
    else:
        pixels = np.minimum(alpha, np.float32(1.0), out=alpha)
    if not np.isfinite(pixels).all():  # highdicom would write 0 without a word
        raise ExportError("Alpha is not a finite number; nothing was exported.", "")
    part = slices[first : last + 1]
    dataset = _segmentation(mattes, pixels, part, style, privacy, description)
    source = part[0].dataset
    set_equipment(dataset, source)
    dataset.DeviceSerialNumber = "0"  # required by Enhanced General Equipment; software has none
    set_times(dataset, source, privacy, group)
    if "ImagePositionPatient" not in source:
        dataset.PatientOrientation = None  # General Image asks for one where there is no position
    _point_to_frames(dataset, part)
    privacy.mark(dataset)
    size, sha256, again = write_dicom(path, dataset)
    error, frames = _compare(path, again, alpha, part, style)
    return SegFile(size, sha256, error, frames)


def _segmentation(
    mattes: Sequence[Matte],
    pixels: NDArray,
    part: Sequence[SourceSlice],
    style: SegStyle,
    privacy: Privacy,
    description: str,
) -> Dataset:
    sources = [_plain(s.dataset, part[0].dataset) for s in part]
    compressed = style.rle and style.kind == "FRACTIONAL"
    with _silent_highdicom():
        return hd.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=style.kind,
            segment_descriptions=[_segment(number + 1, matte) for number, matte in enumerate(mattes)],
            series_instance_uid=new_uid(),
            series_number=int(sources[0].get("SeriesNumber") or 0) + (2000 if style.kind == "FRACTIONAL" else 3000),
            sop_instance_uid=new_uid(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=version(),
            device_serial_number="0",
            fractional_type=style.alpha_meaning.upper(),
            max_fractional_value=_STEPS,
            content_label="MATTES" if style.kind == "FRACTIONAL" else "MASKS",
            content_description="alpha mattes" if style.kind == "FRACTIONAL" else "masks at alpha >= 0.5",
            content_creator_name=None if privacy.is_on or not style.creator else style.creator,
            series_description=description[:64],
            transfer_syntax_uid=RLELossless if compressed else ExplicitVRLittleEndian,
            omit_empty_frames=True,
        )


@contextmanager
def _silent_highdicom() -> Iterator[None]:
    """highdicom logs names that it doubts, and warns of frames that are left out."""
    talk = logging.getLogger("highdicom")
    level = talk.level
    talk.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.setLevel(level)


def _plain(dataset: Dataset, first: Dataset) -> Dataset:
    """A source as highdicom wants it: one orientation for all, which the reader has already made sure of."""
    twin = copy.deepcopy(dataset)
    if "ImageOrientationPatient" in first:
        twin.ImageOrientationPatient = first.ImageOrientationPatient
    if "ImagePositionPatient" in twin and not twin.get("SliceThickness"):
        twin.SliceThickness = twin.get("SpacingBetweenSlices") or 1  # Pixel Measures asks for one
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if str(twin.get("LossyImageCompression", "00")) != "01" and keyword in twin:
            delattr(twin, keyword)
    return twin


def _segment(number: int, matte: Matte) -> hd.seg.SegmentDescription:
    category, kind = segment_codes(matte.name)
    how, name, revision = _made_by(matte.origin)
    algorithm = None
    if how != "MANUAL":
        family = codes.DCM.ArtificialIntelligence if "sam" in name.lower() else codes.DCM.EdgeDetection
        algorithm = hd.AlgorithmIdentificationSequence(name=name, family=family, version=revision)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_label(matte.name) or f"Matte {number}",
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=how,
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid(matte.matte_id),
        tracking_id=f"medapp-{uuid.uuid5(_TRACKING, matte.matte_id).hex[:12]}",
        display_color=_colour(matte.colour),
    )


def _label(name: str) -> str:
    """A name as a long string: no backslash, which would part it, no control characters, 64 characters."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", name).strip()[:64].strip()


def _made_by(origin: str) -> tuple[str, str, str]:
    """Algorithm type, name and version from a matte's origin.

    In medapp every region is accepted by a person, so nothing is AUTOMATIC unless its origin says so.
    """
    text = origin.strip()
    if text in ("", "person", "import"):
        return "MANUAL", "", ""
    how = "AUTOMATIC" if text.lower().startswith("auto") else "SEMIAUTOMATIC"
    found = re.search(r"\b(v?\d+(\.\d+)+)\b", text)
    name = " ".join(text.split()[: 1 if found else 4])
    return how, name[:64], found[1] if found else version()


def _colour(colour: str) -> hd.color.CIELabColor | None:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        return None
    return hd.color.CIELabColor.from_rgb(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


def _point_to_frames(dataset: Dataset, part: Sequence[SourceSlice]) -> None:
    """Replace the stand-in UIDs of the slices by the objects and frames they come from."""
    real = {str(s.dataset.SOPInstanceUID): s for s in part}
    made: dict[str, str] = {}  # highdicom's own UIDs carry its root

    def visit(node: Dataset) -> None:
        uid = str(node.get("ReferencedSOPInstanceUID", ""))
        if uid in real:
            node.ReferencedSOPInstanceUID = real[uid].sop_instance_uid
            node.ReferencedSOPClassUID = real[uid].sop_class_uid
            if real[uid].frame is not None:
                node.ReferencedFrameNumber = real[uid].frame
        for element in node:
            if element.keyword == "DimensionOrganizationUID":
                element.value = made.setdefault(str(element.value), new_uid())
            if element.VR == "SQ":
                for item in element.value:
                    visit(item)

    visit(dataset)
    for series in dataset.get("ReferencedSeriesSequence", []):
        frames: dict[str, list[int]] = defaultdict(list)
        kept: dict[str, Dataset] = {}
        for item in series.ReferencedInstanceSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            kept.setdefault(uid, item)
            if "ReferencedFrameNumber" in item:
                frames[uid].append(int(item.ReferencedFrameNumber))
        for uid, numbers in frames.items():
            kept[uid].ReferencedFrameNumber = sorted(numbers) if len(numbers) > 1 else numbers[0]
        series.ReferencedInstanceSequence = list(kept.values())


def _compare(
    path: Path, again: Dataset, alpha: NDArray[np.float32], part: Sequence[SourceSlice], style: SegStyle
) -> tuple[float | None, int]:
    """Largest alpha error of the file, and its frames; missing frames are zero. ``alpha`` is used up.

    Raises:
        ExportError: A frame lies elsewhere, a mask differs, or alpha is off by more than 1/510.
    """
    broken = ExportError(f"{path.name} read back differently from the mattes; nothing was exported.", "")
    frames = again.pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    wanted = alpha if style.kind == "FRACTIONAL" else (alpha >= 0.5).astype(np.float32)
    groups = again.PerFrameFunctionalGroupsSequence
    for frame, group in zip(frames, groups, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        key = (str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber"))
        z = next((i for i, s in enumerate(part) if (s.sop_instance_uid, s.frame) == key), None)
        if z is None or not _is_in_place(group, part[z].dataset):
            raise broken
        # what all frames have in common, or the only frame says, may lie in the shared groups (PS3.3 C.7.6.16.1.2)
        holder = group if "SegmentIdentificationSequence" in group else again.SharedFunctionalGroupsSequence[0]
        number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber) - 1
        scale = _STEPS if style.kind == "FRACTIONAL" else 1
        wanted[z, ..., number] -= frame.astype(np.float32) / np.float32(scale)
    error = float(np.abs(wanted).max())
    if error > (0.5 / _STEPS + 1e-6 if style.kind == "FRACTIONAL" else 0.0):
        raise broken
    return (error if style.kind == "FRACTIONAL" else None), len(frames)


def _is_in_place(group: Dataset, source: Dataset) -> bool:
    if "PlanePositionSequence" not in group:
        return "ImagePositionPatient" not in source
    written = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
    return bool(np.abs(written - np.array(source.ImagePositionPatient, dtype=float)).max() < 1e-3)
