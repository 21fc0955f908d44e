"""From DICOM files to scans: one series after another, with units, windows and notes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.progress import Progress
from medapp.scan.dicom_file import DicomFile
from medapp.scan.dicom_voxels import DicomVoxels, time_limit
from medapp.scan.enhanced import frames_of
from medapp.scan.frames import Frame
from medapp.scan.lazy import Finding, FoundScan, LazyScan, Refused, Skipped
from medapp.scan.pixels import FrameReader, stored_dtype
from medapp.scan.scan import SourceInfo, Window
from medapp.scan.series import Volume, sort_series
from medapp.scan.suv import suv_factor

logger = logging.getLogger(__name__)


def scans_of(files: Sequence[DicomFile], progress: Progress, modality: str | None = None) -> Iterator[Finding]:
    """Group DICOM files into series and yield each scan, in the order in which the series were met.

    Args:
        files: Opened image files of one import.
        progress: For decoding.
        modality: For files that do not say theirs.
    """
    kept, findings, dropped = _unique(files)
    yield from findings
    series: dict[str, list[DicomFile]] = {}
    for file in kept:
        uid = file.header.text("SeriesInstanceUID") or _unnamed_series(file)
        series.setdefault(uid, []).append(file)
    for uid, members in series.items():
        yield from _series(uid, members, dropped, progress, modality)


def _unnamed_series(file: DicomFile) -> str:
    """Files without a series UID belong together when they lie in one folder and say the same of their study."""
    names = ("StudyInstanceUID", "FrameOfReferenceUID", "Modality", "SeriesNumber", "SeriesDescription")
    told = [file.header.text(name) for name in names]
    return "|".join([str(Path(file.path).parent), *told]) if any(told[:2]) else file.shown


def _unique(files: Sequence[DicomFile]) -> tuple[list[DicomFile], list[Finding], set[str]]:
    """Drop equal copies of one SOP instance and refuse different files that claim to be the same one."""
    by_uid: dict[str, list[DicomFile]] = {}
    for index, file in enumerate(files):
        by_uid.setdefault(file.header.text("SOPInstanceUID") or f"#{index}", []).append(file)
    kept: list[DicomFile] = []
    findings: list[Finding] = []
    dropped: set[str] = set()
    for uid, group in by_uid.items():
        if len(group) == 1:
            kept.append(group[0])
        elif len({_digest(file.path) for file in group}) == 1:
            kept.append(group[0])
            dropped.add(uid)
        else:
            findings.extend(
                Refused(
                    file.shown,
                    f"{file.name} has the same SOP Instance UID as another file, but other content.",
                    "Import one of the two alone.",
                )
                for file in group
            )
    return kept, findings, dropped


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return str(path).encode()


def _series(
    uid: str, files: Sequence[DicomFile], dropped: set[str], progress: Progress, modality: str | None
) -> Iterator[Finding]:
    frames: list[Frame] = []
    for file in files:
        try:
            frames.extend(frames_of(file))
        except UnreadableFileError as error:
            yield Refused(file.shown, error.message, error.hint)
    if not frames:
        return
    code = files[0].header.text("Modality") or modality or ""
    found = sort_series(frames, code, _comparer(progress))
    for frame, error in found.refused:
        yield Refused(frame.file.shown, error.message, error.hint)
    for frame in found.set_aside:
        yield Skipped(frame.file.shown, "slice", f"{frame.file.name} has no position or orientation and was set aside.")
    copies = sum(1 for file in files if file.header.text("SOPInstanceUID") in dropped)
    for volume in found.volumes:
        if copies:
            volume.notes.append(
                f"{copies} {'file is' if copies == 1 else 'files are'} there twice; the copies were dropped."
            )
        yield from _volume(uid, volume, files, code, progress)


def _volume(uid: str, volume: Volume, files: Sequence[DicomFile], code: str, progress: Progress) -> Iterator[Finding]:
    """Yield one scan; when decoding it fails on one of its files meanwhile, yield what the others give."""
    voxels, scan = _scan(uid, volume, files, code or None, progress)
    yield FoundScan(scan)
    failed = voxels.failed
    rest = [frame for frame in volume.frames if frame.file is not failed]
    if failed is None or not rest:
        return
    found = sort_series(rest, code, _comparer(progress))
    for part in found.volumes:
        part.key = (volume.key, part.key, "without", failed.header.text("SOPInstanceUID"))
        part.notes = [*volume.notes, *part.notes, "A file whose pixels cannot be decoded was left out."]
        yield from _volume(uid, part, files, code, progress)


def _comparer(progress: Progress) -> Callable[[Frame, Frame], bool]:
    """Decodes two frames, announcing their files, and says whether their values are equal."""

    def decode(frame: Frame) -> NDArray:
        file = frame.file
        progress.parsing(file.shown, time_limit(file), 8 * file.rows * file.columns)
        with FrameReader(frame.file) as reader:
            return reader.frame(frame.index)

    def same_pixels(a: Frame, b: Frame) -> bool:
        try:
            left, right = decode(a), decode(b)
        finally:
            progress.parsing("")
        if left.shape != right.shape:
            return False
        return bool(np.array_equal(a.rescale.apply(left), b.rescale.apply(right)))

    return same_pixels


def _scan(
    uid: str, volume: Volume, files: Sequence[DicomFile], modality: str | None, progress: Progress
) -> tuple[DicomVoxels, LazyScan]:
    frames = volume.frames
    first = frames[0]
    file, header = first.file, first.file.header
    unit, factor, unit_notes = _unit(modality, frames, files)
    is_colour = file.is_colour
    dtypes = {stored_dtype(frame.file) for frame in frames}
    lines = {(frame.rescale.slope, frame.rescale.intercept) for frame in frames}
    has_table = any(frame.rescale.table is not None for frame in frames)
    is_kept = is_colour or (len(dtypes) == 1 and len(lines) == 1 and not has_table)
    slope, intercept = (1.0, 0.0) if is_colour or not is_kept else next(iter(lines))
    if is_kept:
        slope, intercept = slope * factor, intercept * factor
    dtype = next(iter(dtypes)) if is_kept else np.dtype(np.float32)
    notes = [*volume.notes]
    for note in [*unit_notes, *(n for f in frames for n in (*f.file.notes, *f.notes, *f.file.header.complaints))]:
        if note not in notes:
            notes.append(note)
    shown = first.file.shown if len({id(f.file) for f in frames}) == 1 else str(Path(first.file.shown).parent)
    voxels = DicomVoxels(frames, to_values=not is_kept, factor=factor)
    return voxels, LazyScan(
        shape=(len(frames), file.rows, file.columns) + ((3,) if is_colour else ()),
        dtype=dtype,
        voxels=voxels,
        geometry=volume.geometry,
        modality=modality,
        unit=unit,
        kind=volume.kind,
        slope=slope,
        intercept=intercept,
        pixel_spacing_mm=volume.pixel_spacing_mm,
        notes=tuple(notes),
        windows=tuple(Window(w.center * factor, w.width * factor, w.name) for w in frames[len(frames) // 2].windows),
        is_inverted=file.photometric == "MONOCHROME1",
        series_key=hashlib.sha256(repr((uid, volume.key)).encode()).hexdigest()[:16],
        source=SourceInfo(
            path=shown,
            format="dicom",
            study_uid=header.text("StudyInstanceUID"),
            series_uid=header.text("SeriesInstanceUID"),
            frame_of_reference_uid=header.text("FrameOfReferenceUID"),
            patient_id=header.text("PatientID")[:64],
            patient_name=header.text("PatientName")[:64],
            description=header.text("SeriesDescription")[:64],
            date=header.text("StudyDate")[:8],
            frames=tuple((frame.file.header.text("SOPInstanceUID"), frame.number) for frame in frames),
        ),
        files=tuple(dict.fromkeys(frame.file.shown for frame in frames)),
        progress=progress,
    )


def _unit(
    modality: str | None, frames: Sequence[Frame], files: Sequence[DicomFile]
) -> tuple[str, float, tuple[str, ...]]:
    """Unit of the values after rescale, the factor still to apply, and why it is not the usual unit."""
    if frames[0].file.is_colour:
        return "arbitrary", 1.0, ()
    if modality == "CT":
        if not all(frame.rescale.is_given for frame in frames):
            return "arbitrary", 1.0, ("The CT has no rescale slope and intercept; values are as stored, not HU.",)
        types = {frame.rescale.type.upper() for frame in frames} - {"", "HU"}
        if types:
            return "arbitrary", 1.0, (f"The values are of rescale type {', '.join(sorted(types))[:24]}, not HU.",)
        return "HU", 1.0, ()
    if modality == "PT":
        suv = suv_factor([file.header for file in files])
        return suv.unit, suv.factor, (suv.note,) if suv.note else ()
    return "arbitrary", 1.0, ()
