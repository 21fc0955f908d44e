"""The brush under the pointer: a solid ring at half effect, a dotted one at full reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPen

from medapp.ui import theme

DOT_BELOW_PX = 4.0
_LARGEST_PICTURE = 600  # device pixels; larger rings are drawn each time instead of kept


@dataclass(frozen=True)
class BrushCursor:
    """Where the brush is and what it would do.

    Attributes:
        centre: Widget point.
        reach: Half axes on the screen at full reach, ``(across, down)``.
        half: Share of the reach at which the effect is half.
        effect: ``add``, ``erase`` or ``unknown``.
    """

    centre: QPointF
    reach: tuple[float, float]
    half: float
    effect: str

    @property
    def colour(self) -> str:
        """By effect; the sign beside the ring says the same without colour."""
        return {"add": theme.DARK.ok, "erase": theme.DARK.danger}.get(self.effect, theme.DARK.processed)

    @property
    def is_dot(self) -> bool:
        """Too small to draw rings."""
        return 2 * max(self.reach) < DOT_BELOW_PX

    @property
    def area(self) -> QRect:
        """What has to be painted again when it comes or goes."""
        x, y = (max(r, 3.0) for r in self.reach)
        ring = QRectF(self.centre.x() - x, self.centre.y() - y, 2 * x, 2 * y)
        return ring.toAlignedRect().adjusted(-4, -4, 15, 4)

    def draw(self, painter: QPainter, kept: dict[object, QImage]) -> None:
        """Each ring dark first, then in its colour, so that it shows on every grey.

        Args:
            painter: On the widget.
            kept: Holds the picture of the rings between calls: the pointer moves far more often than they change.
        """
        ratio = painter.device().devicePixelRatioF()
        reach = (round(self.reach[0], 1), round(self.reach[1], 1))
        if 2 * max(reach) * ratio > _LARGEST_PICTURE:
            painter.translate(self.centre)
            self._draw_rings(painter, reach)
            painter.translate(-self.centre)
            return
        key = (reach, self.half, self.effect, ratio)
        if key not in kept:
            kept.clear()
            kept[key] = self._picture(reach, ratio)
        x, y = (math.ceil(max(r, 3.0)) + 3 for r in reach)
        painter.drawImage(QPointF(round(self.centre.x()) - x, round(self.centre.y()) - y), kept[key])

    def _picture(self, reach: tuple[float, float], ratio: float) -> QImage:
        x, y = (math.ceil(max(r, 3.0)) + 3 for r in reach)
        size = round((2 * x + 14) * ratio), round(2 * y * ratio)
        picture = QImage(*size, QImage.Format.Format_ARGB32_Premultiplied)
        picture.setDevicePixelRatio(ratio)
        picture.fill(Qt.GlobalColor.transparent)
        painter = QPainter(picture)
        painter.translate(x, y)
        self._draw_rings(painter, reach)
        painter.end()
        return picture

    def _draw_rings(self, painter: QPainter, reach: tuple[float, float]) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        colour, dark, middle = QColor(self.colour), QColor(0, 0, 0, 190), QPointF(0, 0)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if self.is_dot:
            painter.setPen(QPen(dark, 1))
            painter.setBrush(colour)
            painter.drawEllipse(middle, 2.5, 2.5)
        else:
            across, down = reach
            for pen in (QPen(dark, 3.5), QPen(colour, 2)):
                painter.setPen(pen)
                painter.drawEllipse(middle, across * self.half, down * self.half)
            if self.half < 0.98:
                dots = QPen(colour, 1.8)
                dots.setDashPattern([1.0, 2.0])
                for pen in (QPen(QColor(0, 0, 0, 110), 3), dots):
                    painter.setPen(pen)
                    painter.drawEllipse(middle, across, down)
            sign = QPointF(across + 6, 0)
            for pen in (QPen(dark, 4), QPen(colour, 1.5)):
                painter.setPen(pen)
                if self.effect != "unknown":
                    painter.drawLine(sign - QPointF(3, 0), sign + QPointF(3, 0))
                if self.effect == "add":
                    painter.drawLine(sign - QPointF(0, 3), sign + QPointF(0, 3))
                if self.effect == "unknown":
                    painter.drawLine(sign + QPointF(-3, 3), sign + QPointF(3, -3))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
