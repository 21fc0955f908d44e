"""What the cards of PET models say: simulated centres, crops around tumours, and whether a critic had a say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medapp.networks.card import Card, Intake
from medapp.training.degradations.pet_centres import CENTRES, centre_of
from medapp.training.recipe import PetRecipe
from medapp.training.tasks.pet_synthesis import LEAST_SIDE_PX
from medapp.training.tasks.task import DataFacts

LIMITS = (
    "A synthetic PET image: uptake that it shows may be invented and uptake that it lacks may be there.",
    "Simulated centres: low dose, resolution, voxels and noise texture of all centres were simulated; no "
    "patient was ever measured twice.",
    "Trained on crops of 30 to 60 px around tumours of limbs of sarcoma patients after FDG; no whole body, no "
    "brain, no other tracer.",
    "Single slices: it does not look at their neighbours. A scan at full dose only becomes smoother.",
    "Do not read the SUVmax of a single tumour off its results; how far it was off is among the figures.",
    "Not a medical device; compare with the original before deciding anything.",
)
STYLE = (
    "SGSGAN-style: rebuilt from a paper's abstract; no official code or weights exist, and its results do not apply."
)
ADVERSARIAL = (
    "Adversarial weights: a critic taught it to look like measured PET, which makes texture that was not measured. "
    "Never measure uptake in its results; take the weights without a critic for that."
)


def pet_card(recipe: PetRecipe, data: DataFacts, common: Card) -> Card:
    """The card of a PET model.

    Args:
        recipe: It was trained by.
        data: It was trained on.
        common: With what all cards share.
    """
    limits = LIMITS
    if recipe.architecture == "sgsgan":
        limits = (STYLE, *limits)
    if recipe.adversarial:
        limits = (ADVERSARIAL, *limits)
    return replace(
        common,
        name=recipe.title or "PET synthesis",
        takes=(Intake("PT", "SUV", recipe.value_range, recipe.network_range, curve=recipe.curve),),
        extent_mm=data.extent_mm,
        min_side_px=LEAST_SIDE_PX,
        precision="float32",
        degradation={"kind": "pet-counts", "fractions": list(recipe.fractions)},
        limits=limits,
    )


def pet_settings(recipe: PetRecipe) -> dict[str, Any]:
    """What the card says of the training: losses, and every parameter of every centre."""
    kept = ("crops", "fractions", "drift", "tumour_weight", "hottest_weight", "segmentation", "adversarial")
    return {
        "settings": {key: getattr(recipe, key) for key in kept},
        "simulated centres": [centre_of(letter).facts() for letter in recipe.centres],
        "centres never trained on": [centre.facts() for centre in CENTRES if centre.is_held_out],
    }
