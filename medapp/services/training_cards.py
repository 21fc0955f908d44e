"""The card of a model when its training ends; figures on held-out patients come from ``medapp evaluate``."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from typing import Any

import torch

from medapp.networks.card import ROUGH_MASK, Card, Intake
from medapp.networks.registry import architecture
from medapp.services.all_in_one_card import FIRST_FILTER, all_in_one_card
from medapp.services.pathology_card import pathology_card, pathology_settings
from medapp.services.pet_cards import pet_card, pet_settings
from medapp.services.region_cards import regions_card
from medapp.training.inputs import REGION_ENGINE
from medapp.training.loop import Trainer
from medapp.training.recipe import (
    AllInOneRecipe,
    CompletionRecipe,
    MattingRecipe,
    PathologyRecipe,
    PetRecipe,
    Recipe,
    RegionsRecipe,
    RestorationRecipe,
)
from medapp.training.run_folder import RunFolder
from medapp.training.tasks.task import DataFacts

NOT_A_DEVICE = "Not a medical device; compare with the original before deciding anything."
CT_LIMITS = (
    "Made for axial CT slices at reduced dose; the noise it learnt was simulated (parallel beam, I0 = 2e5).",
    "Trained on a few dozen adult patients, mostly chest and abdomen; small or faint lesions may be smoothed.",
    NOT_A_DEVICE,
)
MR_LIMITS = (
    "Made for MR slices of low resolution; its training pairs were made by cropping k-space of magnitude images.",
    "Detail finer than what was measured is a guess; what was measured is put back unless that is switched off.",
    NOT_A_DEVICE,
)
MATTING_LIMITS = (
    "A small model: in a box it follows blobs, clear edges, vessels and white matter; it does not know anatomy, and "
    "cannot know which of two tissues with the same box is meant.",
    "The crop is seen at 96 px, so α is coarse on large things: put what is uncertain into the band and refine.",
    "Targets of lesions and tumours were hard masks with a blurred border; those of the other sources were soft.",
    "Lesions, tumours and photographs come out worse than closed form from a trimap of a good mask; see the figures.",
    "Outside a box around one thing the masks mean nothing. Not a medical device.",
)
GUIDED_LIMITS = (
    "It starts from what it is told: a rough mask within a few percent of the crop of the truth, or a region, is "
    "brought to the edge; a box alone leaves it to guess, as a model without rough masks does.",
    "Photographs of things with a sharp edge come out worse than closed form from a trimap of the same rough mask; see "
    "the figures.",
    "A small model: it does not know anatomy. The crop is seen at {crop} px, so α is coarse on large things.",
    "Rough masks in training were true ones with a moved border, regions of the region tree, and boxes; people "
    "err in other ways.",
    "Targets of lesions and tumours were hard masks with a blurred border; those of the other sources were soft.",
    "Outside a crop around one thing the masks mean nothing. Not a medical device.",
)
FITTED_LIMIT = "In pictures in colour closed form goes on from its α, as far as the colours around explain it."
AGAIN_LIMIT = "A rough mask is looked at twice, the second time as the first answer leaves it."
DEPTH_LIMITS = (
    "PDDM-style: rebuilt from a paper's abstract; no official code or weights exist, and its results do not apply.",
    "Research use; no measurement for diagnosis. Lengths depend on the measured points and on the camera given.",
    "Trained on renderings of the inside of two CT scans and a few RGB-D photographs, at 160 px; real endoscopes have "
    "smoke, blood, tools, distortion and moving light that it never saw.",
    "On the few held-out photographs of rooms it is no better than linear fill; use a fill there.",
    "Without measured points the result is relative only: it is scaled to a mean depth of 50 mm.",
    "The uncertainty is the spread of the network's own answers; it was not calibrated.",
)


def card_of(recipe: Recipe, data: DataFacts, run: RunFolder, trainer: Trainer) -> Card:
    """What is known of a model when its training ends, or is interrupted.

    Args:
        recipe: Whole, with all stages.
        data: What it was trained on.
        run: Of the last stage so far.
        trainer: Of the same.
    """
    if isinstance(recipe, RegionsRecipe):
        return regions_card(recipe, data, _figures(trainer), _training(recipe, data, run, trainer), _licence(data))
    common = Card(
        id=recipe.name,
        name=recipe.title,
        version=recipe.version,
        architecture=recipe.architecture,
        config=recipe.config,
        task=recipe.task,
        takes=(),
        sha256="0" * 64,  # keep_weights fills it in
        inputs=architecture(recipe.architecture).inputs,
        size_multiple=architecture(recipe.architecture).size_multiple,
        spacing_mm=data.spacing_mm,
        data=data.collections,
        figures=_figures(trainer),
        training=_training(recipe, data, run, trainer),
        licence=_licence(data),
    )
    if isinstance(recipe, RestorationRecipe):
        return _restoration(recipe, common)
    if isinstance(recipe, AllInOneRecipe):
        return all_in_one_card(recipe, common, data)
    if isinstance(recipe, PetRecipe):
        return pet_card(recipe, data, common)
    if isinstance(recipe, PathologyRecipe):
        return pathology_card(recipe, common)
    if isinstance(recipe, MattingRecipe):
        return replace(
            common,
            name=recipe.title or "Soft matting",
            serves="matting",
            config={**recipe.config, "use_posterior": False},
            channels=int(recipe.config.get("input_channels", 1)) - bool(recipe.rough),
            inputs=(ROUGH_MASK,) if recipe.rough else (),
            size_multiple=2 ** (len(recipe.config.get("num_filters", (0,) * 4)) - 1),
            min_side_px=8,
            precision="float32",
            limits=_guided_limits(recipe) if recipe.rough else MATTING_LIMITS,
        )
    return replace(
        common,
        name=recipe.title or "PDDM-style depth",
        serves="depth",
        takes=(Intake("ES", "arbitrary", (0.0, 255.0), (0.0, 1.0)),),
        channels=3,
        min_side_px=32,
        precision="float32",
        limits=DEPTH_LIMITS,
    )


def _guided_limits(recipe: MattingRecipe) -> tuple[str, ...]:
    first, *others = (told.format(crop=recipe.crop_px) for told in GUIDED_LIMITS)
    told = {"again": AGAIN_LIMIT, "colours": FITTED_LIMIT}
    return (first, *(limit for key, limit in told.items() if recipe.finish.get(key)), *others)


def _figures(trainer: Trainer) -> dict[str, Any]:
    return {"tuning_score": round(trainer.best_score, 4)} if math.isfinite(trainer.best_score) else {}


def _licence(data: DataFacts) -> str:
    """Of the weights; copyleft of the training data goes over to them."""
    if any("GPL-3" in str(collection.get("licence", "")) for collection in data.collections):
        return "GPL-3.0, as some of the data it was trained on, see data"
    if any("GPL" in str(collection.get("licence", "")) for collection in data.collections):
        return "GPL-2.0-or-later, as some of the data it was trained on, see data"
    return "Apache-2.0; trained on data under the licences named in data"


def _restoration(recipe: RestorationRecipe, common: Card) -> Card:
    region_engine = REGION_ENGINE if "region_map" in common.inputs else ""
    if recipe.task == "mr-super-resolution":
        return replace(
            common,
            name=recipe.title or f"MR super-resolution x{recipe.factor}",
            region_engine=region_engine,
            takes=(
                Intake(
                    "MR",
                    "arbitrary",
                    recipe.value_range,
                    recipe.network_range,
                    limits=recipe.limits,
                    first_filter=recipe.first_filter or None,
                ),
            ),
            scale=recipe.factor,
            degradation={"kind": "mr-kspace", "factor": recipe.factor},
            limits=(*MR_LIMITS[:-1], *([FIRST_FILTER] if recipe.first_filter else []), MR_LIMITS[-1]),
        )
    return replace(
        common,
        name=recipe.title or "CT denoiser",
        region_engine=region_engine,
        takes=(Intake("CT", "HU", recipe.value_range, recipe.network_range),),
        degradation={"kind": "ct-dose", "doses": list(recipe.doses), "kernels": ["ramp", "hann"]},
        limits=CT_LIMITS,
    )


def _training(recipe: Recipe, data: DataFacts, run: RunFolder, trainer: Trainer) -> dict[str, Any]:
    made: dict[str, Any] = {
        "recipe": f"{recipe.name}.recipe.json",
        "data_sha256": data.sha256,
        "iterations": trainer.iteration,
        "minutes": round(trainer.seconds / 60, 1),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {platform.system()}, {trainer.device_name}",
        "seed": recipe.seed,
        "patients": data.patients,
    }
    if recipe.stages:
        made["stages"] = [_spent(RunFolder(folder)) for folder in sorted(run.path.parent.glob("stage-*"))]
    if recipe.start_from:
        made["start_from"] = recipe.start_from
    if isinstance(recipe, MattingRecipe):
        made |= {"crop_px": recipe.crop_px, "crop_of_box": recipe.crop_of_box, "crop_scale": "box"}
        made |= {"crop_within": True} if recipe.crop_within else {}
        made |= {"views": recipe.views} if recipe.views > 1 else {}
        made |= {"finish": dict(recipe.finish)} if recipe.finish else {}
    elif isinstance(recipe, PetRecipe):
        made |= pet_settings(recipe)
    elif isinstance(recipe, RestorationRecipe):
        kept = ("crops", "noise_sigma", "doses") if recipe.task == "ct-denoise" else ("crops",)
        made["settings"] = {key: getattr(recipe, key) for key in kept}
    elif isinstance(recipe, AllInOneRecipe):
        made["settings"] = {"crops": recipe.crops, "shares": dict(recipe.shares), "fractions": recipe.fractions}
        made["patients_of"] = {modality: part.patients for modality, part in data.parts.items()}
    elif isinstance(recipe, PathologyRecipe):
        made["settings"] = pathology_settings(recipe)
    elif isinstance(recipe, CompletionRecipe):
        made["points"] = (
            "log-uniform 5 to 2,000; uniform, grid, keypoints, lines, half; one frame in twenty without any"
        )
    return made


def _spent(run: RunFolder) -> dict[str, Any]:
    points = run.curves()
    return {"updates": points[-1]["iteration"], "minutes": round(points[-1]["seconds"] / 60, 1)} if points else {}
