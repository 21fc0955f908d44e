"""Restoring a file without a project: NIfTI, or PNG and TIFF for pictures, on the grid of the result; its trust map."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import SaveFailedError, UnsuitableModelError, UsageError
from medapp.export.nifti import write_nifti
from medapp.export.pictures import ENDINGS, write_pictures
from medapp.progress import Progress
from medapp.requests import RestoreRequest
from medapp.restoration.enlarging import enlarged_picture, linear_kernel
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
_HINTS = {
    "does not say what it is": "Name it with --modality.",
    "weight, dose or times": "Take the DICOM series, with the patient's weight, the dose and the times in it.",
}
"""What helps, by words of the reason why a model does not fit; otherwise another model."""


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
        out: ``.nii.gz``, for pictures in colour ``.png`` or ``.tif``; the trust map goes to ``<stem>_trust.nii.gz`` or
            ``<stem>_trust.tif``. An alpha that came with a picture takes no part and is interpolated linearly.
        asked: The model and how to run it; its project and series are not looked at.
        modality: For formats that do not say.

    Returns:
        The report of the run with ``files``, ``size`` ``(X, Y, Z)`` and ``spacing_mm`` ``(x, y, z)`` of the result,
        None for pictures that do not say theirs.

    Raises:
        MedappError: The file or the model cannot be used, or the result cannot be written.
        Cancelled: The user stopped it; nothing was written.
    """
    progress, since = progress or Progress(), time.perf_counter()
    if not out.name.lower().endswith((_NIFTI, *ENDINGS)):
        raise UsageError(
            f"A restored series cannot be written as {out.name}.", "Name a .nii.gz file; .png or .tif for colours."
        )
    scan = read_scan(path, modality)
    _check_keeps_original(path, out, scan.is_colour, asked.trust)
    restorer = restorer_for(asked, scan.modality, workspace)
    needs_regions = "region_map" in restorer.inputs
    fit = restorer.fit(ScanFacts.of(scan), engine_title(asked.region_model_id, workspace) if needs_regions else None)
    if fit.level == "blocked":
        hint = next((hint for words, hint in _HINTS.items() if words in fit.reason), "Choose another model.")
        raise UnsuitableModelError(f"{restorer.chip.split(' · ')[-1]} does not fit {path.name}: {fit.reason}.", hint)
    _check_holds(path, out, scan)
    account = Account(restorer, min(max(asked.strength, 0.0), 1.0), asked.trust)
    made = list(_made(account, scan, asked, workspace, progress, needs_regions))
    grid = restorer.grid.scan(scan, np.broadcast_to(np.float32(0), restorer.grid.shape(scan.shape)))
    geometry = grid.geometry or Geometry.from_spacing(
        grid.spacing_mm or (1.0, *(grid.in_plane_spacing_mm or (1.0, 1.0)))
    )
    is_known = not scan.is_colour or grid.in_plane_spacing_mm is not None
    alpha = _finer_alpha(scan, restorer.grid.factor)
    if scan.is_colour:
        files = _write_pictures(out, made, alpha, f"{restorer.chip}. Not an original; not for diagnosis.", grid)
    else:
        files = _write_volumes(out, made, (grid.shape[0], grid.shape[1], grid.shape[2]), geometry)
    notes = [] if alpha is None else ["Its transparency took no part: it was interpolated, not restored."]
    notes += scan.notes
    return {
        **account.report(scan, since),
        "fit": fit.reason,
        "size": [grid.shape[2], grid.shape[1], grid.shape[0]],
        "spacing_mm": [round(side, 6) for side in geometry.spacing_mm[::-1]] if is_known else None,
        "files": [file.name for file in files],
        **({"notes": notes} if notes else {}),
    }


def _check_keeps_original(path: Path, out: Path, is_colour: bool, with_trust: bool) -> None:
    """Refuse an output that would replace what is restored.

    Raises:
        UsageError: One of the files to be written is the source, or lies among the files of its folder.
    """
    for written in (out, _trust_path(out, is_colour)) if with_trust else (out,):
        if written.exists() and (
            written.samefile(path) or (path.is_dir() and path.resolve() in written.resolve().parents)
        ):
            raise UsageError(f"{written.name} is what is to be restored; originals stay.", "Name another file.")


def _check_holds(path: Path, out: Path, scan: Scan) -> None:
    """Refuse an output format that cannot hold this scan.

    Raises:
        UsageError: Says which can.
    """
    is_picture = out.name.lower().endswith(ENDINGS)
    if scan.is_colour and not is_picture:
        raise UsageError(f"{path.name} is in colour, which NIfTI does not hold.", "Name a .png or .tif file.")
    if not scan.is_colour and is_picture:
        raise UsageError(f"{path.name} is grey; its values do not fit into {out.name}.", "Name a .nii.gz file.")
    if scan.is_colour and scan.stored.dtype != np.uint8:
        raise UsageError(f"{path.name} has more than 8 bits a colour.", "Restore it in the window.")
    if scan.is_colour and scan.shape[0] > 1 and out.suffix.lower() == ".png":
        raise UsageError(f"{path.name} has {scan.shape[0]} pictures, a PNG holds one.", "Name a .tif file.")


def _finer_alpha(scan: Scan, factor: int) -> list[NDArray[np.uint8]] | None:
    """The straight alpha of every picture on the grid of the result, 8 bit; None where none came with it."""
    if scan.alpha is None:
        return None
    eight_bit = [np.rint(alpha / 257).astype(np.uint8) for alpha in scan.alpha]
    return [enlarged_picture(alpha, factor, linear_kernel) for alpha in eight_bit]


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


def _write_pictures(
    out: Path, made: list[Made], alpha: list[NDArray[np.uint8]] | None, said: str, grid: Scan
) -> list[Path]:
    pages = [one.values if alpha is None else np.dstack([one.values, alpha[z]]) for z, one in enumerate(made)]
    files = {out: (pages, said)}
    spreads = [one.spread for one in made if one.spread is not None]
    if spreads:
        files[_trust_path(out, is_colour=True)] = (spreads, f"Trust map: {said}")
    for path, (arrays, text) in files.items():
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pictures(path, arrays, text, grid.in_plane_spacing_mm)
    return list(files)


def _trust_path(out: Path, is_colour: bool) -> Path:
    return out.with_name(f"{out.stem}_trust.tif" if is_colour else f"{out.name[: -len(_NIFTI)]}_trust{_NIFTI}")


def _write_volumes(out: Path, made: list[Made], shape: tuple[int, int, int], geometry: Geometry) -> list[Path]:
    files = {out: [one.values for one in made]}
    spreads = [one.spread for one in made if one.spread is not None]
    if spreads:
        files[_trust_path(out, is_colour=False)] = spreads
    for path, slices in files.items():
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_nifti(path, slices, shape, np.dtype(np.float32), geometry)
    return list(files)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What a full or read-only disk says."""
    try:
        yield
    except OSError as error:
        raise SaveFailedError(
            f"{path.name} cannot be written: {error.strerror or 'I/O error'}.", "Choose another place with --out."
        ) from error
