"""The regions of a slice: from an engine, with what a person has accepted painted over, kept as a revision."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medapp import paths
from medapp.annotation.accepted import accepted_masks, masks_sha256
from medapp.annotation.annotation import Annotation
from medapp.errors import ProjectError
from medapp.progress import Progress
from medapp.regions.region_map import checked_labels, paint_mattes, region_map_from_masks, region_map_from_tree
from medapp.regions.region_tree_builder import build_region_tree
from medapp.regions.segmenter import TREE_NAME
from medapp.requests import RegionMapRequest, RegionMapResult
from medapp.scan.scan import Window
from medapp.services.propose import sam_engine
from medapp.services.slices import plane_values
from medapp.services.workspace import Workspace

if TYPE_CHECKING:
    from medapp.store.project import Project, RegionMapRevision

_KEPT = "annotation painted into region maps"


@dataclass(frozen=True, eq=False)
class EngineRegions:
    """What an engine alone says of a slice.

    Attributes:
        labels: ``(H, W)`` int32, from 1.
        engine: As shown, such as ``region tree`` or ``SAM · vit_b``.
        settings: How it was run.
    """

    labels: NDArray[np.int32]
    engine: str
    settings: dict[str, Any]


def find_regions(request: RegionMapRequest, workspace: Workspace, progress: Progress) -> RegionMapResult:
    """Find the regions of one slice anew, as it is shown now, and store them.

    Raises:
        WeightsError: The model is missing, is no SAM, or its file has changed.
        ComputeError: The network gave no finite answer.
        UsageError: There is no such slice.
        Cancelled: The user stopped it; the project is unchanged.
    """
    since = time.perf_counter()
    made = _make(
        workspace,
        workspace.project(request.project),
        request.series_id,
        request.slice_index,
        request.axis,
        request.model_id,
        Window(request.window_center, request.window_width),
        progress,
    )
    return RegionMapResult(made.region_map_id, made.engine, made.regions, made.mattes, time.perf_counter() - since)


def region_map_for(
    workspace: Workspace,
    project: Project,
    series_id: str,
    slice_index: int,
    engine_model_id: str,
    window: Window | None,
    progress: Progress,
    axis: int = 0,
) -> RegionMapRevision:
    """The region map of a slice for restoring it: the newest stored one of the engine, or a new one.

    A stored map is taken as long as the accepted mattes of the slice are those painted into it; so what a person has
    seen as the regions is what is used, whatever the display window is by now.

    Args:
        series_id: The series that is restored; the mattes are those of the original it was made from.
        engine_model_id: A SAM of the library; empty = the region tree.
        window: The display window for a new map; None = the range of the values.
        progress: Gets notes and is asked for Stop; its count is left alone.

    Raises:
        WeightsError: The model is missing, is no SAM, or its file has changed.
        UsageError: There is no such slice.
        Cancelled: The user stopped it; nothing was stored.
    """
    stored = project.region_map(series_id, slice_index, axis, engine_model_id)
    if stored is not None:
        masks, _ = _accepted(workspace, project, series_id, slice_index, axis)
        if stored.mattes_sha256 == masks_sha256(masks):
            return stored
    quiet = progress.within(f"Regions of slice {slice_index + 1}")
    return _make(workspace, project, series_id, slice_index, axis, engine_model_id, window, quiet)


def engine_title(model_id: str, workspace: Workspace) -> str:
    """What an engine is called before it is loaded; see ``EngineRegions.engine``.

    Raises:
        WeightsError: There is no such model.
    """
    return f"SAM · {workspace.library.card(model_id).name.removeprefix('SAM ')}" if model_id else TREE_NAME


def engine_regions(
    values: NDArray, window: Window | None, model_id: str, workspace: Workspace, progress: Progress
) -> EngineRegions:
    """What an engine says of one slice, before anything is painted in.

    Args:
        values: ``(H, W)`` in the scan's unit, or ``(H, W, 3)`` colours.
        window: The display window; None = the range of the values.
        model_id: A SAM of the library; empty = the region tree.

    Raises:
        WeightsError: The model is missing, is no SAM, or its file has changed.
        Cancelled: The user stopped it.
    """
    shown = [window.center, window.width] if window is not None and values.ndim == 2 else None
    if not model_id:
        labels = region_map_from_tree(build_region_tree(values, window, progress))
        return EngineRegions(labels, TREE_NAME, {"window": shown})
    from medapp.regions.automatic import AutomaticSettings, automatic_masks

    engine, how = sam_engine(model_id, workspace), AutomaticSettings()
    masks = automatic_masks(engine, values, window, progress, how, paths.cache_dir() / "automatic-masks")
    labels = region_map_from_masks(masks, (values.shape[0], values.shape[1]))
    settings = {"window": shown, "masks": len(masks), "weights": engine.weights_key, **asdict(how)}
    return EngineRegions(labels, engine.name, settings)


def _make(
    workspace: Workspace,
    project: Project,
    series_id: str,
    slice_index: int,
    axis: int,
    model_id: str,
    window: Window | None,
    progress: Progress,
) -> RegionMapRevision:
    values = plane_values(project.scan(series_id), slice_index, axis)
    found = engine_regions(values, window, model_id, workspace, progress)
    masks, seq = _accepted(workspace, project, series_id, slice_index, axis)
    labels = checked_labels(paint_mattes(found.labels, masks), (values.shape[0], values.shape[1]))
    progress.check()
    number = project.add_region_map(
        series_id,
        slice_index,
        labels,
        axis=axis,
        engine=found.engine,
        engine_id=model_id,
        settings=found.settings,
        mattes=len(masks),
        mattes_sha256=masks_sha256(masks),
        journal_seq=seq,
    )
    return project.load_region_map(number)


def _accepted(
    workspace: Workspace, project: Project, series_id: str, slice_index: int, axis: int
) -> tuple[list[NDArray[np.bool_]], int]:
    """The accepted masks of a plane, from the original that the series was made from, and the newest edit in them."""
    source = _original(project, series_id)
    state = (project.path, source, project.annotation_state(source))
    kept: tuple[Any, Annotation] | None = workspace.kept.get(_KEPT)
    if kept is None or kept[0] != state:  # a restoration asks slice after slice
        kept = (state, project.annotation(source))
        workspace.kept[_KEPT] = kept
    return accepted_masks(kept[1], slice_index, axis), state[2][0]


def _original(project: Project, series_id: str) -> str:
    source = project.series_info(series_id).source_id
    if source is None:
        return series_id
    try:
        return _original(project, source)
    except ProjectError:  # the original is gone: the series stands for itself
        return series_id
