"""Turbo, the colour map of depths: near is warm, far is cold; every step in depth can be told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RED = (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943)
_GREEN = (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604)
_BLUE = (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973)
UNKNOWN_RGB = (64, 64, 64)
_FAR_END, _NEAR_END = 0.06, 0.96  # the very ends of turbo are nearly black and read as shadow


def turbo(share: NDArray) -> NDArray[np.uint8]:
    """``(...)`` of 0..1 to ``(..., 3)`` uint8; values outside are clipped, what is not finite is dark grey.

    Reference:
        Mikhailov, "Turbo, An Improved Rainbow Colormap for Visualization", Google AI Blog 2019; the polynomial of
        degree five published with it.
    """
    known = np.isfinite(share)
    x = np.clip(np.where(known, share, 0.0), 0.0, 1.0).astype(np.float64)
    channels = [np.polynomial.polynomial.polyval(x, row) for row in (_RED, _GREEN, _BLUE)]
    colours = np.rint(np.clip(np.stack(channels, axis=-1), 0, 1) * 255).astype(np.uint8)
    colours[~known] = UNKNOWN_RGB
    return colours


def depth_colours(values_mm: NDArray, low_mm: float, high_mm: float) -> NDArray[np.uint8]:
    """Depths as colours: ``low_mm`` red (near), ``high_mm`` blue (far); 0 and NaN are unknown."""
    known = np.isfinite(values_mm) & (values_mm > 0)
    share = np.clip((values_mm - low_mm) / max(high_mm - low_mm, 1e-6), 0, 1)
    return turbo(np.where(known, _FAR_END + (_NEAR_END - _FAR_END) * (1 - share), np.nan))


def sigma_colours(values_mm: NDArray, high_mm: float) -> NDArray[np.uint8]:
    """Uncertainty as a one-hue ramp: dark where sure, bright orange at ``high_mm`` and above."""
    known = np.isfinite(values_mm)
    share = np.clip(np.where(known, values_mm, 0) / max(high_mm, 1e-6), 0, 1)[..., None]
    dark, bright = np.array([30.0, 27.0, 24.0]), np.array([255.0, 176.0, 66.0])
    return np.rint(dark + (bright - dark) * share**0.8).astype(np.uint8)


def spread(values_mm: NDArray) -> tuple[float, float]:
    """The depths between which nearly all lie: 1st and 99th percentile of the known ones; (0, 1) without any."""
    known = values_mm[np.isfinite(values_mm) & (values_mm > 0)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known, (1, 99)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
