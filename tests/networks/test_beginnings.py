"""What networks start as, before any training: their specifications say it, and no golden tensor would show it."""

import pytest
import torch
from torch import nn

from medapp.networks.architectures.medical_matting import MedicalMatting
from medapp.networks.architectures.pddm import PDDM
from medapp.networks.architectures.sgsgan import StyleLayer
from medapp.networks.blocks.modulated_conv import ModulatedConv
from medapp.networks.blocks.routing import ChannelRouter, SparseExperts
from medapp.networks.registry import build_network
from tests.networks.toys import TOYS


def _network(name, **changes):
    torch.manual_seed(0)
    return build_network(name, TOYS[name] | changes)


def _named(network, *endings):
    found = {name: value.detach() for name, value in network.named_parameters() if name.endswith(endings)}
    assert found
    return found


def _is_standard_normal(values):
    return abs(float(values.mean())) < 0.15 and abs(float(values.std()) - 1) < 0.15


def test_routers_of_amir_start_decided_and_without_learnt_noise():
    torch.manual_seed(0)
    experts = SparseExperts(64, 8)
    assert _is_standard_normal(experts.w_gate.detach())  # not zero, as in the usual recipe
    assert not experts.w_noise.any()
    assert (experts.mean.item(), experts.std.item()) == (0, 1)
    network = _network("amir")
    assert _is_standard_normal(network.dict_generator.dictionary.detach())
    assert all((value == 1).all() for value in _named(network, "temperature").values())


def test_channel_routers_of_amir_start_by_changing_nothing():
    features = torch.rand(2, 6, 4, 4)
    assert torch.equal(ChannelRouter(6, 8)(features, torch.randn(2, 8)), features)


def test_step_sizes_of_drmc_start_at_one():
    assert all((value == 1).all() for value in _named(_network("drmc"), "beta", "gamma", "temperature").values())


def test_restore_rwkv_starts_with_whole_steps_and_decays_of_both_signs():
    network = _network("restore_rwkv", dim=16)
    assert all((value == 1).all() for value in _named(network, "gamma1", "gamma2").values())
    for ending in ("alpha", "spatial_decay", "spatial_first"):
        assert _is_standard_normal(torch.cat([value.flatten() for value in _named(network, ending).values()])), ending


@torch.no_grad()
def test_attention_of_rat_starts_without_a_say():
    network, image = _network("rat").eval(), torch.rand(1, 1, 32, 32)
    assert not any(value.any() for value in _named(network, "lambda_ra", "lambda_wa", "beta", "gamma").values())
    halves = (torch.arange(32)[None, :, None] < 16).expand(1, 32, 32)
    assert torch.equal(network(image, region_map=halves.int()), network(image, region_map=torch.zeros(1, 32, 32)))
    assert not torch.equal(network(image, region_map=halves.int()), image)  # the MLPs have no step size


def test_styles_of_sgsgan_start_around_one_and_noise_at_nothing():
    torch.manual_seed(0)
    layer = ModulatedConv(32, 16, 3, 2, 64)
    assert _is_standard_normal(layer.weight.detach())
    assert (layer.affine.bias == 1).all()
    assert 0.1 < layer.affine.weight.abs().max() <= 64**-0.5  # the default of torch
    network = _network("sgsgan")
    still = _named(network, "noise_strength", "to_img_bias.0", "to_img_bias.1", "to_img_bias.2")
    still |= {name: layer.bias for name, layer in network.named_modules() if isinstance(layer, StyleLayer)}
    assert len(still) == 6 + 3 + 6
    assert not any(value.any() for value in still.values())


@torch.no_grad()
def test_medical_matting_starts_as_published():
    torch.manual_seed(0)
    network = MedicalMatting(num_filters=(16, 16, 24, 32), latent_dim=6, hidden_channel=16)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = torch.cat([norm.weight.detach() for norm in norms])
    assert 0 <= scales.min() < 0.05
    assert 0.95 < scales.max() <= 1
    assert abs(float(scales.mean()) - 0.5) < 0.05  # uniform 0..1, not ones
    assert not any(norm.bias.any() for norm in norms)

    encoders = (network.prob_unet.prior, network.prob_unet.posterior)
    fcomb = [m for m in network.prob_unet.fcomb.modules() if isinstance(m, nn.Conv2d)]
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if module in [encoder.conv_layer for encoder in encoders]:
            assert 0.4 < float(module.bias.std()) < 2, name  # standard normal
            continue
        assert 0 < float(module.bias.abs().max()) <= 0.002, name  # drawn within two of its standard deviations, 0.001
        if module not in fcomb and module.weight.numel() > 1000:
            fan_in = module.weight[0].numel()
            assert float(module.weight.std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.15), name
    for conv in fcomb:
        rows = conv.weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-5)
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 2
    assert not any(linear.bias.any() for linear in linears)


@pytest.mark.parametrize("local_prior", [True, False])
@torch.no_grad()
def test_bins_of_pddm_start_as_those_of_the_measured_depths(local_prior):
    torch.manual_seed(0)
    network = PDDM(
        widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), embedding=32, heads=2, seed_bins=16, local_prior=local_prior
    )
    assert not any(
        v.any() for v in _named(network, "ratio.weight", "ratio.bias", "shift.weight", "shift.bias").values()
    )
    assert float(network.initialiser.index.std()) == pytest.approx(0.02, rel=0.2)
    for stage in network.stages:
        assert float(stage.carry) == (0 if local_prior else 1)
        assert (stage.prior is None) is not local_prior
        if local_prior:
            assert stage.prior.tolist() == [1.0, 0.0, -2.0]
