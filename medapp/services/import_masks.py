"""Masks of other software as mattes of the series they fit."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import numpy as np

from medapp.errors import MaskMismatchError, MedappError
from medapp.progress import Progress
from medapp.requests import ImportMasksRequest, MasksResult
from medapp.scan.masks import read_masks
from medapp.services.workspace import Workspace

FULL = 65535


def import_masks(request: ImportMasksRequest, workspace: Workspace, progress: Progress) -> MasksResult:
    """Read label maps, alphas, SEG and RTSTRUCT onto the grid of a series.

    Raises:
        MaskMismatchError: None of the files fits the series.
        UnreadableFileError: None of the files can be read.
    """
    project = workspace.project(request.project)
    scan = project.scan(request.series_id)
    cache = workspace.cache_folder(request.project)
    refused = dict(request.refused)
    masks, notes = [], []
    last: MedappError | None = None
    progress.start(len(request.paths), "files")
    for name in request.paths:
        if name in refused:
            last = MedappError(f"{Path(name).name}: {refused[name]}", "The other masks were imported.")
            notes.append(last.message)
            continue
        progress.parsing(name)
        try:
            found = read_masks(Path(name), scan, progress)
        except MedappError as error:
            last = error
            notes.append(error.message)
            continue
        finally:
            progress.parsing("")
        for mask in found:
            alpha = mask.alpha
            stored = alpha.astype(np.uint16) * FULL if alpha.dtype == bool else alpha.astype(np.uint16)
            path = cache / f"mask-{uuid4().hex}.npz"
            np.savez_compressed(path, alpha=stored)
            masks.append(
                {
                    "name": mask.name,
                    "label": mask.label_number,
                    "colour": mask.colour,
                    "path": str(path),
                    "notes": list(mask.notes),
                }
            )
        progress.step(note=Path(name).name)
    if not masks:
        raise last or MaskMismatchError("No masks were found in these files.", "Choose a label map, SEG or RTSTRUCT.")
    return MasksResult(tuple(masks), tuple(notes))
