"""Tools that write alpha: brush, eraser, unknown band, fill, lasso. What is previewed is what is applied."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPen, QPolygonF

from medapp.annotation.brush import BrushSettings, StrokeBuilder, half_effect, reach_px
from medapp.annotation.edits import Stroke
from medapp.annotation.matte import FULL, Matte, plane_box
from medapp.errors import MedappError
from medapp.ui import theme
from medapp.ui.canvas.brush_cursor import BrushCursor
from medapp.ui.canvas.tools import Pointer, Tool

if TYPE_CHECKING:
    from medapp.ui.canvas.viewport import Viewport

_CTRL = Qt.KeyboardModifier.ControlModifier
_SHIFT = Qt.KeyboardModifier.ShiftModifier
_ALT = Qt.KeyboardModifier.AltModifier
_SEAM_PX = 32  # how far a fill climbs the soft inner edge of its outline


class LayerTool(Tool):
    """What all tools that change the active layer share."""

    takes_double_click = True
    cursor = Qt.CursorShape.CrossCursor

    def open_layer(self) -> Matte | None:
        """The layer to change; None, with a reason said, when there is none."""
        document = self.document
        if document.annotation is None or self.view.annotation_at is None:
            self.view.message_requested.emit("Nothing can be painted on while the series is still being read.")
            return None
        if document.is_read_only:
            self.view.message_requested.emit("This project is open for reading only; nothing was changed.")
            return None
        matte = document.active_or_new_matte()
        if matte is None:
            return None
        if matte.is_locked:
            self.view.message_requested.emit(f"{matte.name} is locked; nothing was painted. Unlock it, then paint.")
            return None
        if not matte.is_visible:
            self.view.message_requested.emit(f"{matte.name} is hidden; nothing was painted. Show it (V), then paint.")
            return None
        if not document.overlays_visible:
            document.set_overlays_visible(True)
        return matte


class PaintTool(LayerTool):
    """Brush, eraser and unknown-band brush.

    Ctrl inverts, Shift+click joins on to the last point, Alt+click picks alpha.
    """

    def __init__(self, view: Viewport, name: str) -> None:
        super().__init__(view)
        self.name = name
        self._stroke: StrokeBuilder | None = None
        self._last_xy: tuple[float, float] | None = None
        self._pointer: Pointer | None = None
        self._cursor: BrushCursor | None = None
        self._kept: dict[object, QImage] = {}

    @property
    def is_busy(self) -> bool:
        return self._stroke is not None

    def settings(self, pointer: Pointer) -> BrushSettings:
        """The brush as this tool, these keys and this end of the pen use it."""
        brush = self.document.brush
        inverts = pointer.has(_CTRL)
        if self.name == "unknown":
            return replace(brush, mode="unknown", value=0.0 if inverts or pointer.is_eraser else 1.0)
        erases = (self.name == "eraser" or pointer.is_eraser) != inverts
        if not erases:
            value = brush.value if self.name == "brush" and not inverts else 1.0
        elif self.name == "brush" and inverts:
            value = 1.0 - brush.value
        else:
            value = 0.0
        mode = brush.mode if brush.mode == "keep" else "alpha"
        return replace(brush, mode=mode, value=value)

    def press(self, pointer: Pointer) -> None:
        xy = self.view.annotation_xy(pointer.position)
        if xy is None:
            return
        if pointer.has(_ALT):
            self._pick(xy)
            return
        matte = self.open_layer()
        at = self.view.annotation_at
        if matte is None or at is None or at.index is None:
            return
        scan = self.document.original or self.document.scan
        annotation = self.document.annotation
        assert annotation is not None
        settings = self.settings(pointer)
        try:
            self._stroke = StrokeBuilder(
                matte,
                settings,
                at.index,
                at.plane.axis,
                scan.spacing_mm if scan is not None else None,
                image_slice=self._edge_image if settings.edge_aware else None,
                others=annotation.others_in_group(matte.matte_id),
            )
        except MedappError as error:
            self.view.message_requested.emit(f"{error.message} {error.hint}")
            return
        self.view.overlay.stroke = self._stroke
        if pointer.has(_SHIFT) and self._last_xy is not None:
            self._add(self._last_xy, pointer.pressure)
        self._add(xy, pointer.pressure)

    def move(self, pointer: Pointer) -> None:
        xy = self.view.annotation_xy(pointer.position, is_clipped=False)
        if self._stroke is not None and xy is not None:
            self._add(xy, pointer.pressure)
        self.hover(pointer)

    def release(self, pointer: Pointer) -> None:
        self.finish()

    def finish(self) -> None:
        """Make the stroke under way one undo step, on the slice where it was begun."""
        stroke = self._stroke
        if stroke is None:
            return
        self._end()
        edit = stroke.finish_edit()
        if (edit is None or not self.document.apply(edit)) and stroke.box is not None:
            self.view.patch_overlay(stroke.box)

    def cancel(self) -> bool:
        stroke = self._stroke
        if stroke is None:
            return False
        self._end()
        box = stroke.cancel()
        if box is not None:
            self.view.patch_overlay(box)
        return True

    def hover(self, pointer: Pointer) -> None:
        self._pointer = pointer
        self._show_cursor(self._cursor_for(pointer))

    def leave(self) -> None:
        self._pointer = None
        self._show_cursor(None)

    def follow_brush(self) -> None:
        """Size, keys or zoom changed: the rings follow."""
        if self._pointer is not None:
            self._show_cursor(self._cursor_for(self._pointer))

    def draw(self, painter: QPainter, visible: QRectF) -> None:
        if self._cursor is not None and QRectF(self._cursor.area).intersects(visible):
            self._cursor.draw(painter, self._kept)

    def _add(self, xy: tuple[float, float], pressure: float) -> None:
        assert self._stroke is not None
        self._last_xy = xy
        box = self._stroke.add_point(xy, pressure)
        if box is not None:
            self.view.patch_overlay(box)

    def _end(self) -> None:
        self._stroke = None
        self.view.overlay.stroke = None

    def _pick(self, xy: tuple[float, float]) -> None:
        matte, at = self.document.active_matte, self.view.annotation_at
        if matte is None or at is None or at.index is None:
            return
        stored = matte.slice_stored(at.index, at.plane.axis)
        row, column = round(xy[1]), round(xy[0])
        if 0 <= row < stored.shape[0] and 0 <= column < stored.shape[1]:
            self.document.set_brush(value=float(stored[row, column]) / FULL)

    def _edge_image(self, index: int) -> NDArray | None:
        at, scan = self.view.annotation_at, self.document.original or self.document.scan
        return at.plane.raw(np.asarray(scan.stored), index) if at is not None and scan is not None else None

    def _cursor_for(self, pointer: Pointer) -> BrushCursor | None:
        at, scan = self.view.annotation_at, self.document.original or self.document.scan
        if at is None or scan is None or self.view.annotation_xy(pointer.position) is None:
            return None
        settings = self.settings(pointer)
        size = pointer.pressure if settings.pressure_size and self._stroke is not None else 1.0
        rows, columns = reach_px(settings, scan.spacing_mm, at.plane.axis)
        across, down = (columns, rows) if at.plane.down < at.plane.across else (rows, columns)
        su, sv = self.view.annotation_scale(pointer.position)
        effect = "unknown" if settings.mode == "unknown" else "erase" if settings.value < 0.5 else "add"
        if settings.mode == "unknown" and settings.value < 0.5:
            effect = "erase"
        return BrushCursor(
            pointer.position, (across * su * size, down * sv * size), half_effect(settings.hardness), effect
        )

    def _show_cursor(self, cursor: BrushCursor | None) -> None:
        dirty = QRect()
        for one in (self._cursor, cursor):
            if one is not None:
                dirty = dirty.united(one.area)
        self._cursor = cursor
        if not dirty.isEmpty():
            self.view.update(dirty)
        self.view.hide_mouse(cursor is not None)


class FillTool(LayerTool):
    """A click fills the closed area under it, up the soft inner edge of its outline; Ctrl empties a filled one."""

    name = "fill"

    def press(self, pointer: Pointer) -> None:
        xy = self.view.annotation_xy(pointer.position)
        at = self.view.annotation_at
        if xy is None or at is None or at.index is None:
            return
        matte = self.open_layer()
        if matte is None:
            return
        stored = matte.slice_stored(at.index, at.plane.axis)
        seed = (round(xy[1]), round(xy[0]))
        after = emptied(stored, seed) if pointer.has(_CTRL) else filled(stored, seed)
        if after is None:
            self.view.message_requested.emit("This area is open. Close its outline with the brush, then fill it.")
            return
        start, shape = plane_box(matte.shape_zyx, at.index, at.plane.axis)
        patch = matte.make_patch("alpha", start, after.reshape(shape))
        if patch is not None:
            self.document.apply(Stroke(matte.matte_id, (patch,), "Empty area" if pointer.has(_CTRL) else "Fill area"))


class LassoTool(LayerTool):
    """Draw around an area: it is added; with Alt or Ctrl taken away."""

    name = "lasso"

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self._points: list[QPointF] = []
        self._takes_away = False

    @property
    def is_busy(self) -> bool:
        return bool(self._points)

    def press(self, pointer: Pointer) -> None:
        if self.view.annotation_xy(pointer.position) is not None and self.open_layer() is not None:
            self._points = [pointer.position]
            self._takes_away = pointer.has(_ALT) or pointer.has(_CTRL)

    def move(self, pointer: Pointer) -> None:
        if self._points:
            self._points.append(pointer.position)
            self.view.update()

    def release(self, pointer: Pointer) -> None:
        points, self._points = self._points, []
        at, matte = self.view.annotation_at, self.document.active_matte
        if len(points) > 2 and at is not None and at.index is not None and matte is not None:
            stored = matte.slice_stored(at.index, at.plane.axis)
            xy = [self.view.annotation_xy(point, is_clipped=False) for point in points]
            cover = _polygon_cover(stored.shape, [p for p in xy if p is not None])
            after = np.minimum(stored, FULL - cover) if self._takes_away else np.maximum(stored, cover)
            start, shape = plane_box(matte.shape_zyx, at.index, at.plane.axis)
            patch = matte.make_patch("alpha", start, after.reshape(shape))
            if patch is not None:
                text = "Lasso, taken away" if self._takes_away else "Lasso"
                self.document.apply(Stroke(matte.matte_id, (patch,), text))
        self.view.update()

    def cancel(self) -> bool:
        if not self._points:
            return False
        self._points = []
        self.view.update()
        return True

    def draw(self, painter: QPainter, visible: QRectF) -> None:
        if len(self._points) < 2:
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        colour = theme.DARK.danger if self._takes_away else theme.DARK.ok
        for pen in (QPen(QColor(0, 0, 0, 190), 3), QPen(QColor(colour), 1.5, Qt.PenStyle.DashLine)):
            painter.setPen(pen)
            painter.drawPolyline(QPolygonF(self._points))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def filled(stored: NDArray[np.uint16], seed: tuple[int, int]) -> NDArray[np.uint16] | None:
    """A plane with the closed area around ``seed`` at full alpha; None when it reaches the border of the plane."""
    half = (FULL + 1) // 2
    if not (0 <= seed[0] < stored.shape[0] and 0 <= seed[1] < stored.shape[1]):
        return None
    area = _connected(stored < half, seed) if stored[seed] < half else _connected(stored >= half, seed)
    if area[0].any() or area[-1].any() or area[:, 0].any() or area[:, -1].any():
        return None
    after = stored.copy()
    for _ in range(_SEAM_PX):  # the inner flank of the outline is filled up to its ridge, so that no seam stays
        grown = area.copy()
        for axis in (0, 1):
            for step in (1, -1):
                beside, level = np.roll(area, step, axis), np.roll(after, step, axis)
                grown |= beside & (stored >= level) & (stored < FULL)
        if (grown == area).all():
            break
        area = grown
    after[area] = FULL
    return after


def emptied(stored: NDArray[np.uint16], seed: tuple[int, int]) -> NDArray[np.uint16] | None:
    """A plane without the patch of alpha that hangs together with ``seed``; None where there is none."""
    if not (0 <= seed[0] < stored.shape[0] and 0 <= seed[1] < stored.shape[1]) or stored[seed] == 0:
        return None
    after = stored.copy()
    after[_connected(stored > 0, seed)] = 0
    return after


def _connected(mask: NDArray[np.bool_], seed: tuple[int, int]) -> NDArray[np.bool_]:
    """The part of a mask that hangs together with ``seed`` (4 neighbours), found run by run."""
    found = np.zeros_like(mask)
    height, width = mask.shape
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts = [np.flatnonzero(row == 1) for row in edges]
    ends = [np.flatnonzero(row == -1) for row in edges]
    waiting: deque[tuple[int, int, int]] = deque([(seed[0], seed[1], seed[1] + 1)])
    while waiting:
        row, low, high = waiting.popleft()
        first = int(np.searchsorted(ends[row], low, side="right"))
        last = int(np.searchsorted(starts[row], high, side="left"))
        for run in range(first, last):
            left, right = int(starts[row][run]), int(ends[row][run])
            if found[row, left]:
                continue
            found[row, left:right] = True
            waiting += [(r, left, right) for r in (row - 1, row + 1) if 0 <= r < height]
    return found if width else mask


def _polygon_cover(shape: tuple[int, ...], points_xy: list[tuple[float, float]]) -> NDArray[np.uint16]:
    """Stored alpha of a polygon with smooth edges; pixel centres are whole numbers."""
    picture = QImage(shape[1], shape[0], QImage.Format.Format_Grayscale8)
    picture.fill(0)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(255, 255, 255))
    painter.drawPolygon(QPolygonF([QPointF(x + 0.5, y + 0.5) for x, y in points_xy]))
    painter.end()
    lines = np.frombuffer(picture.constBits(), dtype=np.uint8).reshape(shape[0], picture.bytesPerLine())
    return lines[:, : shape[1]].astype(np.uint16) * np.uint16(257)
