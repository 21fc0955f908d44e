"""Losses of depth completion: values by hand."""

import math

import pytest
import torch

from medapp.training.losses.depth import chamfer, completion_loss, is_known, l1_l2, scale_free_loss


def test_l1_and_l2_by_hand_leave_unknown_pixels_out():
    reference = torch.tensor([[[[2.0, 0.0], [float("nan"), 4.0]]]])
    depth = torch.tensor([[[[3.0, 9.0], [9.0, 2.0]]]])

    assert is_known(reference).sum() == 2
    assert l1_l2(depth, reference, is_known(reference)).item() == pytest.approx((1 + 2) / 2 + (1 + 4) / 2)


def test_chamfer_by_hand():
    centres = torch.tensor([[1.0, 5.0]])
    reference = torch.tensor([[[[1.0, 2.0, 0.0]]]])
    # centres: 0 and 9 -> mean 4.5; depths: 0 and 1 -> mean 0.5
    assert chamfer(centres, reference, is_known(reference)).item() == pytest.approx(5.0)


def test_the_sum_over_stages_has_its_weights():
    reference = torch.full((1, 1, 32, 32), 4.0)
    stages = [torch.full((1, 1, 32 // s, 32 // s), 5.0) for s in (16, 8, 4, 2)]
    centres = [torch.full((1, 3), 4.0)] * 4

    loss = completion_loss(torch.full_like(reference, 6.0), stages, centres, reference)

    assert loss.item() == pytest.approx((2 + 4) + (0.125 + 0.25 + 0.5 + 0.5) * 2)


def test_depths_are_divided_by_the_unit_so_that_millimetres_weigh_like_metres():
    random = torch.Generator().manual_seed(0)
    reference = torch.rand(2, 1, 30, 20, generator=random) + 1
    depth = reference + 0.1 * torch.rand(2, 1, 30, 20, generator=random)
    stages = [torch.rand(2, 1, -(-30 // s), -(-20 // s), generator=random) for s in (16, 8, 4, 2)]
    centres = [torch.rand(2, 4, generator=random) for _ in range(4)]

    metres = completion_loss(depth, stages, centres, reference)
    unit = torch.full((2, 1, 1, 1), 1000.0)
    millimetres = completion_loss(
        depth * 1000, [s * 1000 for s in stages], [c * 1000 for c in centres], reference * 1000, unit
    )
    assert millimetres.item() == pytest.approx(metres.item(), rel=1e-5)


def test_nothing_known_is_a_loss_of_zero_that_can_be_differentiated():
    depth = torch.ones(1, 1, 16, 16, requires_grad=True)
    stages = [torch.ones(1, 1, 16 // s, 16 // s) for s in (16, 8, 4, 2)]
    loss = completion_loss(depth, stages, [torch.ones(1, 2)] * 4, torch.zeros(1, 1, 16, 16))
    loss.backward()
    assert loss.item() == 0
    assert depth.grad is not None


def test_scale_free_loss_by_hand():
    reference = torch.tensor([[[[1.0, 2.0]]]])
    depth = torch.tensor([[[[math.e, 2.0]]]])  # gaps 1 and 0: variance 1/4, mean 1/2
    assert scale_free_loss(depth, reference).item() == pytest.approx(10 * math.sqrt(0.25 + 0.15 * 0.25), rel=1e-5)
    assert scale_free_loss(7 * reference, reference).item() < scale_free_loss(depth * 7, reference).item()


def test_wrong_stages_and_sizes_are_refused():
    full = torch.ones(1, 1, 16, 16)
    with pytest.raises(ValueError, match="four stages"):
        completion_loss(full, [full], [torch.ones(1, 2)], full)
    with pytest.raises(ValueError, match="differ in size"):
        completion_loss(full, [full] * 4, [torch.ones(1, 2)] * 4, full[..., :8])
