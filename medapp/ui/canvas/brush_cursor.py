"""The brush under the pointer: a solid ring at half effect, a dotted one at full reach."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen

from medapp.ui import theme

DOT_BELOW_PX = 4.0


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
        return ring.toAlignedRect().adjusted(-3, -3, 14, 3)

    def draw(self, painter: QPainter) -> None:
        """Each ring dark first, then in its colour, so that it shows on every grey."""
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        colour, dark = QColor(self.colour), QColor(0, 0, 0, 190)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if self.is_dot:
            painter.setPen(QPen(dark, 1))
            painter.setBrush(colour)
            painter.drawEllipse(self.centre, 2.5, 2.5)
        else:
            across, down = self.reach
            for pen in (QPen(dark, 3), QPen(colour, 1.5)):
                painter.setPen(pen)
                painter.drawEllipse(self.centre, across * self.half, down * self.half)
            if self.half < 0.98:
                for pen in (QPen(dark, 2), QPen(colour, 1)):
                    pen.setDashPattern([1.0, 3.0])
                    painter.setPen(pen)
                    painter.drawEllipse(self.centre, across, down)
            sign = QPointF(self.centre.x() + across + 6, self.centre.y())
            for pen in (QPen(dark, 4), QPen(colour, 1.5)):
                painter.setPen(pen)
                if self.effect != "unknown":
                    painter.drawLine(sign - QPointF(3, 0), sign + QPointF(3, 0))
                if self.effect == "add":
                    painter.drawLine(sign - QPointF(0, 3), sign + QPointF(0, 3))
                if self.effect == "unknown":
                    painter.drawLine(sign + QPointF(-3, 3), sign + QPointF(3, -3))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
