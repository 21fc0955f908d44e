"""What a generator, its critic and a guiding segmenter make small; SGSGAN-style.

One training step::

    restored = generator(low_dose)
    critic_loss(critic, low_dose, reference, restored.detach(), step).backward()      # then the critic's optimiser
    generator_loss(restored, low_dose, reference, critic, coupling, labels).total.backward()   # the generator's
    loss = coupling.segmenter_loss(restored.detach(), reference, labels)              # None when it is frozen
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

Adversary = Literal["wgan", "nsgan"]
CouplingMode = Literal["frozen", "joint"]
SEGMENTER_RATE = 0.1
"""Learning rate of a segmenter that learns along, as a share of the generator's."""
_SMOOTH = 1e-5


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts.

    Attributes:
        reconstruction: Of the mean absolute error.
        adversarial: Of the critic's opinion of the restored image; 0 trains without a critic.
        segmentation: Of the segmenter's error on the restored image.
        gradient_penalty: Keeps a ``wgan`` critic's slope near one.
        drift: Keeps a ``wgan`` critic's scores near zero; 1e-3 once they pass about 1000.
        r1: Keeps an ``nsgan`` critic flat at measured images.
        r1_every: Critic steps from one R1 penalty to the next, which counts for all of them.
    """

    reconstruction: float = 1.0
    adversarial: float = 0.001
    segmentation: float = 0.05
    gradient_penalty: float = 10.0
    drift: float = 0.0
    r1: float = 10.0
    r1_every: int = 16


@dataclass(frozen=True)
class GeneratorLoss:
    """The terms of a generator's loss, unweighted scalars; zero where a term is off.

    Attributes:
        total: Their weighted sum; call ``backward`` on it.
    """

    reconstruction: Tensor
    adversarial: Tensor
    segmentation: Tensor
    total: Tensor


class Coupling:
    """Lets a segmenter guide a generator: its error on the restored image is part of the generator's loss.

    ``frozen``: the segmenter was trained on measured full-dose images and no longer changes. ``joint``: it goes on
    learning, from measured and restored images alike; a copy from before stays to validate with, because generator and
    segmenter may agree on images that are easy to segment but wrong.

    Args:
        segmenter: Images ``(B, 1, ...)`` to logits ``(B, classes, ...)``.
        mode: Who learns.

    Attributes:
        segmenter: The one whose error guides.
        judge: The one that never changes, for validation; in ``frozen`` mode the same.
    """

    def __init__(self, segmenter: nn.Module, mode: CouplingMode = "frozen") -> None:
        if mode not in get_args(CouplingMode):
            raise ValueError(f"a coupling is one of {', '.join(get_args(CouplingMode))}, not '{mode}'")
        self.mode, self.segmenter = mode, segmenter
        self.judge = _frozen(segmenter if mode == "frozen" else copy.deepcopy(segmenter))

    def generator_term(self, restored: Tensor, labels: Tensor | None) -> Tensor:
        """The segmenter's error on restored images; gradients reach the images, never the segmenter.

        Args:
            restored: ``(B, 1, ...)``.
            labels: ``(B, ...)`` whole numbers, 0 = background; None = no regions are known, and the term is zero.
        """
        if labels is None:
            return restored.new_zeros(())
        with _held(self.segmenter):
            return segmentation_loss(self.segmenter(restored), labels)

    def segmenter_loss(self, restored: Tensor, reference: Tensor, labels: Tensor | None) -> Tensor | None:
        """Half the error on restored and half that on measured images; None when the segmenter is not to learn.

        No gradient reaches the generator. The learning rate belongs at ``SEGMENTER_RATE`` of the generator's.
        """
        if self.mode == "frozen" or labels is None:
            return None
        images = torch.cat([restored.detach(), reference])
        made, measured = self.segmenter(images).chunk(2)
        return 0.5 * segmentation_loss(made, labels) + 0.5 * segmentation_loss(measured, labels)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What an optimiser of the segmenter gets; empty when it is frozen."""
        return [] if self.mode == "frozen" else list(self.segmenter.parameters())

    def judgement(self, restored: Tensor, labels: Tensor) -> Tensor:
        """The unchanging segmenter's error on restored images, without gradients."""
        with torch.no_grad():
            return segmentation_loss(self.judge(restored), labels)


def generator_loss(
    restored: Tensor,
    low_dose: Tensor,
    reference: Tensor,
    critic: nn.Module | None = None,
    coupling: Coupling | None = None,
    labels: Tensor | None = None,
    weights: LossWeights | None = None,
    adversary: Adversary = "wgan",
) -> GeneratorLoss:
    """What the generator makes small; only the generator receives gradients.

    Args:
        restored: The generator's output, ``(B, 1, ...)``.
        low_dose: Its input.
        reference: The measured full-dose image.
        critic: Scores ``(B,)`` of ``(low_dose, candidate)``; None in the phase before there is one.
        coupling: None = no segmenter.
        labels: See ``Coupling.generator_term``.
        weights: None = those of ``LossWeights``.
        adversary: ``wgan`` or ``nsgan``; as in ``critic_loss``.
    """
    weights = weights or LossWeights()
    reconstruction = (restored - reference).abs().mean()
    adversarial = segmentation = restored.new_zeros(())
    if critic is not None and weights.adversarial:
        with _held(critic):
            scores = critic(low_dose, restored)
        adversarial = (-scores if _checked(adversary) == "wgan" else functional.softplus(-scores)).mean()
    if coupling is not None and weights.segmentation:
        segmentation = coupling.generator_term(restored, labels)
    total = (
        weights.reconstruction * reconstruction
        + weights.adversarial * adversarial
        + weights.segmentation * segmentation
    )
    return GeneratorLoss(reconstruction, adversarial, segmentation, total)


def critic_loss(
    critic: nn.Module,
    low_dose: Tensor,
    reference: Tensor,
    restored: Tensor,
    step: int = 0,
    weights: LossWeights | None = None,
    adversary: Adversary = "wgan",
) -> Tensor:
    """What the critic makes small; no gradient reaches the generator.

    Args:
        critic: Scores ``(B,)`` of ``(low_dose, candidate)``; differentiable twice.
        low_dose: ``(B, 1, ...)``.
        reference: Measured, the same shape.
        restored: Made, the same shape.
        step: Count of critic steps; R1 is due at each multiple of ``weights.r1_every``.
        weights: None = those of ``LossWeights``.
        adversary: ``wgan`` with gradient penalty, or ``nsgan`` with R1.

    Reference:
        Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017; Karras et al., "Analyzing and Improving
        the Image Quality of StyleGAN", CVPR 2020 (lazy R1); Karras et al., "Progressive Growing of GANs", ICLR 2018
        (drift).
    """
    weights, restored = weights or LossWeights(), restored.detach()
    measured, made = critic(low_dose, reference), critic(low_dose, restored)
    if _checked(adversary) == "nsgan":
        loss = functional.softplus(made).mean() + functional.softplus(-measured).mean()
        if weights.r1 and step % weights.r1_every == 0:
            loss = loss + 0.5 * weights.r1 * weights.r1_every * r1_penalty(critic, low_dose, reference)
        return loss
    loss = made.mean() - measured.mean()
    if weights.gradient_penalty:
        loss = loss + weights.gradient_penalty * gradient_penalty(critic, low_dose, reference, restored)
    if weights.drift:
        loss = loss + weights.drift * measured.square().mean()
    return loss


def gradient_penalty(
    critic: nn.Module, low_dose: Tensor, reference: Tensor, restored: Tensor, share: Tensor | None = None
) -> Tensor:
    """Mean of ``(|slope| - 1)^2``, the slope taken at images between measured and restored; in float32.

    Args:
        critic: See ``critic_loss``.
        low_dose: ``(B, 1, ...)``.
        reference: Measured.
        restored: Made.
        share: ``(B,)`` of the measured image in the mixture; None = uniform 0..1.
    """
    share = torch.rand(len(reference), device=reference.device) if share is None else share
    mixing = share.view(-1, *([1] * (reference.ndim - 1)))
    between = mixing * reference.detach() + (1 - mixing) * restored.detach()
    return (_slope(critic, low_dose, between).norm(dim=1) - 1).square().mean()


def r1_penalty(critic: nn.Module, low_dose: Tensor, reference: Tensor) -> Tensor:
    """Mean squared slope of the critic at measured images; in float32.

    Reference:
        Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018.
    """
    return _slope(critic, low_dose, reference).square().sum(dim=1).mean()


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus one minus the mean soft Dice of the foreground classes, over the whole batch.

    Args:
        logits: ``(B, K, ...)``, class 0 is the background.
        labels: ``(B, ...)`` whole numbers 0..K-1 of any dtype.

    Raises:
        ValueError: The sizes differ, or a label is no class.
    """
    classes = logits.shape[1]
    if labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"labels {tuple(labels.shape)} do not fit logits {tuple(logits.shape)}")
    index = labels.long()
    if bool((index != labels).any()) or bool((index < 0).any()) or bool((index >= classes).any()):
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}")
    scores = logits.float()
    truth = functional.one_hot(index, classes).movedim(-1, 1).float()  # (B, K, ...)
    shares = scores.softmax(dim=1)
    dims = [dim for dim in range(scores.ndim) if dim != 1]
    overlap, sizes = (shares * truth).sum(dims), shares.sum(dims) + truth.sum(dims)  # (K,)
    dice = (2 * overlap[1:] + _SMOOTH) / (sizes[1:] + _SMOOTH)
    return functional.cross_entropy(scores, index) + 1 - dice.mean()


def guidance_share(restored: Tensor, reference: Tensor, labels: Tensor, coupling: Coupling, weight: float) -> float:
    """How hard the segmenter pulls at a restored image, as a share of the reconstruction error's pull.

    Choose the weight of the segmentation term so that this is 0.1 to 0.3 when adversarial training starts.
    """
    image = restored.detach().requires_grad_()
    (of_error,) = torch.autograd.grad((image - reference).abs().mean(), image)
    (of_segmenter,) = torch.autograd.grad(coupling.generator_term(image, labels), image)
    return float(weight * of_segmenter.norm() / of_error.norm())


def _slope(critic: nn.Module, low_dose: Tensor, candidate: Tensor) -> Tensor:
    """``(B, voxels)`` derivative of each score by its candidate, itself differentiable."""
    candidate = candidate.detach().float().requires_grad_()
    with torch.autocast(candidate.device.type, enabled=False):
        scores = critic(low_dose.detach().float(), candidate)
        (slope,) = torch.autograd.grad(scores.sum(), candidate, create_graph=True)
    return slope.flatten(1)


def _checked(adversary: str) -> str:
    if adversary not in get_args(Adversary):
        raise ValueError(f"an adversary is one of {', '.join(get_args(Adversary))}, not '{adversary}'")
    return adversary


def _frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


@contextmanager
def _held(network: nn.Module) -> Iterator[None]:
    """What runs inside passes gradients on through the network but leaves none in it."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
