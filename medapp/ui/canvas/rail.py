"""The slice rail on the right edge: where one is, what is annotated, doubtful or already restored."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QPainter, QPen, QPolygonF

from medapp.ui import theme

WIDTH = 14
_INSET = 8  # above and below, so that the ends can be hit


class SliceRail:
    """Geometry and drawing of the rail; the view owns the mouse. The last slice is at the top, as Up means on.

    Attributes:
        count, index: Slices and the one on screen.
        marks: Slice to ``annotated``, ``propagated`` or ``doubtful``.
        ready: Slices that are there, of a series or restoration under way; None = all.
    """

    def __init__(self) -> None:
        self.area = QRect()
        self.count = 1
        self.index = 0
        self.marks: Mapping[int, str] = {}
        self.ready: set[int] | None = None

    def place(self, view: QRect) -> None:
        """Take the right edge of a view."""
        self.area = QRect(view.right() - WIDTH + 1, view.top(), WIDTH, view.height())

    @property
    def is_shown(self) -> bool:
        """A single image has no rail."""
        return self.count > 1

    def slice_at(self, y: float) -> int:
        """The slice under a point of the rail; beyond the ends the first or last."""
        share = (self.area.bottom() - _INSET - y) / max(1, self.area.height() - 2 * _INSET)
        return min(max(int(share * self.count), 0), self.count - 1)

    def top_of(self, index: int) -> float:
        """The upper end of a slice on the rail."""
        return self.area.bottom() - _INSET - (index + 1) * (self.area.height() - 2 * _INSET) / self.count

    def draw(self, painter: QPainter) -> None:
        """Track, marks and handle."""
        if not self.is_shown:
            return
        track = QRectF(self.area.left() + 5, self.area.top() + _INSET, 4, self.area.height() - 2 * _INSET)
        painter.fillRect(self.area, QColor(theme.DARK.pressed))
        painter.fillRect(track, QColor(theme.DARK.line))
        step = max(track.height() / self.count, 1.0)
        if self.ready is not None:
            for first, last in _runs(self.ready):
                painter.fillRect(
                    QRectF(track.left(), self.top_of(last), 4, self.top_of(first - 1) - self.top_of(last)),
                    QColor(theme.DARK.processed),
                )
        for kind, brush in (
            ("annotated", QBrush(QColor(theme.DARK.text_2))),
            ("propagated", QBrush(QColor(theme.DARK.text_2), Qt.BrushStyle.BDiagPattern)),
        ):
            for first, last in _runs({z for z, mark in self.marks.items() if mark == kind}):
                height = max(self.top_of(first - 1) - self.top_of(last), 2.0)
                painter.fillRect(QRectF(track.left() - 4, self.top_of(last), 6, height), brush)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.DARK.danger))
        for z, mark in self.marks.items():
            if mark == "doubtful":
                y = self.top_of(z) + step / 2
                left = self.area.left() + 1
                painter.drawPolygon(QPolygonF([QPointF(left, y - 4), QPointF(left, y + 4), QPointF(left + 6, y)]))
        handle_height = max(step, 4.0)
        y = min(self.top_of(self.index), self.area.bottom() - _INSET - handle_height + 1)
        painter.setPen(QPen(QColor(theme.DARK.surround), 1))
        painter.setBrush(QColor(theme.DARK.text))
        painter.drawRoundedRect(QRectF(self.area.left() + 1.5, y - 0.5, WIDTH - 3, handle_height + 1), 2, 2)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers as ``(first, last)``."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
