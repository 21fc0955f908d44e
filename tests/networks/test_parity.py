"""Whether a network computes the same as the published one, by files of reference tensors."""

import json

import pytest
import torch
from safetensors.torch import save_file

from medapp.cli.main import main
from medapp.errors import WeightsError
from medapp.networks.architectures.restore_rwkv import RestoreRWKV
from medapp.networks.parity import check_parity
from medapp.networks.registry import Architecture, as_published
from tests.builders import shared_data

CONFIG = {"dim": 2, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
METADATA = {"architecture": "restore_rwkv", "config": json.dumps(CONFIG)}


def _reference():
    torch.manual_seed(0)
    network, image = RestoreRWKV(**CONFIG).eval(), torch.rand(1, 1, 16, 8)
    tensors = {f"weights.{key}": value for key, value in network.state_dict().items()}
    with torch.no_grad():
        return {**tensors, "input.image": image, "output": network(image)}


def _written(folder, tensors, metadata=METADATA, name="toy.safetensors"):
    save_file(tensors, folder / name, metadata)
    return folder / name


def _refusal(path):
    with pytest.raises(WeightsError) as caught:
        check_parity(path)
    assert caught.value.hint
    return caught.value.message


def test_the_same_network_is_equal(tmp_path):
    found = check_parity(_written(tmp_path, _reference()))

    assert found.is_equal
    assert found.architecture == "restore_rwkv"
    assert found.max_abs <= 1e-6


def test_a_change_of_one_in_ten_thousand_is_seen(tmp_path):
    tensors = _reference()
    tensors["output"] = tensors["output"] * 1.0001

    found = check_parity(_written(tmp_path, tensors))

    assert not found.is_equal
    assert found.relative_l2 == pytest.approx(1e-4, rel=0.05)


@pytest.mark.parametrize("name", ["restore_rwkv", "amir", "drmc_2d", "drmc_3d", "rat"])
def test_every_published_network_is_equal(name):
    path = shared_data().parent / "goldens" / f"{name}.safetensors"
    if not path.exists():
        pytest.skip("the golden tensors are not beside this checkout")

    assert check_parity(path).relative_l2 <= 1e-5


def test_without_metadata_it_is_refused(tmp_path):
    assert "does not name its architecture" in _refusal(_written(tmp_path, _reference(), None))


def test_an_unknown_architecture_is_named(tmp_path):
    metadata = {**METADATA, "architecture": "no_such_net"}
    assert "'no_such_net' is not known" in _refusal(_written(tmp_path, _reference(), metadata))


@pytest.mark.parametrize("config", ["{", "[1]", '{"colour": 3}', '{"dim": 3}'])
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, config):
    assert "onfiguration" in _refusal(_written(tmp_path, _reference(), {**METADATA, "config": config}))


def test_missing_surplus_and_mis_shaped_weights_are_listed(tmp_path):
    tensors = _reference()
    tensors["weights.extra"] = torch.zeros(3)
    tensors["weights.output.weight"] = torch.zeros(1, 9, 3, 3)
    del tensors["weights.patch_embed.bias"]

    message = _refusal(_written(tmp_path, tensors))

    assert "missing (1): patch_embed.bias" in message
    assert "surplus (1): extra" in message
    assert "output.weight [1, 9, 3, 3] for [1, 4, 3, 3]" in message


@pytest.mark.parametrize(
    ("left_out", "said"), [("input.image", "no input image"), ("output", "no output"), ("weights", "no weights")]
)
def test_a_file_without_a_part_is_refused(tmp_path, left_out, said):
    tensors = {key: value for key, value in _reference().items() if not key.startswith(left_out)}
    assert said in _refusal(_written(tmp_path, tensors))


def test_another_output_shape_is_refused(tmp_path):
    tensors = _reference()
    tensors["output"] = tensors["output"][..., :4].contiguous()
    assert "[1, 1, 16, 4]; the network gives [1, 1, 16, 8]" in _refusal(_written(tmp_path, tensors))


def test_inputs_the_network_does_not_take_are_refused(tmp_path):
    tensors = {**_reference(), "input.labels": torch.zeros(1, 16, 8)}
    assert "cannot run" in _refusal(_written(tmp_path, tensors))
    tensors = {**_reference(), "input.image": torch.zeros(1, 1, 9, 8)}
    assert "cannot run" in _refusal(_written(tmp_path, tensors))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    tensors = _reference()
    tensors["weights.output.bias"] = torch.tensor([float("nan")])
    assert "not finite" in _refusal(_written(tmp_path, tensors))


def test_a_cut_file_is_refused(tmp_path):
    path = _written(tmp_path, _reference())
    path.write_bytes(path.read_bytes()[:-100])
    assert "damaged" in _refusal(path)


def test_a_state_dict_of_torch_is_no_reference_file(tmp_path):
    torch.save(_reference(), tmp_path / "toy.pth")
    assert "not in safetensors format" in _refusal(tmp_path / "toy.pth")


def test_an_input_beside_the_image_goes_in_by_name(tmp_path, monkeypatch):
    class Adds(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image, region_map):
            return image + region_map[:, None]

    entry = Architecture(title="Adds", build=Adds, adapt=as_published)
    monkeypatch.setattr("medapp.networks.registry.ARCHITECTURES", {"adds": entry})
    tensors = {
        "weights.weight": torch.zeros(1),
        "input.image": torch.ones(1, 1, 4, 4),
        "input.labels": torch.full((1, 4, 4), 2.0),
        "output": torch.full((1, 1, 4, 4), 3.0),
    }
    assert check_parity(_written(tmp_path, tensors, {"architecture": "adds"})).max_abs == 0


def test_the_command_checks_every_file_and_ends_with_1_when_one_differs(tmp_path, capsys):
    good = _written(tmp_path, _reference())
    bad = _written(tmp_path, {**_reference(), "output": torch.ones(1, 1, 16, 8)}, name="bad.safetensors")
    (tmp_path / "note.txt").write_text("no tensors")

    assert main(["models", "parity", "--json", str(good)]) == 0
    assert json.loads(capsys.readouterr().out)["is_equal"] is True

    assert main(["models", "parity", str(bad), str(tmp_path / "note.txt"), str(good)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "DIFFERS" in lines[0]
    assert "not a weights file" in lines[1]
    assert "equals its reference" in lines[2]


def test_a_network_that_gives_no_finite_number_is_not_equal(tmp_path, capsys):
    tensors = _reference()
    tensors["weights.output.weight"] = torch.full_like(tensors["weights.output.weight"], 3e38)
    path = _written(tmp_path, tensors)

    assert main(["models", "parity", "--json", str(path)]) == 1
    row = json.loads(capsys.readouterr().out)
    assert row["is_equal"] is False
    assert "max_abs" not in row
