"""A rough mask, or a box, as one more picture beside the image: how far each pixel lies inside or outside of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

REACH_PX = 8.0
"""Of the network's pixels: from here on inwards the picture is 1, outwards 0."""


def rough_picture(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What a network sees of a rough mask: 0.5 on its border, 1 from ``REACH_PX`` inside on, 0 as far outside.

    A bare mask would tell a convolution nothing but a few pixels around the border; the distance tells each pixel of
    the band in which a hurried border errs where that border runs.

    Args:
        mask: ``(H, W)`` bool at the size the network sees.

    Returns:
        ``(H, W)`` float32, 0..1.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.all() or not mask.any():
        return mask.astype(np.float32)
    height = np.where(mask, ndimage.distance_transform_edt(mask) - 0.5, 0.5 - ndimage.distance_transform_edt(~mask))
    return np.clip(0.5 + height / (2 * REACH_PX), 0, 1).astype(np.float32)


def box_picture(box_xyxy: tuple[float, float, float, float], shape: tuple[int, int]) -> NDArray[np.float32]:
    """What a network sees where no more than a box is known: 0.5 in the box, for nothing is known of it, 0 outside.

    Args:
        box_xyxy: In pixels, corners between pixels as ends of ranges are; it may reach beyond the picture.
        shape: Height and width of the picture.

    Returns:
        ``(H, W)`` float32: 0.5 where the middle of a pixel lies in the box.
    """
    x0, y0, x1, y1 = box_xyxy
    rows, columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    inside = np.outer((rows >= y0) & (rows <= y1), (columns >= x0) & (columns <= x1))
    return np.where(inside, np.float32(0.5), np.float32(0))
