"""Opening files: every readable series is copied into the project, so that its sources may vanish."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from medapp.errors import MedappError
from medapp.progress import Progress
from medapp.requests import FoundSeries, ImportRequest, ImportResult
from medapp.scan.intensity import PRESETS
from medapp.scan.lazy import FoundScan, LazyScan, Refused, Skipped
from medapp.scan.reading import read_paths
from medapp.scan.thumbnail import thumbnail_png
from medapp.services.workspace import Workspace

if TYPE_CHECKING:
    from medapp.store.project import Project

log = logging.getLogger(__name__)


def import_files(request: ImportRequest, workspace: Workspace, progress: Progress) -> ImportResult:
    """Read what was named; one bad file never stops the others.

    Raises:
        ProjectError: The project cannot be written.
        Cancelled: The user stopped it; series that were complete stay.
    """
    project = workspace.project(request.project)
    return import_paths(project, [Path(p) for p in request.paths], progress, dict(request.refused), request.modality)


def import_paths(
    project: Project,
    paths: Iterable[Path],
    progress: Progress,
    refused_before: dict[str, str] | None = None,
    modality: str | None = None,
) -> ImportResult:
    """Import files, folders and archives into a project; see ``import_files``."""
    added: list[str] = []
    there: list[str] = []
    refused: list[tuple[str, str, str]] = []
    skipped: list[tuple[str, str]] = []
    known = {series.series_key: series.series_id for series in project.series()}
    progress.start(0, "slices")
    for finding in read_paths(list(paths), progress, refused_before or {}, modality):
        if isinstance(finding, Refused):
            refused.append((finding.path, finding.message, finding.hint))
        elif isinstance(finding, Skipped):
            skipped.append((finding.path, finding.message))
        elif finding.scan.series_key in known:
            there.append(known[finding.scan.series_key])
        else:
            try:
                series_id = _add(project, finding, progress)
            except MedappError as error:
                refused.append((str(finding.scan.source.path), error.message, error.hint))
            else:
                added.append(series_id)
                known[finding.scan.series_key] = series_id
    return ImportResult(tuple(added), tuple(refused), tuple(skipped), tuple(dict.fromkeys(there)))


def _add(project: Project, finding: FoundScan, progress: Progress) -> str:
    lazy = finding.scan
    writer = project.new_voxel_file(lazy.shape, lazy.dtype)
    try:
        first = lazy.shape[0] // 2
        progress.total += lazy.shape[0]
        progress.tell(series=_found(lazy, str(writer.path), first))
        path = str(writer.path)
        scan = lazy.decode(
            on_slice=lambda z, _: progress.tell(slice=(path, z)), first=first, out=writer.array, progress=progress
        )
        return project.add_scan_with_voxels(scan, writer, thumbnail=thumbnail_png(scan))
    except BaseException:
        writer.discard()
        raise


def _found(lazy: LazyScan, voxel_path: str, first: int) -> FoundSeries:
    presets = lazy.windows or (PRESETS["CT"] if lazy.unit == "HU" else ())
    window = presets[0] if presets else None
    return FoundSeries(
        voxel_path=voxel_path,
        shape=lazy.shape,
        dtype=lazy.dtype.str,
        slope=lazy.slope,
        intercept=lazy.intercept,
        title=lazy.source.description or Path(lazy.source.path).name,
        modality=lazy.modality,
        unit=lazy.unit,
        first_slice=first,
        window_center=window.center if window else None,
        window_width=window.width if window else None,
        is_inverted=lazy.is_inverted,
    )
