"""Prompts and candidates over the image: handles that can be dragged, a region that may be accepted."""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPen, QPolygonF, QTransform

from medapp.ui import theme
from medapp.ui.canvas.contours import Contour, draw_segments, find_contour
from medapp.ui.canvas.plane import Plane
from medapp.ui.canvas.tints import premultiplied
from medapp.ui.prompts import Candidate, Prompt

HANDLE_PX = 5.0
GRAB_PX = 9.0


class CandidateOverlay:
    """The region that *Accept* would take: light tint and a dashed white outline, unlike any matte."""

    def __init__(self) -> None:
        self._candidate: Candidate | None = None
        self._colour = ""
        self._image = QImage()
        self._contour = Contour.empty()

    def show(self, candidate: Candidate | None, plane: Plane, colour: str) -> None:
        """Show another region; the same twice costs nothing."""
        if candidate is self._candidate and colour == self._colour:
            return
        self._candidate, self._colour = candidate, colour
        if candidate is None:
            self._image, self._contour = QImage(), Contour.empty()
            return
        mask = np.ascontiguousarray(plane.shown(candidate.mask))
        tint = QColor(colour)
        share = 0.25
        packed = (
            (round(share * 255) << 24)
            | (round(share * tint.red()) << 16)
            | (round(share * tint.green()) << 8)
            | round(share * tint.blue())
        )
        if candidate.alpha is None:
            pixels = np.where(mask, np.uint32(packed), np.uint32(0))
        else:
            soft = np.ascontiguousarray(plane.shown(np.clip(candidate.alpha, 0, 1)))
            pixels = premultiplied(soft * np.float32(0.5), (tint.red(), tint.green(), tint.blue()))
        height, width = pixels.shape
        # Copied: the QImage outlives the array.
        self._image = QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()
        self._contour = find_contour(np.pad(mask.astype(np.uint8), 1), 0.5, (-1, -1))

    def draw(self, painter: QPainter, to_widget: QTransform, visible: QRectF) -> None:
        """Tint and outline."""
        if self._candidate is None:
            return
        painter.save()
        painter.setTransform(to_widget)
        painter.drawImage(QPointF(0, 0), self._image)
        painter.restore()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        painter.setPen(QPen(QColor(0, 0, 0, 150), 2.5))
        draw_segments(painter, self._contour.segments, to_widget, visible)
        painter.setPen(QPen(QColor(theme.DARK.text), 1.5))
        draw_segments(painter, self._contour.gapped("dash"), to_widget, visible)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def handles(prompt: Prompt) -> tuple[tuple[float, float], ...]:
    """The points of a prompt that can be taken hold of: both corners of a box, the first point of a scribble."""
    return prompt.points_xy[:1] if prompt.kind == "scribble" else prompt.points_xy


def draw_prompt(painter: QPainter, prompt: Prompt, points: list[QPointF], is_selected: bool) -> None:
    """One prompt; plus and minus say include and exclude without colour."""
    colour = QColor(theme.DARK.ok if prompt.is_include else theme.DARK.danger)
    dark = QColor(0, 0, 0, 190)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    if prompt.kind == "box" and len(points) == 2:
        for pen in (QPen(dark, 3), QPen(colour, 1.5, Qt.PenStyle.DashLine)):
            painter.setPen(pen)
            painter.drawRect(QRectF(points[0], points[1]).normalized())
    elif prompt.kind == "scribble" and len(points) > 1:
        for pen in (QPen(dark, 4), QPen(colour, 2)):
            painter.setPen(pen)
            painter.drawPolyline(QPolygonF(points))
    for point in points[:1] if prompt.kind == "scribble" else points:
        painter.setPen(QPen(QColor(theme.DARK.text) if is_selected else dark, 2))
        painter.setBrush(colour)
        painter.drawEllipse(point, HANDLE_PX + is_selected, HANDLE_PX + is_selected)
        painter.setPen(QPen(QColor(theme.DARK.surround), 1.5))
        painter.drawLine(point - QPointF(2.5, 0), point + QPointF(2.5, 0))
        if prompt.is_include:
            painter.drawLine(point - QPointF(0, 2.5), point + QPointF(0, 2.5))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def distance(a: QPointF, b: QPointF) -> float:
    """Between two widget points."""
    return math.hypot(a.x() - b.x(), a.y() - b.y())
