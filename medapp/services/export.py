"""From chosen series and their newest mattes to a data set that other software reads."""

from __future__ import annotations

from pathlib import Path

from medapp.errors import ExportError
from medapp.export.data_set import plan, write
from medapp.export.plan_types import ExportItem, ExportOptions
from medapp.progress import Progress
from medapp.requests import ExportRequest, ExportResult
from medapp.services.workspace import Workspace
from medapp.store.project import Project


def export(request: ExportRequest, workspace: Workspace, progress: Progress) -> ExportResult:
    """Plan an export (``dry_run``) or write it: aside, read back, compared, renamed.

    Raises:
        ExportError: Nothing to export, a check after writing failed, or the folder cannot be written.
        Cancelled: The user stopped it; nothing is left behind.
    """
    project = workspace.project(request.project)
    items = [_item(project, series_id) for series_id in request.series_ids]
    if not items:
        raise ExportError("No series is chosen, so there is nothing to export.", "Include at least one series.")
    options = ExportOptions(
        out=Path(request.out),
        formats=frozenset(request.formats),
        deidentify=request.deidentify,
        alpha_meaning=request.alpha_means,
        split_fractions=request.split_fractions,
        split_seed=request.split_seed,
        key=project.secret(),
        project_id=project.project_id,
    )
    planned = plan(items, options)
    if request.dry_run:
        return ExportResult(
            folder=request.out,
            files=tuple((file.path, file.size, file.note or file.role) for file in planned.files),
            notes=planned.notes,
            problems=planned.problems,
            identifiers=planned.identifiers,
        )
    report = write(planned, progress)
    return ExportResult(
        folder=str(report.folder),
        files=report.files,
        notes=report.notes,
        problems=report.problems,
        identifiers=planned.identifiers,
        largest_alpha_error=report.largest_alpha_error,
    )


def _item(project: Project, series_id: str) -> ExportItem:
    """One series; a derived one carries the mattes of its source, which lie on the same grid."""
    info = project.series_info(series_id)
    source_id = info.source_id or series_id
    revisions = project.revisions(source_id)
    hashes = [str(info.provenance["sha256"])] if info.provenance.get("sha256") else []
    return ExportItem(
        scan=project.scan(series_id),
        annotation=project.annotation(source_id),
        group=project.series_info(source_id).group,  # of one patient, so never in another split than its source
        state=info.state,
        reader=info.reader,
        model_hashes=tuple(hashes),
        revision_id=str(revisions[-1].revision_id) if revisions else "",
        title=info.title,
        kind=info.kind,
        provenance=info.provenance,
        source_scan=project.scan(source_id) if info.source_id else None,
    )
