"""Regions at the prompts of a person, by SAM; the region tree needs no worker, it is a look-up in the window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from medapp import paths
from medapp.errors import WeightsError
from medapp.progress import Progress
from medapp.regions.prompts import Prompts, Proposal
from medapp.requests import PromptRequest, PromptResult
from medapp.scan.scan import Window
from medapp.services.slices import plane_values
from medapp.services.workspace import Workspace

if TYPE_CHECKING:
    from medapp.regions.sam import SamEngine
    from medapp.regions.segmenter import RegionEngine

_KEPT = "sam engine"


def propose(request: PromptRequest, workspace: Workspace, progress: Progress) -> PromptResult:
    """Three candidates, best first; the slice is embedded when its embedding is not in the cache.

    Raises:
        UsageError: The prompts point at nothing, or the model answers no prompts.
        WeightsError: The model is missing or its file has changed.
        ProjectError: The series cannot be read.
        Cancelled: The user stopped it.
    """
    engine = sam_engine(request.model_id, workspace)
    scan = workspace.project(request.project).scan(request.series_id)
    proposals = propose_sam(
        engine,
        plane_values(scan, request.slice_index, request.axis),
        Window(request.window_center, request.window_width),
        Prompts(request.include_xy, request.exclude_xy, request.box_xyxy),
        progress,
    )
    path = workspace.cache_folder(request.project) / f"prompt-{uuid4().hex}.npz"
    np.savez(path, masks=np.stack([proposal.mask for proposal in proposals]))
    return PromptResult(str(path), tuple(p.score for p in proposals), request.ticket, engine.name)


def propose_sam(
    engine: RegionEngine, values: NDArray, window: Window | None, prompts: Prompts, progress: Progress
) -> list[Proposal]:
    """What an engine proposes for one slice; see ``RegionEngine.propose``."""
    return engine.propose(values, window, prompts, progress)


def sam_engine(model_id: str, workspace: Workspace) -> SamEngine:
    """The loaded SAM of this id; one is kept in memory.

    Raises:
        WeightsError: It is missing, is no SAM, or its file has changed.
    """
    from medapp.regions.sam import SamEngine
    from medapp.regions.sam_checkpoint import ARCHITECTURE

    kept: tuple[str, SamEngine] | None = workspace.kept.get(_KEPT)
    if kept is not None and kept[0] == model_id:
        return kept[1]
    card = workspace.library.card(model_id)
    if card.architecture != ARCHITECTURE:
        raise WeightsError(f"The model {card.name} answers no clicks.", "Choose a SAM model for prompts.")
    engine = SamEngine.load(_weights_of(model_id), paths.cache_dir() / "embeddings")
    workspace.kept[_KEPT] = (model_id, engine)
    return engine


def _weights_of(model_id: str) -> Path:
    for folder in (paths.user_models_dir(), paths.shipped_models_dir()):
        path = folder / f"{model_id}.safetensors"
        if path.is_file():
            return path
    raise WeightsError("The weights file of this model is missing.", "Import the model again.")
