"""Pan and zoom of one viewport: display pixels of a plane to points of the widget and back."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRect, QRectF
from PySide6.QtGui import QTransform

from medapp.ui.canvas.plane import Box

LARGEST_ZOOM = 64.0
SMALLEST_ZOOM = 0.02
_FIT_MARGIN = 4.0


class Camera:
    """Where the image lies.

    Attributes:
        zoom: Widget points per unit, a unit being the shorter side of a display pixel.
        centre: The display point ``(u, v)`` shown in the middle of the pane.
        is_fitted: True until a person zooms or pans: the image then follows the size of the widget.
    """

    def __init__(self) -> None:
        self.size = (1, 1)
        self.aspect = (1.0, 1.0)
        self.zoom = 1.0
        self.centre = (0.5, 0.5)
        self.is_fitted = True

    def look_at(self, size: tuple[int, int], aspect: tuple[float, float]) -> None:
        """Show another plane: ``(width, height)`` in display pixels and their relative sides."""
        if (size, aspect) != (self.size, self.aspect):
            finer = size[0] / self.size[0]
            is_same_extent = aspect == self.aspect and finer == size[1] / self.size[1]
            self.size, self.aspect = size, aspect
            if is_same_extent and not self.is_fitted:  # a finer or coarser grid: the same part stays in sight
                u, v = self.centre
                self.zoom, self.centre = self.zoom / finer, ((u - 0.5) * finer + 0.5, (v - 0.5) * finer + 0.5)
            else:
                self.is_fitted = True

    def fit(self, pane: QRect) -> None:
        """The whole image, centred, in true aspect."""
        width, height = self.size[0] * self.aspect[0], self.size[1] * self.aspect[1]
        zoom = min((pane.width() - _FIT_MARGIN) / width, (pane.height() - _FIT_MARGIN) / height)
        self.zoom = min(max(zoom, SMALLEST_ZOOM), LARGEST_ZOOM)
        self.centre = (self.size[0] / 2, self.size[1] / 2)
        self.is_fitted = True

    @property
    def scale(self) -> tuple[float, float]:
        """Widget points per display pixel ``(u, v)``."""
        return self.zoom * self.aspect[0], self.zoom * self.aspect[1]

    def transform(self, pane: QRect) -> QTransform:
        """Display pixels to widget points of a pane."""
        su, sv = self.scale
        middle = QRectF(pane).center()
        return QTransform(su, 0, 0, sv, middle.x() - self.centre[0] * su, middle.y() - self.centre[1] * sv)

    def to_display(self, point: QPointF, pane: QRect) -> tuple[float, float]:
        """The display point under a widget point."""
        su, sv = self.scale
        middle = QRectF(pane).center()
        return self.centre[0] + (point.x() - middle.x()) / su, self.centre[1] + (point.y() - middle.y()) / sv

    def to_widget(self, u: float, v: float, pane: QRect) -> QPointF:
        """The widget point of a display point."""
        su, sv = self.scale
        middle = QRectF(pane).center()
        return QPointF(middle.x() + (u - self.centre[0]) * su, middle.y() + (v - self.centre[1]) * sv)

    def box_to_widget(self, box: Box, pane: QRect, margin: int = 2) -> QRect:
        """The widget rectangle that a display box touches, with a margin for interpolation."""
        low, high = self.to_widget(box[0], box[1], pane), self.to_widget(box[2], box[3], pane)
        su, sv = self.scale
        more_u, more_v = margin + int(su), margin + int(sv)
        return QRectF(low, high).toAlignedRect().adjusted(-more_u, -more_v, more_u, more_v)

    def pan(self, dx: float, dy: float) -> None:
        """Move the image with the hand by widget points; a corner always stays in reach."""
        su, sv = self.scale
        u = min(max(self.centre[0] - dx / su, 0.0), float(self.size[0]))
        v = min(max(self.centre[1] - dy / sv, 0.0), float(self.size[1]))
        self.centre = (u, v)
        self.is_fitted = False

    def zoom_by(self, factor: float, at: QPointF, pane: QRect) -> None:
        """Zoom such that the display point under the pointer stays there."""
        u, v = self.to_display(at, pane)
        self.zoom = min(max(self.zoom * factor, SMALLEST_ZOOM), LARGEST_ZOOM)
        after_u, after_v = self.to_display(at, pane)
        self.centre = (self.centre[0] + u - after_u, self.centre[1] + v - after_v)
        self.is_fitted = False

    def show_percent(self, percent: float, pane: QRect) -> None:
        """An absolute zoom around the middle; 100 % is one screen point a unit."""
        self.zoom_by(percent / 100.0 / self.zoom, QRectF(pane).center(), pane)
