"""Train a depth-completion network from a recipe, or go on with a run; keep it as a model with its card."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medapp.networks.card import Card, Intake
from medapp.networks.checkpoint import keep_weights
from medapp.progress import Progress
from medapp.training.completion import TASK, CompletionRecipe, read_completion_recipe, train_completion
from medapp.training.completion_data import DepthFrame, manifest_depth, manifest_frames

LIMITS = (
    "PDDM-style: rebuilt from a paper's abstract; no official code or weights exist, and its results do not apply.",
    "Research use; no measurement for diagnosis. Lengths depend on the measured points and on the camera given.",
    "Trained on renderings of the inside of two CT scans and a few RGB-D photographs, at 160 px; real endoscopes have "
    "smoke, blood, tools, distortion and moving light that it never saw.",
    "On the few held-out photographs of rooms it is no better than linear fill; use a fill there.",
    "Without measured points the result is relative only: it is scaled to a mean depth of 50 mm.",
    "The uncertainty is the spread of the network's own answers; it was not calibrated.",
)


def train_depth(recipe_path: Path, out: Path, minutes: float, data_dir: Path, progress: Progress) -> dict[str, Any]:
    """Train for some minutes; the same call goes on where the last one stopped.

    Returns:
        ``{"iteration", "minutes", "is_done", "model"}``.

    Raises:
        TrainingError: The recipe or the data cannot be used.
        Cancelled: The user stopped it; the run can go on.
    """
    recipe = read_completion_recipe(recipe_path)
    rows = manifest_depth(data_dir, "train")
    frames = manifest_frames(data_dir, rows)
    network = train_completion(recipe, frames, out, progress, minutes)
    state = torch.load(out / "state.pt", weights_only=True)
    spent, iteration = float(state["spent"]) / 60, int(state["iteration"])
    card = depth_card(recipe, rows, data_hash(frames), iteration, spent)
    keep_weights(network.state_dict(), card, out)
    is_done = iteration >= recipe.updates if recipe.updates else spent >= recipe.minutes
    return {
        "iteration": iteration,
        "minutes": round(spent, 1),
        "is_done": is_done,
        "model": str(out / f"{recipe.name}.safetensors"),
    }


def data_hash(frames: list[DepthFrame]) -> str:
    """SHA-256 over pixels and depths."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.rgb.tobytes())
        digest.update(np.nan_to_num(frame.depth_mm).tobytes())
    return digest.hexdigest()


def depth_card(
    recipe: CompletionRecipe, rows: list[dict[str, str]], data_sha256: str, iterations: int, minutes: float
) -> Card:
    """What is known when training ends; figures come from ``medapp evaluate --task depth-completion``."""
    sources: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["source repo"], row["licence"])
        sources[key] = sources.get(key, 0) + 1
    return Card(
        id=recipe.name,
        name="PDDM-style depth",
        version=recipe.version,
        architecture="pddm",
        config=recipe.config,
        task=TASK,
        serves="depth",
        inputs=("sparse_depth",),
        takes=(Intake("ES", "arbitrary", (0.0, 255.0), (0.0, 1.0)),),
        sha256="0" * 64,  # keep_weights fills it in
        channels=3,
        size_multiple=1,
        min_side_px=32,
        precision="float32",
        data=tuple(
            {"name": source, "licence": licence, "frames": count}
            for (source, licence), count in sorted(sources.items())
        ),
        limits=LIMITS,
        training={
            "recipe": f"{recipe.name}.recipe.json",
            "data_sha256": data_sha256,
            "iterations": iterations,
            "minutes": round(minutes, 1),
            "threads": torch.get_num_threads(),
            "machine": f"{platform.machine()} {platform.system()}, CPU only",
            "seed": recipe.seed,
            "points": "log-uniform 5 to 2,000; uniform, grid, keypoints, lines, half; one frame in twenty without any",
        },
        licence="Apache-2.0; trained on data under CC BY 3.0 and MIT, see data",
    )
