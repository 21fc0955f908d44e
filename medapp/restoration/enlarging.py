"""Pictures on finer pixels by plain interpolation: what a network that enlarges pictures has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.restoration.interpolation import bicubic_kernel, lanczos_kernel

Kernel = Callable[[NDArray], NDArray]
"""Weights by distance in coarse pixels."""


def linear_kernel(distance: NDArray) -> NDArray:
    """A tent of one pixel: what enlarging networks start from."""
    return np.maximum(0.0, 1.0 - np.abs(distance))


KERNELS: Mapping[str, Kernel] = {"linear": linear_kernel, "bicubic": bicubic_kernel, "Lanczos": lanczos_kernel}
"""By the name that tables show."""

SHARPENING: Mapping[int, tuple[tuple[float, float], ...]] = {
    2: ((0.4, -5.48), (0.8, 4.56), (1.6, -1.49), (3.2, 0.53)),
    4: ((0.4, -2.56), (0.8, 4.11), (1.6, -1.77), (3.2, 0.67)),
}
"""By factor: widths of Gaussians in coarse pixels, and how much of what each takes away is added. Least squares over 21
pictures of the training rows, brought to a lower magnification as the evaluation does it."""


def sharpened_picture(picture: NDArray, factor: int) -> NDArray:
    """Lanczos, then the linear filter of ``SHARPENING``: unsharp masking at four widths, tuned for this blur.

    Args:
        picture: ``(h, w, 3)`` uint8.
        factor: 2 or 4.

    Returns:
        ``(h * factor, w * factor, 3)`` uint8.
    """
    made = enlarged_picture(picture.astype(np.float32), factor, lanczos_kernel)
    sharp = made.copy()
    for width, amount in SHARPENING[factor]:
        sigma = width * factor
        sharp += np.float32(amount) * (made - ndimage.gaussian_filter(made, (sigma, sigma, 0)))
    return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)


def enlarged_picture(picture: NDArray, factor: int, kernel: Kernel) -> NDArray:
    """A picture on ``factor`` times finer pixels; each of its pixels is divided, its corners stay where they are.

    Args:
        picture: ``(h, w)`` or ``(h, w, 3)``; integers are rounded and kept within their type, floats are not.
        factor: Whole number, 1 or more.
        kernel: One of ``KERNELS``.

    Returns:
        ``(h * factor, w * factor[, 3])`` of the same type; beyond the border the last pixel goes on.
    """
    made = np.asarray(picture, np.float64)
    for axis in (0, 1):
        weights = _weights(picture.shape[axis], factor, kernel)
        made = np.moveaxis(np.tensordot(weights, made, axes=(1, axis)), 0, axis)
    if not np.issubdtype(picture.dtype, np.integer):
        return made.astype(picture.dtype)
    limits = np.iinfo(picture.dtype)
    return np.clip(np.rint(made), limits.min, limits.max).astype(picture.dtype)


def _weights(size: int, factor: int, kernel: Kernel) -> NDArray[np.float64]:
    """``(size * factor, size)``; what reaches beyond the border counts for the last pixel."""
    at = (np.arange(size * factor) + 0.5) / factor - 0.5
    first = np.floor(at).astype(np.intp)
    weights = np.zeros((size * factor, size))
    for offset in range(-3, 5):
        source = first + offset
        np.add.at(weights, (np.arange(size * factor), np.clip(source, 0, size - 1)), kernel(at - source))
    return weights / weights.sum(axis=1, keepdims=True)
