"""Pictures with a soft target for Medical Matting: cut-outs, skin lesions, retinal vessels, brain tissue, tumours.

Every source becomes a ``Specimen``: a picture, grey or in colour, and how much of each pixel belongs to the thing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.errors import MedappError, TrainingError
from medapp.progress import Progress
from medapp.scan.raster import raster_scan
from medapp.scan.reading import read_all
from medapp.scan.scan import Scan
from medapp.training.sources import manifest_rows

_log = logging.getLogger(__name__)

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
LARGEST_PX = 128
LEAST_AREA_PX = 40
SLICES_A_VOLUME = 10
GREY_MATTER, WHITE_MATTER = 2, 3
SOURCES = ("cut-out", "skin", "vessels", "brain", "tumour", "grey matter")
"""``brain`` is its white matter; grey matter has the same box."""
TISSUES = ("brain", "grey matter")
OBSERVERS = ("1stHO", "2ndHO")
_WINDOW_PX, _IN_WINDOW_PX, _STEP_PX = 336, 160, 120  # of the vessels: what is seen, what is meant, and the next one
_LEAST_VESSELS = 0.05
_MARGIN = 0.7  # around a thing, of its side
_BRAIN_MARGIN_PX = 3
_LEAST_OF_BRAIN = 0.3  # of its fullest slice
_PHOTOGRAPHS = "matting/background/"
_TEXTURES = (_PHOTOGRAPHS, "depth/rgbd/", "pathology/he/", "pathology/nuclei/", "pathology/wbc/")
_NO_TEXTURE = ("_depth.png", "_label.png", "_mask.png")


@dataclass(frozen=True)
class Specimen:
    """A picture with one thing in it.

    Attributes:
        source: One of ``SOURCES``, or another name for things like skin lesions, whose label is hard.
        name: File it comes from, and its slice or window.
        image: ``(H, W)`` or ``(H, W, 3)`` float32, 0..1; of a cut-out only what is inside ``alpha`` counts.
        alpha: ``(H, W)`` float32, 0..1.
        box_xyxy: Around the thing.
    """

    source: str
    name: str
    image: NDArray[np.float32]
    alpha: NDArray[np.float32]
    box_xyxy: tuple[int, int, int, int]


@dataclass(frozen=True)
class MattingData:
    """What there is to train on.

    Attributes:
        specimens: Per source.
        backdrops: Pictures to put cut-outs on, grey or in colour.
        files: Paths that were read, relative to the data folder.
        sha256: Over the manifest's hashes of these files.
        licences: Licence to number of files.
        textures: Photographs and stained tissue: what else cut-outs may lie on, or be filled with.
    """

    specimens: Mapping[str, Sequence[Specimen]]
    backdrops: Sequence[NDArray[np.float32]]
    files: tuple[str, ...]
    sha256: str
    licences: Mapping[str, int]
    textures: Sequence[NDArray[np.float32]] = ()


def load_matting_data(data_dir: Path, kind: str, progress: Progress) -> MattingData:
    """Read every source of one split.

    Args:
        data_dir: Folder with ``MANIFEST.csv``.
        kind: ``train`` or ``val``.
        progress: Counts files.

    Raises:
        TrainingError: The folder has no manifest, or nothing of this kind.
        Cancelled: The user stopped it.
    """
    rows = {row["path"]: row for row in manifest_rows(data_dir) if row["kind"] == kind}
    found: dict[str, list[Specimen]] = {source: [] for source in SOURCES}
    backdrops: list[NDArray[np.float32]] = []
    textures: list[NDArray[np.float32]] = []
    used: list[str] = []
    progress.start(len(rows), "files", "reading mattes")
    for path in sorted(rows):
        progress.step()
        try:
            specimens, backdrop, files = _read(data_dir, path, rows)
        except MedappError as error:
            _log.warning("left out %s: %s", path, error.message)
            continue
        for specimen in specimens:
            found[specimen.source].append(specimen)
        if backdrop is not None and is_texture(path):
            textures.append(backdrop)
        if backdrop is not None and (path.startswith(_PHOTOGRAPHS) or not is_texture(path)):
            backdrops.append(backdrop)
        used += files
    if not any(found.values()) or not backdrops:
        raise TrainingError(f"The data folder has no mattes of the kind '{kind}'", "See its README")
    digest = hashlib.sha256("".join(rows[path]["sha256"] for path in used).encode()).hexdigest()
    licences: dict[str, int] = {}
    for path in used:
        licences[rows[path]["licence"]] = licences.get(rows[path]["licence"], 0) + 1
    for source, every in (("brain", 6), ("skin", 4), ("vessels", 12)):
        backdrops += [specimen.image for specimen in found[source][::every]]
    return MattingData(found, backdrops, tuple(used), digest, licences, textures)


def is_texture(path: str) -> bool:
    """Whether a file of the manifest is a photograph or stained tissue, and no label of one."""
    return path.startswith(_TEXTURES) and not path.endswith(_NO_TEXTURE)


def _read(
    data_dir: Path, path: str, rows: Mapping[str, Mapping[str, str]]
) -> tuple[list[Specimen], NDArray[np.float32] | None, list[str]]:
    """Specimens of one file of the manifest, or a backdrop, and the files that were needed."""
    if path.startswith("matting/rgba/"):
        return _cut_out(data_dir / path, path), None, [path]
    if is_texture(path):
        return [], _shrunk(_picture(read_all(data_dir / path)[0], 0), 2 * LARGEST_PX), [path]
    if path.startswith("skin_or_endoscopy/fundus/") and path.endswith(".jpg"):
        return _vessels(data_dir, path, rows)
    pairs: tuple[tuple[str, str, str, Callable[[NDArray], NDArray], str], ...] = (
        ("skin_or_endoscopy/isic/", ".jpg", "_mask.png", _is_set, "skin"),
        ("mri/ptbp_t1/", "_t1.nii.gz", "_tissue.nii.gz", _is_white_matter, "brain"),
        ("mri/ptbp_t1/", "_t1.nii.gz", "_tissue.nii.gz", _is_grey_matter, "grey matter"),
        ("ct/sts/", "_ct.nii.gz", "_gtv.nii.gz", _is_set, "tumour"),
        ("mri/sts/", "_t1.nii.gz", "_gtv.nii.gz", _is_set, "tumour"),
        ("pet/sts/", "_pet.nii.gz", "_gtv.nii.gz", _is_set, "tumour"),
    )
    fitting = [
        (path.removesuffix(ending) + of_mask, belongs, source)
        for folder, ending, of_mask, belongs, source in pairs
        if path.startswith(folder) and path.endswith(ending)
    ]
    if fitting and (mask_path := fitting[0][0]) in rows:
        scan, mask = (read_all(data_dir / name)[0] for name in (path, mask_path))
        things = [_slices(scan, mask, belongs, source, path) for _, belongs, source in fitting]
        return list(chain.from_iterable(things)), None, [path, mask_path]
    if path.startswith("ct/tcga_luad/"):
        scan = read_all(data_dir / path, "CT")[0]
        values = np.clip((scan.slice_values(scan.shape[0] // 2) + 700) / 1100, 0, 1)
        return [], _shrunk(values.astype(np.float32), 2 * LARGEST_PX), [path]
    return [], None, []


def _cut_out(file: Path, path: str) -> list[Specimen]:
    picture = raster_scan(file, Progress()).decode(progress=Progress())
    if picture.alpha is None:
        return []
    colours: NDArray[np.float32] = np.asarray(picture.stored[0], dtype=np.float32) / np.float32(255)
    return _specimen("cut-out", path, colours, picture.alpha[0].astype(np.float32) / 65535, margin=0.0)


def _vessels(
    data_dir: Path, path: str, rows: Mapping[str, Mapping[str, str]]
) -> tuple[list[Specimen], NDArray[np.float32] | None, list[str]]:
    """Windows of a retina, each with all of its vessels, and the whole; alpha is the mean of the observers."""
    files = [path.removesuffix(".jpg") + f"_{observer}.png" for observer in OBSERVERS]
    if any(file not in rows for file in files):
        return [], None, []
    image = _picture(read_all(data_dir / path)[0], 0)
    marked = [_is_set(_grey_slice(read_all(data_dir / file)[0], 0)) for file in files]
    alpha: NDArray[np.float32] = np.stack(marked).mean(axis=0, dtype=np.float32)
    made = _specimen("vessels", path, image, alpha, margin=0.0)
    first, end = (_WINDOW_PX - _IN_WINDOW_PX) // 2, (_WINDOW_PX + _IN_WINDOW_PX) // 2
    for y in range(0, image.shape[0] - _WINDOW_PX + 1, _STEP_PX):
        for x in range(0, image.shape[1] - _WINDOW_PX + 1, _STEP_PX):
            window = alpha[y : y + _WINDOW_PX, x : x + _WINDOW_PX]
            if window[first:end, first:end].mean() >= _LEAST_VESSELS:
                shown = image[y : y + _WINDOW_PX, x : x + _WINDOW_PX]
                box = (first // 2, first // 2, end // 2, end // 2)
                made.append(Specimen("vessels", f"{path} {x},{y}", _halved(shown), _halved(window), box))
    return made, None, [path, *files]


def _slices(scan: Scan, mask: Scan, belongs: Callable[[NDArray], NDArray], source: str, path: str) -> list[Specimen]:
    made: list[Specimen] = []
    areas = [int(np.count_nonzero(belongs(_grey_slice(mask, z)))) for z in range(scan.shape[0])]
    least = max(LEAST_AREA_PX, _LEAST_OF_BRAIN * max(areas)) if source in TISSUES else LEAST_AREA_PX
    wanted = [z for z, area in enumerate(areas) if area >= least]  # a brain's first and last slices are crumbs
    for z in wanted[:: max(1, len(wanted) // SLICES_A_VOLUME)]:
        shown = _picture(scan, z)
        alpha = belongs(_grey_slice(mask, z)).astype(np.float32)
        if source in TISSUES:  # two by two millimetres: the share of each pixel is exact
            bare = _halved(_of_brain(_grey_slice(mask, z) > 0) * shown)
            shown, alpha = _halved(shown), _halved(alpha)
            made += _specimen(source, f"{path} {z}, brain alone", bare, alpha, margin=0.7)
        made += _specimen(source, f"{path} {z}", shown, alpha, margin=0.7)
    return made


def _of_brain(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where the brain is, with what lies within it and a little around, as programs that cut it out leave it."""
    grown = ndimage.binary_dilation(tissue, iterations=_BRAIN_MARGIN_PX)
    return np.asarray(ndimage.binary_fill_holes(grown))


def _picture(scan: Scan, z: int) -> NDArray[np.float32]:
    """A slice as it would be shown, 0..1: colours as they are, grey between its percentiles."""
    values = np.asarray(scan.slice_values(z), dtype=np.float32)
    if values.ndim == 3:
        return np.clip(values / np.float32(255 if values.max() <= 255 else 65535), 0, 1).astype(np.float32)
    low, high = np.percentile(values, (1.0, 99.7))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def specimen_of(source: str, name: str, image: NDArray[np.float32], alpha: NDArray[np.float32]) -> list[Specimen]:
    """One thing in a picture with what is around it, as a list: empty where the thing is too small to learn from.

    Args:
        source: Any name; how often it is drawn is said under it.
        name: Of the case, without a patient's name.
        image: ``(H, W)`` or ``(H, W, 3)`` as shown, 0..1.
        alpha: ``(H, W)``, 0..1.
    """
    return _specimen(source, name, image, alpha, margin=_MARGIN)


def _specimen(
    source: str, name: str, image: NDArray[np.float32], alpha: NDArray[np.float32], margin: float
) -> list[Specimen]:
    """Cut to the thing and some of what is around it, and shrink; nothing when there is no thing."""
    box = _box(alpha)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    by = int(margin * max(x1 - x0, y1 - y0))
    rows, columns = slice(max(0, y0 - by), y1 + by), slice(max(0, x0 - by), x1 + by)
    largest = round(LARGEST_PX * (1 + 2 * margin))
    image, alpha = _shrunk(image[rows, columns], largest), _shrunk(alpha[rows, columns], largest)
    box = _box(alpha)
    return [] if box is None else [Specimen(source, name, image, alpha, box)]


def _box(alpha: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    inside = alpha > 0.1
    if np.count_nonzero(inside) < LEAST_AREA_PX:
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _grey_slice(scan: Scan, z: int) -> NDArray[np.float32]:
    values = np.asarray(scan.slice_values(z), dtype=np.float32)
    return values if values.ndim == 2 else values @ LUMINANCE


def _is_set(values: NDArray) -> NDArray[np.bool_]:
    return np.asarray(values > 0.5 * max(float(values.max()), 1.0))


def _is_white_matter(values: NDArray) -> NDArray[np.bool_]:
    return np.asarray(np.rint(values) == WHITE_MATTER)


def _is_grey_matter(values: NDArray) -> NDArray[np.bool_]:
    return np.asarray(np.rint(values) == GREY_MATTER)


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (size // 2 * 2 for size in values.shape[:2])
    parts = values[:height, :width].reshape(height // 2, 2, width // 2, 2, *values.shape[2:])
    return np.asarray(parts.mean(axis=(1, 3)), dtype=np.float32)


def _shrunk(values: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """Averaged over whole pixels until no side is much longer than ``largest``."""
    while max(values.shape[:2]) > 1.5 * largest:
        values = _halved(values)
    share = largest / max(values.shape[:2])
    if share < 1:
        rest = (0.0,) * (values.ndim - 2)
        smooth = ndimage.gaussian_filter(values, (0.4 / share, 0.4 / share, *rest))
        values = ndimage.zoom(smooth, (share, share, *(1.0 for _ in rest)), order=1)
    return np.clip(values, 0, 1).astype(np.float32)
