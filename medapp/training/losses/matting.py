"""What training Medical Matting makes small, and the masks it is shown.

Reference:
    Wang et al., "Medical Matting", MICCAI 2021, arXiv 2106.09887: losses, oscillating weights (OAWS). Kendall et al.,
    "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018 (UWS).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from medapp.networks.architectures.medical_matting import Matting

Strategy = Literal["OAWS", "UWS", "None"]
EPS = 1e-6
BAND_PX = 2
_BAND_CHANGE = 0.1
_LEAST_STEPS = 2  # of 255: a flatter matte has no range to cut masks from


@dataclass(frozen=True)
class MattingLoss:
    """One step's loss and its parts; every entry a number with gradient.

    Attributes:
        total: What the optimiser sees.
        kl, reconstruction: Of the probabilistic U-Net.
        alpha, gradient: Of the matting net; None while it is off.
    """

    total: Tensor
    kl: Tensor
    reconstruction: Tensor
    alpha: Tensor | None = None
    gradient: Tensor | None = None


class MattingObjective(nn.Module):
    """Weighs the segmentation half against the matting half.

    Args:
        strategy: ``OAWS``, weights that swing from epoch to epoch; ``UWS``, learnt weights (parameter ``log_vars``);
            ``None``, a plain sum.
        entropy_thresh: Bits of uncertainty from which on edges of the alpha count.
        kl_scale, reconstruction_scale, alpha_scale, gradient_scale: Weights of the four terms.
        band_scale: Weight of the alpha's error around the border of the thing, and wherever its alpha is soft; 0 as
            published.
        square_scale: Weight of the alpha's mean squared error over all pixels; 0 as published.
    """

    def __init__(
        self,
        strategy: Strategy = "OAWS",
        entropy_thresh: float = 0.1,
        kl_scale: float = 10.0,
        reconstruction_scale: float = 1.0,
        alpha_scale: float = 1.0,
        gradient_scale: float = 1.0,
        band_scale: float = 0.0,
        square_scale: float = 0.0,
    ) -> None:
        if strategy not in ("OAWS", "UWS", "None"):
            raise ValueError(f"the strategy must be OAWS, UWS or None, not {strategy}")
        super().__init__()
        self.strategy, self.entropy_thresh = strategy, entropy_thresh
        self.kl_scale, self.reconstruction_scale = kl_scale, reconstruction_scale
        self.alpha_scale, self.gradient_scale, self.band_scale = alpha_scale, gradient_scale, band_scale
        self.square_scale = square_scale
        if strategy == "UWS":
            self.log_vars = nn.Parameter(torch.full((2,), 4.0))

    def forward(self, made: Matting, mask: Tensor, alpha: Tensor, epoch: int, use_matting: bool = True) -> MattingLoss:
        """The loss of one step.

        Args:
            made: What the network gave in training.
            mask: ``(B, 1, H, W)``, 0 or 1: what the posterior saw.
            alpha: ``(B, 1, H, W)``, 0..1: the target.
            epoch: From 0.
            use_matting: False while only the masks are trained.

        Raises:
            ValueError: ``made`` is of evaluation.
        """
        if made.score_map is None or made.kl is None:
            raise ValueError("the loss needs what the network gives in training")
        logits = None if made.alpha_logits is None or not use_matting else made.alpha_logits.to(alpha.dtype)
        with torch.autocast(alpha.device.type, enabled=False):  # reduced precision ends here
            return self._terms(
                made.score_map.to(alpha.dtype), made.kl.to(alpha.dtype), logits, made.uncertainty, mask, alpha, epoch
            )

    def _terms(
        self,
        scores: Tensor,
        kl: Tensor,
        logits: Tensor | None,
        uncertainty: Tensor,
        mask: Tensor,
        alpha: Tensor,
        epoch: int,
    ) -> MattingLoss:
        """As ``forward``; without logits of an alpha the masks alone are trained."""
        reconstruction = nn.functional.binary_cross_entropy_with_logits(scores, mask.to(alpha.dtype))
        segmentation = self.kl_scale * kl + self.reconstruction_scale * reconstruction
        if logits is None:
            return MattingLoss(segmentation, kl, reconstruction)
        found = logits.sigmoid()
        by_alpha = region_l1(found, alpha, torch.ones_like(alpha))
        by_gradient = gradient_l1(found, alpha, (uncertainty.detach() >= self.entropy_thresh).to(alpha.dtype))
        matting = self.alpha_scale * by_alpha + self.gradient_scale * by_gradient
        if self.band_scale:
            matting = matting + self.band_scale * region_l1(found, alpha, border_band(alpha))
        if self.square_scale:
            matting = matting + self.square_scale * (found - alpha).square().mean()
        total = self._weighed(segmentation, matting, epoch)
        return MattingLoss(total, kl, reconstruction, by_alpha, by_gradient)

    def _weighed(self, segmentation: Tensor, matting: Tensor, epoch: int) -> Tensor:
        if self.strategy == "OAWS":
            weight = oscillating_weight(epoch)
            return weight * segmentation + (1 - weight) * matting
        if self.strategy == "UWS":
            first, second = self.log_vars
            return (-first).exp() * segmentation + 0.5 * (-second).exp() * matting + first + second
        return segmentation + matting


def oscillating_weight(epoch: int) -> float:
    """Share of the segmentation half in this epoch, 0..1: swings quicker and quicker, and settles at a half."""
    return 0.5 * math.exp(-0.05 * epoch) * math.cos(0.03 * epoch**2) + 0.5


def region_l1(found: Tensor, target: Tensor, region: Tensor) -> Tensor:
    """Mean absolute difference over each image's region, averaged over the batch; an empty region counts as 1e-6.

    Args:
        found, target: ``(B, 1, H, W)``.
        region: The same shape, 0 or 1.
    """
    pixels = region.sum(dim=(1, 2, 3))
    error = (found * region - target * region).abs().sum(dim=(1, 2, 3)) / (pixels + EPS)
    return torch.where(pixels > 0, error, torch.full_like(error, EPS)).mean()


def gradient_l1(found: Tensor, target: Tensor, region: Tensor) -> Tensor:
    """``region_l1`` of the Sobel gradients (1, 2, 1, not normalised, zeros beyond the border), along x plus along y."""
    sobel = found.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([sobel, sobel.T])[:, None]  # (2, 1, 3, 3)
    of_found, of_target = (nn.functional.conv2d(matte, kernels, padding=1) for matte in (found, target))
    along_x = region_l1(of_found[:, :1], of_target[:, :1], region)
    return along_x + region_l1(of_found[:, 1:], of_target[:, 1:], region)


def border_band(alpha: Tensor, px: int = BAND_PX) -> Tensor:
    """``(B, 1, H, W)`` of 0 and 1: where the alpha changes by more than a tenth within ``px`` pixels."""
    highest = nn.functional.max_pool2d(alpha, 2 * px + 1, stride=1, padding=px)
    lowest = -nn.functional.max_pool2d(-alpha, 2 * px + 1, stride=1, padding=px)
    return (highest - lowest > _BAND_CHANGE).to(alpha.dtype)


def mask_from_alpha(alpha: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A mask of each matte, cut at a random height between 20 and 70 % of its range: the family the U-Net is to learn.

    Args:
        alpha: ``(B, 1, H, W)``, 0..1.
        generator: On the CPU; torch's own when None.

    Returns:
        ``(B, 1, H, W)`` of 0 and 1. A matte that is flat within 2 / 255 is cut at a half.
    """
    masks = []
    for matte in alpha:
        low, high = 255 * float(matte.min()), 255 * float(matte.max())
        first, end = int(low + 0.2 * (high - low)), int(low + 0.7 * (high - low))
        if high - low < _LEAST_STEPS or end <= first:
            masks.append(matte >= 0.5)
            continue
        height = int(torch.randint(first, end, (), generator=generator))
        masks.append(matte >= height / 255)
    return torch.stack(masks).to(alpha.dtype)
