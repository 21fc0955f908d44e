"""Third-party checkpoints become models: sizes are read off the weights, ranges off the publication."""

import pytest
import torch

from medapp.errors import WeightsError
from medapp.networks.card import Intake
from medapp.networks.library import ModelLibrary
from medapp.networks.published import config_of, import_published
from medapp.networks.registry import build_network

TOYS = {
    "restore_rwkv": {"dim": 6, "num_blocks": [1, 2, 1, 1], "num_refinement_blocks": 3},
    "amir": {"dim": 8, "num_blocks": [1, 1, 2, 1], "num_refinement_blocks": 1},
    "drmc": {"res_num": 2, "n_feats": 32, "mlp_ratio_list": [1, 2, 2], "dims": 3},
    "rat": {"width": 8, "middle_blk_num": 3, "enc_blk_nums": [1, 2], "dec_blk_nums": [1, 1], "img_channel": 3},
    "medical_matting": {"input_channels": 3, "num_filters": [4, 6, 8], "latent_dim": 3, "hidden_channel": 8},
}


def _saved(tmp_path, name, wrap=lambda weights: weights):
    torch.manual_seed(0)
    network = build_network(name, TOYS[name])
    path = tmp_path / "official.pth"
    torch.save(wrap(network.state_dict()), path)
    return network, path


@pytest.mark.parametrize("name", TOYS)
def test_the_configuration_is_read_off_the_weights(name):
    weights = build_network(name, TOYS[name]).state_dict()
    rebuilt = build_network(name, config_of(name, weights)).state_dict()
    assert {key: value.shape for key, value in rebuilt.items()} == {key: value.shape for key, value in weights.items()}


@pytest.mark.parametrize("name", TOYS)
def test_a_bare_official_state_dict_becomes_a_model_that_loads(tmp_path, name):
    network, path = _saved(tmp_path, name)
    takes = (Intake("CT", "HU", (-1024.0, 3072.0)),)
    card = import_published(path, tmp_path / "models", takes=takes)  # the keys tell which network it is
    loaded = ModelLibrary(tmp_path / "none", tmp_path / "models").load(card.id, "cpu")
    assert card.architecture == name
    assert loaded.card.takes == takes
    kept = loaded.network.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in network.state_dict().items())


def test_published_ranges_come_onto_the_card_and_a_modality_narrows_them(tmp_path):
    _, path = _saved(tmp_path, "restore_rwkv")
    every = import_published(path, tmp_path / "models", "restore_rwkv")
    assert every.modalities == ("CT", "MR", "PT")
    assert any("--modality" in line for line in every.limits)
    one = import_published(path, tmp_path / "models", "restore_rwkv", modality="PT")
    assert one.takes == (Intake("PT", "SUV", (0.0, 20.0)),)
    assert not any("--modality" in line for line in one.limits)


def test_a_drmc_card_says_that_the_file_does_not_tell_its_revision(tmp_path):
    _, path = _saved(tmp_path, "drmc")
    assert any("before 2024-02-11" in line for line in import_published(path, tmp_path / "models", "drmc").limits)


def test_rat_needs_to_be_told_its_range(tmp_path):
    _, path = _saved(tmp_path, "rat")
    with pytest.raises(WeightsError, match="does not say which scans") as told:
        import_published(path, tmp_path / "models", "rat")
    assert "--range" in told.value.hint
    card = import_published(path, tmp_path / "models", "rat", takes=(Intake("CT", "HU", (-160.0, 240.0)),))
    assert card.inputs == ("region_map",)
    assert card.channels == 3


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("key", ["state_dict", "params", None])
def test_prefixes_and_wrappings_of_training_scripts_are_taken_off(tmp_path, prefix, key):
    def wrap(weights):
        named = {prefix + name: value for name, value in weights.items()}
        return {key: named, "epoch": 7} if key else named

    _, path = _saved(tmp_path, "drmc", wrap)
    card = import_published(path, tmp_path / "models")
    assert card.config["res_num"] == 2
    assert card.dims == 3


def test_weights_of_another_network_are_named(tmp_path):
    _, path = _saved(tmp_path, "amir")
    with pytest.raises(WeightsError, match="do not fit drmc: missing"):
        import_published(path, tmp_path / "models", "drmc")


def test_weights_of_nothing_we_know_say_what_is_known(tmp_path):
    torch.save({"layer.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="belong to no network") as told:
        import_published(tmp_path / "other.pth", tmp_path / "models")
    assert "restore_rwkv" in told.value.hint


def test_networks_nobody_published_ask_for_their_card(tmp_path):
    torch.save({"layer.weight": torch.ones(3)}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match="Nobody published weights of PDDM-style") as told:
        import_published(tmp_path / "own.pth", tmp_path / "models", "pddm")
    assert "card" in told.value.hint
