"""Which frequencies of an MR slice were measured, and how a restoration leaves them as they are.

A scan of low resolution measured only the middle of k-space. Filling the rest with zeros and going back gives the same
image on a finer grid; a network may then add what is outside, and nothing forces it to touch what is inside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def measured_half_widths(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """Largest measured frequency index along rows and columns; symmetric, so that real images stay real.

    Raises:
        ValueError: The factor is below 1, or leaves no frequency but the mean.
    """
    if factor < 1:
        raise ValueError(f"factor must be 1 or more, not {factor}")
    height, width = ((round(size / factor) - 1) // 2 for size in shape)
    if min(height, width) < 1:
        raise ValueError(f"a slice of {shape[1]} x {shape[0]} px is too small for a factor of {factor}")
    return height, width


def is_measured(shape: tuple[int, int], factor: int) -> NDArray[np.bool_]:
    """The measured frequencies in the layout of ``numpy.fft.rfft2``, ``(H, W // 2 + 1)``."""
    half_height, half_width = measured_half_widths(shape, factor)
    rows = np.abs(np.fft.fftfreq(shape[0], 1 / shape[0])) <= half_height + 0.5
    columns = np.arange(shape[1] // 2 + 1) <= half_width
    return rows[:, None] & columns[None, :]


def zero_filled(values: NDArray, factor: int) -> NDArray[np.float32]:
    """The slice as a scan of ``factor`` times lower resolution in both directions shows it on the same grid.

    Args:
        values: ``(Y, X)``.
        factor: 2 keeps the central half of both axes of k-space, a quarter of the samples.

    Returns:
        ``(Y, X)`` float32, with the ringing of a sharp cut; its mean is unchanged.

    Raises:
        ValueError: The slice is too small.
    """
    spectrum = np.fft.rfft2(np.asarray(values, np.float64))
    spectrum[~is_measured(values.shape, factor)] = 0
    return np.fft.irfft2(spectrum, s=values.shape).astype(np.float32)


def keep_measured(restored: NDArray, measured: NDArray, factor: int) -> NDArray[np.float32]:
    """The restored slice with every measured frequency put back.

    Args:
        restored: ``(Y, X)`` from a network.
        measured: ``(Y, X)`` zero-filled image that it was given.
        factor: As in ``zero_filled``.

    Returns:
        ``(Y, X)`` float32; never farther from the truth than ``restored``, since the measured part is exact.
    """
    spectrum = np.fft.rfft2(np.asarray(restored, np.float64))
    inside = is_measured(restored.shape, factor)
    spectrum[inside] = np.fft.rfft2(np.asarray(measured, np.float64))[inside]
    return np.fft.irfft2(spectrum, s=restored.shape).astype(np.float32)


def onto_finer_grid(values: NDArray, factor: int) -> NDArray[np.float32]:
    """A slice on a grid ``factor`` times finer, by zero-filling its k-space: sinc interpolation.

    The first pixel keeps its centre; values at the old centres are unchanged but for the highest frequency of even
    sides, which is halved onto both of its places.

    Args:
        values: ``(Y, X)``.
        factor: 1 or more.

    Returns:
        ``(factor * Y, factor * X)`` float32.
    """
    made = np.asarray(values, np.float64)
    for axis in (0, 1):
        size = made.shape[axis]
        spectrum = np.moveaxis(np.fft.rfft(made, axis=axis), axis, -1)
        if size % 2 == 0 and factor > 1:
            spectrum[..., -1] *= 0.5
        made = np.fft.irfft(np.moveaxis(spectrum, -1, axis), n=size * factor, axis=axis) * factor
    return made.astype(np.float32)
