"""Brush strokes: points in, coverage, a preview that equals the result, patches out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.dabs import (
    PLANE_AXES,
    BrushSettings,
    Spacing,
    dab,
    depth_offsets,
    edge_weight,
    half_effect,
    reach_px,
)
from medapp.annotation.edits import Edit, Stroke, one_edit
from medapp.annotation.fills import fill, invert, smooth
from medapp.annotation.groups import below_locked, lowered
from medapp.annotation.matte import FULL, Layer, Matte, Patch
from medapp.annotation.sparse import TILE, Index
from medapp.errors import UsageError

__all__ = ["BrushSettings", "PlaneBox", "StrokeBuilder", "fill", "half_effect", "invert", "reach_px", "smooth"]

PlanePicture = NDArray | Callable[[int], NDArray | None] | None


class PlaneBox(NamedTuple):
    """A box of pixels of a plane, half open."""

    top: int
    left: int
    bottom: int
    right: int

    def united(self, other: PlaneBox | None) -> PlaneBox:
        """The smallest box around both."""
        if other is None:
            return self
        return PlaneBox(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


class StrokeBuilder:
    """One stroke, from pen down to pen up.

    Coverage ``m`` grows by ``m <- 1 - (1 - m)(1 - flow k)`` per dab and is clipped to the opacity; the layer becomes
    ``alpha + (value - alpha) m``, in the preview and at the end by the same lines of code, so that they are equal bit
    for bit. The matte is not touched: ``finish`` hands out patches for an edit. Coverage lives in tiles that are made
    when a dab first touches them, so a dab costs the same on an image of any size.

    Args:
        matte: The layer that is painted.
        settings: The brush, with the pen's inversion already in ``value``.
        z: Index of the plane along ``axis``.
        axis: 0 paints ``(y, x)``, 1 ``(z, x)``, 2 ``(z, y)``.
        spacing_mm: ``(z, y, x)``, or None when it is not known.
        image_slice: For edge-aware painting: the plane's image, or a function from plane index to image.
        limit_mask: "Only where": float 0..1 or bool plane, or a function from plane index to one.
        others: The other layers of the matte's exclusive group: unlocked ones are lowered, locked ones are kept.

    Raises:
        UsageError: The layer is locked.
    """

    def __init__(
        self,
        matte: Matte,
        settings: BrushSettings,
        z: int,
        axis: int = 0,
        spacing_mm: Spacing | None = None,
        image_slice: PlanePicture = None,
        limit_mask: PlanePicture = None,
        others: Sequence[Matte] = (),
    ) -> None:
        if matte.is_locked:
            raise UsageError("This layer is locked; nothing was painted.", "Unlock it in the layer list, then paint.")
        self.matte, self.settings, self.z, self.axis = matte, settings, int(z), axis
        self._layer: Layer = settings.mode if settings.mode in ("unknown", "keep") else "alpha"
        self._rows, self._columns = (matte.shape_zyx[a] for a in PLANE_AXES[axis])
        self._reach = reach_px(settings, spacing_mm, axis)
        self._offsets = tuple(
            (offset, depth)
            for offset, depth in depth_offsets(settings, spacing_mm, axis)
            if 0 <= self.z + offset < matte.shape_zyx[axis]
        )
        self._value = np.float32(round(settings.value * FULL))
        self._image, self._limit = image_slice, limit_mask
        self._locked = tuple(m for m in others if m.is_locked)
        self._lowered = tuple(m for m in others if not m.is_locked)
        self._cover: dict[tuple[int, int, int], NDArray[np.float32]] = {}  # (offset, tile row, tile column)
        self._dabs: dict[tuple[float, ...], NDArray[np.float32] | None] = {}
        self._last: tuple[float, float, float] | None = None  # column, row, pressure
        self._until_next = 0.0
        self.box: PlaneBox | None = None

    # ------------------------------------------------------------------------------------------------------ painting

    def add_point(self, xy: tuple[float, float], pressure: float = 1.0) -> PlaneBox | None:
        """Paint on to a point of the plane (pixel centres are whole numbers); dabs are spaced along the way.

        Returns:
            The box that may have changed, or None when no dab was due or none met the image.
        """
        x, y, pressure = float(xy[0]), float(xy[1]), min(max(float(pressure), 0.0), 1.0)
        if not (math.isfinite(x) and math.isfinite(y)):
            return None
        if self._last is None:
            self._last = (x, y, pressure)
            self._until_next = self._step(pressure)
            return self._dab_at(x, y, pressure)
        x0, y0, pressure0 = self._last
        length = math.hypot((x - x0) / self._reach[1], (y - y0) / self._reach[0])
        dirty: PlaneBox | None = None
        at = self._until_next
        while at <= length:
            share = at / length if length > 0 else 1.0
            here = pressure0 + (pressure - pressure0) * share
            box = self._dab_at(x0 + (x - x0) * share, y0 + (y - y0) * share, here)
            dirty = box.united(dirty) if box is not None else dirty
            at += self._step(here)
        self._until_next = at - length
        self._last = (x, y, pressure)
        return dirty

    def _step(self, pressure: float) -> float:
        """Distance to the next dab, in units of the reach."""
        return 2.0 * self.settings.spacing * self._size(pressure)

    def _size(self, pressure: float) -> float:
        return max(pressure, 0.05) if self.settings.pressure_size else 1.0

    def _dab_at(self, x: float, y: float, pressure: float) -> PlaneBox | None:
        size = self._size(pressure)
        reach = (self._reach[0] * size, self._reach[1] * size)
        row, row_shift = _snap(y, reach[0])
        column, column_shift = _snap(x, reach[1])
        flow = np.float32(self.settings.flow * (pressure if self.settings.pressure_flow else 1.0))
        ceiling = np.float32(self.settings.opacity * (pressure if self.settings.pressure_opacity else 1.0))
        dirty: PlaneBox | None = None
        for offset, depth in self._offsets:
            key = (round(reach[0], 3), round(reach[1], 3), row_shift, column_shift, depth)
            if key not in self._dabs:
                if len(self._dabs) >= 64:
                    self._dabs.clear()
                self._dabs[key] = dab((key[0], key[1]), self.settings.hardness, (row_shift, column_shift), depth)
            cover = self._dabs[key]
            if cover is None:
                continue
            top, left = row - cover.shape[0] // 2, column - cover.shape[1] // 2
            box = PlaneBox(
                max(top, 0),
                max(left, 0),
                min(top + cover.shape[0], self._rows),
                min(left + cover.shape[1], self._columns),
            )
            if box.top >= box.bottom or box.left >= box.right:
                continue
            part = cover[box.top - top : box.bottom - top, box.left - left : box.right - left]
            self._accumulate(offset, box, self._held_back(part, offset, box, (row, column)), flow, ceiling)
            dirty = box.united(dirty)
        if dirty is not None:
            self.box = dirty.united(self.box)
        return dirty

    def _held_back(
        self, part: NDArray[np.float32], offset: int, box: PlaneBox, centre: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Coverage after image edges and "only where" limits."""
        place = (slice(box.top, box.bottom), slice(box.left, box.right))
        if self.settings.edge_aware:
            image = _picture(self._image, self.z + offset)
            if image is not None:
                middle = (centre[0] - box.top, centre[1] - box.left)
                part = part * edge_weight(image[place], middle, self.settings.edge_strength)
        limit = _picture(self._limit, self.z + offset)
        if limit is not None:
            part = part * limit[place].astype(np.float32)
        return part

    def _accumulate(
        self, offset: int, box: PlaneBox, part: NDArray[np.float32], flow: np.float32, ceiling: np.float32
    ) -> None:
        for key, in_tile, in_box in _tiles(box):
            tile = self._cover.get((offset, *key))
            if tile is None:
                tile = self._cover[(offset, *key)] = np.zeros((TILE, TILE), dtype=np.float32)
            covered = tile[in_tile]
            grown = part[in_box] * flow
            grown *= np.float32(1.0) - covered
            grown += covered
            np.minimum(grown, ceiling, out=grown)
            np.maximum(covered, grown, out=covered)  # lighter pressure never takes coverage away

    # ------------------------------------------------------------------------------------------------------- results

    def preview(self, box: PlaneBox, offset: int = 0) -> NDArray:
        """Stored values of a box as they will be after the stroke, ``(h, w)``: uint16 alpha, or uint8 0/1.

        Args:
            box: In the plane; clipped to nothing smaller, so keep it inside the image.
            offset: Which of the planes that the depth reaches.
        """
        before = self._stored(self.matte, box, offset)
        return self._blend(before, self._coverage(box, offset), box, offset)

    def preview_others(self, box: PlaneBox, offset: int = 0) -> dict[str, NDArray[np.uint16]]:
        """The same for the layers of the exclusive group that are lowered: matte id to stored alpha."""
        if not self._lowered or self._layer != "alpha":
            return {}
        cover = self._coverage(box, offset)
        lowered = self._lower(self.preview(box, offset), cover, box, offset)
        return {matte.matte_id: values for matte, values in zip(self._lowered, lowered, strict=True)}

    def finish(self) -> tuple[Patch, ...] | None:
        """Changed tiles of the painted layer, each cropped to what changed; None when nothing did."""
        return tuple(self._own_patches()) or None

    def finish_edit(self, text: str = "") -> Edit | None:
        """The whole stroke as one undo step, layers of the exclusive group included; None when nothing changed."""
        text = text or self._text()
        own = tuple(self._own_patches())
        strokes = [Stroke(self.matte.matte_id, own, text)] if own else []
        strokes += [
            Stroke(matte.matte_id, tuple(patches), text)
            for matte, patches in zip(self._lowered, self._lowered_patches(), strict=True)
            if patches
        ]
        return one_edit(strokes, text)

    def cancel(self) -> PlaneBox | None:
        """Drop the stroke; returns the box to draw again."""
        self._cover.clear()
        self._last, box, self.box = None, self.box, None
        return box

    def _text(self) -> str:
        erases = self.settings.value < 0.5
        names = {"smooth": "Smooth", "alpha": "Erase" if erases else "Brush stroke"}
        names["unknown"] = "Clear unknown band" if erases else "Paint unknown band"
        names["keep"] = "Clear kept area" if erases else "Keep area"
        return names[self.settings.mode]

    def _own_patches(self) -> Iterator[Patch]:
        for offset, box, cover in self._touched():
            after = self._blend(self._stored(self.matte, box, offset), cover, box, offset)
            patch = self.matte.make_patch(self._layer, *self._to_volume(box, offset, after))
            if patch is not None:
                yield patch
            if self.settings.marks_keep and self._layer == "alpha":
                start, shaped = self._to_volume(box, offset, (cover > 0).astype(np.uint8))
                kept = self.matte.read(start, (shaped.shape[0], shaped.shape[1], shaped.shape[2]), "keep")
                patch = self.matte.make_patch("keep", start, kept | shaped)
                if patch is not None:
                    yield patch

    def _lowered_patches(self) -> list[list[Patch]]:
        found: list[list[Patch]] = [[] for _ in self._lowered]
        if not self._lowered or self._layer != "alpha":
            return found
        for offset, box, cover in self._touched():
            after = self._blend(self._stored(self.matte, box, offset), cover, box, offset)
            for place, values in enumerate(self._lower(after, cover, box, offset)):
                patch = self._lowered[place].make_patch("alpha", *self._to_volume(box, offset, values))
                if patch is not None:
                    found[place].append(patch)
        return found

    def _touched(self) -> Iterator[tuple[int, PlaneBox, NDArray[np.float32]]]:
        """Every tile with coverage: depth offset, its box inside the image, its coverage."""
        for (offset, tile_row, tile_column), tile in sorted(self._cover.items()):
            top, left = tile_row * TILE, tile_column * TILE
            box = PlaneBox(top, left, min(top + TILE, self._rows), min(left + TILE, self._columns))
            yield offset, box, tile[: box.bottom - top, : box.right - left]

    def _coverage(self, box: PlaneBox, offset: int) -> NDArray[np.float32]:
        cover = np.zeros((box.bottom - box.top, box.right - box.left), dtype=np.float32)
        for key, in_tile, in_box in _tiles(box):
            tile = self._cover.get((offset, *key))
            if tile is not None:
                cover[in_box] = tile[in_tile]
        return cover

    def _blend(self, before: NDArray, cover: NDArray[np.float32], box: PlaneBox, offset: int) -> NDArray:
        """The rule itself, for preview and result alike."""
        if self._layer != "alpha":
            return np.where(cover >= 0.5, np.uint8(self.settings.value >= 0.5), before)
        alpha = before.astype(np.float32)
        target = self._evened(box, offset) if self.settings.mode == "smooth" else self._value
        alpha += (target - alpha) * cover
        after = np.rint(alpha).astype(np.uint16)
        return below_locked(after, cover > 0, [self._stored(m, box, offset) for m in self._locked])

    def _evened(self, box: PlaneBox, offset: int) -> NDArray[np.float32]:
        """The layer as it was, smoothed; the margin makes every pixel the same whatever box it is asked in."""
        from scipy import ndimage  # not before it is needed: importing it takes 0.2 s

        margin = int(4.0 * self.settings.smoothing_px + 0.5) + 1
        wide = PlaneBox(
            max(box.top - margin, 0),
            max(box.left - margin, 0),
            min(box.bottom + margin, self._rows),
            min(box.right + margin, self._columns),
        )
        stored = self._stored(self.matte, wide, offset).astype(np.float32)
        even = ndimage.gaussian_filter(stored, self.settings.smoothing_px, mode="nearest")
        top, left = box.top - wide.top, box.left - wide.left
        part: NDArray[np.float32] = even[top : top + box.bottom - box.top, left : left + box.right - box.left]
        return part

    def _lower(
        self, after: NDArray, cover: NDArray[np.float32], box: PlaneBox, offset: int
    ) -> list[NDArray[np.uint16]]:
        """The group's unlocked layers, scaled down where the painted one leaves too little room."""
        stored, kept = ([self._stored(m, box, offset) for m in some] for some in (self._lowered, self._locked))
        return lowered(after, cover > 0, stored, kept)

    def _stored(self, matte: Matte, box: PlaneBox, offset: int) -> NDArray:
        shape = (box.bottom - box.top, box.right - box.left)
        start, full = self._volume_box(box, offset)
        layer = self._layer if matte is self.matte else "alpha"
        return matte.read(start, full, layer).reshape(shape)

    def _volume_box(self, box: PlaneBox, offset: int) -> tuple[Index, Index]:
        start, shape = [self.z + offset] * 3, [1, 1, 1]
        row_axis, column_axis = PLANE_AXES[self.axis]
        start[row_axis], start[column_axis] = box.top, box.left
        shape[row_axis], shape[column_axis] = box.bottom - box.top, box.right - box.left
        return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])

    def _to_volume(self, box: PlaneBox, offset: int, values: NDArray) -> tuple[Index, NDArray]:
        start, shape = self._volume_box(box, offset)
        return start, values.reshape(shape)


def _tiles(box: PlaneBox) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
    """Cut a box at tile edges: tile number, place in the tile, place in the box."""
    for tile_row in range(box.top // TILE, (box.bottom - 1) // TILE + 1):
        top, bottom = max(box.top, tile_row * TILE), min(box.bottom, (tile_row + 1) * TILE)
        for tile_column in range(box.left // TILE, (box.right - 1) // TILE + 1):
            left, right = max(box.left, tile_column * TILE), min(box.right, (tile_column + 1) * TILE)
            yield (
                (tile_row, tile_column),
                (
                    slice(top - tile_row * TILE, bottom - tile_row * TILE),
                    slice(left - tile_column * TILE, right - tile_column * TILE),
                ),
                (slice(top - box.top, bottom - box.top), slice(left - box.left, right - box.left)),
            )


def _snap(position: float, reach: float) -> tuple[int, float]:
    """Nearest pixel and the rest, rounded to what the eye can tell, so that dabs are computed once and reused."""
    steps = 4 if reach <= 32 else 2 if reach <= 128 else 1
    snapped = round(position * steps) / steps
    pixel = math.floor(snapped + 0.5)
    return pixel, snapped - pixel


def _picture(picture: PlanePicture, index: int) -> NDArray | None:
    return picture(index) if callable(picture) else picture
