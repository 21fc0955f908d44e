"""Training Medical Matting within a time budget; goes on where it was stopped."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medapp.errors import TrainingError
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.training.losses.matting import MattingObjective, Strategy, mask_from_alpha
from medapp.training.matting_crops import MattingCrops

_log = logging.getLogger(__name__)

ARCHITECTURE = "medical_matting"
STATE_EVERY_S = 90.0
_WARM_UP = 30
_PATIENCE_FOR_NAN = 10


@dataclass(frozen=True)
class MattingRecipe:
    """How a Medical Matting network is trained.

    Attributes:
        config: Of the architecture.
        minutes: Time budget; the learning rate falls to nearly 0 over it along a cosine.
        updates: Budget in updates beside it, whichever is spent first; 0 = time alone.
        crops: Side and number of the crops of an update, the next pair with each equal part of the budget.
        learning_rate: At its highest, Adam with weight decay 5e-5 as published.
        kl_scale: Weight of the divergence; the published 10 beside a mean of the reconstruction lets the masks of a
            small network fall together into one.
        gradient_scale: Weight of the alpha's gradients; the published 1 keeps the alpha of a short run flat.
        matte_prior: The matting net is trained on draws of the prior; see ``MedicalMatting.forward``.
        strategy: How segmentation and matting are weighed.
        epochs: What the budget counts as, for the swing of the weights.
        shares: How often each source is drawn.
        average: Decay of the running average of the weights, which is what is kept.
        seed: Of weights and data.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    minutes: float = 60.0
    updates: int = 0
    crops: tuple[tuple[int, int], ...] = ((64, 8), (64, 8), (96, 4))
    learning_rate: float = 1e-3
    kl_scale: float = 10.0
    gradient_scale: float = 1.0
    matte_prior: bool = False
    strategy: Strategy = "OAWS"
    epochs: int = 40
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"cut-out": 0.4, "skin": 0.2, "tumour": 0.2, "brain": 0.2}
    )
    average: float = 0.998
    seed: int = 0


def train_matting(
    recipe: MattingRecipe,
    crops: MattingCrops,
    folder: Path,
    progress: Progress,
    start: Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Train until the budget is spent; the averaged network in evaluation mode.

    Args:
        recipe: How.
        crops: What to train on.
        folder: Gets ``state.pt`` every minute or two, and ``curves.jsonl``; a run that is here goes on.
        progress: Counts updates; the state is kept when it is stopped.
        start: Weights to begin with; None = at random.

    Raises:
        TrainingError: The loss is not finite again and again, or the state that is here is damaged.
        Cancelled: The user stopped it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = build_network(ARCHITECTURE, recipe.config)
    if start is not None:
        network.load_state_dict(start)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it; a third quicker
    objective = MattingObjective(recipe.strategy, kl_scale=recipe.kl_scale, gradient_scale=recipe.gradient_scale)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)
    parameters = [*network.parameters(), *objective.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=recipe.learning_rate, weight_decay=5e-5)
    parts = {"network": network, "objective": objective, "averaged": averaged, "optimiser": optimiser}
    step, spent = _resumed(folder, parts)
    progress.start(0, "updates", "training")
    last, strikes, kept_at = time.monotonic(), 0, time.monotonic()
    sums: dict[str, float] = {}
    try:
        while (share := _spent(recipe, step, spent)) < 1:
            side, count = recipe.crops[min(int(share * len(recipe.crops)), len(recipe.crops) - 1)]
            rate = recipe.learning_rate * min(1.0, (step + 1) / _WARM_UP) * (0.01 + 0.99 * _cosine(share))
            for group in optimiser.param_groups:
                group["lr"] = rate
            image, alpha = (torch.from_numpy(part) for part in crops.batch(step, side, count))
            mask = mask_from_alpha(alpha, torch.Generator().manual_seed(step))
            loss = objective(
                network.train()(image, mask, matte_prior=recipe.matte_prior), mask, alpha, int(share * recipe.epochs)
            )
            optimiser.zero_grad(set_to_none=True)
            loss.total.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 5.0)
            is_sound = bool(torch.isfinite(norm) and torch.isfinite(loss.total))
            strikes = 0 if is_sound else strikes + 1
            if strikes >= _PATIENCE_FOR_NAN:
                raise TrainingError("The loss is not finite any more", "Lower learning_rate in the recipe")
            if is_sound:
                optimiser.step()
                averaged.update_parameters(network)
                for name in ("kl", "reconstruction", "alpha", "gradient"):
                    value = getattr(loss, name)
                    sums[name] = sums.get(name, 0.0) + (0.0 if value is None else float(value.detach()))
            step += 1
            now = time.monotonic()
            spent, last = spent + now - last, now
            if step % 50 == 0:
                _note(folder, step, spent, {name: value / 50 for name, value in sums.items()})
                sums = {}
            if now - kept_at > STATE_EVERY_S:
                _keep(folder, parts, step, spent)
                kept_at = time.monotonic()
            progress.step()
    finally:
        _keep(folder, parts, step, spent)
    return finished(averaged)


def finished(averaged: AveragedModel) -> nn.Module:
    """The network that is kept, out of its running average."""
    network: nn.Module = averaged.module
    return network.eval()


def averaged_so_far(recipe: MattingRecipe, folder: Path) -> nn.Module:
    """The network of a run as it stands.

    Raises:
        TrainingError: There is no state here, or it is damaged.
    """
    averaged = AveragedModel(build_network(ARCHITECTURE, recipe.config), use_buffers=True)
    if _resumed(folder, {"averaged": averaged})[0] == 0:
        raise TrainingError("There is no run in this folder", "Train first")
    return finished(averaged)


def _spent(recipe: MattingRecipe, step: int, seconds: float) -> float:
    """Share of the budget that is gone."""
    by_time = seconds / (recipe.minutes * 60) if recipe.minutes > 0 else 1.0
    return max(by_time, step / recipe.updates if recipe.updates else 0.0)


def _cosine(share: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))


def _resumed(folder: Path, parts: Mapping[str, Any]) -> tuple[int, float]:
    path = folder / "state.pt"
    if not path.exists():
        return 0, 0.0
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return int(state["step"]), float(state["seconds"])
    except Exception as error:  # torch raises whatever its reader stumbled upon
        raise TrainingError(
            "The state of this run does not fit or is damaged", "Start again in a new folder"
        ) from error


def _keep(folder: Path, parts: Mapping[str, Any], step: int, seconds: float) -> None:
    partial = folder / "state.pt.part"
    torch.save({"step": step, "seconds": seconds, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    partial.replace(folder / "state.pt")


def _note(folder: Path, step: int, seconds: float, means: Mapping[str, float]) -> None:
    line = {"step": step, "seconds": round(seconds, 1), **{name: round(value, 5) for name, value in means.items()}}
    with (folder / "curves.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    _log.info("%s", line)
