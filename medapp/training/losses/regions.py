"""Losses of a promptable segmenter: focal and Dice of the masks, squared error of the predicted overlaps.

Reference:
    Kirillov et al., "Segment Anything", ICCV 2023, appendix A; Lin et al., "Focal Loss for Dense Object Detection",
    ICCV 2017; Milletari et al., "V-Net", 3DV 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor

FOCUS = 2.0
_OTHERS = 0.05  # of the candidates that are not the best, so that none of them dies


def mask_losses(logits: Tensor, target: Tensor, focal_weight: float = 20.0, dice_weight: float = 1.0) -> Tensor:
    """``(M, K, H, W)`` logits and ``(M, H, W)`` shares 0..1 to the ``(M, K)`` loss of each mask."""
    wanted = target[:, None].expand_as(logits)
    chance = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    focal = ((chance - wanted).abs() ** FOCUS * entropy).mean(dim=(2, 3))
    shared = (chance * wanted).sum(dim=(2, 3))
    dice = 1 - (2 * shared + 1) / (chance.sum(dim=(2, 3)) + wanted.sum(dim=(2, 3)) + 1)
    return focal_weight * focal + dice_weight * dice


def overlaps(logits: Tensor, target: Tensor) -> Tensor:
    """``(M, K)`` IoU of the masks with the target, both cut at a half."""
    found, wanted = logits > 0, (target >= 0.5)[:, None]
    shared = (found & wanted).sum(dim=(2, 3)).float()
    return shared / (found | wanted).sum(dim=(2, 3)).clamp(min=1).float()


def prompted_loss(logits: Tensor, scores: Tensor, target: Tensor, is_ambiguous: bool, weights: Tensor) -> Tensor:
    """The loss of one round of answers, a mean over the prompts.

    A single click can mean several things: the best of the three candidates is led to what was meant. Prompts that
    leave no doubt are answered by the mask of their own as well.

    Args:
        logits: ``(M, 4, H, W)``: the mask for prompts that leave no doubt, then the three candidates.
        scores: ``(M, 4)`` predicted IoU.
        target: ``(M, H, W)``, the share of each pixel that belongs to the thing.
        is_ambiguous: A single click.
        weights: ``(3,)``: of focal, Dice and overlap.
    """
    each = mask_losses(logits, target, float(weights[0]), float(weights[1]))
    candidates = each[:, 1:].min(dim=1).values + _OTHERS * each[:, 1:].mean(dim=1)
    alone, together = (0.25, 1.0) if is_ambiguous else (1.0, 0.5)
    off = (scores - overlaps(logits.detach(), target)) ** 2
    return (alone * each[:, 0] + together * candidates).mean() + float(weights[2]) * off.mean()


def cut_target(masks: Tensor, side: int) -> Tensor:
    """``(M, S, S)`` bool to the ``(M, side, side)`` share of each pixel."""
    return F.adaptive_avg_pool2d(masks[:, None].to(torch.float32), side)[:, 0]
