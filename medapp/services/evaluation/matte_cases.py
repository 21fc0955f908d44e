"""Held-out things whose alpha is known: cut-outs, brain tissue, retinal vessels, skin lesions, tumours."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.annotation.trimap import Box
from medapp.errors import MedappError, TrainingError
from medapp.progress import Progress
from medapp.scan.raster import raster_scan
from medapp.scan.reading import read_all
from medapp.scan.scan import Scan, Window
from medapp.training.sources import manifest_rows

_log = logging.getLogger(__name__)
_Entry = TypeVar("_Entry")

SOURCES = ("cut-out", "white matter", "grey matter", "vessels", "skin", "tumour")
PER_SOURCE = 24
"""At most so many cases of a source, evenly spaced."""
HARD_LABEL_BLUR = 1 / 128
"""A hard label says nothing about its border: it is blurred by this share of the crop, one pixel of it as measured."""
_TISSUES = {3: "white matter", 2: "grey matter"}  # with one box for both: a model told a box cannot serve both
_LEAST_AREA_PX = 40
_CROP_OF_BOX = 1.5
_RETINA_TILE_PX = 240
_SLICES_A_PATIENT = 4


@dataclass(frozen=True)
class MatteCase:
    """One thing whose alpha is known.

    Attributes:
        source: One of ``SOURCES``, or whatever the caller groups by.
        name: What tells it from other cases of the source.
        patient: Whom it is of; cases of one patient are never counted as independent.
        values: ``(H, W)``, or ``(H, W, 3)`` colours.
        window: As it is shown; None for colours.
        alpha: ``(H, W)`` float32, 0..1.
        readers: ``(H, W)`` bool, what each of several readers drew; empty = the alpha alone is known.
        box_xyxy: What a person would drag; None = around the alpha.
        spacing_mm: Pixel size; None when unknown.
        modality: DICOM code; None when unknown.
    """

    source: str
    name: str
    patient: str
    values: NDArray
    window: Window | None
    alpha: NDArray[np.float32]
    readers: tuple[NDArray[np.bool_], ...] = ()
    box_xyxy: Box | None = None
    spacing_mm: float | None = None
    modality: str | None = None


def held_out_cases(data_dir: Path, progress: Progress, per_source: int = PER_SOURCE) -> tuple[list[MatteCase], str]:
    """The cases of the ``val`` rows, and one SHA-256 over their pixels.

    Raises:
        TrainingError: The folder has no manifest, or no such rows.
        Cancelled: The user stopped it.
    """
    rows = {row["path"]: row for row in manifest_rows(data_dir) if row["kind"] == "val"}
    found: dict[str, list[MatteCase]] = {source: [] for source in SOURCES}
    progress.start(len(rows), "files", "reading mattes")
    for path in sorted(rows):
        progress.step()
        try:
            for case in _read(data_dir, path, rows):
                if np.count_nonzero(case.alpha >= 0.5) >= _LEAST_AREA_PX:
                    found[case.source].append(case)
        except MedappError as error:
            _log.warning("left out %s: %s", path, error.message)
    if not any(found.values()):
        raise TrainingError("The data folder has no held-out mattes", "Its manifest needs val rows; see its README")
    cases = [case for source in SOURCES for case in _spread(found[source], per_source)]
    digest = hashlib.sha256()
    for case in cases:
        digest.update(np.ascontiguousarray(case.values).tobytes())
        digest.update(np.ascontiguousarray(case.alpha).tobytes())
    return cases, digest.hexdigest()


def _read(data_dir: Path, path: str, rows: Mapping[str, object]) -> Iterator[MatteCase]:
    if path.startswith("matting/composite/") and path.endswith("_image.png"):
        yield _composite(data_dir, path)
    elif path == "matting/medical_soft/jlfout_pred.nii.gz":
        yield from _posteriors(data_dir, path)
    elif path.startswith("skin_or_endoscopy/fundus/") and path.endswith(".jpg"):
        yield from _retina(data_dir, path)
    elif path.startswith("skin_or_endoscopy/isic/") and path.endswith(".jpg"):
        yield _lesion(data_dir, path)
    else:
        for ending, modality in (("_ct.nii.gz", "CT"), ("_t1.nii.gz", "MR"), ("_pet.nii.gz", "PT")):
            mask = path.removesuffix(ending) + "_gtv.nii.gz"
            if path.endswith(ending) and mask in rows:
                yield from _tumours(data_dir, path, mask, modality)


def _composite(data_dir: Path, path: str) -> MatteCase:
    image, alpha = (
        np.asarray(raster_scan(data_dir / p, Progress()).decode(progress=Progress()).stored[0])
        for p in (path, path.replace("_image", "_alpha"))
    )
    soft: NDArray[np.float32] = (alpha / np.iinfo(alpha.dtype).max).astype(np.float32)
    name = Path(path).stem.removesuffix("_image")
    return MatteCase("cut-out", name, name, image, None, soft if soft.ndim == 2 else soft[..., 0])


def _posteriors(data_dir: Path, path: str) -> Iterator[MatteCase]:
    """Probability of a tissue in each pixel: genuinely soft. One brain only."""
    shown = read_all(data_dir / path)[0]
    for tissue, source in _TISSUES.items():
        soft = read_all(data_dir / path.replace("_pred", f"_prob{tissue}"))[0]
        for z in range(shown.shape[0]):
            alpha = np.clip(soft.slice_values(z), 0, 1).astype(np.float32)
            name = f"{source}, slice {z}"
            values = shown.slice_values(z)
            yield MatteCase(source, name, "brain", values, Window(0.4, 0.8), alpha, spacing_mm=1.0, modality="MR")


def _retina(data_dir: Path, path: str) -> Iterator[MatteCase]:
    """Parts of a retina; the mean of two observers is the soft truth, and what they drew the set of masks.

    A part is a whole crop: its box is the middle, and what is meant are all vessels of the crop.
    """
    image = np.asarray(read_all(data_dir / path)[0].slice_values(0))
    observers = []
    for ending in ("_1stHO.png", "_2ndHO.png"):
        drawn = _grey(read_all(data_dir / (path.removesuffix(".jpg") + ending))[0], 0)
        observers.append(np.asarray(drawn > 0.5 * drawn.max()))
    side = _RETINA_TILE_PX
    margin = round(side * (1 - 1 / _CROP_OF_BOX) / 2)
    box = (margin, margin, side - margin, side - margin)
    stem = Path(path).stem
    for y in range(side // 2, image.shape[0] - side - side // 4, side):
        for x in range(side // 2, image.shape[1] - side - side // 4, side):
            tile = (slice(y, y + side), slice(x, x + side))
            drawn_by = tuple(observer[tile] for observer in observers)
            alpha = np.stack(drawn_by).mean(axis=0).astype(np.float32)
            if alpha.mean() < 0.05:
                continue
            patient = stem.removesuffix("L").removesuffix("R")
            yield MatteCase("vessels", f"{stem} {y} {x}", patient, image[tile], None, alpha, drawn_by, box)


def _lesion(data_dir: Path, path: str) -> MatteCase:
    image = np.asarray(read_all(data_dir / path)[0].slice_values(0))
    mask = _grey(read_all(data_dir / (path.removesuffix(".jpg") + "_mask.png"))[0], 0)
    return MatteCase("skin", Path(path).stem, Path(path).stem, image, None, softened(mask > 0.5 * mask.max()))


def _tumours(data_dir: Path, path: str, mask_path: str, modality: str) -> Iterator[MatteCase]:
    scan, mask = (read_all(data_dir / name)[0] for name in (path, mask_path))
    spacing_mm = float(np.mean(scan.in_plane_spacing_mm or (1.0, 1.0)))
    masks = {z: _grey(mask, z) > 0.5 for z in range(scan.shape[0])}
    large = [z for z, drawn in masks.items() if np.count_nonzero(drawn) >= _LEAST_AREA_PX]
    patient = re.sub(r"_(ct|t1|pet)\.nii\.gz$", "", Path(path).name)
    for z in _spread(large, _SLICES_A_PATIENT):
        values = _grey(scan, z)
        low, high = (float(v) for v in np.percentile(values, (1.0, 99.7)))
        window = Window((low + high) / 2, max(high - low, 1e-6))
        alpha = softened(masks[z])
        name = f"{patient} {modality} {z}"
        yield MatteCase("tumour", name, patient, values, window, alpha, spacing_mm=spacing_mm, modality=modality)


def softened(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A hard label as an alpha: blurred by a pixel of the crop as it is measured, at least by half a pixel."""
    rows, columns = np.nonzero(mask)
    side = _CROP_OF_BOX * max(np.ptp(rows), np.ptp(columns)) if rows.size else 0.0
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), max(0.5, side * HARD_LABEL_BLUR))
    return cast("NDArray[np.float32]", blurred)


def _grey(scan: Scan, z: int) -> NDArray[np.float32]:
    values = np.asarray(scan.slice_values(z), dtype=np.float32)
    return values if values.ndim == 2 else values.mean(axis=-1)


def _spread(entries: list[_Entry], most: int) -> list[_Entry]:
    """At most so many of a list, evenly spaced."""
    if len(entries) <= most:
        return entries
    return [entries[int(i)] for i in np.linspace(0, len(entries) - 1, most).round()]
