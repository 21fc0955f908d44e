"""The shape of one dab: radius, hardness, falloff, depth, edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PlanePoint = tuple[float, float]
Spacing = tuple[float, float, float]
PLANE_AXES = {0: (1, 2), 1: (0, 2), 2: (0, 1)}  # rows and columns of the plane perpendicular to each axis


@dataclass(frozen=True)
class BrushSettings:
    """What a brush does.

    Attributes:
        radius_px: Reach in pixels of the plane's finer direction; used when ``radius_mm`` is None.
        radius_mm: Reach in millimetres; needs a known spacing.
        hardness: 0 = soft from the centre, 1 = full up to the rim.
        flow: Share of the gap that one dab closes.
        opacity: What a whole stroke reaches at most.
        value: Alpha that is painted: 1 adds, 0 erases.
        spacing: Distance of dabs as a share of the diameter; at most 0.15.
        depth_mm: Reach across slices; 0 = this slice only.
        edge_aware: Falloff stops at edges of the image.
        edge_strength: 0..1, how small a difference already stops it.
        mode: ``alpha`` paints alpha, ``smooth`` evens it out; ``unknown`` and ``keep`` paint those layers where the
            stroke covers at least half, and clear them when ``value`` is below 0.5.
        smoothing_px: How far ``smooth`` looks around, the Gaussian's sigma.
        marks_keep: Painting alpha also marks the stroke as kept from refining.
        pressure_size, pressure_opacity, pressure_flow: What the pen's pressure drives.
    """

    radius_px: float = 12.0
    radius_mm: float | None = None
    hardness: float = 0.5
    flow: float = 1.0
    opacity: float = 1.0
    value: float = 1.0
    spacing: float = 0.1
    depth_mm: float = 0.0
    edge_aware: bool = False
    edge_strength: float = 0.5
    mode: Literal["alpha", "smooth", "unknown", "keep"] = "alpha"
    smoothing_px: float = 2.0
    marks_keep: bool = False
    pressure_size: bool = False
    pressure_opacity: bool = False
    pressure_flow: bool = False

    def __post_init__(self) -> None:
        for name in ("hardness", "flow", "opacity", "value", "edge_strength"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1")
        if not 0.0 < self.smoothing_px <= 50.0:
            raise ValueError("smoothing must lie above 0 and at most at 50 px")
        if not 0.0 < self.spacing <= 0.15:
            raise ValueError("spacing must lie above 0 and at most at 0.15 of the diameter")
        radius = self.radius_px if self.radius_mm is None else self.radius_mm
        if not 0.0 < radius < 1e5 or not 0.0 <= self.depth_mm < 1e5:
            raise ValueError("radius must be positive, depth must not be negative")


def reach_px(settings: BrushSettings, spacing_mm: Spacing | None, axis: int = 0) -> tuple[float, float]:
    """Half axes ``(rows, columns)`` of a dab in pixels: a circle in millimetres wherever the spacing is known.

    A radius in millimetres without a known spacing counts as pixels; the window says so.
    """
    if spacing_mm is None:
        radius = settings.radius_px if settings.radius_mm is None else settings.radius_mm
        return radius, radius
    rows, columns = (spacing_mm[a] for a in PLANE_AXES[axis])
    radius_mm = settings.radius_mm if settings.radius_mm is not None else settings.radius_px * min(rows, columns)
    return radius_mm / rows, radius_mm / columns


def half_effect(hardness: float) -> float:
    """Where a dab has half its effect, as a share of its reach; the solid cursor ring."""
    return (1.0 + hardness) / 2.0


def depth_offsets(settings: BrushSettings, spacing_mm: Spacing | None, axis: int) -> tuple[tuple[int, float], ...]:
    """Slices that a dab reaches: ``(offset, distance as a share of the depth reach)``, this slice first.

    Half a slice is added to the depth, so that a slice whose centre lies just at the depth still takes some paint.
    """
    if settings.depth_mm <= 0 or spacing_mm is None:
        return ((0, 0.0),)
    step = spacing_mm[axis]
    reach = settings.depth_mm + step / 2
    found = [(0, 0.0)]
    offset = 1
    while offset * step < reach:
        found += [(offset, offset * step / reach), (-offset, offset * step / reach)]
        offset += 1
    return tuple(found)


def dab(
    reach: tuple[float, float], hardness: float, shift: tuple[float, float], depth: float = 0.0
) -> NDArray[np.float32] | None:
    """Coverage of one dab, ``(2 a + 1, 2 b + 1)`` float32 0..1; None when it does not reach this depth.

    Full inside ``hardness`` of the reach, then a smooth step down to zero at the reach; the step is never narrower
    than a pixel, so that hard rims stay smooth.

    Args:
        reach: Half axes in pixels, rows and columns.
        shift: Centre relative to the middle pixel, in pixels, within half a pixel.
        depth: Distance of the slice as a share of the depth reach.
    """
    a, b = (int(np.ceil(r + 0.5)) for r in reach)
    pixel = 1.0 / max(min(reach), 0.5)
    inner = min(hardness, 1.0 - pixel / 2)
    outer = max(1.0, inner + pixel)
    inner = max(inner, 0.0)
    if depth >= outer:
        return None
    rows = ((np.arange(-a, a + 1, dtype=np.float32) - np.float32(shift[0])) / np.float32(reach[0])) ** 2
    columns = ((np.arange(-b, b + 1, dtype=np.float32) - np.float32(shift[1])) / np.float32(reach[1])) ** 2
    away = np.add.outer(rows, columns)
    if depth > 0:
        away += np.float32(depth * depth)
    np.sqrt(away, out=away)
    away -= np.float32(inner)
    away *= np.float32(1.0 / (outer - inner))
    np.clip(away, 0.0, 1.0, out=away)
    # 1 - (3 t^2 - 2 t^3)
    cover = away * np.float32(2.0)
    cover -= np.float32(3.0)
    cover *= away
    cover *= away
    cover += np.float32(1.0)
    return cover


def edge_weight(image: NDArray, centre: tuple[int, int], strength: float) -> NDArray[np.float32]:
    """How much of a dab stays on the near side of image edges, ``(h, w)`` float32 0..1.

    Pixels that resemble the middle of the dab keep their coverage, others lose it; what is only reached across an
    edge is dropped. The scale of "resembles" is the spread inside the box, made smaller by ``strength``.

    Args:
        image: The part of the image under the dab, ``(h, w)`` or ``(h, w, 3)``.
        centre: The dab's middle in it.
        strength: 0..1.
    """
    grey = image.astype(np.float32)
    if grey.ndim == 3:
        grey = grey.mean(axis=2)
    grey = np.nan_to_num(grey)
    row, column = (min(max(c, 0), n - 1) for c, n in zip(centre, grey.shape, strict=True))
    here = float(np.median(grey[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]))
    spread = float(np.std(grey))
    if spread <= 0.0:
        return np.ones(grey.shape, dtype=np.float32)
    sigma = np.float32(spread * (1.6 - 1.45 * strength))
    weight = np.exp(-0.5 * ((grey - np.float32(here)) / sigma) ** 2, dtype=np.float32)
    weight = np.clip(weight * np.float32(1.5) - np.float32(0.35), 0.0, 1.0)
    return weight * _connected(weight > 0, (row, column))


def _connected(mask: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.bool_]:
    """The part of a mask that hangs together with ``start``; thinned to at most 256 pixels a side for speed."""
    from scipy import ndimage  # not before it is needed: importing it takes 0.2 s

    stride = max(1, max(mask.shape) // 256)
    thin = mask[::stride, ::stride]
    labels, _ = ndimage.label(thin)
    mine = labels[min(start[0] // stride, thin.shape[0] - 1), min(start[1] // stride, thin.shape[1] - 1)]
    if mine == 0:
        return np.zeros_like(mask)
    part = labels == mine
    if stride == 1:
        return part
    whole = np.repeat(np.repeat(part, stride, axis=0), stride, axis=1)
    return whole[: mask.shape[0], : mask.shape[1]]
