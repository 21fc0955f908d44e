"""Losses of the SGSGAN-style generator, its critic and its guiding segmenter."""

import math

import pytest
import torch
from torch import nn

from medapp.networks.architectures.sgsgan import SGSGAN, Discriminator, Segmenter
from medapp.training.losses.adversarial import (
    Coupling,
    LossWeights,
    critic_loss,
    generator_loss,
    gradient_penalty,
    guidance_share,
    r1_penalty,
    segmentation_loss,
)

BOTH = pytest.mark.parametrize("dims", [2, 3])
CLASSES = 3


class Linear(nn.Module):
    """A critic whose score is a weighted sum of the candidate's voxels."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, low_dose, candidate):
        return (candidate * self.weight + 0 * low_dose).flatten(1).sum(1)


def _pair(dims=2, side=32):
    torch.manual_seed(0)
    return torch.rand(2, 1, *[side] * dims), torch.rand(2, 1, *[side] * dims)


def _labels(dims=2, side=32):
    torch.manual_seed(1)
    return torch.randint(0, CLASSES, (2, *[side] * dims))


def _networks(dims):
    torch.manual_seed(0)
    generator = SGSGAN(dims, channels=(4, 6, 8, 10), style_width=8)
    with torch.no_grad():  # a noise strength of zero still learns; a step of training has been
        for layers in generator.dec:
            for layer in layers:
                layer.noise_strength.fill_(0.1)
    segmenter = Segmenter(CLASSES, dims, channels=(4, 6, 8, 10))
    return generator, Discriminator(dims, channels=(4, 6, 8, 10)), segmenter


def _number(scalar):
    return scalar.detach().item()


def _has_gradient(network):
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


@BOTH
@pytest.mark.parametrize("adversary", ["wgan", "nsgan"])
def test_every_weight_of_the_generator_learns_and_nothing_else_does(dims, adversary):
    generator, critic, segmenter = _networks(dims)
    low_dose, reference = _pair(dims)
    loss = generator_loss(
        generator(low_dose),
        low_dose,
        reference,
        critic,
        Coupling(segmenter, "joint"),
        _labels(dims),
        adversary=adversary,
    )
    loss.total.backward()

    still = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []
    assert not _has_gradient(critic)
    assert not _has_gradient(segmenter)


@BOTH
def test_the_critic_learns_through_its_own_slope(dims):
    _, critic, _ = _networks(dims)
    low_dose, reference = _pair(dims)
    gradient_penalty(critic, low_dose, reference, low_dose).backward()

    assert critic.body[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())


@BOTH
def test_the_penalty_has_the_gradient_of_finite_differences(dims):
    torch.manual_seed(0)
    side = 4
    critic = nn.Sequential(nn.Flatten(), nn.Linear(side**dims, 5), nn.Softplus(), nn.Linear(5, 1), nn.Flatten(0))
    scored = _Candidate(critic)
    low_dose, reference = _pair(dims, side)
    share = torch.tensor([0.3, 0.8])
    gradient_penalty(scored, low_dose, reference, low_dose, share).backward()
    weight = critic[1].weight
    expected = _number(weight.grad[0, 0])
    step, values = 1e-2, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0] += sign * step
        values.append(_number(gradient_penalty(scored, low_dose, reference, low_dose, share)))
        with torch.no_grad():
            weight[0, 0] -= sign * step

    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=2e-2, abs=1e-5)


class _Candidate(nn.Module):
    """A critic that looks at the candidate alone."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, _low_dose, candidate):
        return self.body(candidate)


def test_losses_of_a_linear_critic_are_those_of_the_formulas():
    low_dose, reference = _pair(side=4)
    restored = reference - 0.25
    critic = Linear(torch.full((1, 4, 4), 0.5))  # slope: 4 voxels' root of 16 x 0.25 = 2 everywhere
    measured, made = critic(low_dose, reference), critic(low_dose, restored)

    wgan = critic_loss(critic, low_dose, reference, restored)
    drifting = critic_loss(critic, low_dose, reference, restored, weights=LossWeights(drift=1e-3))
    generator = generator_loss(restored, low_dose, reference, critic)

    assert _number(wgan) == pytest.approx(-0.25 * 0.5 * 16 + 10 * (2 - 1) ** 2)
    assert _number(drifting - wgan) == pytest.approx(1e-3 * _number(measured.square().mean()), rel=1e-3)
    assert _number(generator.reconstruction) == pytest.approx(0.25)
    assert _number(generator.adversarial) == pytest.approx(-_number(made.mean()))
    assert _number(generator.total) == pytest.approx(0.25 - 0.001 * _number(made.mean()))


def test_the_other_adversary_uses_softplus_and_a_lazy_slope_penalty():
    low_dose, reference = _pair(side=4)
    restored = reference - 0.25
    critic = Linear(torch.full((1, 4, 4), 0.5))
    plain = LossWeights(r1=0)
    base = critic_loss(critic, low_dose, reference, restored, weights=plain, adversary="nsgan")
    made, measured = critic(low_dose, restored), critic(low_dose, reference)
    of_made = torch.log1p(made.exp()).mean()
    of_measured = torch.log1p((-measured).exp()).mean()

    assert _number(base) == pytest.approx(_number(of_made + of_measured), rel=1e-5)
    assert _number(r1_penalty(critic, low_dose, reference)) == pytest.approx(4)
    due, skipped = (
        critic_loss(critic, low_dose, reference, restored, step=step, adversary="nsgan") for step in (32, 33)
    )
    assert _number(due - base) == pytest.approx(10 / 2 * 16 * 4, rel=1e-4)
    assert _number(skipped) == pytest.approx(_number(base))
    of_generator = generator_loss(restored, low_dose, reference, critic, adversary="nsgan").adversarial
    assert _number(of_generator) == pytest.approx(_number(torch.log1p((-made).exp()).mean()), rel=1e-5)


def test_the_critic_leaves_the_generator_alone():
    generator, critic, _ = _networks(2)
    low_dose, reference = _pair()
    critic_loss(critic, low_dose, reference, generator(low_dose)).backward()

    assert not _has_gradient(generator)
    assert _has_gradient(critic)


def test_an_unknown_adversary_or_coupling_is_refused():
    low_dose, reference = _pair(side=4)
    with pytest.raises(ValueError, match="wgan, nsgan"):
        critic_loss(Linear(torch.ones(1, 4, 4)), low_dose, reference, low_dose, adversary="lsgan")
    with pytest.raises(ValueError, match="frozen, joint"):
        Coupling(nn.Identity(), "loose")


def test_a_perfect_segmentation_costs_nothing_and_a_wrong_one_much():
    labels = _labels(side=8)
    sure = 40 * nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).float()

    assert _number(segmentation_loss(sure, labels)) == pytest.approx(0, abs=1e-4)
    assert _number(segmentation_loss(sure, (labels + 1) % CLASSES)) > 40


def test_segmentation_loss_of_equal_scores_is_that_of_the_formula():
    labels = torch.tensor([[[0, 1], [1, 2]]])
    expected = math.log(3) + 1 - ((2 * 2 / 3) / (4 / 3 + 2) + (2 / 3) / (4 / 3 + 1)) / 2

    assert _number(segmentation_loss(torch.zeros(1, 3, 2, 2), labels)) == pytest.approx(expected, rel=1e-5)


def test_a_region_that_is_nowhere_gives_a_finite_loss():
    loss = segmentation_loss(torch.zeros(1, 3, 4, 4, requires_grad=True), torch.zeros(1, 4, 4))
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("labels", [torch.full((1, 4, 4), 3), torch.full((1, 4, 4), -1), torch.full((1, 4, 4), 0.5)])
def test_labels_that_are_no_class_are_refused(labels):
    with pytest.raises(ValueError, match="from 0 to 2"):
        segmentation_loss(torch.zeros(1, 3, 4, 4), labels)
    with pytest.raises(ValueError, match="do not fit"):
        segmentation_loss(torch.zeros(1, 3, 4, 5), labels)


def test_a_frozen_segmenter_passes_gradients_on_but_never_changes():
    _, _, segmenter = _networks(2)
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    coupling = Coupling(segmenter)
    restored, labels = _pair()[0].requires_grad_(), _labels()
    coupling.generator_term(restored, labels).backward()

    assert restored.grad.abs().sum() > 0
    assert not _has_gradient(segmenter)
    assert coupling.segmenter_loss(restored, restored, labels) is None
    assert coupling.trainable_parameters() == []
    assert not segmenter.training
    assert all(torch.equal(value, before[key]) for key, value in segmenter.state_dict().items())


def test_a_joint_segmenter_learns_from_both_kinds_and_its_judge_stays():
    _, _, segmenter = _networks(2)
    coupling = Coupling(segmenter, "joint")
    restored, reference = _pair()
    restored.requires_grad_()
    labels = _labels()
    before = _number(coupling.judgement(restored, labels))
    loss = coupling.segmenter_loss(restored, reference, labels)
    halves = [segmentation_loss(segmenter(image), labels) for image in (restored, reference)]
    assert _number(loss) == pytest.approx(_number(sum(halves) / 2), rel=1e-5)
    loss.backward()
    torch.optim.SGD(coupling.trainable_parameters(), 0.1).step()

    assert restored.grad is None
    assert _number(coupling.generator_term(restored, labels)) != pytest.approx(before, rel=1e-4)
    assert _number(coupling.judgement(restored, labels)) == before


def test_without_labels_the_segmenter_takes_no_part():
    generator, critic, segmenter = _networks(2)
    low_dose, reference = _pair()
    restored = generator(low_dose)
    coupling = Coupling(segmenter, "joint")
    alone = generator_loss(restored, low_dose, reference, critic)
    loss = generator_loss(restored, low_dose, reference, critic, coupling)

    assert _number(loss.segmentation) == 0
    assert _number(loss.total) == _number(alone.total)
    assert coupling.segmenter_loss(restored, reference, None) is None


def test_before_there_is_a_critic_the_loss_is_the_absolute_error():
    low_dose, reference = _pair(side=8)
    assert _number(generator_loss(low_dose, low_dose, reference).total) == pytest.approx(
        _number((low_dose - reference).abs().mean())
    )


def test_the_pull_of_the_segmenter_grows_with_its_weight():
    _, _, segmenter = _networks(2)
    (restored, reference), labels = _pair(), _labels()
    one, two = (guidance_share(restored, reference, labels, Coupling(segmenter), weight) for weight in (0.05, 0.1))
    assert one > 0
    assert two == pytest.approx(2 * one)


def test_a_few_steps_of_the_whole_game_bring_the_generator_closer():
    generator, critic, segmenter = _networks(2)
    low_dose, reference = _pair()
    reference = (low_dose * 0.5 + 0.2).detach()
    coupling, labels = Coupling(segmenter, "joint"), _labels()
    of_generator = torch.optim.AdamW(generator.parameters(), 5e-3)
    of_critic = torch.optim.AdamW(critic.parameters(), 1e-4, betas=(0.9, 0.99))
    of_segmenter = torch.optim.AdamW(coupling.trainable_parameters(), 3e-4)
    errors = []
    for step in range(12):
        restored = generator(low_dose)
        of_critic.zero_grad()
        critic_loss(critic, low_dose, reference, restored, step).backward()
        of_critic.step()
        of_generator.zero_grad()
        loss = generator_loss(restored, low_dose, reference, critic, coupling, labels)
        loss.total.backward()
        of_generator.step()
        of_segmenter.zero_grad()
        coupling.segmenter_loss(restored, reference, labels).backward()
        of_segmenter.step()
        errors.append(_number(loss.reconstruction))

    assert errors[-1] < 0.7 * errors[0]
