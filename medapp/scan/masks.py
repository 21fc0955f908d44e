"""Masks and alphas of other software, brought onto the grid of a series: NIfTI, PNG, DICOM SEG, RTSTRUCT."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import MaskMismatchError, UnreadableFileError
from medapp.progress import Progress
from medapp.scan.geometry import Geometry
from medapp.scan.nifti import nifti_scans
from medapp.scan.raster import raster_scan
from medapp.scan.reading import sniff
from medapp.scan.scan import Scan

logger = logging.getLogger(__name__)

FULL = 65535
_MAX_LABELS = 255
_TOLERANCE = 0.1  # voxels that a mask's corners may lie off the grid
_FIT = "Choose the series that the mask was drawn on."


@dataclass(frozen=True, eq=False)
class ImportedMask:
    """One label, on the grid of the series.

    Attributes:
        name: What it was called, or the file's name and its number.
        values: ``(Z, Y, X)`` uint16 0…65535 of a soft mask, bool of a mask, or the label map it is one label of.
        label_number: Its number in the file; 1 where it has none.
        colour: ``#rrggbb`` or None.
        is_soft: True when ``alpha`` is uint16.
        notes: What was assumed or turned, one sentence each.
        equals: The voxels of a label map that belong to it; None otherwise.
    """

    name: str
    values: NDArray
    label_number: int
    colour: str | None = None
    is_soft: bool = False
    notes: tuple[str, ...] = ()
    equals: int | None = None

    @property
    def alpha(self) -> NDArray:
        """``(Z, Y, X)`` bool for a mask, uint16 0…65535 for a soft one; worked out each time, so ask once."""
        return self.values if self.equals is None else self.values == self.equals


def read_masks(path: Path | str, scan: Scan, progress: Progress) -> tuple[ImportedMask, ...]:
    """Every label of a file, or of a folder of PNG files with one per slice.

    Args:
        path: NIfTI label map or alpha, PNG (or another raster image), DICOM SEG or RTSTRUCT, by content.
        scan: The series they belong to; its grid is the result's.
        progress: Told what is parsed.

    Raises:
        MaskMismatchError: It does not lie on the grid of the series; the message names both shapes.
        UnreadableFileError: Damaged, unsupported, or holds no mask.
        Cancelled: The user stopped it.
    """
    path = Path(path)
    if path.is_dir():
        return _folder_masks(path, scan, progress)
    kind = sniff(path)
    if kind == "nifti":
        return _nifti_masks(path, scan, progress)
    if kind in ("png", "jpeg", "tiff", "bmp"):
        values, alpha = _raster_slices([path], scan, progress)
        return _labels(values, alpha, path.stem, ())
    if kind == "dicom":
        from medapp.scan.dicom_masks import dicom_masks  # SEG and RTSTRUCT need this module's ImportedMask

        return dicom_masks(path, scan, progress)
    raise UnreadableFileError(
        f"{path.name} is not a mask medapp knows.", "Choose a NIfTI label map, PNG, DICOM SEG or RTSTRUCT."
    )


def mismatch(name: str, theirs: Sequence[int], scan: Scan) -> MaskMismatchError:
    """The error for a mask of another shape."""
    return MaskMismatchError(
        f"{name} has the shape {_times(theirs)}, the series {_times(scan.shape[:3])}; nothing was imported.", _FIT
    )


def elsewhere(name: str, theirs: Sequence[int], scan: Scan) -> MaskMismatchError:
    """The error for a mask that lies somewhere else."""
    return MaskMismatchError(
        f"{name} ({_times(theirs)}) does not lie on the grid of the series ({_times(scan.shape[:3])}): position, "
        "spacing or orientation differ; nothing was imported.",
        _FIT,
    )


def _times(shape: Sequence[int]) -> str:
    return " × ".join(str(n) for n in shape)


def _nifti_masks(path: Path, scan: Scan, progress: Progress) -> tuple[ImportedMask, ...]:
    volumes = list(nifti_scans(path, progress))
    found: list[ImportedMask] = []
    for number, lazy in enumerate(volumes):
        if lazy.is_colour:
            raise UnreadableFileError(f"{path.name} holds colours, not labels.", "Save it as a label map.")
        mask = lazy.decode(progress=progress)
        stored, notes = onto_grid(mask.stored, lazy.geometry, scan, path.name)
        values = stored if mask.slope == 1.0 and mask.intercept == 0.0 else stored * mask.slope + mask.intercept
        title = f"{_stem(path)} {number + 1}" if len(volumes) > 1 else _stem(path)
        found.extend(_labels(values, None, title, notes))
        progress.check()
    names = _sidecar(path)
    named = []
    for mask in found:
        name, colour = names.get(mask.label_number, (mask.name, mask.colour))
        named.append(mask if mask.is_soft else replace(mask, name=name, colour=colour))
    return tuple(named)


def onto_grid(array: NDArray, geometry: Geometry | None, scan: Scan, name: str) -> tuple[NDArray, tuple[str, ...]]:
    """Turn a volume that lies on the same grid, with other axes perhaps, to the series' own order of axes.

    Args:
        array: ``(Z, Y, X)``.
        geometry: Where it lies, or None when it does not say.
        scan: The series.
        name: For messages.

    Raises:
        MaskMismatchError: Another grid.
    """
    if geometry is None or scan.geometry is None:
        if array.shape != scan.shape[:3]:
            raise mismatch(name, array.shape, scan)
        return array, ("One of mask and series has no position; they were matched by their shapes alone.",)
    corners = np.array([[0, 0, 0], *np.diag(np.array(array.shape) - 1)], dtype=np.float64)
    placed = scan.geometry.to_index(geometry.to_mm(corners))
    steps = scan.geometry.to_index(geometry.to_mm(np.vstack([np.zeros(3), np.eye(3)])))
    turn = steps[1:] - steps[0]  # row a: where one step along the mask's axis a goes in the series
    axes = np.abs(turn).argmax(axis=1)
    is_turned = sorted(axes.tolist()) == [0, 1, 2]
    if not is_turned:
        raise elsewhere(name, array.shape, scan)
    order = [int(np.flatnonzero(axes == axis)[0]) for axis in range(3)]
    turned = array.transpose(order)
    if turned.shape != scan.shape[:3]:
        raise mismatch(name, turned.shape, scan)
    flips = [axis for axis in range(3) if turn[order[axis], axis] < 0]
    turned = np.flip(turned, tuple(flips)) if flips else turned
    lows, highs = placed.min(axis=0), placed.max(axis=0)
    expected = np.array(scan.shape[:3], dtype=np.float64) - 1
    if np.abs(lows).max() > _TOLERANCE or np.abs(highs - expected).max() > _TOLERANCE:
        raise elsewhere(name, turned.shape, scan)
    if order != [0, 1, 2] or flips:
        return np.ascontiguousarray(turned), ("Its axes were turned to those of the series.",)
    return turned, ()


def _raster_slices(paths: Sequence[Path], scan: Scan, progress: Progress) -> tuple[NDArray, NDArray[np.uint16] | None]:
    """``(Z, Y, X)`` labels or grey values, or ``(Z, Y, X, 3)`` colours, and an alpha when the files have one."""
    images = [raster_scan(path, progress).decode(progress=progress) for path in paths]
    values = [image.stored for image in images]
    depth = sum(image.shape[0] for image in images)
    theirs = (depth, *images[0].shape[1:3])
    if theirs != scan.shape[:3] or any(image.shape[1:] != images[0].shape[1:] for image in images):
        raise mismatch(paths[0].name if len(paths) == 1 else paths[0].parent.name, theirs, scan)
    alphas = [image.alpha for image in images]
    alpha = np.concatenate([a for a in alphas if a is not None]) if all(a is not None for a in alphas) else None
    return np.concatenate(values), alpha


def _folder_masks(folder: Path, scan: Scan, progress: Progress) -> tuple[ImportedMask, ...]:
    """PNG files, one per slice, in the order of their names."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    paths = [path for path in paths if sniff(path) in ("png", "tiff", "bmp")]
    if not paths:
        raise UnreadableFileError(f"{folder.name} holds no mask images.", "Choose a folder of PNG files.")
    if len(paths) != scan.shape[0]:
        raise MaskMismatchError(
            f"{folder.name} holds {len(paths)} images, the series has {scan.shape[0]} slices.", _FIT
        )
    values, alpha = _raster_slices(paths, scan, progress)
    return _labels(values, alpha, folder.name, ("The images were taken in the order of their names.",))


def _labels(
    values: NDArray, alpha: NDArray[np.uint16] | None, title: str, notes: tuple[str, ...]
) -> tuple[ImportedMask, ...]:
    """Tell a soft matte from a mask from a label map."""
    title = title[:64]
    if alpha is not None and alpha.min() < FULL:
        return (_soft(title, alpha, notes),)
    if values.ndim == 4:
        return _colour_labels(values, title, notes)
    distinct = np.unique(values)
    distinct = distinct[distinct != 0]
    if not distinct.size:
        raise UnreadableFileError(
            f"{title} is empty: every voxel is background.", "Choose a mask with something on it."
        )
    low, high = float(distinct.min()), float(distinct.max())
    is_whole = bool(np.all(distinct == np.round(distinct)))
    if distinct.size == 1:
        number = int(high) if is_whole and 0 < high < 255 else 1
        return (ImportedMask(title, values != 0, number, notes=notes),)
    if not is_whole:
        if low < 0 or high > 1.0 + 1e-6:
            raise UnreadableFileError(
                f"{title} is neither a label map nor an alpha: its values run from {low:.4g} to {high:.4g}.",
                "An alpha lies between 0 and 1, a label map holds whole numbers.",
            )
        return (_soft(title, np.round(np.clip(values, 0, 1) * FULL).astype(np.uint16), notes),)
    if low < 0:
        raise UnreadableFileError(f"{title} holds negative labels.", "Choose a label map.")
    is_grey = (
        values.dtype in (np.uint8, np.uint16) and distinct.size > 32 and high > distinct.size * 0.9 and high <= FULL
    )
    if distinct.size > _MAX_LABELS - 1 or (is_grey and high in (255, FULL)):
        top = 255 if high <= 255 else FULL
        if high > FULL:
            raise UnreadableFileError(
                f"{title} holds {distinct.size} labels; the limit is {_MAX_LABELS}.", "Import them in parts."
            )
        scaled = np.round(values.astype(np.float64) * (FULL / top)).astype(np.uint16)
        return (_soft(title, scaled, (*notes, f"Its {distinct.size} grey values were taken as a soft mask.")),)
    return tuple(ImportedMask(f"{title} {int(v)}"[-64:], values, int(v), notes=notes, equals=int(v)) for v in distinct)


def _soft(title: str, alpha: NDArray[np.uint16], notes: tuple[str, ...]) -> ImportedMask:
    return ImportedMask(title, alpha, 1, is_soft=True, notes=notes)


def _colour_labels(values: NDArray, title: str, notes: tuple[str, ...]) -> tuple[ImportedMask, ...]:
    """One label per colour, black as background; grey pictures saved in colour are read as grey."""
    if (
        values.dtype == np.uint8
        and (values[..., 0] == values[..., 1]).all()
        and (values[..., 1] == values[..., 2]).all()
    ):
        return _labels(values[..., 0], None, title, notes)
    codes = values.astype(np.int64) @ np.array([1 << 32, 1 << 16, 1], dtype=np.int64)
    distinct = [int(code) for code in np.unique(codes) if code]
    if len(distinct) > 32:
        raise UnreadableFileError(
            f"{title} holds {len(distinct)} colours, which is a picture, not labels.", "Save it as a label map."
        )
    shift = 8 if values.dtype == np.uint16 else 0
    found = []
    for number, code in enumerate(distinct, start=1):
        red, green, blue = ((code >> bits & 0xFFFF) >> shift for bits in (32, 16, 0))
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        found.append(ImportedMask(f"{title} {number}", codes, number, colour, notes=notes, equals=code))
    return tuple(found)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".hdr")[:64]


def _sidecar(path: Path) -> dict[int, tuple[str, str | None]]:
    """Names and colours of labels from a JSON file beside a label map: a list of number, name, colour."""
    beside = path.with_name(f"{_stem(path)}.json")
    if not beside.is_file() or beside.is_symlink() or beside.stat().st_size > 1 << 20:
        return {}
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        items = content.get("labels", []) if isinstance(content, dict) else content
        found: dict[int, tuple[str, str | None]] = {}
        for item in items:
            colour = str(item.get("colour", "")).lower()
            is_colour = re.fullmatch(r"#[0-9a-f]{6}", colour) is not None
            found[int(item["number"])] = (str(item["name"])[:64], colour if is_colour else None)
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        logger.info("the file of label names could not be used")
        return {}
