"""Slices and pictures with outlined things: organs, tissues, tumours, nuclei, cells, skin lesions.

For training and for measuring alike. Nothing of ``polyp/`` is read for training: its licence asks for a permission.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.errors import MedappError, TrainingError
from medapp.progress import Progress
from medapp.scan.intensity import starting_window
from medapp.scan.raster import raster_scan
from medapp.scan.reading import read_all
from medapp.scan.scan import Scan, Window
from medapp.training.sources import manifest_rows
from medapp.training.splits import patient_of

_log = logging.getLogger(__name__)

TISSUES = "MR tissue"
ORGANS = "CT organs"
CUT_OUTS = "cut-outs"
KNOWN = (TISSUES, "CT tumour", "MR tumour", "PET tumour", "nuclei", "blood cells", "skin lesions")
"""Sets of which there are both ``train`` and ``val`` patients."""
OTHER = ("CT bladder", "hip X-ray", "cardiac MR", "polyps")
"""Sets that are only measured, on kinds of things that no one was trained on."""
_LEAST_AREA_PX = {TISSUES: 60, "PET tumour": 20, "nuclei": 30}
_ANY_AREA_PX = 40
_TUMOURS = (
    ("ct/sts/", "_ct.nii.gz", "CT", "CT tumour"),
    ("mri/sts/", "_t1.nii.gz", "MR", "MR tumour"),
    ("pet/sts/", "_pet.nii.gz", "PT", "PET tumour"),
)
_SCRIBBLED = {"btcv": "CT bladder", "hipxray": "hip X-ray", "scd": "cardiac MR"}
_CELL, _NUCLEUS = 64, 192  # grey values of the masks of blood cells: 128 = cytoplasm, 255 = nucleus
_SMALLEST_OF_LARGEST = 0.02  # crumbs beside the largest part of a tissue


@dataclass(frozen=True, eq=False)
class RegionPicture:
    """A slice or picture, and the things outlined in it.

    Attributes:
        source: One of ``KNOWN`` or ``OTHER``, or ``ORGANS``, ``CUT_OUTS``.
        name: File, and slice after a blank.
        patient: Whom it is of, or the picture where that is not known.
        values: ``(H, W)`` float32 in the scan's unit, or ``(H, W, 3)`` uint8 colours.
        window: As the app opens it; None for colours.
        label_maps: ``(H, W)`` int32 each; every number above 0 is one thing. Several, since things may hold others.
    """

    source: str
    name: str
    patient: str
    values: NDArray
    window: Window | None
    label_maps: tuple[NDArray[np.int32], ...]

    def things(self) -> Iterator[NDArray[np.bool_]]:
        """``(H, W)`` bool of each thing."""
        for labels in self.label_maps:
            for number in np.unique(labels[labels > 0]):
                yield labels == number


@dataclass(frozen=True)
class RegionData:
    """What was found in a folder.

    Attributes:
        pictures: Per source.
        files: Read, relative to the folder.
        sha256: Over the manifest's hashes of these files.
        licences: Licence to number of files.
    """

    pictures: Mapping[str, Sequence[RegionPicture]]
    files: tuple[str, ...]
    sha256: str
    licences: Mapping[str, int]


def load_region_data(data_dir: Path, kind: str, progress: Progress) -> RegionData:
    """Everything outlined in the rows of one kind of a folder with ``MANIFEST.csv``.

    Args:
        data_dir: The folder.
        kind: ``train``, with cut-outs and without polyps; or ``val``, the other way round.
        progress: Counts files.

    Raises:
        TrainingError: The folder has no manifest, or nothing of this kind.
        Cancelled: The user stopped it.
    """
    rows = {row["path"]: row for row in manifest_rows(data_dir) if row["kind"] == kind}
    found: dict[str, list[RegionPicture]] = {}
    used: list[str] = []
    progress.start(len(rows), "files", "reading outlines")
    for path in sorted(rows):
        progress.step()
        files = [path, *(mask for mask in [_mask_of(path)] if mask)]
        if any(file not in rows for file in files):
            continue
        try:
            pictures = list(_read(data_dir, path, kind))
        except MedappError as error:
            _log.warning("left out %s: %s", path, error.message)
            continue
        for picture in pictures:
            found.setdefault(picture.source, []).append(picture)
        if pictures:
            used += files
    if not found:
        raise TrainingError(f"The data folder has no outlined things of the kind '{kind}'", "See its README")
    licences: dict[str, int] = {}
    for path in used:
        licences[rows[path]["licence"]] = licences.get(rows[path]["licence"], 0) + 1
    digest = hashlib.sha256("".join(rows[path]["sha256"] for path in used).encode()).hexdigest()
    return RegionData(found, tuple(used), digest, licences)


def _mask_of(path: str) -> str:
    """The file of outlines that goes with a picture; empty where the picture holds them itself."""
    endings = (
        ("pathology/nuclei/", ".png", "_label.png"),
        ("pathology/wbc/", ".png", "_mask.png"),
        ("skin_or_endoscopy/", ".jpg", "_mask.png"),
        ("scribbles/", "_image.png", "_mask.png"),
        ("mri/ptbp_t1/", "_t1.nii.gz", "_tissue.nii.gz"),
        ("ct/tseg/", "_ct.nii.gz", "_organs.nii.gz"),
        *((folder, ending, "_gtv.nii.gz") for folder, ending, _, _ in _TUMOURS),
    )
    for folder, ending, of_mask in endings:
        if path.startswith(folder) and path.endswith(ending):
            return path.removesuffix(ending) + of_mask
    return ""


def _read(data_dir: Path, path: str, kind: str) -> Iterator[RegionPicture]:
    mask_path = _mask_of(path)
    if path.startswith("matting/rgba/") and kind == "train":
        yield from _cut_out(data_dir, path)
    if not mask_path:
        return
    for folder, ending, modality, source in _TUMOURS:
        if path.startswith(folder) and path.endswith(ending):
            yield from _volume(data_dir, path, mask_path, modality, source)
    if path.startswith("mri/ptbp_t1/"):
        yield from _volume(data_dir, path, mask_path, "MR", TISSUES)
    elif path.startswith("ct/tseg/"):
        yield from _volume(data_dir, path, mask_path, "CT", ORGANS)
    elif path.startswith("pathology/nuclei/"):
        yield from _picture(data_dir, path, mask_path, "nuclei")
    elif path.startswith("pathology/wbc/"):
        yield from _picture(data_dir, path, mask_path, "blood cells")
    elif path.startswith("skin_or_endoscopy/isic/"):
        yield from _picture(data_dir, path, mask_path, "skin lesions")
    elif path.startswith("skin_or_endoscopy/polyp/") and kind != "train":
        yield from _picture(data_dir, path, mask_path, "polyps")
    elif path.startswith("scribbles/"):
        source = _SCRIBBLED.get(Path(path).name.split("_")[0])
        if source is not None:
            yield from _picture(data_dir, path, mask_path, source)


def _volume(data_dir: Path, path: str, mask_path: str, modality: str, source: str) -> Iterator[RegionPicture]:
    scan, mask = read_all(data_dir / path, modality)[0], read_all(data_dir / mask_path)[0]
    window = starting_window(scan)
    for z in range(scan.shape[0]):
        numbers = np.rint(_grey(mask, z)).astype(np.int32)
        labels = parts_of(numbers, _LEAST_AREA_PX.get(source, _ANY_AREA_PX))
        if labels.any():
            values = np.asarray(scan.slice_values(z), dtype=np.float32)
            yield RegionPicture(source, f"{path} {z}", patient_of(path), values, window, (labels,))


def _picture(data_dir: Path, path: str, mask_path: str, source: str) -> Iterator[RegionPicture]:
    scan, mask = read_all(data_dir / path)[0], _grey(read_all(data_dir / mask_path)[0], 0)
    least = _LEAST_AREA_PX.get(source, _ANY_AREA_PX)
    if source == "nuclei":
        maps = [_large_enough(np.rint(mask).astype(np.int32), least)]
    elif source == "blood cells":
        maps = [parts_of((mask > grey).astype(np.int32), least) for grey in (_CELL, _NUCLEUS)]
    else:
        maps = [parts_of((mask > 0.5 * mask.max()).astype(np.int32), least)]
    if any(labels.any() for labels in maps):
        values = np.asarray(scan.slice_values(0))
        window = None if scan.is_colour else starting_window(scan)
        yield RegionPicture(source, path, patient_of(path), values, window, tuple(maps))


def _cut_out(data_dir: Path, path: str) -> Iterator[RegionPicture]:
    """The thing is its alpha; the picture beyond it is not part of it and is to be covered."""
    picture = raster_scan(data_dir / path, Progress()).decode(progress=Progress())
    if picture.alpha is None:
        return
    colours = np.asarray(picture.stored[0])
    labels = (picture.alpha[0] >= 32768).astype(np.int32)
    if labels.any() and colours.ndim == 3:
        yield RegionPicture(CUT_OUTS, path, patient_of(path), colours, None, (labels,))


def parts_of(numbers: NDArray[np.int32], least_px: int) -> NDArray[np.int32]:
    """``(H, W)`` int32: the connected parts of each number, crumbs left out, numbered from 1."""
    made = np.zeros(numbers.shape, dtype=np.int32)
    count = 0
    for number in np.unique(numbers[numbers > 0]):
        labels, parts = ndimage.label(numbers == number)
        sizes = np.bincount(labels.ravel())[1:]
        least = max(least_px, _SMALLEST_OF_LARGEST * sizes.max())
        for part in range(parts):
            if sizes[part] >= least:
                count += 1
                made[labels == part + 1] = count
    return made


def _large_enough(labels: NDArray[np.int32], least_px: int) -> NDArray[np.int32]:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= least_px, labels, 0).astype(np.int32)


def _grey(scan: Scan, z: int) -> NDArray[np.float32]:
    values = np.asarray(scan.slice_values(z), dtype=np.float32)
    return values if values.ndim == 2 else values.mean(axis=-1)
