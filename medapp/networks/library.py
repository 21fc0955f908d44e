"""The models at hand: those that come with medapp, and the user's own."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medapp.errors import WeightsError
from medapp.networks.card import Card, read_card

if TYPE_CHECKING:
    import torch
    from torch import nn

_log = logging.getLogger(__name__)

RECIPE_SUFFIX = ".recipe.json"


@dataclass(frozen=True)
class LoadedModel:
    """A network with its card, ready to run.

    Attributes:
        card: What it takes and what it is good for.
        network: In evaluation mode, on ``device``.
        device: Where it runs.
        measured: What was found out about it once while it is loaded, such as the precision that is safe.
    """

    card: Card
    network: nn.Module
    device: torch.device
    measured: dict[str, Any] = field(default_factory=dict, compare=False)


class ModelLibrary:
    """Lists cards, loads networks, keeps few of them in memory.

    Listing and reading cards needs no torch; only ``load`` imports it.
    """

    def __init__(self, shipped: Path, user: Path, keep: int = 2) -> None:
        self._folders = (user, shipped)  # the user's own model wins over a shipped one of the same id
        self._user = user
        self._keep = keep
        self._loaded: OrderedDict[tuple[str, str, str], LoadedModel] = OrderedDict()

    @property
    def user_folder(self) -> Path:
        """Where imported and retrained models go."""
        return self._user

    def list(self) -> tuple[Card, ...]:
        """The cards of all models, sorted by name; a broken card is left out with a line in the log."""
        cards: dict[str, Card] = {}
        for folder in self._folders:
            for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
                if path.name.endswith(RECIPE_SUFFIX):
                    continue
                try:
                    card = read_card(path)
                except WeightsError as error:
                    _log.warning("left out the card %s: %s", path.name, error.message)
                    continue
                if card.id == path.stem:
                    cards.setdefault(card.id, card)
        return tuple(sorted(cards.values(), key=lambda card: (card.name, card.version)))

    def card(self, model_id: str) -> Card:
        """The card of a model.

        Raises:
            WeightsError: There is no such model, or its card is broken.
        """
        return read_card(self._find(model_id))

    def load(self, model_id: str, device: str = "auto") -> LoadedModel:
        """The model, on a device; quick when it was loaded before and its file is unchanged.

        Raises:
            WeightsError: There is no such model, its file has changed, or it does not fit its card.
            ComputeError: The device is not there.
        """
        from medapp.networks.agreement import check_agreement
        from medapp.networks.checkpoint import load_checked
        from medapp.networks.device import choose_device

        path = self._find(model_id)
        card = read_card(path)
        chosen = choose_device(device)
        key = (model_id, card.sha256, str(chosen))
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        network = load_checked(path.with_name(f"{card.id}.safetensors"), card)
        check_agreement(card)
        self._loaded[key] = LoadedModel(card, network.to(chosen), chosen)
        while len(self._loaded) > self._keep:
            self._let_go(next(iter(self._loaded)))
        return self._loaded[key]

    def free(self) -> None:
        """Let all loaded models go."""
        for key in tuple(self._loaded):
            self._let_go(key)

    def _let_go(self, key: tuple[str, str, str]) -> None:
        from medapp.networks.device import free_device_memory

        device = self._loaded.pop(key).device
        free_device_memory(device)

    def _find(self, model_id: str) -> Path:
        if "/" not in model_id and "\\" not in model_id and ".." not in model_id:
            for folder in self._folders:
                path = folder / f"{model_id}.json"
                if path.is_file() and not path.name.endswith(RECIPE_SUFFIX):
                    return path
        raise WeightsError(f"There is no model '{model_id[:60]}'", "medapp models lists what is there")
