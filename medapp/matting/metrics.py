"""How far a matte is from another one, and sets of masks from each other.

The four matting errors work on 8-bit alphas, truncated, as the published evaluators do, and carry their scale factors:
SAD, gradient and connectivity are divided by 1000, MSE is not scaled. Which region was measured belongs beside every
number: all pixels, or the unknown ones of a trimap.

Reference:
    Rhemann et al., "A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009;
    Kohl et al., "A Probabilistic U-Net for Segmentation of Ambiguous Images", NeurIPS 2018 (energy distance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SIGMA = 1.4
_STEP = 0.1
_THETA = 0.15


@dataclass(frozen=True)
class MatteErrors:
    """The four matting errors of one matte and its soft Dice; lower is better, but for Dice.

    Attributes:
        sad: Sum of absolute differences / 1000.
        mse: Mean squared difference.
        gradient: Squared difference of the edge strengths, summed / 1000; nan when a matte is constant.
        connectivity: What is not joined to the common core, summed / 1000.
        soft_dice: 2 * sum of minima / sum of both, 1 = equal.
        region: ``all`` or ``unknown``.
        pixels: How many pixels that is.
    """

    sad: float
    mse: float
    gradient: float
    connectivity: float
    soft_dice: float
    region: str
    pixels: int


def compare_mattes(
    alpha: NDArray[np.float32],
    reference: NDArray[np.float32],
    unknown: NDArray[np.bool_] | None = None,
    flat_as_zero: bool = False,
) -> MatteErrors:
    """All errors of a matte.

    Args:
        alpha, reference: ``(H, W)`` float, 0..1.
        unknown: ``(H, W)`` bool, the pixels to measure; None = all. Gradients and connectivity look at the whole mattes
            and are then summed over these pixels.
        flat_as_zero: See ``gradient_error``.
    """
    region = np.ones(alpha.shape, dtype=bool) if unknown is None else unknown
    return MatteErrors(
        sad=sad(alpha, reference, region),
        mse=mse(alpha, reference, region),
        gradient=gradient_error(alpha, reference, region, flat_as_zero),
        connectivity=connectivity_error(alpha, reference, region),
        soft_dice=soft_dice(alpha[region], reference[region]),
        region="all" if unknown is None else "unknown",
        pixels=int(region.sum()),
    )


def sad(alpha: NDArray, reference: NDArray, region: NDArray[np.bool_] | None = None) -> float:
    """Sum of absolute differences / 1000."""
    difference = np.abs(_in_255(alpha) - _in_255(reference)) / 255.0
    return float(_over(difference, region).sum() / 1000.0)


def mse(alpha: NDArray, reference: NDArray, region: NDArray[np.bool_] | None = None) -> float:
    """Mean squared difference over the region; 0 for an empty one."""
    difference = _over(((_in_255(alpha) - _in_255(reference)) / 255.0) ** 2, region)
    return float(difference.sum() / max(difference.size, 1))


def gradient_error(
    alpha: NDArray, reference: NDArray, region: NDArray[np.bool_] | None = None, flat_as_zero: bool = False
) -> float:
    """Squared difference of the gradient magnitudes at sigma 1.4, summed / 1000.

    Each matte is first stretched to 0..1 on its own, which a constant one cannot be: nan, as the published evaluators
    give, or with ``flat_as_zero`` a matte without edges, so that a method that finds nothing is not left out of means.
    """
    stretched = []
    for matte in (_in_255(alpha), _in_255(reference)):
        low, high = matte.min(), matte.max()
        if low == high and not flat_as_zero:
            return float("nan")
        stretched.append((matte - low) / max(high - low, 1.0))
    along = _gradient_filter()
    strengths = [
        np.hypot(ndimage.correlate(matte, along, mode="nearest"), ndimage.correlate(matte, along.T, mode="nearest"))
        for matte in stretched
    ]
    return float(_over((strengths[0] - strengths[1]) ** 2, region).sum() / 1000.0)


def connectivity_error(alpha: NDArray, reference: NDArray, region: NDArray[np.bool_] | None = None) -> float:
    """Difference in how firmly pixels are joined to the largest common part, summed / 1000."""
    p, g = _in_255(alpha) / 255.0, _in_255(reference) / 255.0
    joined = np.full(p.shape, -1.0)
    for level in np.arange(1, 11) * _STEP:
        core = _largest_part((p >= level) & (g >= level))
        joined[(joined < 0) & ~core] = level - _STEP
    joined[joined < 0] = 1.0
    phi = [1.0 - np.where(matte - joined >= _THETA, matte - joined, 0.0) for matte in (p, g)]
    return float(_over(np.abs(phi[0] - phi[1]), region).sum() / 1000.0)


def soft_dice(alpha: NDArray, reference: NDArray) -> float:
    """2 * sum of minima / (sum + sum); 1 for two empty mattes. Equals Dice on hard masks."""
    total = float(alpha.sum(dtype=np.float64)) + float(reference.sum(dtype=np.float64))
    return 2.0 * float(np.minimum(alpha, reference).sum(dtype=np.float64)) / total if total > 0 else 1.0


def mask_dice(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Dice of two masks with one pixel added above and below, so that empty ones count as equal."""
    return (2.0 * int((mask & reference).sum()) + 1.0) / (int(mask.sum()) + int(reference.sum()) + 1.0)


def best_dice(masks: Sequence[NDArray[np.bool_]], references: Sequence[NDArray[np.bool_]]) -> float:
    """Mean over the masks of the Dice with whichever reference fits best."""
    return float(np.mean([max(mask_dice(mask, reference) for reference in references) for mask in masks]))


def energy_distance(masks: Sequence[NDArray[np.bool_]], references: Sequence[NDArray[np.bool_]]) -> float:
    """Generalised energy distance between two sets of masks, with 1 - IoU; 0 = the same distribution.

    The means within a set include each mask with itself.
    """
    return (
        2.0 * _mean_distance(masks, references) - _mean_distance(masks, masks) - _mean_distance(references, references)
    )


def evaluation_masks(reference: NDArray, count: int = 8) -> list[NDArray[np.bool_]]:
    """The masks that stand for a matte when sets of masks are compared: cut at 20 to 70 % of its range."""
    low, span = float(reference.min()), float(reference.max() - reference.min())
    return [np.asarray(reference >= low + span * (0.2 + 0.5 * k / count)) for k in range(count)]


def _mean_distance(first: Sequence[NDArray[np.bool_]], second: Sequence[NDArray[np.bool_]]) -> float:
    return float(np.mean([[1.0 - _iou(a, b) for b in second] for a in first]))


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _in_255(matte: NDArray) -> NDArray[np.float64]:
    return np.floor(255.0 * np.asarray(matte, dtype=np.float64))


def _over(values: NDArray[np.float64], region: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    return values if region is None else values[region]


def _gradient_filter() -> NDArray[np.float64]:
    """``(9, 9)``: a Gaussian down the rows, its derivative along the columns, of unit Frobenius norm."""
    half = int(np.ceil(_SIGMA * np.sqrt(-2.0 * np.log(np.sqrt(2.0 * np.pi) * _SIGMA * 0.01))))
    x = np.arange(-half, half + 1, dtype=np.float64)
    gauss = np.exp(-(x**2) / (2.0 * _SIGMA**2)) / (_SIGMA * np.sqrt(2.0 * np.pi))
    both = gauss[:, None] * (-x * gauss / _SIGMA**2)[None, :]
    return np.asarray(both / np.sqrt((both**2).sum()))


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected part, the first one on ties; empty when there is none."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))
