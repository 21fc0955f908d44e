"""Soft mattes between annotated slices: the signed distance to every alpha level is interpolated.

A hard mask is the level set of its signed distance; interpolating that distance moves the border smoothly from one
slice to the next. A soft edge is kept by doing so for a few levels of alpha and reading alpha back between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.trimap import box_of, grown_box

LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
"""Alpha levels whose borders are followed; between them alpha runs linearly with the distance."""

_WORTH_MOVING = 0.1  # gain in overlap


def interpolate(
    alpha_a: NDArray[np.float32],
    z_a: float,
    alpha_b: NDArray[np.float32],
    z_b: float,
    z: float,
    spacing_yx: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """The matte of a slice between two others.

    Args:
        alpha_a, alpha_b: ``(H, W)`` float32, 0..1.
        z_a, z_b: Where they lie: slice numbers or mm, ``z_a != z_b``.
        z: Where the wanted slice lies; at or beyond an end the end's matte comes back as it is.
        spacing_yx: Pixel size in mm; None = square pixels.

    Returns:
        ``(H, W)`` float32, 0..1. An empty matte makes the other one shrink towards its deepest place.
    """
    share = (z - z_a) / (z_b - z_a)
    if share <= 0.0:
        return np.array(alpha_a, dtype=np.float32)
    if share >= 1.0:
        return np.array(alpha_b, dtype=np.float32)
    return _Pair(alpha_a, alpha_b, spacing_yx).at(share)


def interpolate_between(
    keys: Mapping[int, NDArray[np.float32]], spacing_yx: tuple[float, float] | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The mattes of all slices between the annotated ones, in order; the annotated ones themselves are left out.

    Args:
        keys: Slice number to ``(H, W)`` float32 alpha; two slices at least, else nothing comes.
        spacing_yx: Pixel size in mm; None = square pixels.

    Yields:
        ``(z, alpha)``, one slice at a time.
    """
    numbers = sorted(keys)
    for z_a, z_b in pairwise(numbers):
        if z_b - z_a < 2:
            continue
        pair = _Pair(keys[z_a], keys[z_b], spacing_yx)
        for z in range(z_a + 1, z_b):
            yield z, pair.at((z - z_a) / (z_b - z_a))


class _Pair:
    """Two annotated slices, measured once for all slices between them."""

    def __init__(
        self, alpha_a: NDArray[np.float32], alpha_b: NDArray[np.float32], spacing_yx: tuple[float, float] | None
    ) -> None:
        self._shape = alpha_a.shape
        self._same = np.array(alpha_a, dtype=np.float32) if np.array_equal(alpha_a, alpha_b) else None
        self._box = box_of((alpha_a > 0.0) | (alpha_b > 0.0))
        if self._box is None or self._same is not None:
            return
        x0, y0, x1, y1 = self._box = grown_box(self._box, 2, alpha_a.shape)
        a = np.asarray(alpha_a[y0:y1, x0:x1], dtype=np.float32)
        b = np.asarray(alpha_b[y0:y1, x0:x1], dtype=np.float32)
        self._peaks = float(a.max()), float(b.max())
        self._a = _signed_distances(a, spacing_yx)
        self._b = _signed_distances(b, spacing_yx)
        self._way = _way_between(a, b)

    def at(self, share: float) -> NDArray[np.float32]:
        """``(H, W)`` float32, alpha at ``share`` of the way from the first slice to the second."""
        if self._same is not None:
            return self._same.copy()
        result = np.zeros(self._shape, dtype=np.float32)
        if self._box is None:
            return result
        peak_a, peak_b = self._peaks
        mixed: list[NDArray[np.float32]] = []
        for index, (one, two) in enumerate(zip(self._a or self._b, self._b or self._a, strict=True)):
            if index and one is (self._a or self._b)[index - 1] and two is (self._b or self._a)[index - 1]:
                mixed.append(mixed[-1])
                continue
            if not self._a:  # it grows out of its own deepest place
                mixed.append(two - (1.0 - share) * max(float(two.max()), 0.0))
            elif not self._b:
                mixed.append(one - share * max(float(one.max()), 0.0))
            else:
                moved_one, moved_two = _moved(one, self._way, share), _moved(two, self._way, share - 1.0)
                mixed.append(((1.0 - share) * moved_one + share * moved_two).astype(np.float32))
        peak = (1.0 - share) * peak_a + share * peak_b if peak_a > 0.0 and peak_b > 0.0 else max(peak_a, peak_b)
        x0, y0, x1, y1 = self._box
        result[y0:y1, x0:x1] = peak * _alpha_of(mixed)
        return result


def _alpha_of(distances: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Alpha 0..1 whose borders at ``LEVELS`` have these signed distances; linear in between."""
    alpha = np.zeros(distances[0].shape, dtype=np.float32)
    for index, level in enumerate(LEVELS):
        inside = distances[index] >= 0.0
        if index + 1 == len(LEVELS):
            alpha[inside] = 1.0
            break
        outer, inner = distances[index][inside], distances[index + 1][inside]
        way = outer / np.maximum(outer - inner, 1e-6)
        alpha[inside] = level + (LEVELS[index + 1] - level) * np.clip(way, 0.0, 1.0)
    return alpha


def _signed_distances(alpha: NDArray[np.float32], spacing_yx: tuple[float, float] | None) -> list[NDArray[np.float32]]:
    """Distance to each border of ``LEVELS``, counted from the peak; empty for an empty matte.

    Levels with the same border, as in a hard mask, share one array.
    """
    peak = float(alpha.max())
    found: list[NDArray[np.float32]] = []
    before: NDArray[np.bool_] | None = None
    for level in LEVELS if peak > 0.0 else ():
        mask = alpha >= level * peak
        if before is None or not np.array_equal(mask, before):
            found.append(_signed_distance(mask, spacing_yx))
            before = mask
        else:
            found.append(found[-1])
    return found


def _signed_distance(mask: NDArray[np.bool_], spacing_yx: tuple[float, float] | None) -> NDArray[np.float32]:
    """Distance to the border, positive inside; the border runs half a pixel from the centres beside it."""
    from scipy import ndimage  # at use: the window paints before scipy is loaded

    half = 0.5 * (min(spacing_yx) if spacing_yx is not None else 1.0)
    if mask.all():  # there is no border in the picture: everything is deep inside
        return np.full(mask.shape, 4.0 * max(mask.shape) * half, dtype=np.float32)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_yx)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_yx)
    return np.where(mask, inside - half, half - outside).astype(np.float32)


def _way_between(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    """How far ``(y, x)`` px the matte moves from one slice to the other; zero when moving it fits no better.

    Without it a thing that runs aslant through the slices would vanish half way.
    """
    total_a, total_b = float(a.sum()), float(b.sum())
    if total_a == 0.0 or total_b == 0.0:
        return 0.0, 0.0
    rows, cols = np.arange(a.shape[0]), np.arange(a.shape[1])
    way = (
        float(rows @ b.sum(1)) / total_b - float(rows @ a.sum(1)) / total_a,
        float(cols @ b.sum(0)) / total_b - float(cols @ a.sum(0)) / total_a,
    )
    in_place = 2.0 * float(np.minimum(a, b).sum()) / (total_a + total_b)
    moved = 2.0 * float(np.minimum(_moved(a, way, 1.0, outside=0.0), b).sum()) / (total_a + total_b)
    return way if moved > in_place + _WORTH_MOVING else (0.0, 0.0)


def _moved(
    array: NDArray[np.float32], way: tuple[float, float], share: float, outside: float | None = None
) -> NDArray[np.float32]:
    """The array shifted by ``share`` of ``way``; ``outside`` comes in, or the edge is repeated."""
    from scipy import ndimage  # at use: the window paints before scipy is loaded

    if way == (0.0, 0.0):
        return array
    by = (way[0] * share, way[1] * share)
    mode = "nearest" if outside is None else "constant"
    return np.asarray(ndimage.shift(array, by, order=1, mode=mode, cval=outside or 0.0), dtype=np.float32)
