"""Train a network from a recipe, or go on with a run that was interrupted."""

from __future__ import annotations

import logging
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medapp.errors import TrainingError
from medapp.networks.card import Card, Intake
from medapp.networks.checkpoint import keep_weights
from medapp.networks.registry import architecture
from medapp.progress import Progress
from medapp.training.completion import is_depth_recipe
from medapp.training.data import CropSampler, load_slices, manifest_ct, patient_of, with_noise
from medapp.training.inputs import REGION_ENGINE
from medapp.training.loop import Trainer, cache_dir, tuning_pairs
from medapp.training.recipe import Recipe, read_recipe
from medapp.training.run_folder import RunFolder

_log = logging.getLogger(__name__)

TASKS = {"ct-denoise": ("CT", "HU")}
"""Modality and unit of each task that can be trained."""


def train(recipe_path: Path, out: Path, minutes: float, data_dir: Path, progress: Progress) -> dict[str, Any]:
    """Train for some minutes; the same call goes on where the last one stopped.

    The folder ``out`` then holds the run and, as ``<name>.safetensors`` and ``<name>.json``, the best model so far.

    Returns:
        ``{"iteration", "iterations", "tuning_psnr_db", "seconds", "model"}``.

    Raises:
        TrainingError: The recipe, the data or the run folder cannot be used.
        Cancelled: The user stopped it; the run can go on.
    """
    if is_depth_recipe(recipe_path):
        from medapp.services.train_depth import train_depth

        return train_depth(recipe_path, out, minutes, data_dir, progress)
    recipe = read_recipe(recipe_path)
    if recipe.task not in TASKS:
        raise TrainingError(f"The task '{recipe.task}' cannot be trained", f"Tasks: {', '.join(TASKS)}")
    rows = manifest_ct(data_dir, "train", with_real_noise=False)
    slices, data_sha256 = load_slices(data_dir, [row["path"] for row in rows])
    for_tuning = [entry for entry in slices if entry.patient in recipe.tuning_patients]
    for_training = [entry for entry in slices if entry.patient not in recipe.tuning_patients]
    run = RunFolder(out)
    run.begin(recipe, data_sha256, [row["path"] for row in rows])
    noisy = with_noise(for_training, recipe, cache_dir(out), progress)
    spacings = [entry.source.spacing_mm for entry in noisy]
    trainer = Trainer(recipe, run, CropSampler(noisy, recipe), tuning_pairs(for_tuning))
    patients = {entry.source.patient for entry in noisy}
    _log.info(
        "%d slices of %d patients, %d patients for tuning", len(noisy), len(patients), len(recipe.tuning_patients)
    )
    try:
        trainer.train(minutes, progress)
    finally:
        if (out / "best.safetensors").exists():
            used = [row for row in rows if patient_of(row["path"]) in patients]
            card = _card(recipe, used, trainer, data_sha256, (min(spacings), max(spacings)))
            keep_weights(run.load_weights("best"), card, out)
    return {
        "iteration": trainer.iteration,
        "iterations": recipe.iterations,
        "tuning_psnr_db": trainer.best_psnr_db if np.isfinite(trainer.best_psnr_db) else None,
        "seconds": round(trainer.seconds, 1),
        "model": str(out / f"{recipe.name}.safetensors"),
    }


def _card(
    recipe: Recipe, rows: list[dict[str, str]], trainer: Trainer, data_sha256: str, spacing_mm: tuple[float, float]
) -> Card:
    """What is known of the model when training ends; figures on held-out patients come from ``medapp evaluate``."""
    modality, unit = TASKS[recipe.task]
    sources: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        sources.setdefault((row["source repo"], row["licence"]), set()).add(patient_of(row["path"]))
    return Card(
        id=recipe.name,
        name="CT denoiser",
        version=recipe.version,
        architecture=recipe.architecture,
        config=recipe.config,
        task=recipe.task,
        inputs=architecture(recipe.architecture).inputs,
        region_engine=REGION_ENGINE if "region_map" in architecture(recipe.architecture).inputs else "",
        takes=(Intake(modality, unit, recipe.value_range, recipe.network_range),),
        sha256="0" * 64,  # keep_weights fills it in
        size_multiple=architecture(recipe.architecture).size_multiple,
        spacing_mm=(round(spacing_mm[0], 3), round(spacing_mm[1], 3)),
        data=tuple(
            {"name": source, "licence": licence, "patients": len(patients)}
            for (source, licence), patients in sorted(sources.items())
        ),
        figures={"tuning_psnr_db": round(trainer.best_psnr_db, 3)} if np.isfinite(trainer.best_psnr_db) else {},
        limits=(
            "Made for axial CT slices at reduced dose; the noise it learnt was simulated (parallel beam, I0 = 2e5).",
            "Trained on a few dozen adult patients, mostly chest and abdomen; small or faint lesions may be smoothed.",
            "Not a medical device; compare with the original before deciding anything.",
        ),
        training={
            "recipe": f"{recipe.name}.recipe.json",
            "data_sha256": data_sha256,
            "iterations": trainer.iteration,
            "minutes": round(trainer.seconds / 60, 1),
            "threads": torch.get_num_threads(),
            "machine": f"{platform.machine()} {platform.system()}, CPU only",
            "seed": recipe.seed,
            "settings": {
                key: value for key, value in asdict(recipe).items() if key in ("crops", "noise_sigma", "doses")
            },
        },
        licence="Apache-2.0; trained on data under CC BY 3.0 and others, see data",
    )
