"""Whether a card says of its network what the network is: a contradiction is said before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from medapp.errors import WeightsError
from medapp.networks.card import ROUGH_MASK, Card
from medapp.networks.checkpoint import expected_tensors
from medapp.networks.registry import architecture


def check_agreement(card: Card) -> None:
    """Hold a card against the architecture and configuration that it names.

    Raises:
        WeightsError: They contradict each other (the message names the first thing), the architecture is not known, or
            the configuration does not fit it.
    """
    expected_tensors(card.architecture, card.config)  # so that what follows reads a sound configuration
    problem = next(_problems(card), "")
    if problem:
        raise WeightsError(
            f"The card of '{card.name}' does not fit its network: {problem}", "Correct the card, or import it again"
        )


def _problems(card: Card) -> Iterator[str]:
    built = architecture(card.architecture)
    if card.serves != built.serves:
        yield f"{built.title} serves {built.serves}, not {card.serves}"
    channels = built.channels(card.config)
    if card.serves == "matting":
        if surplus := sorted(set(card.inputs) - {ROUGH_MASK}):
            yield f"beside the image it may need a rough mask, not {', '.join(surplus)}"
        channels -= ROUGH_MASK in card.inputs
    if card.channels != channels and card.serves != "depth":  # always colour, whatever the card says
        yield f"it takes images of {_count(channels, 'channel')}, not {card.channels}"
    if card.serves != "restoration":
        return  # how these run is up to their engines, not to the card
    dims = card.config.get("dims", built.dims)
    if card.dims != dims:
        yield f"it takes {'volumes' if dims == 3 else 'slices'}, not {'volumes' if card.dims == 3 else 'slices'}"
    if set(card.inputs) != set(built.inputs):
        needed = ", ".join(built.inputs) or "nothing"
        yield f"beside the image it needs {needed}, not {', '.join(card.inputs) or 'nothing'}"
    if card.size_multiple % built.size_multiple:
        yield f"sides must be multiples of {built.size_multiple} px, not of {card.size_multiple}"
    enlarges = card.config.get("scale", 1)
    for told in [card.narrowed(modality) for modality in card.modalities] or [card]:
        least = -(-told.min_side_px // told.size_multiple) * told.size_multiple  # callers pad
        if least < built.min_side_px:
            yield f"sides of {told.min_side_px} px are too small, {built.min_side_px} are needed"
        if enlarges not in (1, told.scale):
            yield f"it enlarges its input {enlarges} times, the card says {told.scale}"
        if enlarges == 1 and told.scale > 1 and not told.fills_kspace:
            yield f"it keeps the grid, and the card says that the result's is {told.scale} times finer"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
