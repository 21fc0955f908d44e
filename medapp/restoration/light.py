"""The light of a coarse picture, and how an enlarged one is made to send it.

A lens of less magnification spreads light, and coarse pixels collect it: neither adds any nor takes any away. So the
mean light around a place is known, whatever detail a network draws there. Light is not grey levels: these follow a
curve, and the same light spread unevenly gives a darker mean of them. A network draws less texture than there was, and
texture that is not drawn sends light of its own; how much of it there is can only be estimated from the coarse picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.scan.finer import FinerGrid

RADIUS_PX = 24.0
"""Of the Gaussian around a place over which light is balanced, in pixels of the enlarged picture."""
LOST_TEXTURE: Mapping[int, float] = {2: 1.0, 4: 3.0}
"""By factor: the variance of texture that is not drawn, over that of the coarse picture's own finest detail. Both
numbers and the radius were tuned with the two shipped networks on 82 pictures of training slides, for the smallest
shift of a colour without a loss of PSNR; other factors count on no such texture."""
_FINEST = 0.6
"""Coarse pixels: what a Gaussian of this width takes away is the finest detail."""
_LEAST_SLOPE = 1e-5
_ROWS = 64
"""Coarse rows whose fine pixels are looked at together, so that large pictures need little more memory."""


def keep_light(restored: NDArray[np.float32], given: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """An enlarged picture whose colours send as much light around every place as the picture it was made of.

    What is missing or too much, smoothed over ``RADIUS_PX``, is added as a slowly changing number of grey levels.

    Args:
        restored: ``(h * factor, w * factor, 3)`` in grey levels 0..255, stored with the sRGB curve.
        given: ``(h, w, 3)`` likewise. Where it is not finite nothing counts and nothing changes.
        factor: Of ``FinerGrid``; each given pixel was divided.

    Returns:
        Shaped as ``restored``; values may pass the ends of the range.
    """
    is_known = np.isfinite(given)
    whole = np.where(is_known, given, 0).astype(np.float32)
    made, slope = (np.empty_like(whole) for _ in range(2))
    for first in range(0, whole.shape[0], _ROWS):
        rows = slice(first, first + _ROWS)
        fine = np.nan_to_num(restored[first * factor : (first + _ROWS) * factor])
        made[rows] = _area_mean(to_light(fine), factor)
        slope[rows] = _area_mean(_slope(fine), factor)
    # the finest detail counts at the level around it, where the curve bends
    finest = np.square(np.where(is_known, whole - _smooth(whole, _FINEST), 0))
    missing = to_light(whole) - made - np.float32(0.5 * LOST_TEXTURE.get(factor, 0.0)) * _bend(whole) * finest
    radius = RADIUS_PX / factor
    shift = _smooth(np.where(is_known, missing, 0), radius) / np.maximum(
        _smooth(np.where(is_known, slope, 0), radius), _LEAST_SLOPE
    )
    grid = FinerGrid(factor, keeps_centres=False)
    added = np.where(grid.nearest(is_known), grid.linear(shift), np.float32(0))
    return (restored + added).astype(np.float32)


def to_light(stored: NDArray) -> NDArray[np.float32]:
    """Stored colours 0..255 to linear light 0..1 (sRGB, IEC 61966-2-1)."""
    share = np.clip(np.asarray(stored, np.float32) / 255, 0, 1)
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_stored(light: NDArray) -> NDArray[np.float32]:
    """The way back; light outside of 0..1 is clipped."""
    light = np.clip(light, 0, 1)
    return (255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(np.float32)


def _slope(stored: NDArray) -> NDArray[np.float32]:
    """Light a grey level: the first derivative of ``to_light``."""
    share = np.clip(np.asarray(stored, np.float32) / 255, 0, 1)
    curved = 2.4 / 1.055 * ((share + 0.055) / 1.055) ** 1.4
    return (np.where(share <= 0.04045, 1 / 12.92, curved) / 255).astype(np.float32)


def _bend(stored: NDArray) -> NDArray[np.float32]:
    """The second derivative of ``to_light``."""
    share = np.clip(np.asarray(stored, np.float32) / 255, 0, 1)
    curved = 2.4 * 1.4 / 1.055**2 * ((share + 0.055) / 1.055) ** 0.4
    return (np.where(share <= 0.04045, 0, curved) / 255**2).astype(np.float32)


def _area_mean(fine: NDArray[np.float32], factor: int) -> Any:
    height, width = (side // factor for side in fine.shape[:2])
    return fine.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))


def _smooth(values: NDArray[np.float32], sigma: float) -> Any:
    return ndimage.gaussian_filter(values, (sigma, sigma, 0), mode="nearest")
