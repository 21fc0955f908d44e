"""Writing a data set: aside, read back and compared, searched for identifiers, then given its name.

``plan`` is the dry run; ``write`` carries it out. The folder has its final name only when everything in it has been
read back equal and the manifest is there.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.matte import FULL
from medapp.errors import ExportError
from medapp.export.coco import CocoDocument
from medapp.export.codes import segment_codes
from medapp.export.derived import derived_series, write_derived
from medapp.export.files import sync_folder, write_bytes
from medapp.export.identifiers import NOTHING, search_folder
from medapp.export.manifest import to_json, verify_folder, write_manifest
from medapp.export.nifti import SliceStream, write_nifti
from medapp.export.objects import version
from medapp.export.plan_types import ExportItem, ExportOptions, ExportReport, PlannedFile, Written
from medapp.export.planning import ExportPlan, PlannedItem, check_free, plan, png_name
from medapp.export.png import alpha_pixels, cutout_pixels, image_pixels, value_map, write_png
from medapp.export.seg import SegStyle, write_seg
from medapp.export.source_slices import SourceSlice
from medapp.progress import Progress
from medapp.scan.pixels import quiet

__all__ = ["ExportItem", "ExportOptions", "ExportPlan", "ExportReport", "PlannedFile", "plan", "write"]

log = logging.getLogger(__name__)

_HALF = (FULL + 1) // 2
_PROVENANCE = frozenset({"task", "model", "model_id", "version", "sha256", "architecture", "device", "unit", "medapp"})


def write(planned: ExportPlan, progress: Progress | None = None) -> ExportReport:
    """Write what was planned.

    Args:
        planned: From ``plan``.
        progress: Counts files.

    Raises:
        ExportError: Something could not be written, read back differently, or holds an identifier; nothing is left.
        Cancelled: The user stopped it; nothing is left.
    """
    progress = progress or Progress()
    out = planned.options.out
    check_free(out)
    aside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    progress.start(len(planned.files), "files", "Exporting")
    try:
        _make_folder(aside)
        writer = _Writer(planned, aside, progress)
        with quiet():  # pydicom's warnings quote values
            for entry in planned.items:
                writer.write_item(entry)
        writer.write_splits()
        if "coco" in planned.options.formats:
            writer.add("coco.json", "coco", writer.coco.as_dict())
        write_manifest(aside, _manifest(planned, writer.written))
        progress.tell("Searching every file for identifiers")
        _check_privacy(planned, aside, progress)
        if not verify_folder(aside).is_sound:
            raise ExportError("The export read back differently from what was written; nothing was exported.", "")
        _give_name(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    errors = [file.alpha_error for file in writer.written if file.alpha_error is not None]
    files = tuple((file.path, file.size, file.role) for file in writer.written)
    log.info("exported %d files", len(files))
    return ExportReport(out, files, max(errors, default=0.0), planned.notes, planned.problems)


class _Writer:
    """Writes the files of an export into its unfinished folder."""

    def __init__(self, planned: ExportPlan, folder: Path, progress: Progress) -> None:
        self._plan = planned
        self._options = planned.options
        self._folder = folder
        self._progress = progress
        self.written: list[Written] = []
        self.coco = CocoDocument()

    def write_item(self, entry: PlannedItem) -> None:
        """Everything of one series."""
        if "nifti" in entry.formats:
            self._write_nifti(entry)
        if entry.formats & {"png", "png-cutout"}:
            self._write_png(entry)
        slices = entry.headers.slices
        if "derived" in entry.formats:
            slices = self._write_derived(entry)
        if "seg" in entry.formats:
            self._write_seg(entry, slices, "FRACTIONAL")
        if "seg-binary" in entry.formats and entry.masks:
            self._write_seg(entry, slices, "BINARY")

    def write_splits(self) -> None:
        """``splits.json``: which group, and so which series, is in train, val or test."""
        options = self._options
        groups: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for entry in self._plan.items:
            if entry.alias not in groups[entry.split]:
                groups[entry.split].append(entry.alias)
        series = {split: [e.folder for e in self._plan.items if e.split == split] for split in groups}
        document = {"seed": options.split_seed, "fractions": list(options.split_fractions)}
        self.add("splits.json", "splits", {**document, "groups": groups, "series": series})

    def add(self, name: str, role: str, document: dict[str, Any], **facts: Any) -> None:
        """Write one JSON document."""
        size, sha256 = write_bytes(self._folder / name, to_json(document))
        self._note(Written(name, role, size, sha256, facts))

    def _note(self, file: Written) -> None:
        self.written.append(file)
        self._progress.step()

    # ------------------------------------------------------------------ NIfTI

    def _write_nifti(self, entry: PlannedItem) -> None:
        scan, folder = entry.item.scan, entry.folder
        geometry = scan.geometry
        if geometry is None:
            raise ValueError("planned without geometry")
        shape = (scan.shape[0], scan.shape[1], scan.shape[2])
        place = {"affine": geometry.affine_xyz.tolist(), "shape": list(shape)}

        def put(name: str, role: str, slices: SliceStream, dtype: type, **facts: Any) -> float:
            file = write_nifti(self._folder / name, slices, shape, np.dtype(dtype), geometry)
            error = file.largest_error if role == "alpha" else None
            self._note(Written(name, role, file.size, file.sha256, {**place, **facts}, error))
            return file.largest_error

        if not entry.is_held_back:
            values = SliceStream(shape[0], scan.slice_values)
            put(f"{folder}/image.nii.gz", "image", values, np.float32, unit=scan.unit)
        for matte in entry.mattes:
            alpha = SliceStream(shape[0], lambda z, m=matte: m.slice_stored(z) / FULL)
            key = entry.names[matte.matte_id]
            put(f"{folder}/alpha_{key}.nii.gz", "alpha", alpha, np.float32, unit="alpha", matte_id=matte.matte_id)
        if not entry.mattes:
            return
        labels = SliceStream(shape[0], lambda z: _label_map(entry, z))
        dtype = np.uint8 if max(m.label for m in entry.mattes) < 256 else np.uint16
        put(f"{folder}/labels.nii.gz", "labels", labels, dtype, unit="label")
        self.add(f"{folder}/labels.json", "labels", {"labels": [_label_entry(entry, m.matte_id) for m in entry.mattes]})

    # ------------------------------------------------------------------ PNG

    def _write_png(self, entry: PlannedItem) -> None:
        scan, folder, bits = entry.item.scan, entry.folder, self._options.png_bits
        mapping = value_map(scan, bits)
        image_ids: dict[int, int] = {}
        if "png" in entry.formats and not entry.is_held_back:
            facts = {"value_map": mapping.as_dict() if mapping else None, "unit": scan.unit}
            for z in range(scan.shape[0]):
                name = png_name(folder, "image", z)
                pixels = image_pixels(scan, z, mapping)
                self._put_png(name, "image", pixels, None, z, **facts)
                if "coco" in entry.formats:
                    spacing = scan.in_plane_spacing_mm
                    image_ids[z] = self.coco.add_image(
                        _source_key(entry, self._plan), name, (scan.shape[1], scan.shape[2]), z, spacing
                    )
        window = value_map(scan, 8)
        for matte in entry.mattes:
            key = entry.names[matte.matte_id]
            for z in matte.annotated_slices():
                stored = matte.slice_stored(z)
                if "png" in entry.formats:
                    pixels, error = alpha_pixels(stored, bits)
                    name = png_name(folder, f"alpha_{key}", z)
                    self._put_png(name, "alpha", pixels, error, z, matte_id=matte.matte_id)
                    if z in image_ids:
                        self.coco.add_mask(image_ids[z], matte.matte_id, matte.name, stored >= _HALF, name)
                if "png-cutout" in entry.formats:
                    name = png_name(folder, f"cutout_{key}", z)
                    self._put_png(name, "cutout", cutout_pixels(scan, z, window, stored), None, z)

    def _put_png(self, name: str, role: str, pixels: NDArray, error: float | None, z: int, **facts: Any) -> None:
        size, sha256 = write_png(self._folder / name, pixels)
        self._note(Written(name, role, size, sha256, {**facts, "slice": z}, error))

    # ------------------------------------------------------------------ DICOM

    def _write_derived(self, entry: PlannedItem) -> list[SourceSlice]:
        """Write the series; returns its instances as what a SEG refers to."""
        item, privacy = entry.item, self._plan.privacy
        group = entry.headers.group
        series = derived_series(
            item.scan, item.header_scan, entry.headers.slices, item.provenance, group, privacy, item.title
        )
        made = []
        for z in range(item.scan.shape[0]):
            name = f"{entry.folder}/derived/z{z:03d}.dcm"
            size, sha256, dataset = write_derived(self._folder / name, series, z, self._options.rle)
            self._note(Written(name, "derived", size, sha256, {"slice": z, "unit": item.scan.unit}))
            made.append(SourceSlice(dataset, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), None))
        return made

    def _write_seg(self, entry: PlannedItem, slices: list[SourceSlice], kind: str) -> None:
        options, item = self._options, entry.item
        is_fractional = kind == "FRACTIONAL"
        name = f"{entry.folder}/{'seg_fractional' if is_fractional else 'seg_binary'}.dcm"
        style = SegStyle("FRACTIONAL" if is_fractional else "BINARY", options.alpha_meaning, options.rle, item.reader)
        file = write_seg(
            self._folder / name,
            entry.mattes if is_fractional else entry.masks,
            slices,
            style,
            self._plan.privacy,
            entry.headers.group,
            "Mattes (fractional)" if is_fractional else "Masks at alpha >= 0.5",
        )
        facts = {"frames": file.frames, "alpha_meaning": options.alpha_meaning if is_fractional else None}
        role = "seg" if is_fractional else "seg-binary"
        self._note(Written(name, role, file.size, file.sha256, facts, file.largest_alpha_error))


def _label_map(entry: PlannedItem, z: int) -> NDArray[np.uint16]:
    """The label with the largest alpha of at least 0.5; the first one where two are equal."""
    shape = entry.item.scan.shape[1:3]
    best, labels = np.full(shape, _HALF - 1, dtype=np.int64), np.zeros(shape, dtype=np.uint16)
    for matte in entry.mattes:
        stored = matte.slice_stored(z)
        wins = stored > best
        best[wins] = stored[wins]
        labels[wins] = matte.label
    return labels


def _label_entry(entry: PlannedItem, matte_id: str) -> dict[str, Any]:
    matte = entry.item.annotation.matte(matte_id)
    _, kind = segment_codes(matte.name)
    code = {"value": kind.value, "scheme": kind.scheme_designator, "meaning": kind.meaning}
    return {"number": matte.label, "name": matte.name, "colour": matte.colour, "code": code}


def _source_key(entry: PlannedItem, planned: ExportPlan) -> str:
    """Tells series apart, the same in every export of the project; no identifier can be won back from it."""
    scan = entry.item.scan
    key = scan.series_key or scan.source.series_uid or entry.folder
    return planned.privacy.made_uid("series key", key, entry.item.kind, entry.item.revision_id)


def _manifest(planned: ExportPlan, written: list[Written]) -> dict[str, Any]:
    options = planned.options
    keys = {entry.folder: _source_key(entry, planned) for entry in planned.items}
    grids = {entry.folder: _grid(entry.item) for entry in planned.items}
    files = []
    for file in sorted(written, key=lambda f: f.path):
        folder = next((name for name in keys if file.path.startswith(f"{name}/")), None)
        facts = {k: v for k, v in file.facts.items() if v is not None}
        entry = {"path": file.path, "bytes": file.size, "sha256": file.sha256, "role": file.role}
        if folder:
            entry["source_key"] = keys[folder]
            facts = {**grids[folder], **facts}
        files.append({**facts, **entry})
    return {
        "medapp_version": version(),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "project": options.project_id,
        "options": {
            "formats": sorted(options.formats),
            "alpha_meaning": options.alpha_meaning,
            "png_bits": options.png_bits,
            "rle": options.rle,
        },
        "deidentification": _profile() if options.deidentify else None,
        "split": {
            "seed": options.split_seed,
            "fractions": list(options.split_fractions),
            "groups": {entry.alias: entry.split for entry in planned.items},
        },
        "items": [_item_entry(entry, keys[entry.folder], options.deidentify) for entry in planned.items],
        "files": files,
        "notes": list(planned.notes),
        "problems": list(planned.problems),
    }


def _grid(item: ExportItem) -> dict[str, Any]:
    """Where the voxels of a series lie; columns of the affine are x, y, z, RAS+ millimetres."""
    scan = item.scan
    place = {"affine": scan.geometry.affine_xyz.tolist()} if scan.geometry else {}
    return {**place, "shape": list(scan.shape)}


def _profile() -> dict[str, Any]:
    return {
        "profile": "DICOM PS3.15 Annex E Basic Profile, by a list of allowed elements",
        "codes": ["113100", "113107", "113108"],
        "pixels_cleaned": False,
        "bytes_searched": True,
    }


def _item_entry(entry: PlannedItem, key: str, deidentify: bool) -> dict[str, Any]:
    item = entry.item
    scan = item.scan
    provenance = {str(k): v for k, v in item.provenance.items() if isinstance(v, str | int | float | bool)}
    if deidentify:  # paths and titles may hold a name
        provenance = {k: v for k, v in provenance.items() if k in _PROVENANCE or not isinstance(v, str)}
    return {
        "folder": entry.folder,
        "source_key": key,
        "group": entry.alias,
        "split": entry.split,
        "kind": item.kind,
        "modality": scan.modality,
        "unit": scan.unit,
        "shape": list(scan.shape),
        "affine": scan.geometry.affine_xyz.tolist() if scan.geometry else None,
        "title": "" if deidentify else item.title,
        "state": item.state,
        "reader": item.reader,
        "revision": item.revision_id,
        "model_hashes": list(item.model_hashes),
        "provenance": provenance,
        "labels": [_label_entry(entry, matte.matte_id) for matte in entry.mattes],
    }


def _check_privacy(planned: ExportPlan, folder: Path, progress: Progress) -> None:
    """Search every written byte for what identifies anybody in the sources.

    Raises:
        ExportError: One value was found.
    """
    if not planned.options.deidentify:
        return
    everything = NOTHING
    for entry in planned.items:
        everything = everything.joined(entry.identifiers)
    search_folder(folder, everything, planned.options.not_identifying, progress.check)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ExportError(
            f"The export folder could not be made ({error.strerror}).", "Choose another place for the export."
        ) from error


def _give_name(aside: Path, out: Path) -> None:
    """The one step that makes the export visible."""
    try:
        if out.exists():
            out.rmdir()  # empty: it was checked
        aside.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise ExportError(
            f"The finished export could not get its name ({error.strerror}); nothing was exported.",
            "Choose another name.",
        ) from error
