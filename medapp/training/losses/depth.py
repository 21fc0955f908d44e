"""What depth completion makes small: every stage's map, and bins that lie where depths are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

STAGE_WEIGHTS = (0.125, 0.25, 0.5, 0.5)
CHAMFER_WEIGHT = 0.1
_MOST_DEPTHS = 2048


def is_known(reference: Tensor, d_max: float = float("inf")) -> Tensor:
    """Where a reference depth takes part: above 1e-4, finite and inside the range; bool of the same shape."""
    return torch.isfinite(reference) & (reference > 1e-4) & (reference <= d_max)


def l1_l2(depth: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute plus mean square error over the valid pixels; 0 where there are none."""
    error = torch.where(valid, depth - torch.nan_to_num(reference), 0.0)
    return (error.abs() + error.square()).sum() / valid.sum().clamp(min=1)


def chamfer(centres: Tensor, reference: Tensor, valid: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Squared distances between bin centres and the depths of the image, both ways.

    Args:
        centres: ``(B, N)``.
        reference: ``(B, 1, H, W)``; at most 2,048 depths of each image take part.
        valid: Where the reference is known.
        generator: For the choice of depths; on the CPU.

    Reference:
        Bhat et al., "AdaBins", CVPR 2021, section 3.3.
    """
    terms = []
    for row, depths, known in zip(centres, reference.flatten(1), valid.flatten(1), strict=True):
        present = depths[known]
        if not len(present):
            continue
        if len(present) > _MOST_DEPTHS:
            some = torch.randint(len(present), (_MOST_DEPTHS,), generator=generator).to(present.device)
            present = present[some]
        squared = (row[:, None] - present).square()
        terms.append(squared.min(dim=1).values.mean() + squared.min(dim=0).values.mean())
    return torch.stack(terms).mean() if terms else centres.sum() * 0


def completion_loss(
    depth: Tensor,
    stages: Sequence[Tensor],
    centres: Sequence[Tensor],
    reference: Tensor,
    unit: float | Tensor = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Multi-scale loss: ``sum_k lambda_k (L1 + L2)(D_k) + (L1 + L2)(D) + 0.1 sum_k Chamfer_k``.

    Args:
        depth: ``(B, 1, H, W)``.
        stages: Maps of the four stages; those of a padded image are cropped like it.
        centres: Bin centres ``(B, N)`` of the four stages, without the seed.
        reference: ``(B, 1, H, W)``, the same unit; NaN or 0 = unknown.
        unit: Depths are divided by it, so that L1 and L2 keep their weights: ``d_max / 10`` for millimetres, or
            ``(B, 1, 1, 1)``, one length an image.
        generator: For the choice of depths in the Chamfer term.

    Raises:
        ValueError: Not four stages, or the sizes differ.

    Reference:
        Yang et al., arXiv 2405.09342, abstract (supervision at every stage); form and weights are ours.
    """
    if len(stages) != len(STAGE_WEIGHTS) or len(centres) != len(STAGE_WEIGHTS):
        raise ValueError(f"four stages are needed, not {len(stages)} maps and {len(centres)} lists of centres")
    if depth.shape != reference.shape:
        raise ValueError(f"depth {tuple(depth.shape)} and reference {tuple(reference.shape)} differ in size")
    H, W = reference.shape[2:]
    valid = is_known(reference)
    reference = reference / unit
    loss = l1_l2(depth / unit, reference, valid)
    flat_unit = unit.flatten(1) if isinstance(unit, Tensor) else unit
    for k, (weight, coarse, bins) in enumerate(zip(STAGE_WEIGHTS, stages, centres, strict=True)):
        stride = 16 >> k
        full = functional.interpolate(coarse / unit, scale_factor=stride, mode="bilinear", align_corners=False)
        loss = loss + weight * l1_l2(full[..., :H, :W], reference, valid)
        loss = loss + CHAMFER_WEIGHT * chamfer(bins / flat_unit, reference, valid, generator)
    return loss


def scale_free_loss(depth: Tensor, reference: Tensor) -> Tensor:
    """SILog: ``10 sqrt(var(g) + 0.15 mean(g)^2)`` of ``g = log depth - log reference`` over the known pixels.

    Reference:
        Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network", NeurIPS 2014;
        weights as in AdaBins, CVPR 2021.
    """
    valid = is_known(reference)
    if not valid.any():
        return depth.sum() * 0
    gap = depth[valid].clamp(min=1e-6).log() - reference[valid].log()
    return 10 * (gap.var(correction=0) + 0.15 * gap.mean().square()).clamp(min=1e-12).sqrt()
