"""How well a slice was restored: error figures, and where they count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

CT_DISPLAY_WINDOW = (-160.0, 240.0)
"""HU; the soft-tissue window in which low-dose CT is judged."""
CT_EDGE_RANGE = (-1000.0, 1000.0)
"""HU; edges of CT are looked at in it."""
PET_BODY_SUV = 0.1
"""What lies above it, smoothed by a pixel, is body: fat at rest has 0.2, air next to nothing."""
PERCENTILES = (0.5, 99.5)
"""Of a reference slice; limits of images without a unit."""
TISSUE_SHARE = 0.1
"""Of the limits: what lies above belongs to the body where the unit says nothing."""
BORDER_PX = 12
"""Off the border of a slice: where a slice cuts through the body, cropping its k-space rings along the cut, which goes
on at the opposite side; no scanner makes that, since its field of view ends in air."""
_FLAT_SHARE_PER_PX = 0.02
_LEAST_FLAT_PX = 500
_PATCH_PX = 24
_LOCAL_PX = 6.0


@dataclass(frozen=True, eq=False)
class Judging:
    """Where and in which limits a reference slice and what is made of it are compared.

    Attributes:
        limits: Native values; PSNR and SSIM clip to them, and their width is the peak.
        body: ``(Y, X)`` bool, where errors count.
        flat: ``(Y, X)`` bool, without edges: where a shift and noise can be seen.
        edge_range: Native values within which edges are looked at.
        unit: What errors are told in: native values times ``per_native``.
        per_native: One native step in that unit.
    """

    limits: tuple[float, float]
    body: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    edge_range: tuple[float, float]
    unit: str
    per_native: float = 1.0

    @property
    def inner(self) -> NDArray[np.bool_]:
        """``(Y, X)`` bool: the body off the border of the slice; the body itself in slices too small for that."""
        inner = np.zeros_like(self.body)
        inner[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = self.body[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
        return inner if inner.any() else self.body


def judging_of(reference: NDArray, modality: str | None) -> Judging:
    """How a reference slice is judged.

    CT: display window, patient, soft tissue, HU. PET: from 0 to the highest value of the slice, at least 1; where there
    is uptake; SUV. Anything else has no common unit: limits are the 0.5 and 99.5
    percentiles of the slice, the body is what lies above a tenth of them, and errors are told in percent of them.

    Args:
        reference: ``(Y, X)`` in native units.
        modality: DICOM code.
    """
    if modality == "CT":
        return Judging(CT_DISPLAY_WINDOW, body_mask(reference), soft_tissue(reference), CT_EDGE_RANGE, "HU")
    if modality == "PT":
        return _of_pet(reference)
    low, high = (float(value) for value in np.percentile(reference, PERCENTILES))
    high = max(high, low + 1e-6 * max(abs(low), 1e-6))
    body = reference > low + TISSUE_SHARE * (high - low)
    steepness = ndi.gaussian_gradient_magnitude(reference.astype(np.float32), 1.5)
    flat = ndi.binary_erosion(body & (steepness < _FLAT_SHARE_PER_PX * (high - low)))
    return Judging((low, high), body, flat, (low, high), "% of the range", 100.0 / (high - low))


def _of_pet(reference: NDArray) -> Judging:
    smooth = ndi.gaussian_filter(reference.astype(np.float32), 1.0)
    body = smooth > PET_BODY_SUV
    limits = (0.0, max(1.0, float(reference.max())))
    steepness = ndi.gaussian_gradient_magnitude(reference.astype(np.float32), 1.5)
    flat = ndi.binary_erosion(body & (steepness < _FLAT_SHARE_PER_PX * limits[1]))
    return Judging(limits, body if body.any() else np.ones_like(body), flat, limits, "SUV")


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


def flat_bias(restored: NDArray, reference: NDArray, flat: NDArray[np.bool_]) -> float:
    """Mean shift where the reference is flat, native units; nan with too little of it."""
    enough = np.count_nonzero(flat) >= _LEAST_FLAT_PX
    return float(np.mean((restored - reference)[flat], dtype=np.float64)) if enough else float("nan")


def noise_power(values: NDArray, flat: NDArray[np.bool_]) -> float:
    """Variance of a slice around its local mean in flat regions, native units squared; nan with too little of them.

    Fine texture of the patient counts as noise too: compare methods on the same slice.
    """
    if np.count_nonzero(flat) < _LEAST_FLAT_PX:
        return float("nan")
    return float(np.mean(np.square(_grain(values, flat)[flat])))


def noise_frequency(values: NDArray, flat: NDArray[np.bool_]) -> float:
    """Mean frequency of the noise power spectrum in cycles per pixel: low for blotches, high for fine grain.

    The spectrum around the local mean, averaged over patches of 24 px that are mostly flat, each under a Hann window;
    nan without such a patch, or without noise.

    Reference:
        Friedman et al., "A simple approach to measure computed tomography (CT) modulation transfer function (MTF) and
        noise-power spectrum (NPS)", Med Phys 2013.
    """
    grain = _grain(values, flat)
    side = _PATCH_PX
    taper = np.outer(np.hanning(side), np.hanning(side))
    power = np.zeros((side, side // 2 + 1))
    for y in range(0, grain.shape[0] - side + 1, side // 2):
        for x in range(0, grain.shape[1] - side + 1, side // 2):
            place = (slice(y, y + side), slice(x, x + side))
            if flat[place].mean() >= 0.75:
                power += np.abs(np.fft.rfft2(grain[place] * taper)) ** 2
    power[:, 1:-1] *= 2  # the half that rfft2 leaves out
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    total = float(power.sum())
    return float((power * frequency).sum() / total) if total > 0 else float("nan")


def _grain(values: NDArray, flat: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What differs from the mean of the flat pixels around; 0 elsewhere."""
    weight = ndi.gaussian_filter(flat.astype(np.float64), _LOCAL_PX)
    mean = ndi.gaussian_filter(np.where(flat, np.asarray(values, np.float64), 0.0), _LOCAL_PX)
    return np.where(flat, values - mean / np.maximum(weight, 1e-6), 0.0)


def edge_width_px(values: NDArray, reference: NDArray, limits: tuple[float, float] = CT_EDGE_RANGE) -> float:
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


def _clipped(values: NDArray, limits: tuple[float, float] | None) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    return values if limits is None else np.clip(values, *limits)
