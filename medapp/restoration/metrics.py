"""How well a slice was restored: error figures, where they count, and their interval over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

CT_DISPLAY_WINDOW = (-160.0, 240.0)
"""HU; the soft-tissue window in which low-dose CT is judged."""


def psnr_db(
    restored: NDArray, reference: NDArray, limits: tuple[float, float], mask: NDArray[np.bool_] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB after clipping both images to ``limits``, whose width is the peak.

    Args:
        restored: ``(Y, X)`` in native units.
        reference: The same shape.
        limits: Display window in native units.
        mask: Where it counts; None = everywhere.

    Returns:
        Infinite for equal images.
    """
    error = rmse(restored, reference, limits, mask)
    return float("inf") if error == 0 else float(20 * np.log10((limits[1] - limits[0]) / error))


def rmse(
    restored: NDArray,
    reference: NDArray,
    limits: tuple[float, float] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> float:
    """Root of the mean square error in native units, after clipping to ``limits`` when given."""
    difference = _clipped(restored, limits) - _clipped(reference, limits)
    if mask is not None:
        difference = difference[mask]
    return float(np.sqrt(np.mean(np.square(difference)))) if difference.size else float("nan")


def ssim(
    restored: NDArray, reference: NDArray, limits: tuple[float, float], mask: NDArray[np.bool_] | None = None
) -> float:
    """Structural similarity, Gaussian window of sigma 1.5 over 11 pixels, averaged over the mask.

    Reference:
        Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 2004.
    """
    x, y = _clipped(restored, limits), _clipped(reference, limits)
    peak = limits[1] - limits[0]
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2

    def smooth(image: NDArray) -> NDArray:
        return ndi.gaussian_filter(image, 1.5, truncate=3.5, mode="reflect")

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity[mask].mean() if mask is not None else similarity.mean())


def body_mask(values_hu: NDArray) -> NDArray[np.bool_]:
    """Inside of the patient in an axial CT slice: the largest object denser than air, holes (lungs) filled."""
    is_dense = ndi.binary_opening(ndi.gaussian_filter(values_hu.astype(np.float32), 1.0) > -400, iterations=2)
    labels, count = ndi.label(is_dense)
    if count == 0:
        return np.zeros(values_hu.shape, bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = labels == sizes.argmax()
    # the margin lets the closing seal lungs that a cropped slice cuts open
    return ndi.binary_fill_holes(ndi.binary_closing(np.pad(largest, 8), iterations=4))[8:-8, 8:-8]


def soft_tissue(values_hu: NDArray) -> NDArray[np.bool_]:
    """Flat soft tissue of a CT slice: neither air nor bone, away from edges."""
    values = values_hu.astype(np.float32)
    smooth = ndi.gaussian_filter(values, 2.0)
    is_flat = ndi.gaussian_gradient_magnitude(values, 2.0) < 25
    return ndi.binary_erosion((smooth > -150) & (smooth < 200) & is_flat)


def slice_noise(values: NDArray, where: NDArray[np.bool_] | None = None, step: int = 1) -> float:
    """Noise of a slice in native units, by a high-pass that cancels edges and ramps; 0 with too little to measure.

    Args:
        values: ``(Y, X)``.
        where: Where to measure; None = everywhere.
        step: Distance of the compared pixels. 1 sees only the finest grain; soft kernels spread their noise over
            neighbours, and 3 sees that too, with some anatomy in it.

    Reference:
        Immerkaer, "Fast noise variance estimation", CVIU 1996.
    """
    kernel = np.zeros((2 * step + 1, 2 * step + 1), np.float32)
    kernel[::step, ::step] = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    residue = ndi.convolve(values.astype(np.float32), kernel)
    chosen = residue[where] if where is not None else residue.ravel()
    return float(1.4826 * np.median(np.abs(chosen))) if chosen.size >= 500 else 0.0


def flat_bias(restored: NDArray, reference: NDArray) -> float:
    """Mean shift in flat soft tissue, native units; nan when the slice has none."""
    where = soft_tissue(reference)
    return float(np.mean((restored - reference)[where], dtype=np.float64)) if where.sum() >= 500 else float("nan")


def edge_width_px(values: NDArray, reference: NDArray, limits: tuple[float, float] = (-1000.0, 1000.0)) -> float:
    """Width of the strong edges of the reference as ``values`` shows them, in pixels.

    Contrast over steepness (height of the step divided by its steepest slope), averaged over the steepest two percent
    of the reference's pixels along the gradient of the *smoothed reference*, so that noise in ``values`` averages out.
    """
    target, base = _clipped(values, limits), _clipped(reference, limits)
    gy, gx = ndi.gaussian_filter(base, 1.5, order=(1, 0)), ndi.gaussian_filter(base, 1.5, order=(0, 1))
    steepness = np.hypot(gy, gx)
    chosen = steepness >= np.quantile(steepness, 0.98)
    if not chosen.any() or steepness.max() <= 0:
        return float("nan")
    y, x = np.nonzero(chosen)
    direction = np.stack([gy[chosen], gx[chosen]]) / steepness[chosen]
    offsets = np.arange(-4.0, 4.5, 1.0)
    points = np.stack([y, x])[:, None, :] + direction[:, None, :] * offsets[:, None]
    profile = ndi.map_coordinates(target, points.reshape(2, -1), order=1, mode="nearest")
    profile = profile.reshape(len(offsets), -1).mean(axis=1)  # the mean edge; each was centred by the reference
    slope = np.diff(profile).max()
    return float((profile[-1] - profile[0]) / slope) if slope > 0 else float("nan")


def bootstrap_interval(per_patient: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over patients, by resampling patients; ``(nan, nan)`` without any."""
    values = np.asarray([value for value in per_patient if np.isfinite(value)], float)
    if not values.size:
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(values.size, size=(draws, values.size))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def mean_by_patient(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean of each patient's slices; patients without a finite figure are left out."""
    means = {}
    for patient, values in figures.items():
        finite = [value for value in values if np.isfinite(value)]
        if finite:
            means[patient] = float(np.mean(finite))
    return means


def _clipped(values: NDArray, limits: tuple[float, float] | None) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    return values if limits is None else np.clip(values, *limits)
