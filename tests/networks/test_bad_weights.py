"""Weights of every architecture as others save them, and those that must be refused: in one line, with a hint."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from medapp.errors import WeightsError
from medapp.networks.agreement import check_agreement
from medapp.networks.checkpoint import import_weights, keep_weights, load_checked, read_weights
from medapp.networks.library import ModelLibrary
from medapp.networks.published import import_published
from medapp.networks.registry import ARCHITECTURES, build_network
from tests.networks.test_card import CARD

TRUNK = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
TOYS = {
    "restore_rwkv": {"dim": 4, **TRUNK},
    "amir": {"dim": 8, **TRUNK},
    "drmc": {"dims": 2, "res_num": 1, "n_feats": 16},
    "rat": {"width": 16, "middle_blk_num": 3, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "nafnet": {"width": 4, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "restormer": {"dim": 8, **TRUNK},
    "sgsgan": {"dims": 2, "channels": [4, 6, 8, 10], "style_width": 8},
    "medical_matting": {"num_filters": [4, 6, 6, 8], "hidden_channel": 4, "num_sampling": 2},
    "pddm": {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "embedding": 16, "seed_bins": 4},
}
NAMES = sorted(ARCHITECTURES)
EVERY = pytest.mark.parametrize("name", NAMES)


def _weights(name):
    torch.manual_seed(0)
    return build_network(name, TOYS[name]).state_dict()


def _card(name):
    return replace(
        CARD,
        architecture=name,
        config=TOYS[name],
        serves={"medical_matting": "matting", "pddm": "depth"}.get(name, "restoration"),
        inputs=ARCHITECTURES[name].inputs,
        channels=3 if name == "pddm" else 1,
        size_multiple=ARCHITECTURES[name].size_multiple,
    )


def _refusal(call, *arguments):
    with pytest.raises(WeightsError) as caught:
        call(*arguments)
    error = caught.value
    assert error.hint
    assert "\n" not in error.message + error.hint
    assert len(error.message) < 1000
    return error.message


def _run(network, name):
    """The picture a network makes of a fixed input."""
    torch.manual_seed(1)
    image = torch.rand(1, 3 if name == "pddm" else 1, 32, 48)
    inputs = {"region_map": torch.zeros(1, 32, 48), "sparse_depth": 50 * torch.rand(1, 1, 32, 48)}
    with torch.no_grad():
        output = network.eval()(image, **{key: inputs[key] for key in ARCHITECTURES[name].inputs})
    if name == "medical_matting":
        return output.masks
    return output.depth if name == "pddm" else output


def test_every_architecture_has_a_toy_here():
    assert set(TOYS) == set(ARCHITECTURES)


@EVERY
def test_half_precision_weights_act_like_the_same_numbers_in_float32(tmp_path, name):
    halves = {key: value.half() if value.is_floating_point() else value for key, value in _weights(name).items()}
    save_file(halves, tmp_path / "half.safetensors")
    reference = build_network(name, TOYS[name])
    reference.load_state_dict({key: value.float() for key, value in halves.items()})
    card = import_weights(tmp_path / "half.safetensors", _card(name), tmp_path / "models")
    network = load_checked(tmp_path / "models" / f"{card.id}.safetensors", card)

    assert {value.dtype for value in network.state_dict().values()} <= {torch.float32, torch.int64}
    torch.testing.assert_close(_run(network, name), _run(reference, name), rtol=1e-5, atol=1e-5)


@EVERY
def test_the_prefix_of_data_parallel_training_is_taken_off(tmp_path, name):
    weights = _weights(name)
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth", name, TOYS[name])

    assert read.keys() == weights.keys()
    assert all(torch.equal(read[key], value) for key, value in weights.items())


@EVERY
def test_weights_of_every_other_network_are_refused(tmp_path, name):
    save_file(_weights(name), tmp_path / "w.safetensors")
    for other in NAMES:
        if other != name:
            message = _refusal(read_weights, tmp_path / "w.safetensors", other, TOYS[other])
            assert f"do not fit {other}: missing" in message


@EVERY
def test_weights_of_another_size_are_refused_with_both_shapes(tmp_path, name):
    weights = _weights(name)
    key, value = next((key, value) for key, value in weights.items() if value.ndim >= 2)
    save_file({**weights, key: torch.cat([value, value])}, tmp_path / "w.safetensors")
    message = _refusal(read_weights, tmp_path / "w.safetensors", name, TOYS[name])

    assert f"{key} {[2 * value.shape[0], *value.shape[1:]]} for {list(value.shape)}" in message


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@EVERY
def test_weights_that_are_not_finite_are_refused(tmp_path, name, number):
    weights = _weights(name)
    last = [key for key, value in weights.items() if value.is_floating_point()][-1]
    weights[last] = torch.full_like(weights[last], number)
    torch.save(weights, tmp_path / "w.pth")

    assert "not finite" in _refusal(read_weights, tmp_path / "w.pth", name, TOYS[name])


@EVERY
def test_a_card_naming_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path, name):
    card = keep_weights(_weights(name), _card(name), tmp_path)
    path = tmp_path / f"{card.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architecture": f"{name}_2"}))
    library = ModelLibrary(tmp_path / "none", tmp_path)
    with pytest.raises(WeightsError) as caught:
        library.load(card.id, "cpu")

    assert caught.value.message == f"The architecture '{name}_2' is not known"
    assert all(known in caught.value.hint for known in NAMES)


@EVERY
def test_a_card_whose_configuration_the_architecture_does_not_take_is_refused(tmp_path, name):
    card = keep_weights(_weights(name), _card(name), tmp_path)
    wrong = replace(card, config={"colour": "blue"})

    message = _refusal(load_checked, tmp_path / f"{card.id}.safetensors", wrong)
    assert message == f"The configuration does not fit the architecture '{name}'"


@EVERY
def test_without_its_card_a_model_is_not_there(tmp_path, name):
    card = keep_weights(_weights(name), _card(name), tmp_path)
    (tmp_path / f"{card.id}.json").unlink()
    library = ModelLibrary(tmp_path / "none", tmp_path)

    assert library.list() == ()
    assert _refusal(library.load, card.id, "cpu") == f"There is no model '{card.id}'"


@EVERY
def test_without_its_weights_a_card_loads_nothing(tmp_path, name):
    card = keep_weights(_weights(name), _card(name), tmp_path)
    (tmp_path / f"{card.id}.safetensors").unlink()

    assert "is missing" in _refusal(ModelLibrary(tmp_path / "none", tmp_path).load, card.id, "cpu")


@pytest.mark.parametrize("name", ["sgsgan", "pddm"])
def test_a_bare_file_of_a_network_that_nobody_published_needs_its_card(tmp_path, name):
    save_file(_weights(name), tmp_path / "w.safetensors")

    assert "no network that medapp knows" in _refusal(import_published, tmp_path / "w.safetensors", tmp_path)
    assert "Nobody published" in _refusal(import_published, tmp_path / "w.safetensors", tmp_path, name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": ("rough_mask",)}, "not 1"),  # the network looks at one channel: the image alone
        ({"inputs": ("rough_mask",), "config": {"input_channels": 4}}, "not 1"),
        ({"inputs": ("sparse_depth",)}, "not sparse_depth"),
        ({"config": {"input_channels": 2}}, "not 1"),
    ],
)
def test_a_card_that_promises_a_rough_mask_needs_a_network_that_looks_at_it(changes, said):
    config = {**TOYS["medical_matting"], **changes.pop("config", {})}
    card = replace(_card("medical_matting"), config=config, **changes)
    assert said in _refusal(check_agreement, card)
    check_agreement(replace(card, inputs=("rough_mask",), config={**config, "input_channels": 2}))
