"""Training a depth-completion network within a time budget; goes on where it was stopped."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medapp.depth.metrics import DepthScores, depth_scores
from medapp.errors import TrainingError
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.training.completion_data import CompletionBatch, DepthFrame, batches, sparse_map
from medapp.training.losses.depth import completion_loss

_log = logging.getLogger(__name__)

_STATE_EVERY_S = 120.0
_WARM_UP = 20


@dataclass(frozen=True)
class CompletionRecipe:
    """How a depth-completion network is trained.

    Attributes:
        name, version: Of the model.
        config: Of the architecture ``pddm``.
        minutes: Time budget; the learning rate falls to 0 over it along a cosine.
        updates: Budget as a number of updates instead, the same on every machine; 0 = by time.
        batch: Frames an update.
        crop_px: Side of the square crops.
        learning_rate: At its highest, AdamW.
        average: Decay of the running average of the weights, which is what is kept.
        seed: Of weights and data.
    """

    name: str = "depth"
    version: str = "1"
    config: Mapping[str, Any] = field(default_factory=dict)
    minutes: float = 60.0
    updates: int = 0
    batch: int = 4
    crop_px: int = 192
    learning_rate: float = 1e-3
    average: float = 0.998
    seed: int = 0


TASK = "depth-completion"


def is_depth_recipe(path: Path) -> bool:
    """A recipe file that says so; what cannot be read is left to others to refuse."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(entries, dict) and entries.get("task") == TASK


def read_completion_recipe(path: Path) -> CompletionRecipe:
    """A recipe from JSON.

    Raises:
        TrainingError: It cannot be read, or something in it is missing, surplus or of the wrong kind.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        entries.pop("task")
        recipe = CompletionRecipe(**entries)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError("The depth recipe cannot be used", "Compare it with one in models/") from error
    numbers = (recipe.minutes, recipe.batch, recipe.crop_px, recipe.learning_rate)
    if not all(isinstance(n, int | float) and n > 0 for n in numbers) or not 0 < recipe.average < 1:
        raise TrainingError("A number of the depth recipe is not above 0", "Compare it with one in models/")
    return recipe


def train_completion(
    recipe: CompletionRecipe, frames: Sequence[DepthFrame], folder: Path, progress: Progress, minutes: float = math.inf
) -> nn.Module:
    """Train until the budget is spent; the averaged network in evaluation mode.

    Args:
        recipe: What and how long in all.
        frames: With dense depth.
        folder: Keeps ``state.pt``; a second call with the same folder goes on.
        progress: Told the loss now and then; notices Stop, after which the state of the last two minutes is lost.
        minutes: Return after so long, with the budget not spent; the next call goes on.

    Raises:
        TrainingError: The loss stays without a finite value.
        Cancelled: The user stopped it.
    """
    torch.manual_seed(recipe.seed)
    network = build_network("pddm", recipe.config).train()
    kept = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, (0.9, 0.999), weight_decay=0.01)
    spent, iteration, bad = 0.0, 0, 0
    state_path = folder / "state.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        network.load_state_dict(state["network"])
        kept.load_state_dict(state["kept"])
        optimiser.load_state_dict(state["optimiser"])
        spent, iteration = float(state["spent"]), int(state["iteration"])
    feed = batches(
        frames,
        recipe.batch,
        recipe.crop_px,
        str(recipe.config.get("prior_fill", "nearest")),
        float(recipe.config.get("nominal_depth", 50.0)),
        recipe.seed + iteration,
    )
    since = saved = time.perf_counter()
    recent: list[float] = []
    total, unit = (recipe.updates, "updates") if recipe.updates else (max(math.ceil(recipe.minutes), 1), "minutes")
    progress.start(total, unit, "Train depth completion")

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "kept": kept.state_dict(),
            "optimiser": optimiser.state_dict(),
            "spent": spent + time.perf_counter() - since,
            "iteration": iteration,
        }
        torch.save(state, state_path.with_suffix(".part"))
        state_path.with_suffix(".part").replace(state_path)

    def share_spent() -> float:
        if recipe.updates:
            return iteration / recipe.updates
        return (spent + time.perf_counter() - since) / (60 * recipe.minutes)

    while (share := share_spent()) < 1 and time.perf_counter() - since < 60 * minutes:
        rate = 0.5 * (1 + math.cos(math.pi * share)) * min(1.0, (iteration + 1) / _WARM_UP)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * max(rate, 1e-3)
        loss = _update(network, next(feed), optimiser)
        if not math.isfinite(loss):
            bad += 1
            if bad > 10:
                raise TrainingError("The loss is not finite again and again.", "Lower the learning rate.")
            continue
        kept.update_parameters(network)
        iteration, bad = iteration + 1, 0
        recent.append(loss)
        if iteration % 50 == 0:
            note = f"update {iteration}, loss {np.mean(recent[-50:]):.4f}"
            _log.info(note)
            done = int(share * progress.total)
            progress.step(max(done - progress.done, 0), note, loss=float(np.mean(recent[-50:])), iteration=iteration)
        if time.perf_counter() - saved > _STATE_EVERY_S:
            save()
            saved = time.perf_counter()
    save()
    return kept.module.eval()


def _update(network: nn.Module, batch: CompletionBatch, optimiser: torch.optim.Optimizer) -> float:
    """One step; returns the loss, and leaves the weights alone where it is not finite."""
    prediction = network(batch.image, batch.sparse_depth, batch.prior)
    unit = batch.reference.nanmean(dim=(1, 2, 3), keepdim=True)  # every frame counts alike, near or far
    loss = completion_loss(prediction.depth, prediction.stages, prediction.centres[1:], batch.reference, unit)
    optimiser.zero_grad()
    if not torch.isfinite(loss):
        return float("nan")
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def predict(network: nn.Module, rgb: NDArray[np.uint8], sparse_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense depth ``(H, W)`` of one frame, straight from the network."""
    image = torch.from_numpy(rgb.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    with torch.no_grad():
        prediction = network(image, torch.from_numpy(sparse_mm)[None, None])
    return prediction.depth[0, 0].numpy()


def score_at(
    method: Any, frames: Sequence[DepthFrame], count: int, pattern: str = "uniform", seeds: int = 3
) -> list[DepthScores]:
    """Scores of ``method(rgb, sparse_mm) -> depth_mm`` on every frame and seed; the same points for every method."""
    rows = []
    for number, frame in enumerate(frames):
        for seed in range(seeds):
            random = np.random.default_rng([seed, number, count])
            sparse = sparse_map(frame, count, pattern, random) if count else np.zeros_like(frame.depth_mm)
            rows.append(depth_scores(method(frame.rgb, sparse), frame.depth_mm))
    return rows
