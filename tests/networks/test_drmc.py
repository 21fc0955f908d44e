"""DRMC: the published network in our words, for slices and volumes."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from medapp.networks.architectures.drmc import DRMC, AttentionExpert
from medapp.networks.blocks.channel_attention import attend_over_channels
from medapp.networks.registry import build_network
from medapp.networks.routing import record_routing
from medapp.paths import shared_data_dir

SIZES = {2: (9, 12), 3: (5, 6, 7)}


def _toy(dims, **changes):
    """With open gates: fresh ones are often 0, and would hide what is behind them."""
    torch.manual_seed(0)
    network = build_network("drmc", {"res_num": 2, "n_feats": 32, "dims": dims} | changes)
    _set_gates(network, 1.0)
    return network


def _set_gates(network, bias, weight=None):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("routing.conv3.bias"):
                parameter.fill_(bias)
            elif weight is not None and name.endswith("routing.conv3.weight"):
                parameter.fill_(weight)


def _image(batch, dims):
    return torch.rand(batch, 1, *SIZES[dims], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["drmc_2d", "drmc_3d"])
def test_equals_the_published_network_on_the_golden_tensors(name):
    path = shared_data_dir().parent / "goldens" / f"{name}.safetensors"
    if not path.exists():
        pytest.skip("the golden tensors are not beside this checkout")
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    network = DRMC(**config).eval()
    network.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})

    with torch.no_grad():
        output = network(tensors["input.image"])

    assert (output - tensors["output"]).abs().max() <= 1e-5
    assert (output - tensors["output"]).norm() / tensors["output"].norm() <= 1e-5


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"),
    [
        ({"dims": 2}, 623_637, 233),
        ({"dims": 2, "res_num": 5}, 519_903, 195),
        ({"dims": 3}, 539_487, 195),
        ({}, 539_487, 195),
    ],
)
def test_default_sizes_are_the_published_ones(config, parameters, tensors):
    with torch.device("meta"):
        network = DRMC(**config)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 1, 7, 13), (1, 1, 3, 4, 5), (1, 1, 1, 9, 2)])
def test_any_size_works(shape):
    image = torch.rand(shape)
    assert _toy(len(shape) - 2).eval()(image).shape == image.shape


@pytest.mark.parametrize(
    ("dims", "shape"), [(2, (1, 1, 4, 4, 4)), (3, (1, 1, 4, 4)), (2, (1, 3, 8, 8)), (3, (1, 2, 4, 4, 4))]
)
def test_images_that_do_not_fit_are_refused_in_one_line(dims, shape):
    with pytest.raises(ValueError, match=r"the image must be \(B, 1, .*H, W\), not") as caught:
        _toy(dims)(torch.zeros(shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"dims": 4}, {"n_feats": 20}, {"ch_exp_list": ()}, {"mlp_ratio_list": ()}])
def test_configurations_that_cannot_work_are_refused(config):
    with pytest.raises(ValueError, match=r"dims|n_feats|at least one"):
        DRMC(**config)


@pytest.mark.parametrize("dims", [2, 3])
def test_every_weight_learns(dims):
    network = _toy(dims)
    network(_image(2, dims)).square().sum().backward()

    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_equals_its_images_one_by_one(dims):
    network, images = _toy(dims).eval(), _image(3, dims)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_saved_and_loaded_it_gives_the_same_image(dims, tmp_path):
    network, image = _toy(dims).eval(), _image(1, dims)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(9)
    other = DRMC(res_num=2, n_feats=32, dims=dims).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))

    with torch.no_grad():
        assert torch.equal(other(image), network(image))


def test_a_slice_and_a_flat_volume_are_not_the_same_network_but_agree_on_equal_weights():
    """The 3-D network with kernels that see only their own slice is the 2-D one."""
    flat, deep = _toy(2), _toy(3)
    weights = {}
    for name, value in flat.state_dict().items():
        wanted = deep.state_dict()[name]
        if value.ndim == wanted.ndim:
            weights[name] = value
        else:
            weights[name] = torch.zeros_like(wanted)
            weights[name][:, :, wanted.shape[2] // 2] = value
    deep.load_state_dict(weights)
    image = _image(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(deep.eval()(image[:, :, None])[:, :, 0], flat.eval()(image), rtol=0, atol=2e-6)


def test_all_gates_may_be_shut():
    network, image = _toy(2).eval(), _image(1, 2)
    _set_gates(network, -1.0, weight=0.0)
    with torch.no_grad(), record_routing(network) as choices:
        shut = network(image)
        expected = image + network.tail_conv(network.head_conv(image))  # beta and gamma are 1, nothing is added
    assert all(choice.shares == (0.0, 0.0, 0.0) for choice in choices)
    torch.testing.assert_close(shut, expected, rtol=0, atol=1e-6)
    assert torch.isfinite(network.train()(image)).all()


def test_skipped_experts_change_nothing():
    """Without gradients an expert that no image wants is not run; with gradients all are."""
    network, images = _toy(2), _image(2, 2)
    with torch.no_grad():
        for block in network.body:
            block.attention.routing.conv3.bias[1] = -50.0
            block.mlp.routing.conv3.bias[0] = -50.0
    ran = []
    network.body[0].attention.att_experts[1].register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        lean = network(images)
    assert ran == []
    torch.testing.assert_close(lean, network(images).detach(), rtol=0, atol=1e-6)
    assert ran == [1]


def test_gates_depend_on_the_router_before():
    network, image = _toy(2).eval(), _image(1, 2)
    with torch.no_grad(), record_routing(network) as choices:
        network(image)
        before = choices[-1].shares
        network.hidden.mul_(-3)  # what the first router hears from nobody
        choices.clear()
        network(image)
    assert [choice.name for choice in choices] == ["body.0.attention", "body.0.mlp", "body.1.attention", "body.1.mlp"]
    assert choices[-1].shares != before
    assert all(share >= 0 for choice in choices for share in choice.shares)


def test_the_hidden_state_starts_at_ones_and_is_handed_on():
    network = _toy(3)
    assert torch.equal(network.hidden, torch.ones(1, 16, 1, 1, 1))
    heard = []
    for block in network.body:
        for bank in (block.attention, block.mlp):
            bank.routing.register_forward_hook(lambda _m, inputs, output: heard.append((inputs[1], output[1])))
    network(_image(2, 3))
    assert torch.equal(heard[0][0], torch.ones(2, 16, 1, 1, 1))
    for (_, said), (hears, _) in pairwise(heard):
        assert torch.equal(said, hears)


@pytest.mark.parametrize(("channels", "heads"), [(32, 16), (32, 2), (6, 1), (64, 4)])
def test_attention_over_channels_is_the_published_formula(channels, heads):
    generator = torch.Generator().manual_seed(4)
    query, key, value = (torch.randn(2, channels, 3, 5, generator=generator) for _ in range(3))
    temperature = torch.rand(heads, 1, 1, generator=generator) + 0.5

    def head(features):
        return features.double().reshape(2, heads, channels // heads, 15)

    similar = nn.functional.normalize(head(query), dim=-1) @ nn.functional.normalize(head(key), dim=-1).mT
    slow = (similar * temperature.double()).softmax(-1) @ head(value)

    mixed = attend_over_channels(query, key, value, temperature)
    torch.testing.assert_close(mixed.double(), slow.reshape(2, channels, 3, 5), rtol=0, atol=1e-6)


def test_a_channel_without_content_has_finite_slopes():
    expert = AttentionExpert(32, 2)
    features = torch.zeros(1, 32, 4, 4, requires_grad=True)
    expert(features).sum().backward()
    assert torch.isfinite(features.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in expert.parameters())


def test_gates_are_float32_under_autocast():
    network, image = _toy(2).eval(), _image(1, 2)
    seen = []
    network.body[1].mlp.routing.register_forward_hook(lambda _m, _i, output: seen.extend(output))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image)
    assert {tensor.dtype for tensor in seen} == {torch.float32}
    with torch.no_grad():
        assert (half.float() - network(image)).abs().mean() < 0.02
