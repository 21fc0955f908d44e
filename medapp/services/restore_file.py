"""Restoring a file without a project: a NIfTI volume on the grid of the result, and its trust map."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import SaveFailedError, UnsuitableModelError, UsageError
from medapp.export.nifti import write_nifti
from medapp.progress import Progress
from medapp.requests import RestoreRequest
from medapp.restoration.fit import ScanFacts
from medapp.scan.geometry import Geometry
from medapp.scan.intensity import starting_window
from medapp.scan.reading import read_scan
from medapp.scan.scan import Scan
from medapp.services.region_maps import engine_regions, engine_title
from medapp.services.restoration_account import Account, Made
from medapp.services.restore import restorer_for
from medapp.services.workspace import Workspace

_NIFTI = ".nii.gz"


def restore_file(
    path: Path,
    out: Path,
    asked: RestoreRequest,
    workspace: Workspace,
    modality: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Restore every slice of a file and write the result; with ``asked.trust`` a trust map beside it.

    Args:
        path: Image file or series folder.
        out: ``.nii.gz``; the trust map goes to ``<stem>_trust.nii.gz``.
        asked: The model and how to run it; its project and series are not looked at.
        modality: For formats that do not say.

    Returns:
        The report of the run with ``files``, ``size`` ``(X, Y, Z)`` and ``spacing_mm`` ``(x, y, z)`` of the result.

    Raises:
        MedappError: The file or the model cannot be used, or the result cannot be written.
        Cancelled: The user stopped it; nothing was written.
    """
    progress, since = progress or Progress(), time.perf_counter()
    if not out.name.lower().endswith(_NIFTI):
        raise UsageError(f"A restored series cannot be written as {out.name}.", "Name a .nii.gz file.")
    scan = read_scan(path, modality)
    if scan.is_colour:
        raise UsageError(f"{path.name} is in colour, which NIfTI does not hold.", "Restore it in the window.")
    restorer = restorer_for(asked, scan.modality, workspace)
    needs_regions = "region_map" in restorer.inputs
    fit = restorer.fit(ScanFacts.of(scan), engine_title(asked.region_model_id, workspace) if needs_regions else None)
    if fit.level == "blocked":
        hint = "Name it with --modality." if scan.modality is None else "Choose another model."
        raise UnsuitableModelError(f"{restorer.chip.split(' · ')[-1]} does not fit {path.name}: {fit.reason}.", hint)
    account = Account(restorer, min(max(asked.strength, 0.0), 1.0), asked.trust)
    made = list(_made(account, scan, asked, workspace, progress, needs_regions))
    grid = restorer.grid.scan(scan, np.broadcast_to(np.float32(0), restorer.grid.shape(scan.shape)))
    geometry = grid.geometry or Geometry.from_spacing(
        grid.spacing_mm or (1.0, *(grid.in_plane_spacing_mm or (1.0, 1.0)))
    )
    files = {out: [one.values for one in made]}
    if asked.trust:
        files[out.with_name(f"{out.name[: -len(_NIFTI)]}_trust{_NIFTI}")] = [
            one.spread for one in made if one.spread is not None
        ]
    _write(files, (grid.shape[0], grid.shape[1], grid.shape[2]), geometry)
    return {
        **account.report(scan, since),
        "fit": fit.reason,
        "size": list(grid.shape[::-1]),
        "spacing_mm": [round(side, 6) for side in geometry.spacing_mm[::-1]],
        "files": [file.name for file in files],
    }


def _made(
    account: Account, scan: Scan, asked: RestoreRequest, workspace: Workspace, progress: Progress, needs_regions: bool
) -> Iterator[Made]:
    if account.restorer.dims == 3:
        volume = account.volume_of(scan, None, progress)
        for z in range(scan.shape[0]):
            yield Made(volume.values[z], None if volume.spread is None else volume.spread[z])
        return
    progress.start(scan.shape[0], "slices", account.restorer.chip)
    window = starting_window(scan)
    for z in range(scan.shape[0]):
        maps = {}
        if needs_regions:
            values = np.asarray(scan.slice_values(z))
            maps["region_map"] = engine_regions(
                values, window, asked.region_model_id, workspace, progress.within()
            ).labels
        yield account.slice_of(scan, z, maps, progress)
        progress.step()


def _write(files: dict[Path, list[NDArray]], shape: tuple[int, int, int], geometry: Geometry) -> None:
    for out, slices in files.items():
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_nifti(out, slices, shape, np.dtype(np.float32), geometry)
        except OSError as error:
            raise SaveFailedError(
                f"{out.name} cannot be written: {error.strerror or 'I/O error'}.", "Choose another place with --out."
            ) from error
