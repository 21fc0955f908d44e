"""The card of a network for several kinds of scans: what differs between them stands at each intake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medapp.networks.card import Card, Intake
from medapp.training.recipe import AllInOneRecipe
from medapp.training.tasks.task import DataFacts

UNITS = {"CT": "HU", "MR": "arbitrary", "PT": "SUV"}
LEAST_SIDE_PX = {"CT": 32, "MR": 32, "PT": 24}
ALL_IN_ONE_LIMITS = (
    "One model for low-dose CT, MR of a quarter of the resolution and PET at a tenth of the counts. It sees pixels "
    "only, and works out which of the three it looks at.",
    "All three degradations were simulated; in CT the noise of a parallel beam, in MR cropped k-space of magnitude "
    "images, in PET thinned counts in single slices of one simulated scanner.",
    "MR comes back on a grid four times finer; what was measured is put back unless that is switched off.",
    "PET was trained on pieces of a few centimetres around sarcomas of two dozen patients: whole bodies are blocked.",
)
FIRST_FILTER = (
    "Before the network sees an MR slice a classical filter takes turns with the measured k-space; the network goes on "
    "from what comes of it."
)
"""Of models with a ``first_filter``."""
_NOT_A_DEVICE = "Not a medical device; compare with the original before deciding anything."


def all_in_one_card(recipe: AllInOneRecipe, common: Card, data: DataFacts) -> Card:
    """What is known of an all-in-one model when its training ends.

    Args:
        recipe: Ranges and degradations.
        common: What all cards say.
        data: With its parts.
    """
    several = len(recipe.parts) > 1
    filtered = (FIRST_FILTER,) if any(recipe.part(one).first_filter for one in recipe.parts) else ()
    return replace(
        common,
        name=recipe.title or "All-in-one restorer",
        takes=tuple(_intake(recipe, modality, data.parts[modality], several) for modality in recipe.parts),
        degradation={modality: _degradation(recipe, modality) for modality in recipe.parts},
        limits=(*(ALL_IN_ONE_LIMITS if several else ()), *filtered, _NOT_A_DEVICE),
    )


def _intake(recipe: AllInOneRecipe, modality: str, data: DataFacts, several: bool) -> Intake:
    part = recipe.part(modality)
    return Intake(
        modality,
        UNITS[modality],
        part.value_range,
        part.network_range,
        limits=part.limits,
        scale=part.factor if part.factor > 1 else None,
        spacing_mm=data.spacing_mm if several else None,
        extent_mm=data.extent_mm,
        min_side_px=LEAST_SIDE_PX[modality],
        first_filter=part.first_filter or None,
    )


def _degradation(recipe: AllInOneRecipe, modality: str) -> Mapping[str, Any]:
    part = recipe.part(modality)
    if modality == "CT":
        return {"kind": "ct-dose", "doses": list(part.doses), "kernels": ["ramp", "hann"]}
    if modality == "MR":
        return {"kind": "mr-kspace", "factor": part.factor}
    return {"kind": "pet-counts", "fractions": list(recipe.fractions)}
