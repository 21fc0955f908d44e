"""Medical Matting: crops around one thing with a soft target, judged on crops of things that were held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medapp.errors import TrainingError
from medapp.matting.metrics import mse, sad
from medapp.progress import Progress
from medapp.training.losses.matting import MattingObjective, mask_from_alpha
from medapp.training.matting_crops import CropPlan, MattingCrops
from medapp.training.matting_data import MattingData, load_matting_data
from medapp.training.recipe import MattingRecipe, Recipe
from medapp.training.rough_masks import RoughPlan
from medapp.training.splits import patient_of
from medapp.training.tasks.starting import starting_network
from medapp.training.tasks.task import DataFacts, Judgement, Sample, marked, own_samples

_TUNING_CROPS = 24
_TUNING_STEP = 2**40
"""Of the crops it is judged on; no run gets so far."""
_DRAWS = 8
SAMPLES = 5


def matting(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> MattingTask:
    """The task on the ``train`` rows of a folder with ``MANIFEST.csv``; see ``task_of``."""
    assert isinstance(recipe, MattingRecipe)
    return matting_task(recipe, load_matting_data(data, "train", progress))


def matting_task(recipe: MattingRecipe, data: MattingData, network: nn.Module | None = None) -> MattingTask:
    """The task on specimens, a part of them held out to choose the best checkpoint.

    Args:
        recipe: How to train.
        data: What to train on.
        network: To go on with; None = as the recipe starts.

    Raises:
        TrainingError: There are fewer than two patients or pictures, or the recipe draws from none of the sources.
    """
    kept, held_out = held_apart(data, recipe)
    facts = DataFacts(
        data.sha256,
        data.files,
        len({group_of(s.name) for each in kept.specimens.values() for s in each}),
        tuple({"name": "shared data, matting", "licence": name, "files": n} for name, n in data.licences.items()),
    )
    plan = crop_plan(recipe)
    if not _is_drawn(kept, plan):
        raise TrainingError("The recipe draws from no source of these data", "Name their sources in shares")
    tuning = MattingCrops(held_out, plan, recipe.seed) if _is_drawn(held_out, plan) else None
    return MattingTask(recipe, MattingCrops(kept, plan, recipe.seed), tuning, facts, network)


def crop_plan(recipe: MattingRecipe) -> CropPlan:
    """How the recipe draws crops.

    Raises:
        TrainingError: The plan has no such entries.
    """
    rough = RoughPlan(recipe.rough, recipe.rough_px)
    channels = int(recipe.config.get("input_channels", 1)) - bool(recipe.rough)
    entries: dict[str, Any] = {"shares": recipe.shares, "channels": channels, "rough": rough}
    entries |= {key: tuple(value) if isinstance(value, list) else value for key, value in recipe.augmentation.items()}
    try:
        return CropPlan(**entries)
    except TypeError as error:
        raise TrainingError("The recipe's augmentation has unknown entries", "See CropPlan") from error


def _is_drawn(data: MattingData, plan: CropPlan) -> bool:
    return any(specimens and plan.shares.get(source, 0.0) > 0 for source, specimens in data.specimens.items())


class MattingTask:
    """Trains a Medical Matting network on crops.

    Args:
        recipe: Network and weights of the loss.
        crops: To train on.
        tuning: Crops of things that were held out; None where there are too few things for it.
        data: What the crops were made of.
        network: To go on with; None = as the recipe starts.
    """

    def __init__(
        self,
        recipe: MattingRecipe,
        crops: MattingCrops,
        tuning: MattingCrops | None,
        data: DataFacts,
        network: nn.Module | None = None,
    ) -> None:
        self._recipe, self._crops, self._tuning, self.data = recipe, crops, tuning, data
        started = network if network is not None else starting_network(recipe)
        # a third quicker on the CPU; torch's stubs lack it
        self.network: nn.Module = started.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._objective = MattingObjective(
            recipe.strategy,
            kl_scale=recipe.kl_scale,
            gradient_scale=recipe.gradient_scale,
            band_scale=recipe.band_scale,
            square_scale=recipe.square_scale,
        )

    def parts(self) -> Mapping[str, nn.Module]:
        """The objective, which may learn its weights."""
        return {"objective": self._objective}

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """``image``, ``alpha`` and a ``mask`` cut from the alpha, each ``(B, 1, S, S)`` in 0..1.

        Images in colour have 3 channels, and a rough mask is one more.
        """
        side, count = self._size(step, share)
        image, alpha = (torch.from_numpy(part) for part in self._crops.batch(step, side, count))
        mask = mask_from_alpha(alpha, torch.Generator().manual_seed(step))
        own, is_own = own_samples(count, rank, world)
        return marked({"image": image[own], "alpha": alpha[own], "mask": mask[own]}, is_own)

    def _size(self, step: int, share: float) -> tuple[int, int]:
        crops = self._recipe.crops
        if self._recipe.crop_order == "growing":
            return crops[min(int(share * len(crops)), len(crops) - 1)]
        return crops[int(np.random.default_rng([self._recipe.seed, step]).integers(len(crops)))]

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """The objective, and its four terms."""
        recipe, mask = self._recipe, batch["mask"]
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        made = self.network(image, mask, matte_prior=recipe.matte_prior)
        with torch.autocast(mask.device.type, enabled=False):
            terms = self._objective(made, mask, batch["alpha"], int(share * recipe.epochs))
        figures = {
            name: 0.0 if value is None else float(value.detach())
            for name in ("kl", "reconstruction", "alpha", "gradient")
            for value in (getattr(terms, name),)
        }
        return terms.total, figures

    def judge(self, network: nn.Module) -> Judgement:
        """Minus the mean SAD of the alpha in crops of held-out things, always the same crops and draws."""
        if self._tuning is None:
            return Judgement(None)
        side = max(side for side, _ in self._recipe.crops)
        images, references = self._tuning.batch(_TUNING_STEP, side, _TUNING_CROPS)
        parameter = next(network.parameters())
        latent = int(self._recipe.config.get("latent_dim", 2))
        alphas = []
        for number, image in enumerate(images):
            generator = torch.Generator().manual_seed(number)
            noise = torch.randn(1, _DRAWS, latent, generator=generator)
            entering = torch.from_numpy(image[None]).to(parameter.device)
            with torch.no_grad():
                made = network(entering, count=_DRAWS, noise=noise.to(parameter.device))
            alphas.append(made.alpha[0, 0].float().cpu().numpy())
        pairs = list(zip(alphas, references[:, 0], strict=True))
        figures = {
            "sad": float(np.mean([sad(a, r) for a, r in pairs])),
            "mse": float(np.mean([mse(a, r) for a, r in pairs])),
        }
        shown = images[:SAMPLES, :-1] if self._recipe.rough else images[:SAMPLES]
        samples = [
            Sample(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1), a, r)
            for image, (a, r) in zip(shown, pairs, strict=False)
        ]
        return Judgement(-figures["sad"], figures, samples)


def held_apart(data: MattingData, recipe: MattingRecipe) -> tuple[MattingData, MattingData]:
    """What is trained on, and what is held out; a patient or picture is on one side only.

    Raises:
        TrainingError: There are fewer than two patients or pictures.
    """
    held_out = recipe.held_out(group_of(s.name) for each in data.specimens.values() for s in each)
    kept = {source: [s for s in each if group_of(s.name) not in held_out] for source, each in data.specimens.items()}
    judged = {source: [s for s in each if group_of(s.name) in held_out] for source, each in data.specimens.items()}
    if not any(kept.values()):
        raise TrainingError("Nothing is left to train on beside what is held out", "Add cases of other patients")
    return replace(data, specimens=kept), replace(data, specimens=judged)


def group_of(name: str) -> str:
    """Patient or picture that a specimen comes from; its name is a path, and a slice after a blank."""
    return patient_of(name.split(" ")[0])
