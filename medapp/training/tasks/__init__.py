"""What can be trained: one file a task, each knowing its data, its loss and how it is judged."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from medapp.progress import Progress
from medapp.training.recipe import Recipe
from medapp.training.tasks.task import Task

_MAKERS = {
    "ct-denoise": "ct_denoising:ct_denoising",
    "mr-super-resolution": "mr_super_resolution:mr_super_resolution",
    "all-in-one": "all_in_one:all_in_one",
    "pet-synthesis": "pet_synthesis:pet_synthesis",
    "matting": "matting:matting",
    "depth-completion": "completion:depth_completion",
    "regions": "regions:regions",
    "pathology-super-resolution": "pathology:pathology_super_resolution",
}


def task_of(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> Task:
    """The task of a recipe, with its data read.

    Args:
        recipe: What to train.
        data: Folder, project or exported data set to train on.
        cache: Folder for what can be made again, such as simulated noise.
        progress: Counts files and slices.

    Raises:
        TrainingError: The network cannot start as the recipe says, or the data cannot be used for this.
        Cancelled: The user stopped it.
    """
    if recipe.task != "regions":  # SAM is built by ``medapp.regions``
        import_module("medapp.training.tasks.starting").starting_network(recipe)  # refused before minutes of reading
    module, function = _MAKERS[recipe.task].split(":")
    made: Task = getattr(import_module(f"medapp.training.tasks.{module}"), function)(recipe, data, cache, progress)
    return made
