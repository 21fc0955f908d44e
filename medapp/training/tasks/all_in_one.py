"""All-in-one restoration: CT of low dose, MR of low resolution and PET of few counts, by one network in one batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medapp.errors import TrainingError
from medapp.networks.registry import architecture
from medapp.progress import Progress
from medapp.training.losses.pixel import log_error
from medapp.training.recipe import AllInOneRecipe, Recipe, RestorationRecipe
from medapp.training.sources import MANIFEST, find_references
from medapp.training.tasks.ct_denoising import ct_task
from medapp.training.tasks.low_count_pet import low_count_task
from medapp.training.tasks.mr_super_resolution import mr_task
from medapp.training.tasks.restoration import RestorationTask, from_network, to_network
from medapp.training.tasks.starting import starting_network
from medapp.training.tasks.task import FILLER, DataFacts, Judgement, marked

FOLDERS = {"CT": "ct/", "MR": "mri/", "PT": "pet/"}
SAMPLES = 5
_EVERYWHERE = (-float("inf"), float("inf"))


def all_in_one(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> AllInOneTask:
    """The task on the scans of a place, of every modality that the recipe names; see ``task_of``."""
    assert isinstance(recipe, AllInOneRecipe)
    if architecture(recipe.architecture).inputs:
        raise TrainingError(
            f"{recipe.architecture} needs more than the image, which differs from modality to modality",
            "Choose another architecture in the recipe",
        )
    network = starting_network(recipe)
    freeze(network, recipe.frozen)
    parts = {}
    for modality in recipe.parts:
        has_manifest = (data / MANIFEST).is_file()
        split, under = ("train", FOLDERS[modality]) if has_manifest else (None, "")
        references = find_references(data, modality, split, progress, under, with_real_noise=modality != "CT")
        if references.place == "folder" and len(recipe.parts) > 1:
            raise TrainingError(
                "A plain folder does not say of every file what it shows, and this needs to tell modalities apart",
                "Use a project, an exported data set, or a folder with MANIFEST.csv",
            )
        part = recipe.part(modality)
        if modality == "CT":
            parts[modality] = ct_task(part, references, cache, progress, network)
        elif modality == "MR":
            parts[modality] = mr_task(part, references, cache, progress, network)
        else:
            fractions, most = recipe.fractions, recipe.most_slices
            parts[modality] = low_count_task(part, references, cache, progress, network, fractions, most)
    return AllInOneTask(recipe, parts, network)


class AllInOneTask:
    """Trains one network on batches that hold crops of every modality, each in its own unit and range.

    A batch is mixed, since routers are balanced over a batch: balanced over one modality alone, they could not learn to
    tell modalities apart.

    Args:
        recipe: Shares, ranges, floors.
        parts: By modality, each around the same network.
        network: That network.

    Reference:
        Yang et al., "All-In-One Medical Image Restoration via Task-Adaptive Routing", MICCAI 2024.
    """

    def __init__(self, recipe: AllInOneRecipe, parts: Mapping[str, RestorationTask], network: nn.Module) -> None:
        self._recipe, self._parts, self.network = recipe, dict(parts), network
        self._recipes: dict[str, RestorationRecipe] = {modality: recipe.part(modality) for modality in parts}
        self.data = _together({modality: part.data for modality, part in parts.items()})

    def parts(self) -> Mapping[str, nn.Module]:
        """Nothing beside the network."""
        return {}

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """``degraded`` and ``reference`` ``(B, 1, S, S)`` in native units, and ``part`` ``(B,)``: which modality."""
        step += self._recipe.first_step
        found = [part.batch(step, rank, world, share) for part in self._parts.values()]
        own = [number for number, batch in enumerate(found) if FILLER not in batch]
        chosen = own or [0]
        joined = {name: torch.cat([found[number][name] for number in chosen]) for name in ("degraded", "reference")}
        part = torch.cat([torch.full((len(found[number]["degraded"]),), number) for number in chosen])
        return marked({**joined, "part": part}, bool(own))

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """Logarithmic error of each crop in its own unit, plus what the network adds."""
        which = [(batch["part"] == number).nonzero()[:, 0] for number in range(len(self._recipes))]
        image = torch.empty_like(batch["degraded"])
        for one, recipe in zip(which, self._recipes.values(), strict=True):
            image[one] = to_network(batch["degraded"][one], recipe)
        output = self.network(image)
        restored, own_loss = output if isinstance(output, tuple) else (output, None)
        restored = restored.float()  # of autocast
        loss, figures = restored.new_zeros(()), dict[str, float]()
        for one, (modality, recipe) in zip(which, self._recipes.items(), strict=True):
            if not len(one):  # of several processes with few crops each; the same names all the same
                figures[f"loss_{modality.lower()}"] = float("nan")
                continue
            unit = self._recipe.floors.get(modality, 1.0)
            low, high = recipe.focus or _EVERYWHERE
            made, reference = (from_network(restored[one], recipe) / unit, batch["reference"][one] / unit)
            error = log_error(made, reference, (low / unit, high / unit), recipe.outside_weight)
            loss = loss + error * (len(one) / len(image))
            figures[f"loss_{modality.lower()}"] = float(error.detach())
        if own_loss is not None:
            loss = loss + self._recipe.own_loss_weight * own_loss.float()
        return loss, figures

    def judge(self, network: nn.Module) -> Judgement:
        """Mean over the modalities of the mean PSNR on their held-out slices."""
        found = {modality: part.judge(network) for modality, part in self._parts.items()}
        found = {modality: judged for modality, judged in found.items() if judged.score is not None}
        if not found:
            return Judgement(None)
        figures = {
            key: float(np.mean([judged.figures[key] for judged in found.values()]))
            for key in ("psnr_db", "input_psnr_db")
        }
        for modality, judged in found.items():
            figures[f"psnr_{modality.lower()}_db"] = judged.figures["psnr_db"]
            figures[f"input_psnr_{modality.lower()}_db"] = judged.figures["input_psnr_db"]
        in_turn = [judged.samples[i] for i in range(SAMPLES) for judged in found.values() if i < len(judged.samples)]
        return Judgement(figures["psnr_db"], figures, in_turn[:SAMPLES])


def freeze(network: nn.Module, beginnings: tuple[str, ...]) -> None:
    """Keep the parameters whose names begin so as they are.

    Raises:
        TrainingError: No parameter is called so.
    """
    for beginning in beginnings:
        chosen = [value for name, value in network.named_parameters() if name.startswith(beginning)]
        if not chosen:
            raise TrainingError(f"No weight of the network begins with '{beginning[:40]}'", "Correct frozen")
        for value in chosen:
            value.requires_grad_(False)


def _together(parts: Mapping[str, DataFacts]) -> DataFacts:
    """What all parts are made of; a patient counts once, whatever was measured of them."""
    groups = frozenset(group for part in parts.values() for group in part.groups)
    digest = hashlib.sha256("\n".join(f"{modality}\0{part.sha256}" for modality, part in parts.items()).encode())
    spacings = [part.spacing_mm for part in parts.values() if part.spacing_mm]
    return DataFacts(
        digest.hexdigest(),
        tuple(file for part in parts.values() for file in part.files),
        len(groups),
        tuple({"modality": modality, **entry} for modality, part in parts.items() for entry in part.collections),
        (min(low for low, _ in spacings), max(high for _, high in spacings)) if spacings else None,
        dict(parts),
        groups,
    )
