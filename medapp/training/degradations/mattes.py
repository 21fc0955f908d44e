"""What a hurried person draws instead of the true border: disturbed masks, trimaps of them, clicks and boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.annotation.trimap import Box, TrimapBand, box_of, grown_box, trimap_from_mask

DISTURBANCE_PX = (2.0, 6.0)
"""Largest displacement of the border that evaluation and training draw from."""
_MOST_OF_DEPTH = 0.6  # no part loses its middle, however thin it is
_NOT_IN_THE_MIDDLE = 0.5  # clicks land at least this share of the way in


def disturbed_mask(mask: NDArray[np.bool_], px: float, seed: int) -> NDArray[np.bool_]:
    """The mask with its border moved: grown or shrunk, shifted, and wavy, by ``px`` where it is moved most.

    The displacement along the outward normal is ``grow + shift . normal + wave``, with a constant, a vector and a
    smooth random field drawn from the seed, scaled together so that its largest size on the border is ``px``. No place
    loses more than 60 % of its depth, so thin parts do not vanish.

    Args:
        mask: ``(H, W)`` bool; not changed.
        px: Largest displacement, 2 to 6 in evaluation; 0 gives the mask back.
        seed: The same mask, displacement and seed give the same result.

    Returns:
        ``(H, W)`` bool; empty only when the mask is.

    Raises:
        ValueError: ``px`` is negative.
    """
    if px < 0:
        raise ValueError(f"px must not be negative, not {px}")
    mask = np.asarray(mask, dtype=bool)
    box = box_of(mask)
    if box is None or px == 0:
        return mask.copy()
    # beyond the picture the thing goes on as it does at its edge: that edge is no border
    by = int(np.ceil(px)) + 2
    padded = np.pad(mask, by, mode="edge")
    x0, y0, x1, y1 = grown_box((box[0] + by, box[1] + by, box[2] + by, box[3] + by), 2 * by, padded.shape)
    crop = padded[y0:y1, x0:x1]
    if crop.all():
        return mask.copy()
    moved = _moved(crop, px, np.random.default_rng([seed, 0x6D617474]))
    result = padded.copy()
    result[y0:y1, x0:x1] = moved
    result = result[by:-by, by:-by]
    return result if result.any() else mask.copy()


def _moved(mask: NDArray[np.bool_], px: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Move the border of a mask that is neither empty nor full."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    height = np.where(mask, inside - 0.5, 0.5 - outside)  # 0 on the border, which runs between two pixels
    smooth = ndimage.gaussian_filter(height, 1.5)
    slopes = np.stack(np.gradient(smooth))
    normal = -slopes / np.maximum(np.hypot(*slopes), 1e-6)
    length_px = float(np.clip(0.15 * np.sqrt(mask.sum()), 3.0, 40.0))
    wave = ndimage.gaussian_filter(random.standard_normal(mask.shape), length_px, mode="reflect")
    border = np.abs(height) < 1.0
    wave *= random.uniform(0.5, 1.0) / max(float(np.abs(wave[border]).max()), 1e-12)
    turn, length = random.uniform(0, 2 * np.pi), random.uniform(0.0, 1.0)
    displacement = random.uniform(-1, 1) + wave
    displacement += length * (np.sin(turn) * normal[0] + np.cos(turn) * normal[1])
    displacement *= px / max(float(np.abs(displacement[border]).max()), 1e-12)
    displacement = np.clip(displacement, -px, px)  # away from the border the wave may be higher
    deepest = ndimage.maximum_filter(height, size=4 * int(np.ceil(px)) + 1)  # how thick the thing is around here
    return np.asarray(height + np.maximum(displacement, -_MOST_OF_DEPTH * np.maximum(deepest, 0.0)) > 0)


def disturbed_trimap(
    mask: NDArray[np.bool_], px: float, seed: int, band_px: float | None = None
) -> NDArray[np.float32]:
    """The trimap that a disturbed mask leads to: unknown on both sides of its border.

    Args:
        mask: ``(H, W)`` bool, the true mask (alpha of at least 0.5).
        px: Largest displacement of the border.
        seed: As in ``disturbed_mask``.
        band_px: Width of the unknown band on either side; None = ``px + 2``, so that the true border and two pixels of
            softness lie in it almost everywhere.

    Returns:
        ``(H, W)`` float32 of exactly 0, 0.5 and 1; thin parts keep a known middle.
    """
    width = px + 2.0 if band_px is None else band_px
    band = TrimapBand(inside_mm=width, outside_mm=width, least_px=width)
    return trimap_from_mask(disturbed_mask(mask, px, seed), band=band)


def click_inside(mask: NDArray[np.bool_], seed: int) -> tuple[int, int]:
    """Where a person clicks to say *this one*: at random, but well inside of the thing.

    Args:
        mask: ``(H, W)`` bool, not empty.
        seed: Of the draw.

    Returns:
        ``(x, y)`` of a pixel that is at least half as deep inside as the deepest one.

    Raises:
        ValueError: The mask is empty.
    """
    mask = np.asarray(mask, dtype=bool)
    if not mask.any():
        raise ValueError("an empty mask has no inside")
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return _one_of(depth >= _NOT_IN_THE_MIDDLE * depth.max(), np.random.default_rng([seed, 0x636C6963]))


def click_outside(mask: NDArray[np.bool_], seed: int, within_px: float = 20.0) -> tuple[int, int] | None:
    """Where a person clicks to say *not this*: outside but near, a few pixels off the border.

    Returns:
        ``(x, y)``, or None when there is nothing outside.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.all():
        return None
    distance = ndimage.distance_transform_edt(~mask) if mask.any() else np.ones(mask.shape)
    near = (distance >= 3.0) & (distance <= within_px)
    return _one_of(near if near.any() else ~mask, np.random.default_rng([seed, 0x6F757473]))


def disturbed_box(mask: NDArray[np.bool_], seed: int, slack: float = 0.1) -> Box:
    """The box that a person drags around a thing: each side off by up to ``slack`` of the box, mostly too far out.

    Args:
        mask: ``(H, W)`` bool, not empty.
        seed: Of the draw.
        slack: Largest distance outwards as a share of the box's side; a fifth of it inwards.

    Returns:
        ``x0, y0, x1, y1`` in pixels within the picture, the upper ends exclusive.

    Raises:
        ValueError: The mask is empty.
    """
    box = box_of(np.asarray(mask, dtype=bool))
    if box is None:
        raise ValueError("an empty mask has no box")
    random = np.random.default_rng([seed, 0x626F78])
    x0, y0, x1, y1 = box
    left, right = np.rint(random.uniform(-0.2 * slack, slack, 2) * (x1 - x0)).astype(int).tolist()
    top, bottom = np.rint(random.uniform(-0.2 * slack, slack, 2) * (y1 - y0)).astype(int).tolist()
    height, width = mask.shape
    x0, y0 = min(max(0, x0 - left), x1 - 1), min(max(0, y0 - top), y1 - 1)
    return x0, y0, max(x0 + 1, min(width, x1 + right)), max(y0 + 1, min(height, y1 + bottom))


def _one_of(candidates: NDArray[np.bool_], random: np.random.Generator) -> tuple[int, int]:
    places = np.argwhere(candidates)
    y, x = places[int(random.integers(len(places)))]
    return int(x), int(y)
