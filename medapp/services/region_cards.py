"""The card of a small SAM that was trained here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medapp.networks.card import Card
from medapp.regions.sam_checkpoint import config_of, infer_shape, sam_card
from medapp.regions.small_sam import make_small_sam
from medapp.training.recipe import RegionsRecipe
from medapp.training.tasks.task import DataFacts

LIMITS = (
    "A segment_anything.Sam with its prompt encoder and mask decoder, but with medapp's own small convolutional image "
    "encoder at 256 px: no published SAM weights are in it, and what is said of SAM does not hold for it.",
    "It wants its clicks and boxes drawn into SAM's mask input as well, which medapp does; other programs do not.",
    "Trained on a few hundred pictures: brain tissue in T1, sarcomas in CT, MR and PET, organs of one CT, nuclei, "
    "blood cells, skin lesions, cut-outs and made-up patches. Of other things it knows edges and little more.",
    "A large slice is seen at 256 px, so borders are coarse and small things vanish: zooming in does not help, the "
    "whole slice is looked at.",
    "Every answer is a proposal that needs a look. Not a medical device.",
)


def regions_card(
    recipe: RegionsRecipe, data: DataFacts, figures: Mapping[str, Any], training: Mapping[str, Any], licence: str
) -> Card:
    """As SAM checkpoints have it, with where it came from."""
    shape = infer_shape(make_small_sam(**recipe.config).state_dict())
    return replace(
        sam_card(shape, "0" * 64),
        id=recipe.name,
        name=recipe.title or f"SAM {shape.variant}",
        version=recipe.version,
        task=recipe.task,
        config=config_of(shape),
        data=data.collections,
        figures=dict(figures),
        limits=LIMITS,
        training=dict(training),
        licence=licence,
    )
