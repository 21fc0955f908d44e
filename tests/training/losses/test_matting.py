"""Losses of Medical Matting; golden values of its specification, section 9."""

import numpy as np
import pytest
import torch

from medapp.networks.architectures.medical_matting import MedicalMatting
from medapp.training.losses.matting import (
    MattingObjective,
    border_band,
    gradient_l1,
    mask_from_alpha,
    oscillating_weight,
    region_l1,
)


@pytest.fixture(scope="module")
def golden():
    row, column = np.mgrid[:64, :64].astype(float)
    target = np.clip((20 - np.hypot(row - 32, column - 32)) / 8 + 0.5, 0, 1)
    alpha = np.clip((18 - np.hypot(row - 33.5, column - 30)) / 10 + 0.5, 0, 1)
    return torch.from_numpy(alpha)[None, None], torch.from_numpy(target)[None, None]


@pytest.fixture(scope="module")
def step():
    torch.manual_seed(0)
    network = MedicalMatting(num_filters=(4, 4, 4, 4), hidden_channel=4, num_sampling=3).train()
    image, alpha = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    mask = mask_from_alpha(alpha)
    return network, network(image, mask), mask, alpha


def test_the_terms_equal_the_published_ones(golden):
    alpha, target = golden
    unknown = ((target > 0) & (target < 1)).double()
    assert region_l1(alpha, target, torch.ones_like(target)).item() == pytest.approx(0.063084, abs=1e-6)
    assert region_l1(alpha, target, unknown).item() == pytest.approx(0.200265, abs=1e-6)
    assert gradient_l1(alpha, target, unknown).item() == pytest.approx(0.427675, abs=1e-6)


def test_an_image_without_doubt_adds_next_to_nothing(golden):
    alpha, target = golden
    assert region_l1(alpha, target, torch.zeros_like(target)).item() == pytest.approx(1e-6)


def test_the_weight_swings_as_published():
    found = [oscillating_weight(e) for e in (0, 5, 10, 15, 20, 30, 40)]
    assert found == pytest.approx([1, 0.785, 0.200, 0.711, 0.655, 0.467, 0.457], abs=5e-4)


def test_each_strategy_puts_the_same_parts_together(step):
    _, made, mask, alpha = step
    plain = MattingObjective("None")(made, mask, alpha, epoch=10)
    segmentation, matting = 10 * plain.kl + plain.reconstruction, plain.alpha + plain.gradient
    torch.testing.assert_close(plain.total, segmentation + matting)
    weight = oscillating_weight(10)
    swinging = MattingObjective("OAWS")(made, mask, alpha, epoch=10).total
    torch.testing.assert_close(swinging, weight * segmentation + (1 - weight) * matting)
    learnt = MattingObjective("UWS")
    torch.testing.assert_close(
        learnt(made, mask, alpha, epoch=10).total, np.exp(-4) * (segmentation + 0.5 * matting) + 8
    )
    assert list(learnt.state_dict()) == ["log_vars"]


def test_while_the_matting_is_off_only_the_masks_are_trained(step):
    _, made, mask, alpha = step
    loss = MattingObjective()(made, mask, alpha, epoch=10, use_matting=False)
    torch.testing.assert_close(loss.total, 10 * loss.kl + loss.reconstruction)
    assert loss.alpha is None


def test_evaluation_has_no_loss(step):
    network, _, mask, alpha = step
    with torch.no_grad(), pytest.raises(ValueError, match="training"):
        MattingObjective()(network.eval()(torch.rand(2, 1, 16, 16)), mask, alpha, epoch=0)
    with pytest.raises(ValueError, match="strategy"):
        MattingObjective("SUM")


def test_masks_are_cut_between_a_fifth_and_seven_tenths_of_the_range():
    ramp = torch.linspace(0.2, 0.7, 501).expand(40, 1, 1, 501)
    generator = torch.Generator().manual_seed(1)
    cuts = [ramp[0][mask > 0].min().item() for mask in mask_from_alpha(ramp, generator)]
    assert 0.295 <= min(cuts) < 0.34
    assert 0.5 < max(cuts) <= 0.55
    again = mask_from_alpha(ramp, torch.Generator().manual_seed(1))
    assert torch.equal(again, mask_from_alpha(ramp, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_flat_matte_has_a_mask_too(level):
    mask = mask_from_alpha(torch.full((1, 1, 4, 4), level))
    assert mask.unique().tolist() == [float(level >= 0.5)]


def test_a_step_with_this_loss_makes_it_smaller():
    torch.manual_seed(3)
    network = MedicalMatting(num_filters=(8, 8, 8, 8), hidden_channel=4, num_sampling=2).train()
    objective = MattingObjective("None")
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    alpha = ((6 - torch.hypot(row - 8, column - 8)) / 4 + 0.5).clamp(0, 1)[None, None].repeat(2, 1, 1, 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    errors = []
    for _ in range(40):
        mask = mask_from_alpha(alpha)
        loss = objective(network(alpha, mask), mask, alpha, epoch=10)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        errors.append(loss.alpha.item())
    assert np.mean(errors[-5:]) < 0.6 * np.mean(errors[:5])


def test_the_band_weighs_errors_at_the_border_and_not_inside(step):
    _, made, mask, _ = step
    alpha = torch.zeros(2, 1, 16, 16)
    alpha[:, :, 4:12, 4:12] = 1
    band = border_band(alpha)
    assert band[0, 0, 8, 8] == 0
    assert band[0, 0, 0, 0] == 0
    assert band[0, 0, 4, 8] == band[0, 0, 3, 8] == band[0, 0, 2, 8] == 1
    plain, weighed = (MattingObjective("None", band_scale=scale)(made, mask, alpha, 0).total for scale in (0.0, 2.0))
    assert (weighed - plain).item() == pytest.approx(2 * region_l1(made.alpha, alpha, band).item(), rel=1e-5)


def test_reduced_precision_ends_at_the_loss(step):
    network, _, mask, alpha = step
    with torch.autocast("cpu", torch.bfloat16):
        made = network.train()(torch.rand(2, 1, 16, 16), mask)
    loss = MattingObjective("None")(made, mask, alpha, 0)
    assert loss.total.dtype == torch.float32
    assert torch.isfinite(loss.total)
