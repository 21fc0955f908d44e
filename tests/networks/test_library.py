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
from medapp.requests import ImportModelRequest, ModelsRequest
from medapp.services.models import import_model, list_models
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


def test_where_an_own_card_is_broken_the_shipped_model_of_its_name_answers(tmp_path):
    _put(tmp_path / "shipped", name="Old")
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "toy-1.json").write_text("{")
    library = ModelLibrary(tmp_path / "shipped", tmp_path / "user")

    assert [library.card(card.id).name for card in library.list()] == ["Old"]
    assert library.load("toy-1", "cpu").card.name == "Old"
    (tmp_path / "shipped" / "toy-1.json").unlink()
    with pytest.raises(WeightsError, match="JSON"):
        library.card("toy-1")


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


RETRAINED = {"training": {"retrained_line": "toy-1"}}


def _line(tmp_path, count=1):
    """A shipped model and retrained ones that were adopted in turn."""
    _put(tmp_path / "shipped")
    library = ModelLibrary(tmp_path / "shipped", tmp_path / "user")
    for number in range(2, 2 + count):
        torch.manual_seed(number)
        weights = build_network(CARD.architecture, CONFIG).state_dict()
        library.adopt(weights, replace(CARD, config=CONFIG, id="toy-1.2", version=f"1.{number}", **RETRAINED))
    return library


def test_an_adopted_model_answers_for_the_first_of_its_line_until_it_is_rolled_back(tmp_path):
    library = _line(tmp_path, 2)
    shipped = (tmp_path / "shipped" / "toy-1.safetensors").read_bytes()
    assert library.in_use("toy-1") == "toy-1.3"
    assert library.history("toy-1.2") == ("toy-1", "toy-1.2", "toy-1.3")
    assert library.load(library.in_use("toy-1"), "cpu").card.version == "1.3"

    assert library.roll_back("toy-1") == ("toy-1.2", "toy-1.3")
    assert library.roll_back("toy-1.2") == ("toy-1", "toy-1.2")
    assert library.in_use("toy-1") == "toy-1"
    with pytest.raises(WeightsError, match="nothing to roll back"):
        library.roll_back("toy-1")
    assert library.load("toy-1.3", "cpu").card.version == "1.3"  # nothing was deleted
    assert (tmp_path / "shipped" / "toy-1.safetensors").read_bytes() == shipped
    assert library.next_id("toy-1") == "toy-1.4"


def test_the_same_weights_adopted_again_are_kept_once(tmp_path):
    library = _line(tmp_path)
    weights = library.load("toy-1.2", "cpu").network.state_dict()
    library.roll_back("toy-1")
    again = library.adopt(weights, replace(library.card("toy-1.2"), id="toy-1.2"))
    assert (again.id, library.in_use("toy-1")) == ("toy-1.2", "toy-1.2")
    assert sorted(p.name for p in (tmp_path / "user").iterdir()) == [
        "adopted.json",
        "toy-1.2.json",
        "toy-1.2.safetensors",
    ]


def test_where_an_adopted_file_vanished_the_one_before_it_serves(tmp_path):
    library = _line(tmp_path, 2)
    (tmp_path / "user" / "toy-1.3.safetensors").unlink()
    assert library.in_use("toy-1") == "toy-1.2"
    assert library.roll_back("toy-1") == ("toy-1", "toy-1.2")


def test_a_kill_before_the_entry_leaves_the_model_in_use(tmp_path, monkeypatch):
    library = _line(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    torch.manual_seed(9)
    weights = build_network(CARD.architecture, CONFIG).state_dict()
    with monkeypatch.context() as patch:
        patch.setattr(library, "_write_histories", killed)
        with pytest.raises(KeyboardInterrupt):
            library.adopt(weights, replace(CARD, config=CONFIG, id="toy-1.3", **RETRAINED))
    assert library.in_use("toy-1") == "toy-1.2"
    kept = library.adopt(weights, replace(CARD, config=CONFIG, id="toy-1.3", **RETRAINED))
    assert kept.id == library.in_use("toy-1") == "toy-1.3"


def test_a_full_disk_keeps_the_model_in_use(tmp_path, monkeypatch):
    library = _line(tmp_path)
    before = (tmp_path / "user" / "adopted.json").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medapp.networks.library.os.fsync", full)
    torch.manual_seed(9)
    weights = build_network(CARD.architecture, CONFIG).state_dict()
    with pytest.raises(WeightsError, match="cannot be written"):
        library.adopt(weights, replace(CARD, config=CONFIG, id="toy-1.3", **RETRAINED))
    assert library.in_use("toy-1") == "toy-1.2"
    assert (tmp_path / "user" / "adopted.json").read_text() == before


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99, "adopted": {"toy-1": ["toy-1.2"]}}'])
def test_a_list_of_adopted_models_that_cannot_be_read_is_never_overwritten(tmp_path, text, caplog):
    library = _line(tmp_path)
    (tmp_path / "user" / "adopted.json").write_text(text)
    assert library.in_use("toy-1") in ("toy-1", "toy-1.2")
    with pytest.raises(WeightsError, match=r"damaged|newer"):
        library.roll_back("toy-1")
    assert (tmp_path / "user" / "adopted.json").read_text() == text


def test_lists_show_one_entry_a_line_with_what_serves(tmp_path, monkeypatch):
    library = _line(tmp_path)
    workspace = Workspace()
    monkeypatch.setattr(workspace, "_library", library)
    (row,) = [row for row in list_models(ModelsRequest(), workspace, Progress()) if row["id"].startswith("toy")]
    assert (row["id"], row["in_use"], row["version"]) == ("toy-1", "toy-1.2", "1.2")
    assert row["history"] == ["toy-1", "toy-1.2"]
