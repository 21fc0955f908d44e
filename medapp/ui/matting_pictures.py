"""Small pictures of what a matting model proposes: each mask over its crop, the alpha on black."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QColor

from medapp.scan.scan import Scan, Window
from medapp.ui.canvas.plane import Plane

LARGEST_PX = 128
_DIMMED = 0.4
_TINT = 0.4


def crop_grey(
    scan: Scan, axis: int, index: int, box_xyxy: tuple[int, int, int, int], window: Window
) -> NDArray[np.float32]:
    """``(h, w)`` of a crop of a raw slice as the window shows it, 0..1; colours as luminance."""
    left, top, right, bottom = box_xyxy
    raw = scan.stored[(slice(None),) * axis + (index,)][top:bottom, left:right]
    if scan.is_colour:
        top_value = float(np.iinfo(raw.dtype).max) if np.issubdtype(raw.dtype, np.integer) else 1.0
        return (raw @ np.array([0.299, 0.587, 0.114]) / top_value).astype(np.float32)
    values = np.nan_to_num(raw.astype(np.float32) * np.float32(scan.slope) + np.float32(scan.intercept))
    low = window.center - window.width / 2
    return np.clip((values - np.float32(low)) / np.float32(max(window.width, 1e-6)), 0, 1)


def thumbnails(
    grey: NDArray[np.float32],
    masks: Sequence[NDArray[np.float32]],
    alpha: NDArray[np.float32],
    plane: Plane,
    colour: str,
) -> tuple[NDArray[np.uint8], ...]:
    """One ``(h, w, 3)`` picture a mask, then one of the alpha, in display orientation.

    Args:
        grey: ``(h, w)`` of the crop, 0..1.
        masks: ``(h, w)`` probabilities each.
        alpha: ``(h, w)``.
        plane: How the slice is shown.
        colour: Of the active matte.
    """
    step = max(1, -(-max(grey.shape) // LARGEST_PX))
    tint = QColor(colour)
    hue = np.array([tint.red(), tint.green(), tint.blue()], dtype=np.float32)
    shown = np.ascontiguousarray(plane.shown(grey[::step, ::step]))[..., None] * np.float32(255)
    made = []
    for mask in masks:
        inside = plane.shown(mask[::step, ::step] > 0.5)[..., None]
        made.append(np.where(inside, (1 - _TINT) * shown + _TINT * hue, _DIMMED * shown))
    made.append(shown * plane.shown(alpha[::step, ::step])[..., None] + np.zeros(3, dtype=np.float32))
    return tuple(np.ascontiguousarray(picture.astype(np.uint8)) for picture in made)
