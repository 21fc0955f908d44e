"""MR slices of lower resolution: the outside of k-space was never measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medapp.restoration.kspace import is_measured, zero_filled


def low_resolution(values: NDArray, factor: int, noise: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """A slice as a scan of ``factor`` times lower resolution in both directions shows it, on the same grid.

    The central part of k-space is kept and the rest filled with zeros. With ``noise`` the kept part gets complex
    Gaussian noise and the magnitude is taken, so that the noise is Rician as in a magnitude image. Not modelled: a
    filter of the scanner, partial Fourier, several coils, motion, and that a real scan of fewer samples is less noisy.

    Args:
        values: ``(Y, X)`` magnitude image.
        factor: 2 or 4; 2 keeps the central half of both axes of k-space.
        noise: Standard deviation of the noise in the image, as a share of the 99.5 percentile.
        seed: Of the noise.

    Returns:
        ``(Y, X)`` float32.

    Raises:
        ValueError: The slice is too small for the factor.

    Reference:
        Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", MRM 1995.
    """
    cropped = zero_filled(values, factor)
    if noise <= 0:
        return cropped
    random = np.random.default_rng([seed, 0x6D72])
    sigma = noise * float(np.percentile(values, 99.5))
    inside = is_measured((values.shape[0], values.shape[1]), factor)
    kept = float(np.mean(inside))
    parts = []
    for _ in range(2):
        spectrum = np.fft.rfft2(random.standard_normal(values.shape))
        spectrum[~inside] = 0
        parts.append(np.fft.irfft2(spectrum, s=values.shape) * (sigma / np.sqrt(kept)))
    # the sign stays: ringing of the crop goes below zero in the real image
    real = cropped + parts[0]
    return (np.where(real < 0, -1.0, 1.0) * np.hypot(real, parts[1])).astype(np.float32)
