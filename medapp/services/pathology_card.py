"""The card of a model that brings pictures of stained tissue onto finer pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medapp.networks.card import Card, Intake
from medapp.training.inputs import REGION_ENGINE
from medapp.training.recipe import PathologyRecipe, stages_of

PATHOLOGY_LIMITS = (
    "Made for H&E tiles and pictures of stained blood cells at a lower magnification; other stains and other pictures "
    "come out as guesses.",
    "Trained on simulated optics: blur of a smaller aperture, coarser pixels, photon noise. Not on focus errors, a "
    "scanner's sharpening or JPEG, which it may make stronger.",
    "Detail finer than the pixels it was given is a guess: shapes of chromatin and cell borders may be wrong.",
    "Trained on a few slides of four sources.",
    "The light of the picture is kept around every place; where texture is harder than any it was trained on, colours "
    "may still move by a few grey levels.",
    "Not a medical device, not for diagnosis; compare with the original before deciding anything.",
)


_KEPT = ("crops", "cutoffs", "photons", "contrasts", "halves", "focal_beta", "colour_weight")


def pathology_card(recipe: PathologyRecipe, common: Card) -> Card:
    """What differs from other cards: colours, the grid, how the pairs were made.

    Args:
        recipe: What was trained.
        common: What all cards say.
    """
    return replace(
        common,
        name=recipe.title or f"Pathology super-resolution x{recipe.factor}",
        region_engine=REGION_ENGINE,
        takes=tuple(Intake(code, "colour", (0.0, 255.0), (0.0, 1.0)) for code in ("SM", "GM")),
        channels=3,
        min_side_px=16 * recipe.factor,
        scale=recipe.factor,
        spacing_mm=None,  # few pictures say theirs, and magnifications are mixed
        degradation={"kind": "pathology-optics", "factor": recipe.factor, "photons": recipe.photons},
        limits=PATHOLOGY_LIMITS,
    )


def pathology_settings(recipe: PathologyRecipe) -> dict[str, Any]:
    """How it was trained at last, for the card."""
    last = stages_of(recipe)[-1]
    return {key: getattr(last, key) for key in _KEPT}
