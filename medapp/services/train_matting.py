"""Train a matting model from a recipe of one or more stages, or go on with a run that was interrupted."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from medapp.errors import TrainingError
from medapp.networks.card import Card
from medapp.networks.checkpoint import keep_weights
from medapp.progress import Progress
from medapp.training.matting_crops import CropPlan, MattingCrops
from medapp.training.matting_data import MattingData, load_matting_data
from medapp.training.matting_loop import ARCHITECTURE, MattingRecipe, train_matting

TASK = "matting"
LIMITS = (
    "A first, small model: it follows blobs and clear edges in a box around one thing; it does not know anatomy.",
    "The crop is brought to 64 px, so α is coarse on large things: put what is uncertain into the band and refine.",
    "Targets of lesions and tumours were hard masks with a blurred border; only cut-outs and brain tissue were truly "
    "soft.",
    "Outside a box around one thing the masks mean nothing. Not a medical device.",
)


@dataclass(frozen=True)
class StagedRecipe:
    """A model and the stages it is trained in; each starts from the weights of the one before.

    Attributes:
        name: Id of the model.
        title: What people read.
        version: Text.
        crop_px: Side of the crops of the last stage; inference brings every box to it.
        crop_of_box: Crop side over the longer side of a box.
        stages: At least one; all of one configuration.
    """

    name: str
    title: str
    version: str
    crop_px: int
    crop_of_box: float
    stages: tuple[MattingRecipe, ...]


def is_matting_recipe(path: Path) -> bool:
    """True when the recipe is for a matting model."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(entries, dict) and entries.get("task") == TASK


def read_staged_recipe(path: Path) -> StagedRecipe:
    """Read and check a recipe.

    Raises:
        TrainingError: It is unreadable, or an entry is missing, unknown or of the wrong kind.
    """
    hint = "Compare it with a recipe in models/"
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stages = tuple(_stage(stage, entries["config"]) for stage in entries["stages"])
        recipe = StagedRecipe(
            str(entries["name"]),
            str(entries["title"]),
            str(entries["version"]),
            int(entries["crop_px"]),
            float(entries["crop_of_box"]),
            stages,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError("The recipe of the matting model is not usable", hint) from error
    if not stages or not all(
        stage.minutes > 0 and stage.learning_rate > 0 and all(s % 8 == 0 and s > 0 and n > 1 for s, n in stage.crops)
        for stage in stages
    ):
        raise TrainingError("The recipe has a number that cannot work", "Crops are multiples of 8, two or more a batch")
    return recipe


def _stage(entries: Mapping[str, Any], config: Mapping[str, Any]) -> MattingRecipe:
    known = {entry.name for entry in fields(MattingRecipe)} - {"config"}
    if set(entries) - known:
        raise KeyError(", ".join(sorted(set(entries) - known)))
    values: dict[str, Any] = {
        key: tuple(map(tuple, value)) if key == "crops" else value for key, value in entries.items()
    }
    return MattingRecipe(config=config, **values)


def train_matting_model(
    recipe_path: Path, out: Path, minutes: float | None, data_dir: Path, progress: Progress
) -> dict[str, Any]:
    """Train stage after stage; the same call goes on where the last one stopped.

    Args:
        recipe_path: The recipe.
        out: Run folder; then also holds ``<name>.safetensors``, without what only training needs, and its card.
        minutes: Shared among the stages as the recipe shares its own; None = the recipe's.
        data_dir: Folder with ``MANIFEST.csv``.
        progress: Counts updates.

    Returns:
        ``{"stages", "model"}``.

    Raises:
        TrainingError: The recipe, the data or the run folder cannot be used.
        Cancelled: The user stopped it; the run can go on.
    """
    recipe = read_staged_recipe(recipe_path)
    data = load_matting_data(data_dir, "train", progress)
    scale = 1.0 if minutes is None else minutes / sum(stage.minutes for stage in recipe.stages)
    weights: Mapping[str, torch.Tensor] | None = None
    network = None
    for number, stage in enumerate(recipe.stages, 1):
        plan = CropPlan(stage.shares)
        timed = replace(stage, minutes=stage.minutes * scale)
        crops = MattingCrops(data, plan, stage.seed)
        network = train_matting(timed, crops, out / f"stage-{number}", progress, weights)
        weights = network.state_dict()
    assert network is not None
    card = keep_weights(for_inference(network.state_dict()), matting_card(recipe, data, out), out)
    return {"stages": len(recipe.stages), "model": str(out / f"{card.id}.safetensors")}


def for_inference(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights without the posterior, a fifth of them, which only training needs."""
    return {key: value for key, value in weights.items() if not key.startswith("prob_unet.posterior.")}


def matting_card(recipe: StagedRecipe, data: MattingData, out: Path) -> Card:
    """What is known of the model when training ends; figures come from ``medapp evaluate --task matting``."""
    return Card(
        id=recipe.name,
        name=recipe.title,
        version=recipe.version,
        architecture=ARCHITECTURE,
        task=TASK,
        serves="matting",
        takes=(),
        sha256="0" * 64,  # keep_weights fills it in
        config={**recipe.stages[-1].config, "use_posterior": False},
        min_side_px=8,
        precision="float32",
        data=tuple({"name": "shared data, matting", "licence": name, "files": n} for name, n in data.licences.items()),
        limits=LIMITS,
        training={
            "recipe": f"{recipe.name}.recipe.json",
            "data_sha256": data.sha256,
            "crop_px": recipe.crop_px,
            "crop_of_box": recipe.crop_of_box,
            "crop_scale": "box",
            "stages": [_spent(out / f"stage-{n}") for n in range(1, len(recipe.stages) + 1)],
            "threads": torch.get_num_threads(),
            "machine": f"{platform.machine()} {platform.system()}, CPU only",
        },
        licence="GPL-2.0-or-later: the training pictures include Tux Paint stamps and the ANTs tutorial's brains",
    )


def _spent(folder: Path) -> dict[str, Any]:
    try:
        last = (folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        noted = json.loads(last)
    except (OSError, IndexError, ValueError):
        return {}
    return {"updates": noted["step"], "minutes": round(noted["seconds"] / 60, 1)}
