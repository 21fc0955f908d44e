"""The dry run: what an export would write, what it cannot write and why, and whose identifiers it met."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medapp.annotation.matte import FULL, Matte
from medapp.errors import ExportError
from medapp.export.deidentify import Privacy, may_show_a_face, may_show_burned_in_text
from medapp.export.derived import why_no_derived
from medapp.export.files import clean_name
from medapp.export.identifiers import NOTHING, Identifiers, identifiers_of
from medapp.export.plan_types import FORMATS, ExportItem, ExportOptions, PlannedFile
from medapp.export.seg import why_no_seg
from medapp.export.source_slices import SourceHeaders, source_headers
from medapp.export.splits import Split, split_groups
from medapp.scan.pixels import quiet

log = logging.getLogger(__name__)

_HALF = (FULL + 1) // 2  # stored alpha of 0.5 and more
_PNG_SHARE, _GZIP_SHARE, _SEG_SHARE = 0.6, 0.4, 1.0  # of the raw bytes; only for the estimate


@dataclass(frozen=True, eq=False)
class PlannedItem:
    """One series of the plan.

    Attributes:
        item: As asked for.
        folder: Relative, ``alias/01_ct_original``.
        alias: Name of the patient group in the export.
        split: Where the group falls.
        headers: Complete datasets of the DICOM source; without slices for other sources.
        formats: What will be written of it.
        mattes: Those with any alpha.
        names: Clean, unique file names of the mattes, by matte id.
        is_held_back: True when its images may show burned-in text and nobody has looked: no image is written.
        identifiers: Of its source.
    """

    item: ExportItem
    folder: str
    alias: str
    split: Split
    headers: SourceHeaders
    formats: frozenset[str]
    mattes: tuple[Matte, ...]
    names: dict[str, str]
    is_held_back: bool
    identifiers: Identifiers

    @property
    def masks(self) -> tuple[Matte, ...]:
        """Mattes that reach alpha 0.5 somewhere."""
        return tuple(m for m in self.mattes if any(m.slice_stored(z).max() >= _HALF for z in m.annotated_slices()))

    @property
    def annotated(self) -> tuple[int, ...]:
        """Slices with alpha of any matte."""
        return tuple(sorted({z for matte in self.mattes for z in matte.annotated_slices()}))


@dataclass(frozen=True, eq=False)
class ExportPlan:
    """The dry run.

    Attributes:
        options: With a key, if there was none.
        items: One per series.
        files: Every file but the manifest, with estimated bytes.
        notes: What is worth knowing about formats and sources.
        problems: What will not be written, and why.
        identifiers: Names of elements that identify somebody in the sources; never their values.
        privacy: How identities are written.
    """

    options: ExportOptions
    items: tuple[PlannedItem, ...]
    files: tuple[PlannedFile, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    identifiers: tuple[str, ...]
    privacy: Privacy

    @property
    def size(self) -> int:
        """Estimated bytes in all."""
        return sum(file.size for file in self.files)


def plan(items: Sequence[ExportItem], options: ExportOptions) -> ExportPlan:
    """Say what an export would do; nothing is written.

    Raises:
        ExportError: Nothing to export, an unknown format, or the folder is already in use.
    """
    unknown = options.formats - FORMATS
    if unknown:
        raise ExportError(f"Unknown export format {min(unknown)}.", f"Choose from {', '.join(sorted(FORMATS))}.")
    if not items or not options.formats:
        raise ExportError("Nothing was chosen for export.", "Include at least one series and one format.")
    check_free(options.out)
    if not options.key:
        options = replace(options, key=secrets.token_bytes(32))
    groups = [_group_of(item, number) for number, item in enumerate(items)]
    with quiet():  # pydicom's warnings quote values
        found = [identifiers_of(item.header_scan.source, item.group) for item in items]
    everything = NOTHING
    for identifiers in found:
        everything = everything.joined(identifiers)
    privacy = Privacy(options.key, options.deidentify, everything.dates)
    aliases = {group: clean_name(privacy.alias(group), "patient") for group in groups}
    aliases = _unique(aliases)
    splits = split_groups(Counter(aliases[group] for group in groups), options.split_fractions, options.split_seed)
    notes: list[str] = []
    problems: list[str] = []
    planned = []
    for number, (item, group, identifiers) in enumerate(zip(items, groups, found, strict=True), start=1):
        alias = aliases[group]
        with quiet():
            planned.append(
                _plan_item(item, number, group, alias, splits[alias], options, privacy, identifiers, notes, problems)
            )
    if options.deidentify:
        notes.append("Identifiers are removed, UIDs mapped and dates shifted; every written byte is searched for them.")
    else:
        notes.append("Identifiers are NOT removed: names, ids and dates of patients will be in the files.")
    if "coco" in options.formats:
        notes.append("COCO cannot hold alpha: it gets masks at alpha 0.5 and the names of the alpha files.")
    files = [file for entry in planned for file in planned_files(entry, options)]
    files.append(PlannedFile("splits.json", "splits", 200 + 60 * len(splits)))
    if "coco" in options.formats:
        files.append(PlannedFile("coco.json", "coco", 400 * len(files)))
    lacking = sum(file.size for file in files) - _free_bytes(options.out)
    if lacking > 0:
        problems.append(f"The disk has about {lacking / 1e9:.1f} GB too little free space for this export.")
    result = ExportPlan(
        options,
        tuple(planned),
        tuple(files),
        tuple(dict.fromkeys(notes)),
        tuple(dict.fromkeys(problems)),
        everything.elements,
        privacy,
    )
    log.info("export planned: %d series, %d files", len(planned), len(files))
    return result


def _group_of(item: ExportItem, number: int) -> str:
    """The patient group; a series whose patient nobody knows is a group of its own, with what was made from it."""
    source = item.header_scan
    return item.group or source.source.patient_id or f"series {source.series_key or number}"


def check_free(out: Path) -> None:
    """Refuse a folder that already holds something.

    Raises:
        ExportError: It is a file, or not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(
            "The export folder already exists and is not empty; it was left alone.", "Choose another name."
        )


def _free_bytes(out: Path) -> int:
    """Free space where the export will lie."""
    place = next((folder for folder in (out, *out.absolute().parents) if folder.is_dir()), Path("/"))
    return shutil.disk_usage(place).free


def _plan_item(
    item: ExportItem,
    number: int,
    group: str,
    alias: str,
    split: Split,
    options: ExportOptions,
    privacy: Privacy,
    identifiers: Identifiers,
    notes: list[str],
    problems: list[str],
) -> PlannedItem:
    scan, source = item.scan, item.header_scan
    name = f"Series {number}"
    headers = SourceHeaders([])
    if source.source.headers and len(source.source.headers) == len(source.source.frames):
        headers = source_headers(source, group, privacy, identifiers)
        notes.extend(f"{name}: {note}" for note in headers.notes)
    wanted = set(options.formats)
    if "coco" in wanted:
        wanted.add("png")
    mattes = tuple(matte for matte in item.annotation if matte.annotated_slices())
    if item.annotation.shape_zyx != scan.shape[:3]:
        if mattes:
            problems.append(f"{name}: its mattes lie on another grid and are left out.")
        mattes = ()
    elif len(mattes) < len(item.annotation):
        count = len(item.annotation) - len(mattes)
        notes.append(f"{name}: {count} empty {'matte is' if count == 1 else 'mattes are'} left out.")
    if options.deidentify:
        for place, matte in enumerate(mattes, start=1):
            if identifiers.is_in(matte.name):
                problems.append(f"{name}: the name of matte {place} holds an identifying value; rename it to export.")
    seg_slices = headers.slices if len(headers.slices) == scan.shape[0] else []
    reason = why_no_seg(seg_slices) if headers.slices else why_no_seg([])
    if headers.slices and not seg_slices:
        reason = "it has another number of slices than its source"
    if wanted & {"seg", "seg-binary"} and (reason or not mattes):
        if reason and mattes:
            problems.append(f"{name}: no DICOM SEG, because {reason}.")
        wanted -= {"seg", "seg-binary"}
    if "derived" in wanted and item.kind == "original":
        wanted.discard("derived")
    elif "derived" in wanted and item.kind == "depth":
        problems.append(f"{name}: no derived DICOM series, because depths are lengths; it is written as PNG.")
        wanted.discard("derived")
    elif "derived" in wanted and item.kind == "trust":
        problems.append(f"{name}: no derived DICOM series, because a trust map is no image of the patient.")
        wanted.discard("derived")
    elif "derived" in wanted and (reason := why_no_derived(scan, headers.slices)):
        problems.append(f"{name}: no derived DICOM series, because {reason}.")
        wanted.discard("derived")
    if "nifti" in wanted and (reason := why_no_nifti(item)):
        problems.append(f"{name}: no NIfTI, because {reason}.")
        wanted.discard("nifti")
    is_held_back = (
        options.deidentify
        and bool(headers.slices)
        and may_show_burned_in_text(source.modality, headers.burned_in)
        and not {scan.series_key, source.series_key} & options.cleared_series
    )
    if is_held_back:
        problems.append(f"{name}: its images may show burned-in text and are held back until somebody has looked.")
        wanted -= {"derived", "png-cutout", "coco"}
    if options.deidentify and may_show_a_face(source.modality, *headers.body_parts):
        notes.append(f"{name}: a head; a face can be rebuilt from its slices.")
    if options.deidentify and not headers.slices and "png" in wanted and scan.is_colour:
        notes.append(f"{name}: look at the image before sharing it; text in its pixels is not found.")
    modality = (scan.modality or "image").lower()
    folder = f"{alias}/{number:02d}_{clean_name(modality)}_{item.kind}"
    return PlannedItem(
        item,
        folder,
        alias,
        split,
        headers,
        frozenset(wanted),
        mattes,
        _matte_names(mattes),
        is_held_back,
        identifiers,
    )


def why_no_nifti(item: ExportItem) -> str:
    """Why a series cannot become NIfTI; empty when it can."""
    scan = item.scan
    if scan.is_colour:
        return "it is in colour; it is written as PNG"
    if scan.kind == "stack":
        return "its slices are irregular or have no position, which an affine cannot describe"
    if scan.geometry is None:
        return "its place and size in mm are unknown"
    return ""


def planned_files(entry: PlannedItem, options: ExportOptions) -> list[PlannedFile]:
    """The files of one series, with estimated bytes."""
    scan, folder, files = entry.item.scan, entry.folder, []
    depth, rows, columns = scan.shape[:3]
    plane = rows * columns
    channels = 3 if scan.is_colour else 1
    if "nifti" in entry.formats:
        volume = depth * plane
        if not entry.is_held_back:
            files.append(PlannedFile(f"{folder}/image.nii.gz", "image", int(volume * 4 * _GZIP_SHARE), scan.unit))
        for matte in entry.mattes:
            name = f"{folder}/alpha_{entry.names[matte.matte_id]}.nii.gz"
            files.append(PlannedFile(name, "alpha", 2000 + volume // 50, "float32, 0 to 1"))
        if entry.mattes:
            files.append(PlannedFile(f"{folder}/labels.nii.gz", "labels", 2000 + volume // 200, "largest alpha >= 0.5"))
            files.append(PlannedFile(f"{folder}/labels.json", "labels", 200 * len(entry.mattes)))
    if "png" in entry.formats:
        size = int(plane * channels * (1 if channels == 3 else options.png_bits // 8) * _PNG_SHARE)
        note = "8-bit colour" if channels == 3 else f"{options.png_bits}-bit"
        if not entry.is_held_back:
            files += [PlannedFile(png_name(folder, "image", z), "image", size, note) for z in range(depth)]
    for matte in entry.mattes:
        for z in matte.annotated_slices():
            key = entry.names[matte.matte_id]
            if "png" in entry.formats:
                name = png_name(folder, f"alpha_{key}", z)
                files.append(PlannedFile(name, "alpha", 500 + plane // 10, f"{options.png_bits}-bit"))
            if "png-cutout" in entry.formats:
                files.append(PlannedFile(png_name(folder, f"cutout_{key}", z), "cutout", 500 + plane // 2, "RGBA"))
    if "derived" in entry.formats:
        files += [
            PlannedFile(f"{folder}/derived/z{z:03d}.dcm", "derived", 3000 + 2 * plane, "16-bit DICOM")
            for z in range(depth)
        ]
    frames = sum(len(matte.annotated_slices()) for matte in entry.mattes)
    if "seg" in entry.formats:
        size = 4000 + frames * int(plane * _SEG_SHARE)
        files.append(PlannedFile(f"{folder}/seg_fractional.dcm", "seg", size, f"FRACTIONAL {options.alpha_meaning}"))
    if "seg-binary" in entry.formats and entry.masks:
        files.append(
            PlannedFile(
                f"{folder}/seg_binary.dcm", "seg-binary", 4000 + frames * plane // 8, "alpha >= 0.5; for viewers"
            )
        )
    return files


def png_name(folder: str, what: str, z: int) -> str:
    """Relative path of one PNG."""
    return f"{folder}/png/{what}_z{z:03d}.png"


def _matte_names(mattes: Sequence[Matte]) -> dict[str, str]:
    return {matte.matte_id: f"{i:02d}_{clean_name(matte.name, 'matte').lower()}" for i, matte in enumerate(mattes, 1)}


def _unique(aliases: dict[str, str]) -> dict[str, str]:
    """Aliases made different from each other where cleaning made them equal."""
    taken: set[str] = set()
    result = {}
    for group, alias in aliases.items():
        name, turn = alias, 2
        while name.lower() in taken:
            name, turn = f"{alias}_{turn}", turn + 1
        taken.add(name.lower())
        result[group] = name
    return result
