"""Train every model that has a recipe, one after the other, within a budget of time; what is left goes on later."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medapp.errors import MedappError, TrainingError, UsageError
from medapp.networks.card import read_card
from medapp.progress import Progress
from medapp.services.train import train_recipe
from medapp.training.recipe import Recipe, full_size, read_recipe, stages_of

ENDING = ".recipe.json"
STATE = "shelf.json"
MODELS = "models"
_USUAL_MINUTES = 30.0
_GO_ON = "Give more minutes; the same command goes on from there"
"""Of a recipe whose card does not say how long its run took."""


@dataclass(frozen=True)
class Planned:
    """One model of the shelf.

    Attributes:
        recipe: With its part of the budget as ``minutes`` of every stage; its own budget where there is none.
        minutes: That part; infinite = as long as the recipe asks for.
    """

    recipe: Recipe
    minutes: float


def plan_shelf(
    folder: Path, budget: float = math.inf, only: Sequence[str] = (), is_full: bool = False
) -> list[Planned]:
    """What is to be trained, in an order in which every model comes after the one it starts from.

    Args:
        folder: Where the recipes are, ``<id>.recipe.json`` beside their cards.
        budget: Minutes for all; shared out as the runs of the shipped cards took their time. Schedules are shortened,
            not cut off: a learning rate falls to its end within its part.
        only: Ids; empty = all.
        is_full: The full-size models of the recipes.

    Raises:
        UsageError: No such recipe, or the budget is not above 0.
        TrainingError: A recipe cannot be used.
    """
    if not budget > 0:
        raise UsageError("The budget must be above 0 minutes", "Such as --budget 120")
    found = {path.name.removesuffix(ENDING): path for path in sorted(folder.glob(f"*{ENDING}"))}
    missing = sorted(set(only) - set(found))
    if missing or not found:
        what = f"There is no recipe {missing[0][:40]}" if missing else "There are no recipes in this folder"
        raise UsageError(what, f"Recipes: {', '.join(found) or 'none'}")
    recipes = {name: read_recipe(path) for name, path in found.items() if not only or name in only}
    if is_full:
        recipes = {name: full_size(recipe) for name, recipe in recipes.items() if recipe.full}
    took = {name: _minutes_of(folder / f"{name}.json", recipe) for name, recipe in recipes.items()}
    whole = sum(sum(one) for one in took.values())
    planned = []
    for name in _ordered(recipes):
        if math.isinf(budget):
            planned.append(Planned(recipes[name], math.inf))
            continue
        scale = budget / whole
        planned.append(Planned(_shortened(recipes[name], [scale * one for one in took[name]]), scale * sum(took[name])))
    return planned


def train_shelf(
    planned: Sequence[Planned],
    out: Path,
    data_dir: Path,
    progress: Progress,
    device: str = "auto",
    tell: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Train what is planned; the same call goes on where the last one stopped.

    ``out`` then holds a run folder for each model, and ``models`` with the weights and cards of those that have any.
    What cannot be trained is told and the others go on.

    Args:
        planned: Of ``plan_shelf``.
        out: Folder of the runs.
        data_dir: What to train on.
        progress: Counts within the model that is being trained.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        tell: Called with the row of each model when it ends.

    Returns:
        A row a model: ``{id, is_done, iterations, minutes, score, megabytes}``, or ``{id, refused, hint}``.

    Raises:
        TrainingError: The folder cannot be written.
        Cancelled: The user stopped it; finished models are kept, the one under way goes on later.
    """
    rows = []
    for entry in planned:
        known = _state(out).get(entry.recipe.name, {})
        row = known if known.get("plan") == _plan_of(entry) else _train_one(entry, out, data_dir, progress, device)
        rows.append({key: value for key, value in row.items() if key != "plan"})
        tell(rows[-1])
    return rows


def _train_one(entry: Planned, out: Path, data_dir: Path, progress: Progress, device: str) -> dict[str, Any]:
    recipe, began = entry.recipe, time.monotonic()
    run = out / recipe.name
    before = out / MODELS / f"{recipe.start_from}.safetensors"
    if recipe.start_from and before.is_file():  # its forerunner of this shelf, not the one that was shipped
        recipe = replace(recipe, start_from=str(before))
    try:
        made = train_recipe(recipe, run, math.inf, data_dir, progress, device)
    except MedappError as error:
        return {"id": recipe.name, "refused": error.message, "hint": error.hint}
    if made["model"] is None:
        return {"id": recipe.name, "refused": "The budget ended before the first weights were kept", "hint": _GO_ON}
    weights = Path(made["model"])
    row = {
        "id": recipe.name,
        "is_done": made["is_done"],
        "iterations": made["iteration"],
        "minutes": round((time.monotonic() - began) / 60, 1),
        "score": made["score"],
        "megabytes": round(weights.stat().st_size / 1e6, 1),
    }
    try:
        (out / MODELS).mkdir(parents=True, exist_ok=True)
        for path in (weights, weights.with_suffix(".json")):
            beside = out / MODELS / f"{path.name}.part"
            shutil.copyfile(path, beside)
            beside.replace(out / MODELS / path.name)
        if made["is_done"]:
            _keep(out, recipe.name, {**row, "plan": _plan_of(entry)})
    except OSError as error:
        raise TrainingError(
            "The folder of the models cannot be written", "Choose another --out, or make room"
        ) from error
    return row


def _plan_of(entry: Planned) -> str:
    """The recipe as text: another one makes another run."""
    return entry.recipe.to_json()


def _state(out: Path) -> dict[str, Any]:
    """What is finished; damaged counts as nothing, since runs know by themselves how far they are."""
    try:
        kept = json.loads((out / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(out: Path, name: str, row: Mapping[str, Any]) -> None:
    beside = out / f"{STATE}.part"
    beside.write_text(json.dumps({**_state(out), name: row}, indent=1) + "\n", encoding="utf-8")
    beside.replace(out / STATE)


def _minutes_of(card_path: Path, recipe: Recipe) -> list[float]:
    """How long each stage took when the shipped model was made, as its card says, or a usual time shared alike."""
    stages = stages_of(recipe)
    training: Mapping[str, Any] = {}
    try:
        training = read_card(card_path).training
    except MedappError:
        pass
    told = [float(one.get("minutes") or 0) for one in training.get("stages", ()) if isinstance(one, Mapping)]
    if len(told) == len(stages) and all(told):
        return told
    minutes = float(training.get("minutes") or 0) or sum(stage.minutes for stage in stages) or _USUAL_MINUTES
    updates = [stage.iterations or 1 for stage in stages]
    return [minutes * one / sum(updates) for one in updates]


def _shortened(recipe: Recipe, minutes: Sequence[float]) -> Recipe:
    """Every stage ends after its minutes at the latest, or after its own iterations, whichever comes first."""
    least = [min(own.minutes or math.inf, one) for own, one in zip(stages_of(recipe), minutes, strict=True)]
    if not recipe.stages:
        return replace(recipe, minutes=least[0])
    return replace(
        recipe,
        stages=tuple({**stage, "minutes": one} for stage, one in zip(recipe.stages, least, strict=True)),
    )


def _ordered(recipes: Mapping[str, Recipe]) -> list[str]:
    """Names, each after the one it starts from.

    Raises:
        TrainingError: Two start from each other.
    """
    made: list[str] = []

    def add(name: str, waiting: tuple[str, ...] = ()) -> None:
        if name in waiting:
            raise TrainingError(f"The recipe {name[:40]} starts from itself", "Correct start_from")
        before = recipes[name].start_from
        if before in recipes:
            add(before, (*waiting, name))
        if name not in made:
            made.append(name)

    for name in recipes:
        add(name)
    return made
