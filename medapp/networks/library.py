"""The models at hand: those that come with medapp, the user's own, and which retrained one serves for which."""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medapp.errors import WeightsError
from medapp.networks.card import Card, read_card

if TYPE_CHECKING:
    import torch
    from torch import nn

_log = logging.getLogger(__name__)

RECIPE_SUFFIX = ".recipe.json"
ADOPTED = "adopted.json"
"""In the user's folder: which adopted models serve for which, oldest first."""
ADOPTED_FORMAT = 1
LINE = "retrained_line"
"""Entry of ``Card.training`` of a retrained model: the id of the first model of its line."""


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
                if path.name.endswith(RECIPE_SUFFIX) or path.name == ADOPTED:
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
        return self._find(model_id)[1]

    def weights_path(self, model_id: str) -> Path:
        """The weights file of a model.

        Raises:
            WeightsError: There is no such model.
        """
        return self._find(model_id)[0].with_name(f"{model_id}.safetensors")

    def recipe_path(self, model_id: str) -> Path | None:
        """The recipe beside the card of a model; None where there is none."""
        path = self._find(model_id)[0].with_name(f"{model_id}{RECIPE_SUFFIX}")
        return path if path.is_file() else None

    def load(self, model_id: str, device: str = "auto") -> LoadedModel:
        """The model, on a device; quick when it was loaded before and its file is unchanged.

        Raises:
            WeightsError: There is no such model, its file has changed, or it does not fit its card.
            ComputeError: The device is not there.
        """
        from medapp.networks.agreement import check_agreement
        from medapp.networks.checkpoint import load_checked
        from medapp.networks.device import choose_device

        path, card = self._find(model_id)
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

    # --------------------------------------------------------------------------------------------------- adopted models

    def line(self, model_id: str) -> str:
        """The first model of the line that a model belongs to; its own id where it was not retrained."""
        try:
            first = self.card(model_id).training.get(LINE)
        except WeightsError:
            return model_id
        return first if isinstance(first, str) and first else model_id

    def is_successor(self, card: Card) -> bool:
        """True for a retrained model that is listed under the first one of its line."""
        return self.line(card.id) != card.id and self._has(self.line(card.id))

    def in_use(self, model_id: str) -> str:
        """Which model answers when this one is asked for.

        The first model of a line stands for whatever was adopted last and is still there; a later one, asked for by
        its own id, stands for itself.
        """
        for adopted in reversed(self._histories().get(model_id, ())):
            if self._has(adopted):
                return adopted
            _log.warning("the adopted model %s is not there any more; the one before it serves", adopted)
        return model_id

    def history(self, model_id: str) -> tuple[str, ...]:
        """What serves or has served in a model's line and was not rolled back: the first one, then adopted ones."""
        first = self.line(model_id)
        return (first, *self._histories().get(first, ()))

    def next_id(self, model_id: str) -> str:
        """A free id for the next model of a line: ``soft-matting.2``, ``soft-matting.3``..."""
        first, number = self.line(model_id), 2
        while any(self._taken(f"{first}.{number}", folder) for folder in self._folders):
            number += 1
        return f"{first}.{number}"

    def adopt(self, weights: Mapping[str, torch.Tensor], card: Card) -> Card:
        """Keep a retrained model under an id of its own and let it serve for its line from now on.

        Files first, then the entry, each renamed into place: a kill between leaves everything as it was. The same
        weights are kept once, however often they are adopted.

        Args:
            weights: As ``load_state_dict`` takes them.
            card: Its ``training`` names the line; the id is a wish that is kept where it is free.

        Returns:
            The card as kept.

        Raises:
            WeightsError: The folder cannot be written, or what is known of adopted models was written by a newer
                medapp.
        """
        from medapp.networks.checkpoint import keep_weights

        first = str(card.training[LINE])
        histories = self._histories(must_be_sound=True)
        if any(self._taken(card.id, folder) for folder in self._folders):
            card = replace(card, id=self.next_id(first))
        kept = keep_weights(weights, card, self._user)
        for ending in (".safetensors", ".json"):
            _sync(self._user / f"{kept.id}{ending}")  # before anything names it
        twin = next((c for c in self._own(first) if c.sha256 == kept.sha256 and c.id != kept.id), None)
        if twin is not None:
            for ending in (".json", ".safetensors"):
                (self._user / f"{kept.id}{ending}").unlink(missing_ok=True)
            kept = twin
        before = histories.get(first, ())
        if before[-1:] != (kept.id,):
            self._write_histories({**histories, first: (*before, kept.id)})
        return kept

    def roll_back(self, model_id: str) -> tuple[str, str]:
        """Let the model before the adopted one serve again; files stay.

        Returns:
            The model that serves now, and the one that did.

        Raises:
            WeightsError: Nothing was adopted in this line, or the folder cannot be written.
        """
        first = self.line(model_id)
        if not self._has(first):
            raise WeightsError(f"There is no model '{model_id[:60]}'", "See what is there: medapp models list")
        histories = self._histories(must_be_sound=True)
        before = histories.get(first, ())
        if not before:
            raise WeightsError(
                f"Nothing was adopted for '{first}', so there is nothing to roll back", "The first model serves already"
            )
        served = self.in_use(first)
        while before and before[-1] != served:  # entries whose files are gone
            before = before[:-1]
        self._write_histories({**histories, first: before[:-1]})
        return self.in_use(first), served

    def _own(self, first: str) -> tuple[Card, ...]:
        return tuple(card for card in self.list() if card.training.get(LINE) == first)

    def _taken(self, model_id: str, folder: Path) -> bool:
        return any((folder / f"{model_id}{ending}").exists() for ending in (".json", ".safetensors"))

    def _has(self, model_id: str) -> bool:
        try:
            return self.weights_path(model_id).is_file()
        except WeightsError:
            return False

    def _histories(self, must_be_sound: bool = False) -> dict[str, tuple[str, ...]]:
        path = self._user / ADOPTED
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            is_known = content["format"] <= ADOPTED_FORMAT
            histories = {str(first): tuple(map(str, ids)) for first, ids in content["adopted"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if must_be_sound:
                raise WeightsError(
                    "The list of adopted models is damaged; nothing was changed",
                    f"Move {ADOPTED} out of the folder of your models; the models themselves stay",
                ) from error
            _log.error("the list of adopted models is damaged; the first models serve")
            return {}
        if not is_known and must_be_sound:
            raise WeightsError(
                "The list of adopted models was written by a newer medapp; it was not changed", "Update medapp"
            )
        return histories

    def _write_histories(self, histories: Mapping[str, tuple[str, ...]]) -> None:
        content = {"format": ADOPTED_FORMAT, "adopted": {first: list(ids) for first, ids in histories.items() if ids}}
        partial = self._user / f"{ADOPTED}.{os.getpid()}.part"
        try:
            self._user.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=2, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._user / ADOPTED)
        except OSError as error:
            raise WeightsError(
                "The adopted model cannot be noted: the folder cannot be written; the model in use stays",
                "Free disk space",
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def free(self) -> None:
        """Let all loaded models go."""
        for key in tuple(self._loaded):
            self._let_go(key)

    def _let_go(self, key: tuple[str, str, str]) -> None:
        from medapp.networks.device import free_device_memory

        device = self._loaded.pop(key).device
        free_device_memory(device)

    def _find(self, model_id: str) -> tuple[Path, Card]:
        """A model's card and its file, as ``list`` finds it: a broken one gives way to that of the next folder."""
        broken: WeightsError | None = None
        if "/" not in model_id and "\\" not in model_id and ".." not in model_id:
            for folder in self._folders:
                path = folder / f"{model_id}.json"
                if not path.is_file() or path.name.endswith(RECIPE_SUFFIX):
                    continue
                try:
                    return path, read_card(path)
                except WeightsError as error:
                    broken = broken or error
        raise broken or WeightsError(f"There is no model '{model_id[:60]}'", "See what is there: medapp models list")


def _sync(path: Path) -> None:
    try:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise WeightsError("The model cannot be kept: the folder cannot be written", "Free disk space") from error
