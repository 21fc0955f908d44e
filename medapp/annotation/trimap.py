"""Mask -> trimap: surely inside, surely outside, and an unknown band between, measured in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""``x0, y0, x1, y1`` in pixels, the upper ends exclusive."""

_MOST_OF_DEPTH = 0.75  # thin parts keep a sure middle; without one nothing says what the thing looks like


@dataclass(frozen=True)
class TrimapBand:
    """How wide the unknown band is.

    Attributes:
        inside_mm: From the border inwards; pixels instead where the spacing is not known.
        outside_mm: From the border outwards.
        least_px: Either side is at least this many pixels wide, measured along the finer axis.
        most_of_box: Either side is at most this share of the shorter side of the mask's box, but never under
            ``least_px``.
    """

    inside_mm: float = 1.0
    outside_mm: float = 1.5
    least_px: float = 2.0
    most_of_box: float = 0.12

    def widths_px(self, spacing_yx: tuple[float, float] | None, box: Box) -> tuple[float, float]:
        """Inside and outside width in units of the finer pixel side."""
        fine = min(spacing_yx) if spacing_yx is not None else 1.0
        y, x = (s / fine for s in spacing_yx) if spacing_yx is not None else (1.0, 1.0)
        side = min((box[2] - box[0]) * x, (box[3] - box[1]) * y)
        most = max(self.least_px, float(np.floor(self.most_of_box * side)))
        inside = float(np.clip(self.inside_mm / fine, self.least_px, most))
        outside = float(np.clip(self.outside_mm / fine, self.least_px, most))
        return inside, outside


def trimap_from_mask(
    mask: NDArray[np.bool_],
    spacing_yx: tuple[float, float] | None = None,
    band: TrimapBand = TrimapBand(),
    locked: NDArray[np.bool_] | None = None,
    alpha: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Put an unknown band around the border of a mask.

    Distances are Euclidean in millimetres, so pixels that are not square give a band of even width in the patient.

    Args:
        mask: ``(H, W)`` bool.
        spacing_yx: Pixel size in mm; None = measure in pixels.
        band: Widths.
        locked: ``(H, W)`` bool; these pixels are never unknown.
        alpha: ``(H, W)`` 0..1, what locked pixels hold now; they become 1 where it is at least 0.5, else 0. None = the
            mask decides.

    Returns:
        ``(H, W)`` float32 with exactly the values 0, 0.5 and 1. The border of the picture is no border of the mask.
    """
    mask = np.asarray(mask, dtype=bool)
    trimap = mask.astype(np.float32)
    box = box_of(mask)
    if box is None:
        return trimap
    inside_px, outside_px = band.widths_px(spacing_yx, box)
    fine = min(spacing_yx) if spacing_yx is not None else 1.0
    sampling = (spacing_yx[0] / fine, spacing_yx[1] / fine) if spacing_yx is not None else (1.0, 1.0)
    x0, y0, x1, y1 = grown_box(box, int(np.ceil(outside_px)) + 1, mask.shape)
    crop = mask[y0:y1, x0:x1]
    unknown = _within(crop, inside_px, sampling, _MOST_OF_DEPTH) | _within(~crop, outside_px, sampling)
    trimap[y0:y1, x0:x1][unknown] = 0.5
    if locked is not None:
        known = mask if alpha is None else np.asarray(alpha) >= 0.5
        trimap[locked] = known[locked]
    return trimap


def trimap_from_alpha(alpha: NDArray[np.float32], low: float = 0.02, high: float = 0.98) -> NDArray[np.float32]:
    """The trimap of an existing matte: soft pixels are unknown, the rest stays.

    Args:
        alpha: ``(H, W)`` float 0..1.
        low, high: At or under ``low`` counts as outside, at or over ``high`` as inside.

    Returns:
        ``(H, W)`` float32 with exactly the values 0, 0.5 and 1.
    """
    trimap = np.full(alpha.shape, 0.5, dtype=np.float32)
    trimap[alpha <= low] = 0.0
    trimap[alpha >= high] = 1.0
    return trimap


def widened(
    trimap: NDArray[np.float32], unknown: NDArray[np.bool_], locked: NDArray[np.bool_] | None = None
) -> NDArray:
    """The trimap with more pixels unknown: from the unknown brush, reader disagreement or an uncertainty map.

    Args:
        trimap: ``(H, W)`` of 0, 0.5, 1; not changed.
        unknown: ``(H, W)`` bool, pixels to add to the band.
        locked: ``(H, W)`` bool, pixels that stay as they are.

    Returns:
        ``(H, W)`` float32, a copy.
    """
    result = trimap.astype(np.float32, copy=True)
    result[unknown if locked is None else unknown & ~locked] = 0.5
    return result


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box around the True pixels; None when there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    cols = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def grown_box(box: Box, by: int, shape: tuple[int, ...]) -> Box:
    """The box with a margin, cut at the picture of ``shape`` ``(H, W, ...)``."""
    x0, y0, x1, y1 = box
    return max(0, x0 - by), max(0, y0 - by), min(shape[1], x1 + by), min(shape[0], y1 + by)


def _within(
    mask: NDArray[np.bool_], width: float, sampling: tuple[float, float], most: float = 1.0
) -> NDArray[np.bool_]:
    """Pixels of the mask closer to its border than ``width`` and than ``most`` of the way in; the border runs between
    two pixels, and each connected part has its own way in."""
    from scipy import ndimage  # at use: the window paints before scipy is loaded

    if mask.all() or not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    # The transform measures to the centre of the next outside pixel, half a pixel beyond the border.
    distance = ndimage.distance_transform_edt(mask, sampling=sampling) - 0.5 * min(sampling)
    near = mask & (distance <= width + 1e-6)
    if most < 1.0:
        parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
        if count == 1:
            near &= distance < most * distance.max()
        else:
            deepest = np.concatenate([[0.0], ndimage.maximum(distance, parts, np.arange(1, count + 1))])
            near &= distance < most * deepest[parts]
    return near
