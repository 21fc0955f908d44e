"""AMIR: the published network in our words, its routers and their balance loss."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from medapp.networks.architectures.amir import AMIR, BALANCE_WEIGHT
from medapp.networks.blocks.restormer import ChannelNorm, RestormerBlock
from medapp.networks.blocks.routing import CHUNK_TOKENS, TINY, ChannelRouter, SparseExperts, squared_variation
from medapp.networks.registry import build_network
from medapp.networks.routing import averaged, record_routing
from medapp.paths import shared_data_dir

TOY = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}


def _toy(**changes):
    torch.manual_seed(0)
    return build_network("amir", TOY | changes)


def _image(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def _experts(channels=6):
    torch.manual_seed(2)
    return SparseExperts(channels, hidden=11)


def test_equals_the_published_network_on_the_golden_tensors():
    path = shared_data_dir().parent / "goldens" / "amir.safetensors"
    if not path.exists():
        pytest.skip("the golden tensors are not beside this checkout")
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    network = AMIR(**config).eval()
    network.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})

    with torch.no_grad():
        output = network(tensors["input.image"])

    difference = (output - tensors["output"]).abs()
    assert difference.norm() / tensors["output"].norm() <= 1e-5
    # a pixel whose second and third expert tie may go either way; there may be a handful, not more
    assert difference.flatten().quantile(0.9999) <= 1e-5


def test_default_size_is_the_published_one():
    with torch.device("meta"):
        network = AMIR()
    assert sum(p.numel() for p in network.parameters()) == 23_540_498
    assert len(list(network.parameters())) == 660
    assert len(network.state_dict()) == 666
    parts = {"dict_generator": 57_216, "latent": 12_404_034, "spatial_routing": 871_134, "channel_routing": 174_048}
    for part, count in parts.items():
        assert sum(p.numel() for name, p in network.named_parameters() if name.startswith(part)) == count


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (40, 32)])
def test_output_has_the_shape_of_the_input(size):
    image = _image(2, 1, *size)
    assert _toy().eval()(image).shape == image.shape


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ((1, 1, 20, 16), "multiples of 8 and at least 16, not 20 x 16"),
        ((1, 1, 8, 16), "at least 16, not 8 x 16"),
        ((1, 3, 16, 16), r"must be \(B, 1, H, W\), not \(1, 3, 16, 16\)"),
        ((1, 16, 16), "must be"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_line(shape, line):
    with pytest.raises(ValueError, match=line) as caught:
        _toy().eval()(torch.zeros(shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", [{"out_channels": 3}, {"dim": 7}, {"heads": (1, 2)}, {"heads": (3, 2, 4, 8)}, {"LayerNorm_type": "None"}]
)
def test_configurations_that_cannot_work_are_refused(config):
    with pytest.raises(ValueError, match=r"must|shared out|layer norm|needs?"):
        AMIR(**TOY | config)


def test_every_weight_learns():
    network = _toy().train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ChannelRouter):  # at 0, as they start, nothing flows back through their gate
                nn.init.normal_(module.gamma)
                nn.init.normal_(module.beta)
    restored, balance = network(_image(2, 1, 32, 48))
    (restored.square().mean() + BALANCE_WEIGHT * balance).backward()

    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_training_gives_a_pair_and_evaluation_is_deterministic():
    network, image = _toy(), _image(1, 1, 16, 24)
    restored, balance = network.train()(image)
    assert restored.shape == image.shape
    assert balance.shape == ()
    assert balance > 0
    assert not torch.equal(restored, network(image)[0])  # the routers are noisy

    network.eval()
    with torch.no_grad():
        assert torch.equal(network(image), network(image))


def test_a_batch_equals_its_images_one_by_one():
    network, images = _toy().eval(), _image(3, 1, 24, 16)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


def test_saved_and_loaded_it_gives_the_same_image(tmp_path):
    network, image = _toy().eval(), _image(1, 1, 16, 16)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(9)
    other = AMIR(**TOY).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))

    with torch.no_grad():
        assert torch.equal(other(image), network(image))


def test_tiles_share_the_instruction_of_the_whole_image():
    network, image = _toy().eval(), _image(1, 1, 32, 32)
    with torch.no_grad():
        context = network.context(image)
        assert torch.equal(network(image, **context), network(image))
        tile = image[..., :16, :16]
        assert not torch.equal(network(tile, **context), network(tile))
    assert context["instruction"].shape == (1, 256)


def test_routers_stay_in_float32_under_autocast():
    network, image = _toy().eval(), _image(1, 1, 32, 32)
    seen = []
    for module in network.modules():
        if isinstance(module, SparseExperts):
            module.register_forward_hook(lambda _m, inputs, output: seen.extend([*inputs, output[0]]))
            module.experts[0].fc2.register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image)
        assert network.context(image)["instruction"].dtype == torch.float32
    assert len(seen) >= 9
    assert {tensor.dtype for tensor in seen} == {torch.float32}
    with torch.no_grad():
        assert (half.float() - network(image)).abs().mean() < 0.02


def _published_mix(experts, tokens, gates):
    """The log-space mixture by the book, one pixel and expert at a time, in float64."""
    mixed = []
    for token, gate in zip(tokens.double(), gates.double(), strict=True):
        total = torch.zeros(tokens.shape[1], dtype=torch.float64)
        for g, expert in zip(gate, experts.experts.double(), strict=True):
            if g > 0:
                total = total + g * torch.exp(expert(token))
        mixed.append(total.log())
    return torch.stack(mixed)


def test_experts_are_mixed_in_log_space():
    experts = _experts().eval()
    tokens, instruction = torch.randn(2, 5, 6), torch.randn(2, 6)
    with torch.no_grad():
        mixed, balance = experts(tokens, instruction)
        gates = experts.choose(tokens, instruction).gates
        slow = _published_mix(experts, tokens.flatten(0, 1), gates)

        joined = torch.cat([tokens, instruction[:, None].expand(-1, 5, -1)], dim=2).flatten(0, 1)
        logits = joined @ experts.w_gate
    assert balance == 0
    assert ((gates > 0).sum(dim=1) == 2).all()
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(10))
    assert torch.equal((gates > 0).nonzero()[:, 1].view(10, 2), logits.topk(2).indices.sort(dim=1).values)
    torch.testing.assert_close(mixed.flatten(0, 1).double(), slow, rtol=0, atol=1e-5)


def test_a_sum_of_nothing_becomes_the_published_floor_and_learns_nothing():
    experts = _experts()
    with torch.no_grad():
        for expert in experts.experts:
            expert.fc2.bias.fill_(-200.0)  # exp underflows to 0
    mixed, _ = experts(torch.randn(1, 4, 6), torch.randn(1, 6))
    torch.testing.assert_close(mixed, torch.full_like(mixed, math.log(TINY)))
    mixed.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in experts.parameters() if p.grad is not None)


def test_an_unchosen_expert_may_overflow():
    experts = _experts().eval()
    with torch.no_grad():
        tokens, instruction = torch.randn(1, 30, 6), torch.randn(1, 6)
        experts.w_gate[:, 0] = 0
        experts.w_gate[:, 1:] = experts.w_gate[:, 1:].abs()
        tokens, instruction = tokens.abs(), instruction.abs()
        experts.experts[0].fc2.bias.fill_(1000.0)
        mixed, _ = experts(tokens, instruction)
    assert torch.isfinite(mixed).all()


def test_large_images_are_routed_in_parts_with_the_same_result():
    experts = _experts().eval()
    tokens, instruction = torch.randn(2, CHUNK_TOKENS // 2 + 7, 6), torch.randn(2, 6)
    in_one = experts(tokens, instruction)[0]  # gradients need it in one piece
    with torch.no_grad():
        in_parts = experts(tokens, instruction)[0]
    torch.testing.assert_close(in_parts, in_one.detach(), rtol=0, atol=1e-5)


def _slow_balance_loss(clean, noisy, sigma):
    """Importance and load by the book, one token and expert at a time, in float64."""
    count = clean.shape[1]
    importance, load = [0.0] * count, [0.0] * count
    for c, n, s in zip(clean.tolist(), noisy.tolist(), sigma.tolist(), strict=True):
        ranked = sorted(n, reverse=True)
        top = [i for i in range(count) if n[i] > ranked[2]]
        weights = {i: math.exp(n[i] - ranked[0]) for i in top}
        for i in range(count):
            importance[i] += weights.get(i, 0.0) / sum(weights.values())
            threshold = ranked[2] if n[i] > ranked[2] else ranked[1]
            load[i] += 0.5 * (1 + math.erf((c[i] - threshold) / s[i] / math.sqrt(2)))
    return sum(_slow_squared_variation(amounts) for amounts in (importance, load))


def _slow_squared_variation(amounts):
    mean = sum(amounts) / len(amounts)
    return sum((a - mean) ** 2 for a in amounts) / (len(amounts) - 1) / (mean**2 + 1e-10)


@pytest.mark.parametrize("noise_weight", [0.0, 0.7])
def test_the_balance_loss_has_the_published_value(noise_weight, monkeypatch):
    experts = _experts().train()
    with torch.no_grad():
        experts.w_noise.normal_(std=1.0).mul_(noise_weight)
    tokens, instruction = torch.randn(2, 15, 6), torch.randn(2, 6)
    noise = torch.randn(30, 4)
    monkeypatch.setattr(torch, "randn_like", lambda _like: noise)

    _, balance = experts(tokens, instruction)

    joined = torch.cat([tokens, instruction[:, None].expand(-1, 15, -1)], dim=2).flatten(0, 1).double()
    clean = joined @ experts.w_gate.double()
    sigma = torch.log1p(torch.exp(joined @ experts.w_noise.double())) + 0.01
    assert balance.item() == pytest.approx(_slow_balance_loss(clean, clean + sigma * noise.double(), sigma), rel=1e-4)


def test_the_balance_loss_of_the_network_is_the_sum_of_its_three_routers():
    network = _toy().train()
    losses = []
    for module in network.modules():
        if isinstance(module, SparseExperts):
            module.register_forward_hook(lambda _m, _i, output: losses.append(output[1]))
    _, balance = network(_image(1, 1, 16, 16))
    assert len(losses) == 3
    torch.testing.assert_close(balance, torch.stack(losses).sum())


def test_equal_amounts_cost_nothing_and_one_favourite_costs_most():
    assert squared_variation(torch.full((4,), 25.0)) == 0
    assert squared_variation(torch.tensor([100.0, 0, 0, 0])) == pytest.approx(4.0)
    assert squared_variation(torch.tensor([50.0, 50, 0, 0])) == pytest.approx(4 / 3)


def test_the_way_an_image_went_can_be_recorded():
    network, image = _toy().eval(), _image(1, 1, 16, 24)
    with torch.no_grad(), record_routing(network) as choices:
        network(image)
        first = list(choices)
        network(image.flip(-1))
    with torch.no_grad():
        network(image)

    assert [choice.kind for choice in first] == ["pixels"] * 3 + ["channels"] * 4
    assert first[0].name == "spatial_routing_encoder_level1"
    assert first[3].name == "channel_routing_latent"
    for choice in first[:3]:
        assert len(choice.shares) == 4
        assert sum(choice.shares) == pytest.approx(1, abs=1e-5)
    assert all(len(choice.shares) == 1 and 0 < choice.shares[0] < 1 for choice in first[3:])
    assert len(choices) == 14  # two passes; the third was not listened to
    assert [choice.name for choice in averaged(choices)] == [choice.name for choice in first]
    expected = (choices[0].shares[0] + choices[7].shares[0]) / 2
    assert averaged(choices)[0].shares[0] == pytest.approx(expected)


def test_the_bias_free_norm_keeps_the_mean():
    features = _image(1, 8, 4, 4) + 3
    normed = ChannelNorm(8, "BiasFree")(features)
    spread = features.var(dim=1, keepdim=True, correction=0)
    torch.testing.assert_close(normed, features / (spread + 1e-5).sqrt())
    assert RestormerBlock(8, 2, norm="BiasFree")(features).shape == features.shape


def test_empty_images_have_finite_slopes():
    network = _toy().train()
    restored, balance = network(torch.zeros(1, 1, 16, 16))
    (restored.sum() + balance).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
