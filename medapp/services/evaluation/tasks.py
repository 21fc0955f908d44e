"""One door to all that can be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medapp.errors import UsageError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.evaluation import (
    all_in_one,
    depth,
    mattes,
    pathology,
    pet,
    region_table,
    regions,
    restorations,
    tables,
)

TASKS = (*restorations.TASKS, pet.TASK, all_in_one.TASK, mattes.TASK, depth.TASK, regions.TASK, pathology.TASK)


def evaluate(
    task: str,
    library: ModelLibrary,
    data: Path,
    progress: Progress,
    model_id: str | None = None,
    slices_per_subject: int = 5,
    is_quick: bool = False,
) -> dict[str, Any]:
    """Measure one task on held-out patients.

    Args:
        task: One of ``TASKS``.
        library: Where the models are.
        data: A folder with ``MANIFEST.csv``, whose ``val`` rows are used; for CT denoising any folder of scans.
        progress: Counts what is measured.
        model_id: One model; None = all models of the task.
        slices_per_subject: Of restorations, evenly spaced over each subject.
        is_quick: Fewer conditions or cases, to try things.

    Returns:
        Plain data with at least ``task``, ``data_sha256`` and ``rows``; see the function of the task.

    Raises:
        UsageError: The task is not known, or there is nothing to measure.
        TrainingError: The data folder has no held-out cases.
        WeightsError: A model cannot be used.
        Cancelled: The user stopped it.
    """
    if task == mattes.TASK:
        return mattes.evaluate_mattes(library, data, progress, model_id, is_quick)
    if task == depth.TASK:
        return depth.evaluate_depth(library, data, progress, model_id, seeds=1 if is_quick else 3)
    if task == all_in_one.TASK:
        return all_in_one.evaluate_all_in_one(library, data, progress, model_id, slices_per_subject, is_quick)
    if task == pet.TASK:
        return pet.evaluate_pet(library, data, progress, model_id, slices_per_subject, is_quick)
    if task == regions.TASK:
        return regions.evaluate_regions(library, data, progress, model_id, is_quick)
    if task == pathology.TASK:
        return pathology.evaluate_pathology(library, data, progress, model_id, slices_per_subject, is_quick)
    if task in restorations.TASKS:
        return restorations.evaluate(task, library, data, progress, model_id, slices_per_subject, is_quick)
    raise UsageError(f"The task '{task[:40]}' cannot be evaluated", f"Tasks: {', '.join(TASKS)}")


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What the card of a model keeps of a result."""
    of_task = {module.TASK: module.card_figures for module in (mattes, depth, all_in_one, pet, regions, pathology)}
    return of_task.get(result["task"], restorations.card_figures)(result, model_id)


def table(result: Mapping[str, Any], is_markdown: bool = False) -> str:
    """The result as text that lines up, or as Markdown."""
    of_task = {
        mattes.TASK: tables.matting_table,
        depth.TASK: tables.depth_table,
        all_in_one.TASK: all_in_one.table,
        pet.TASK: pet.pet_table,
        regions.TASK: region_table.region_table,
        pathology.TASK: pathology.pathology_table,
    }
    blocks, notes = of_task.get(result["task"], restorations.restoration_table)(result)
    return tables.as_markdown(blocks, notes) if is_markdown else tables.as_text(blocks, notes)
