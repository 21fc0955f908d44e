"""Depth completion: dense depth from a colour frame and a few measured points, which are simulated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.depth.metrics import DepthScores, depth_scores, mean_scores
from medapp.progress import Progress
from medapp.training.completion_data import DepthFrame, batches, manifest_depth, manifest_frames, sparse_map
from medapp.training.losses.depth import completion_loss
from medapp.training.recipe import CompletionRecipe, Recipe
from medapp.training.splits import patient_of
from medapp.training.tasks.starting import starting_network
from medapp.training.tasks.task import DataFacts, Judgement, Sample, marked, own_samples

_TUNING_POINTS = 100
SAMPLES = 5


def depth_completion(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> CompletionTask:
    """The task on the ``train`` rows of a folder with ``MANIFEST.csv``; see ``task_of``."""
    assert isinstance(recipe, CompletionRecipe)
    rows = manifest_depth(data, "train")
    frames = manifest_frames(data, rows)
    collections: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["source repo"], row["licence"])
        collections[key] = collections.get(key, 0) + 1
    facts = DataFacts(
        data_hash(frames),
        tuple(row["path"] for row in rows),
        len(frames),
        tuple({"name": name, "licence": licence, "frames": n} for (name, licence), n in sorted(collections.items())),
    )
    return CompletionTask(recipe, frames, facts)


class CompletionTask:
    """Trains a depth-completion network on frames.

    Args:
        recipe: Network and crops.
        frames: With dense depth; a part of them is held out to choose the best checkpoint.
        data: What the frames are.
        network: To go on with; None = as the recipe starts.

    Raises:
        TrainingError: The start of the recipe cannot be read.
    """

    def __init__(
        self, recipe: CompletionRecipe, frames: Sequence[DepthFrame], data: DataFacts, network: nn.Module | None = None
    ) -> None:
        self._recipe, self.data = recipe, data
        held_out = recipe.held_out(patient_of(frame.name) for frame in frames)
        self._tuning = [frame for frame in frames if patient_of(frame.name) in held_out]
        self._frames = [frame for frame in frames if patient_of(frame.name) not in held_out]
        self.network = network if network is not None else starting_network(recipe)

    def parts(self) -> Mapping[str, nn.Module]:
        """Nothing beside the network."""
        return {}

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """``image``, ``sparse_depth``, ``prior`` and ``reference`` of as many frames."""
        recipe = self._recipe
        side, count = recipe.crops[np.random.default_rng([recipe.seed, step]).integers(len(recipe.crops))]
        fill, nominal = str(recipe.config.get("prior_fill", "nearest")), float(recipe.config.get("nominal_depth", 50.0))
        seed = int(np.random.SeedSequence([recipe.seed, step]).generate_state(1)[0])
        whole = next(batches(self._frames, count, side, fill, nominal, seed, recipe.points))
        own, is_own = own_samples(count, rank, world)
        index = torch.tensor(list(own))
        names = ("image", "sparse_depth", "prior", "reference")
        return marked({name: getattr(whole, name)[index] for name in names}, is_own)

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """Errors of every stage, in units of each frame's mean depth."""
        reference = batch["reference"]
        made = self.network(batch["image"], batch["sparse_depth"], batch["prior"])
        unit = reference.nanmean(dim=(1, 2, 3), keepdim=True)  # every frame counts alike, near or far
        stages, centres = [stage.float() for stage in made.stages], [bins.float() for bins in made.centres[1:]]
        return completion_loss(made.depth.float(), stages, centres, reference, unit), {}

    def judge(self, network: nn.Module) -> Judgement:
        """Minus the mean relative error on held-out frames, with the same hundred points every time."""
        if not self._tuning:
            return Judgement(None)

        def method(rgb: NDArray[np.uint8], sparse_mm: NDArray[np.float32]) -> NDArray[np.float32]:
            return predict(network, rgb, sparse_mm)

        scores = mean_scores(score_at(method, self._tuning, _TUNING_POINTS, seeds=1))
        samples = [self._sample(network, frame) for frame in self._tuning[:SAMPLES]]
        return Judgement(-scores.rel, {"mae": scores.mae, "rel": scores.rel}, samples)

    def _sample(self, network: nn.Module, frame: DepthFrame) -> Sample:
        sparse = sparse_map(frame, _TUNING_POINTS, "uniform", np.random.default_rng(0))
        low, high = np.nanpercentile(frame.depth_mm, (1, 99))
        found, wanted = (
            np.asarray((depth - low) / max(high - low, 1e-3), np.float32)
            for depth in (predict(network, frame.rgb, sparse), frame.depth_mm)
        )
        return Sample(np.asarray(frame.rgb / 255, np.float32), found, wanted)


def predict(network: nn.Module, rgb: NDArray[np.uint8], sparse_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense depth ``(H, W)`` of one frame, straight from the network."""
    device = next(network.parameters()).device
    image = torch.from_numpy(rgb.transpose(2, 0, 1).astype(np.float32) / 255)[None].to(device)
    with torch.no_grad():
        prediction = network(image, torch.from_numpy(sparse_mm)[None, None].to(device))
    return np.asarray(prediction.depth[0, 0].float().cpu().numpy(), np.float32)


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


def data_hash(frames: Sequence[DepthFrame]) -> str:
    """SHA-256 over pixels and depths."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.rgb.tobytes())
        digest.update(np.nan_to_num(frame.depth_mm).tobytes())
    return digest.hexdigest()
