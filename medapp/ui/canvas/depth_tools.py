"""Tools of depth completion: place a measured depth and type it on the spot, and lay a ruler on the surface."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PySide6.QtCore import QLocale, QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QDoubleValidator, QKeyEvent, QPainter, QPen
from PySide6.QtWidgets import QLineEdit

from medapp.ui import theme
from medapp.ui.canvas.tools import Pointer, Tool

if TYPE_CHECKING:
    from medapp.ui.canvas.viewport import Viewport

_GRAB_PX = 10.0
_RADIUS_PX = 5.0
_FIELD_WIDTH = 96
_MIN_DRAG_PX = 3.0
_LABEL_ROOM_PX = 78
_LABEL_PX = 14


class DepthField(QLineEdit):
    """The small field beside a placed point: Enter keeps the depth, Esc drops the point."""

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self._state = view.document.depth
        self.setPlaceholderText("mm")
        self.setAccessibleName("Depth of the point in millimetres")
        self.setFixedWidth(_FIELD_WIDTH)
        validator = QDoubleValidator(0.01, 100_000.0, 3, self)
        validator.setNotation(QDoubleValidator.Notation.StandardNotation)
        validator.setLocale(QLocale.c())
        self.setValidator(validator)
        self.setToolTip("Distance from the camera in mm — Enter keeps it, Esc drops the point")
        self.hide()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if self._take():
                self.parentWidget().setFocus()
        elif event.key() == Qt.Key.Key_Escape:
            self._state.drop_pending()
            self.parentWidget().setFocus()
        else:
            super().keyPressEvent(event)
            return
        event.accept()

    def _take(self) -> bool:
        try:
            return self._state.give_depth(float(self.text().replace(",", ".")))
        except ValueError:
            return False

    def take_or_drop(self) -> None:
        """Another point is placed: what was typed counts, an empty field does not."""
        if not self._take():
            self._state.drop_pending()


class DepthPointTool(Tool):
    """A click places a point whose depth is typed; a drag moves one; Delete removes it."""

    name = "depth"
    cursor = Qt.CursorShape.CrossCursor
    takes_double_click = True

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self._state = self.document.depth
        self._dragged = -1
        self._at: tuple[float, float] | None = None
        self._field: DepthField | None = None
        self._is_mine = False  # the waiting point was placed in this viewport, which shows its field
        self._state.points_changed.connect(self._follow)

    @property
    def is_busy(self) -> bool:
        return self._at is not None

    def press(self, pointer: Pointer) -> None:
        if self.view.axis != 0 or not self._state.can_measure:
            return
        if self._field is not None and self._state.pending is not None:
            self._field.take_or_drop()
        index = self._near(pointer.position)
        self._state.select(index)
        self._dragged, self._at = index, None
        xy = self.view.annotation_xy(pointer.position)
        if index < 0 and xy is not None:
            self._is_mine = True
            self._state.place(*xy)

    def move(self, pointer: Pointer) -> None:
        if self._dragged >= 0:
            self._at = self.view.annotation_xy(pointer.position)
            self.view.update()

    def release(self, pointer: Pointer) -> None:
        index, at = self._dragged, self._at
        self._dragged, self._at = -1, None
        if index >= 0 and at is not None and index < len(self._state.points):
            self._state.move(index, *at)

    def hover(self, pointer: Pointer) -> None:
        is_near = self._near(pointer.position) >= 0
        self.view.setCursor(Qt.CursorShape.SizeAllCursor if is_near else self.cursor)

    def leave(self) -> None:
        if self.document.tool != self.name:
            self._state.drop_pending()

    def cancel(self) -> bool:
        if self._at is not None:
            self._dragged, self._at = -1, None
            self.view.update()
            return True
        return self._state.drop_pending()

    def place_at_keyboard(self) -> bool:
        """Enter: a point at the crosshair, whose depth is typed next."""
        _, y, x = self.document.position_zyx
        if self.view.axis != 0 or not self._state.can_measure or self._state.pending is not None:
            return False
        self._is_mine = True
        self._state.place(x, y)
        return True

    def nudge(self, dx: float, dy: float) -> None:
        """Arrow keys: move the selected point, or the crosshair where the next one goes."""
        index, scan = self._state.selected, self.document.original
        if scan is None:
            return
        z, y, x = self.document.position_zyx
        if index >= 0:
            x, y = round(self._state.points[index][0]), round(self._state.points[index][1])
        H, W = scan.shape[1:3]
        x, y = min(max(x + round(dx), 0), W - 1), min(max(y + round(dy), 0), H - 1)
        if index >= 0:
            self._state.move(index, x, y)
        else:
            self.document.set_position((z, y, x))
            self.view.update()

    def _near(self, position: QPointF) -> int:
        ways = [math.dist(_xy(self.view.annotation_point(x, y)), _xy(position)) for x, y, _ in self._state.points]
        return ways.index(min(ways)) if ways and min(ways) <= _GRAB_PX else -1

    def _follow(self) -> None:
        self.view.update()
        if self._state.pending is None or self.document.tool != self.name:
            self._is_mine = False
            if self._field is not None and self._field.isVisible():
                self._field.hide()
            return
        if not self._is_mine:
            return
        if self._field is None:
            self._field = DepthField(self.view)
        if not self._field.isVisible():
            self._field.clear()
        self.place_field()
        self._field.show()
        self._field.setFocus()

    def place_field(self) -> None:
        """Keep the field beside its point while the image moves."""
        pending, field = self._state.pending, self._field
        if pending is None or field is None:
            return
        at = self.view.annotation_point(*pending)
        area, height = self.view.image_area, field.sizeHint().height()
        x = at.x() + 12 if at.x() + 12 + _FIELD_WIDTH < area.right() else at.x() - 12 - _FIELD_WIDTH
        y = min(max(at.y() - height / 2, area.top() + 4), area.bottom() - height - 4)
        field.move(round(min(max(x, area.left() + 4), area.right() - _FIELD_WIDTH - 4)), round(y))

    def shown_points(self) -> list[tuple[float, float, float]]:
        """The points, the dragged one where the pointer has it."""
        points = list(self._state.points)
        if self._at is not None and 0 <= self._dragged < len(points):
            points[self._dragged] = (*self._at, points[self._dragged][2])
        return points


class RulerTool(Tool):
    """A drag lays a ruler on the surface of the depth map."""

    name = "ruler"
    cursor = Qt.CursorShape.CrossCursor

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self._state = self.document.depth
        self._start: tuple[float, float] | None = None
        self._from = QPointF()
        self._state.ruler_changed.connect(view.update)
        self._state.shown_changed.connect(view.update)

    @property
    def is_busy(self) -> bool:
        return self._start is not None

    def press(self, pointer: Pointer) -> None:
        if self.view.axis != 0:
            return
        self._start, self._from = self.view.annotation_xy(pointer.position), pointer.position
        if self._start is not None and not self._state.has_map_here:
            self._start = None
            self.view.message_requested.emit("Estimate the depth of this frame first; then the ruler can read it.")

    def move(self, pointer: Pointer) -> None:
        end = self.view.annotation_xy(pointer.position)
        if self._start is not None and end is not None:
            self._state.lay_ruler(self._start, end)

    def release(self, pointer: Pointer) -> None:
        if self._start is not None and math.dist(_xy(self._from), _xy(pointer.position)) < _MIN_DRAG_PX:
            self._state.take_ruler()
        self._start = None

    def hover(self, pointer: Pointer) -> None:
        self.view.setCursor(self.cursor)

    def cancel(self) -> bool:
        self._start = None
        return self._state.take_ruler()


def draw_depth_marks(painter: QPainter, view: Viewport, exposed: QRect) -> None:
    """Measured points with their depths, the point that waits, and the ruler; in every picture of the frame."""
    state, at = view.document.depth, view.annotation_at
    if view.axis != 0 or at is None or not view.panes:
        return
    tool = view.tools["depth"]
    assert isinstance(tool, DepthPointTool)
    tool.place_field()
    is_pair = view.content.mode == "side by side"
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
    for pane in view.panes if is_pair else view.panes[:1]:
        painter.setClipRect(pane.clip.intersected(exposed) if is_pair else exposed)

        def place(x: float, y: float, area: QRect = pane.area) -> QPointF:
            return view.annotation_place(x, y, area)

        right_edge = (pane.clip if is_pair else view.image_area).right()
        for index, (x, y, depth) in enumerate(tool.shown_points()):
            dot = place(x, y)
            _draw_dot(painter, dot, theme.DARK.processed, index == state.selected)
            is_at_edge = dot.x() + _LABEL_ROOM_PX > right_edge
            side = Qt.AlignmentFlag.AlignRight if is_at_edge else Qt.AlignmentFlag.AlignLeft
            at_label = QPointF(dot.x() + (-10 if is_at_edge else 10), dot.y() - 9)
            view.texts.draw(painter, f"{depth:g} mm", at_label, side)
        if view.shows_keyboard_place and state.pending is None and state.selected < 0:
            _draw_dot(painter, place(*view.document.position_zyx[:0:-1]), theme.DARK.accent, True)  # where Enter places
        if state.pending is not None:
            _draw_dot(painter, place(*state.pending), theme.DARK.text, True)
        if state.ruler is not None and state.has_map_here:
            _draw_ruler(painter, view, *(place(*xy) for xy in state.ruler))
    painter.setClipRect(exposed)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def _draw_dot(painter: QPainter, at: QPointF, colour: str, is_selected: bool) -> None:
    radius = _RADIUS_PX + is_selected
    painter.setBrush(QColor(colour))
    painter.setPen(QPen(QColor(theme.DARK.text) if is_selected else QColor(0, 0, 0, 190), 2))
    painter.drawEllipse(at, radius, radius)
    painter.setBrush(QColor(theme.DARK.surround))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawEllipse(at, 1.5, 1.5)
    painter.setBrush(Qt.BrushStyle.NoBrush)


def _draw_ruler(painter: QPainter, view: Viewport, start: QPointF, end: QPointF) -> None:
    length = math.dist(_xy(start), _xy(end))
    tips = QPointF()
    if length > 1:
        tips = QPointF(-(end.y() - start.y()) / length * 6, (end.x() - start.x()) / length * 6)
    for pen in (QPen(QColor(0, 0, 0, 190), 4), QPen(QColor(theme.DARK.text), 2)):
        painter.setPen(pen)
        painter.drawLine(start, end)
        for tip in (start, end):
            painter.drawLine(tip - tips, tip + tips)
    _draw_label(painter, view, view.document.depth.ruler_text(), (start + end) / 2)


def _draw_label(painter: QPainter, view: Viewport, text: str, middle: QPointF) -> None:
    """Words on a dark plate in the middle of the line."""
    size = view.texts.line(painter, text, theme.DARK.text, _LABEL_PX, True).deviceIndependentSize()
    plate = QRectF(middle.x() - size.width() / 2 - 4, middle.y() - size.height() / 2, size.width() + 8, size.height())
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(0, 0, 0, 200))
    painter.drawRoundedRect(plate, 6, 6)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    at = QPointF(middle.x(), plate.top())
    view.texts.draw(painter, text, at, Qt.AlignmentFlag.AlignHCenter, px=_LABEL_PX, is_bold=True)


def _xy(point: QPointF) -> tuple[float, float]:
    return point.x(), point.y()
