"""Which models of the library are measured."""

from __future__ import annotations

from medapp.errors import UsageError
from medapp.networks.card import Card
from medapp.networks.library import ModelLibrary


def cards_of(library: ModelLibrary, task: str, model_id: str | None = None) -> list[Card]:
    """The models of a task, none at all where the library has none; or the one that is named.

    Raises:
        UsageError: The library has no model of this name for the task.
    """
    cards = [card for card in library.list() if card.task == task and model_id in (None, card.id)]
    if model_id is not None and not cards:
        raise UsageError("There is no such model of this task in the library", "medapp models list")
    return cards
