"""The library lists cards, loads models, and lets the user's own win."""

from dataclasses import replace

import pytest
import torch

from medapp.errors import ComputeError, WeightsError
from medapp.networks.checkpoint import keep_weights
from medapp.networks.library import ModelLibrary
from medapp.networks.registry import build_network
from medapp.paths import shipped_models_dir
from medapp.progress import Progress
from medapp.requests import ImportModelRequest
from medapp.services.models import import_model
from medapp.services.workspace import Workspace
from tests.networks.test_card import CARD

CONFIG = {"dim": 2, "num_blocks": [0, 0, 0, 1], "num_refinement_blocks": 0}


def _put(folder, **changes):
    card = replace(CARD, config=CONFIG, **changes)
    return keep_weights(build_network(card.architecture, card.config).state_dict(), card, folder)


def test_own_models_win_over_shipped_ones(tmp_path):
    _put(tmp_path / "shipped", name="Old")
    _put(tmp_path / "user", name="Own")
    library = ModelLibrary(tmp_path / "shipped", tmp_path / "user")

    assert [card.name for card in library.list()] == ["Own"]
    assert library.load("toy-1", "cpu").card.name == "Own"


def test_a_broken_card_hides_only_itself(tmp_path):
    _put(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "toy-1.recipe.json").write_text("{}")

    assert [card.id for card in ModelLibrary(tmp_path, tmp_path / "none").list()] == ["toy-1"]


def test_few_models_stay_loaded(tmp_path):
    for i in range(3):
        _put(tmp_path, id=f"toy-{i}")
    library = ModelLibrary(tmp_path, tmp_path / "none", keep=2)
    first = library.load("toy-0", "cpu")
    assert library.load("toy-0", "cpu") is first

    library.load("toy-1", "cpu")
    library.load("toy-2", "cpu")

    assert library.load("toy-0", "cpu") is not first


def test_a_retrained_model_of_the_same_name_is_loaded_anew(tmp_path):
    library = ModelLibrary(tmp_path, tmp_path / "none")
    _put(tmp_path)
    before = library.load("toy-1", "cpu")
    _put(tmp_path)
    assert library.load("toy-1", "cpu").card.sha256 != before.card.sha256


@pytest.mark.parametrize("model_id", ["nothing", "../toy-1", "toy-1.recipe"])
def test_unknown_models_are_refused(tmp_path, model_id):
    _put(tmp_path / "models")
    (tmp_path / "models" / "toy-1.recipe.json").write_text("{}")
    with pytest.raises(WeightsError, match="no model"):
        ModelLibrary(tmp_path / "models", tmp_path / "none").load(model_id, "cpu")


def test_a_device_that_is_not_there_is_refused(tmp_path):
    _put(tmp_path)
    if torch.backends.mps.is_available():
        pytest.skip("this computer has the device")
    with pytest.raises(ComputeError, match="no device 'mps'"):
        ModelLibrary(tmp_path, tmp_path / "none").load("toy-1", "mps")


def test_shipped_models_load_and_say_what_they_are_made_of():
    library = ModelLibrary(shipped_models_dir(), shipped_models_dir() / "none")
    cards = library.list()
    assert any(card.task == "ct-denoise" for card in cards)
    for card in cards:
        assert library.load(card.id, "cpu").network is not None
        assert card.limits
        assert all(entry.get("licence") for entry in card.data)


def test_a_foreign_checkpoint_with_a_card_beside_it_joins_the_library(tmp_path):
    network = build_network("restore_rwkv", CONFIG)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "mine.pth")
    (tmp_path / "mine.json").write_text(replace(CARD, config=CONFIG).to_json())
    workspace = Workspace()

    model_id = import_model(ImportModelRequest(str(tmp_path / "mine.pth"), "restore_rwkv"), workspace, Progress())

    assert workspace.library.load(model_id, "cpu").card.name == "Toy"
    (tmp_path / "mine.json").unlink()
    model_id = import_model(ImportModelRequest(str(tmp_path / "mine.pth"), "restore_rwkv"), workspace, Progress())
    assert workspace.library.load(model_id, "cpu").card.name == "Restore-RWKV"  # as published
