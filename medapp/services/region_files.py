"""Region maps of a file without a project: a label map on its grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import SaveFailedError, UsageError
from medapp.export.nifti import write_nifti
from medapp.export.png import write_png
from medapp.progress import Progress
from medapp.regions.region_map import region_count
from medapp.scan.geometry import Geometry
from medapp.scan.intensity import starting_window
from medapp.scan.reading import read_scan
from medapp.scan.scan import Scan, Window
from medapp.services.region_maps import engine_regions
from medapp.services.slices import plane_values
from medapp.services.workspace import Workspace

_NIFTI, _PNG = ".nii.gz", ".png"


def regions_of_file(
    path: Path,
    out: Path,
    workspace: Workspace,
    model_id: str = "",
    slice_index: int | None = None,
    window: Window | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find the regions of the slices of a file, each for itself, and write them as a label map.

    Args:
        path: Image file or series folder.
        out: ``.nii.gz`` holds every slice, or the chosen one in its place; ``.png`` one slice.
        model_id: A SAM of the library; empty = the region tree.
        slice_index: From 0; None = all of them, for PNG the middle one.
        window: Display window; None = the one that the file is shown in at first.

    Returns:
        ``engine``, ``slices``, ``regions`` (of each slice), ``window``, ``file``.

    Raises:
        MedappError: The file or the model cannot be used, or the label map cannot be written.
        Cancelled: The user stopped it; nothing was written.
    """
    progress = progress or Progress()
    is_png = out.name.lower().endswith(_PNG)
    if not is_png and not out.name.lower().endswith(_NIFTI):
        raise UsageError(f"A label map cannot be written as {out.name}.", "Name a .nii.gz or a .png file.")
    scan = read_scan(path)
    if slice_index is None and is_png:
        slice_index = scan.shape[0] // 2
    if slice_index is not None and not 0 <= slice_index < scan.shape[0]:
        raise UsageError(f"The file has {scan.shape[0]} slices.", "Give --slice from 1 on.")
    wanted = range(scan.shape[0]) if slice_index is None else range(slice_index, slice_index + 1)
    shown = window or starting_window(scan)
    if len(wanted) > 1:
        progress.start(len(wanted), "slices", "Finding regions")
    maps: list[NDArray[np.int32]] = []
    engine = ""
    for z in wanted:
        each = progress if len(wanted) == 1 else progress.within()
        found = engine_regions(plane_values(scan, z), shown, model_id, workspace, each)
        maps.append(found.labels)
        engine = found.engine
        if len(wanted) > 1:
            progress.step()
    _write(out, maps, scan, wanted.start, is_png)
    return {
        "engine": engine,
        "slices": [wanted.start + 1, wanted.stop],
        "regions": [region_count(labels) for labels in maps],
        "window": [float(shown.center), float(shown.width)] if not scan.is_colour else None,
        "file": out.name,
    }


def _write(out: Path, maps: list[NDArray[np.int32]], scan: Scan, first: int, is_png: bool) -> None:
    highest = max(int(labels.max()) for labels in maps)
    dtype = np.dtype(np.uint8 if highest < 256 else np.uint16)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if is_png:
            write_png(out, maps[0].astype(dtype))
            return
        geometry = scan.geometry or Geometry.from_spacing(scan.spacing_mm or (1.0, 1.0, 1.0))
        height, width = maps[0].shape
        write_nifti(out, maps, (len(maps), height, width), dtype, geometry.shifted((first, 0, 0)))
    except OSError as error:
        raise SaveFailedError(
            f"{out.name} cannot be written: {error.strerror or 'I/O error'}.", "Choose another place with --out."
        ) from error
