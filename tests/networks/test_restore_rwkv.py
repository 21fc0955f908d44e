"""Restore-RWKV: the published network in our words."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medapp.networks.architectures.restore_rwkv import RestoreRWKV, drop_derived_keys
from medapp.networks.blocks import pieces, wkv
from medapp.paths import shared_data_dir

TOY = {"dim": 4, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}


def _toy():
    torch.manual_seed(0)
    return RestoreRWKV(**TOY)


def test_equals_the_published_network_on_the_golden_tensors():
    path = shared_data_dir().parent / "goldens" / "restore_rwkv.safetensors"
    if not path.exists():
        pytest.skip("the golden tensors are not beside this checkout")
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    network = RestoreRWKV(**config).eval()
    network.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})

    with torch.no_grad():
        output = network(tensors["input.image"])

    error = (output - tensors["output"]).norm() / tensors["output"].norm()
    assert error <= 1e-5


def test_default_size_is_the_published_one():
    with torch.device("meta"):
        network = RestoreRWKV()
    assert sum(p.numel() for p in network.parameters()) == 27_996_737


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (40, 8)])
def test_output_has_the_shape_of_the_input(size):
    image = torch.rand(2, 1, *size)
    assert _toy()(image).shape == image.shape


def test_sizes_that_are_no_multiple_of_eight_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        _toy()(torch.rand(1, 1, 20, 16))


def test_images_of_other_channels_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"must be \(B, 1, H, W\), not \(1, 3, 16, 16\)"):
        _toy()(torch.rand(1, 3, 16, 16))


def test_every_weight_learns():
    network = _toy()
    network(torch.rand(1, 1, 16, 24)).square().sum().backward()

    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_training_and_evaluation_agree_also_after_a_step():
    network, image = _toy(), torch.rand(1, 1, 16, 16)
    network.eval()(image)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)

        evaluated = network.eval()(image)
        trained = network.train()(image)

    torch.testing.assert_close(evaluated, trained, rtol=0, atol=1e-6)  # a stale merged kernel would differ


def test_saved_and_loaded_it_gives_the_same_image(tmp_path):
    network, image = _toy().eval(), torch.rand(1, 1, 16, 16)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = RestoreRWKV(**TOY).eval()
    other(image)  # has run before: nothing of the old weights may survive
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))

    with torch.no_grad():
        assert torch.equal(other(image), network(image))


def test_old_checkpoints_lose_their_dead_layer_and_stale_kernels():
    weights = _toy().state_dict()
    published = dict(weights)
    for key in [key for key in weights if key.endswith("omni_shift.conv5x5.weight")]:
        published[key.replace("conv5x5", "conv5x5_reparam")] = torch.full_like(weights[key], 99.0)
    published["latent.0.att.dwconv.weight"] = torch.zeros(32, 1, 3, 3)

    assert drop_derived_keys(published).keys() == weights.keys()
    other = RestoreRWKV(**TOY)
    other.load_state_dict(drop_derived_keys(published))
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(other(image), _toy()(image), rtol=0, atol=0)


def test_deployed_checkpoints_without_branches_give_the_same_image():
    network, image = _toy().eval(), torch.rand(1, 1, 16, 16)
    deployed = {k: v for k, v in network.state_dict().items() if "omni_shift" not in k}
    for name, module in network.named_modules():
        if name.endswith("omni_shift"):
            deployed[f"{name}.conv5x5_reparam.weight"] = module.merged_kernel().detach()
    other = RestoreRWKV(**TOY).eval()
    other.load_state_dict(drop_derived_keys(deployed))

    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image), rtol=0, atol=1e-6)


def test_pieces_of_a_large_slice_give_the_same_image(monkeypatch):
    network, image = _toy().eval(), torch.rand(2, 1, 24, 16)
    with torch.no_grad():
        whole = network(image)
        monkeypatch.setattr(pieces, "PIECE_ELEMENTS", 100)
        monkeypatch.setattr(wkv, "GROUP_ELEMENTS", 500)

        torch.testing.assert_close(network(image), whole, rtol=0, atol=1e-5)
