"""Train a network from a recipe, or go on with a run that was interrupted; keep it as a model with its card."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from medapp.errors import MedappError
from medapp.networks.checkpoint import keep_weights
from medapp.progress import Progress
from medapp.services.training_cards import card_of
from medapp.training.loop import TrainedRun, Trainer
from medapp.training.recipe import Recipe, full_size, read_recipe, stages_of
from medapp.training.run_folder import RunFolder
from medapp.training.tasks import task_of
from medapp.training.tasks.task import Task

_log = logging.getLogger(__name__)


def train(
    recipe_path: Path,
    out: Path,
    minutes: float,
    data_dir: Path,
    progress: Progress,
    device: str = "auto",
    is_full: bool = False,
) -> dict[str, Any]:
    """Train for some minutes; the same call goes on where the last one stopped.

    The folder ``out`` then holds the run and, as ``<name>.safetensors`` and ``<name>.json``, the best model so far. A
    recipe of several stages makes a run ``stage-<n>`` each; every stage starts from the best of the one before.

    Args:
        recipe_path: What to train.
        out: Run folder.
        minutes: Return after so long, even when the budget of the recipe is not spent; infinite = never.
        data_dir: What to train on.
        progress: Counts batches, or seconds where the budget is time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        is_full: The full-size model of the recipe instead of the one that medapp ships.

    Returns:
        ``{"iteration", "iterations", "score", "seconds", "is_done", "stages", "model"}``; ``score`` None without any.

    Raises:
        TrainingError: The recipe, the data or the run folder cannot be used, or the training went wrong.
        Cancelled: The user stopped it; the run can go on.
    """
    recipe = read_recipe(recipe_path)
    return train_recipe(full_size(recipe) if is_full else recipe, out, minutes, data_dir, progress, device)


def train_recipe(
    recipe: Recipe, out: Path, minutes: float, data_dir: Path, progress: Progress, device: str = "auto"
) -> dict[str, Any]:
    """As ``train``, of a recipe that was read already."""
    stages = stages_of(recipe)
    cache = out.parent / "noise_cache"
    spent = 0.0
    runs: list[TrainedRun] = []
    for number, stage in enumerate(stages, 1):
        run = RunFolder(out / f"stage-{number}" if len(stages) > 1 else out)
        before = str(out / f"stage-{number - 1}" / "best.safetensors") if number > 1 else stage.start_from
        task = task_of(replace(stage, start_from=before), data_dir, cache, progress)
        trainer = Trainer(stage, task, run, device)
        began = time.monotonic()
        try:
            runs.append(trainer.train(minutes - spent / 60, progress))
        except BaseException:
            with suppress(MedappError):  # what ended the run is what the person should hear
                _keep_model(recipe, task, run, trainer, out)
            raise
        _keep_model(recipe, task, run, trainer, out)
        spent += time.monotonic() - began
        if not runs[-1].is_done:
            break
    last, model = runs[-1], out / f"{recipe.name}.safetensors"
    return {
        "iteration": last.iteration,
        "iterations": last.iterations,
        "score": round(last.best_score, 4) if math.isfinite(last.best_score) else None,
        "seconds": round(sum(each.seconds for each in runs), 1),
        "is_done": last.is_done and len(runs) == len(stages),
        "stages": len(runs),
        "model": str(model) if model.is_file() else None,
    }


def _keep_model(recipe: Recipe, task: Task, run: RunFolder, trainer: Trainer, out: Path) -> None:
    """The best weights so far as a model with its card; nothing while there are none."""
    if trainer.is_first and run.has_weights("best"):
        card = card_of(recipe, task.data, run, trainer)
        keep_weights(for_inference(run.load_weights("best")), card, out)


def for_inference(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without a posterior, a fifth of Medical Matting, which only training needs."""
    return {key: value for key, value in weights.items() if not key.startswith("prob_unet.posterior.")}
