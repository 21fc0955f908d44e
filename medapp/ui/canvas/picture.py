"""One side of a viewport as a picture: the slice, with the mattes put in where they share its grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRect, QRectF
from PySide6.QtGui import QImage, QPainter, QTransform

from medapp.scan.scan import Scan, Window
from medapp.ui.canvas.overlay import MatteOverlay
from medapp.ui.canvas.plane import Box, Plane
from medapp.ui.canvas.raster import SliceRaster

SMALLEST_SCALE = 0.6  # below it a copy of half the size is drawn: averaged once, so that nothing flickers
_LEVELS = 4


class Picture:
    """What is drawn for one side.

    Attributes:
        raster: The bare slice.
        to_frame: Display pixels of this picture to those of the series on screen.
    """

    def __init__(self) -> None:
        self.raster = SliceRaster()
        self.to_frame = QTransform()
        self._merged: NDArray[np.uint32] = np.zeros((1, 1), dtype=np.uint32)
        self._merged_image = QImage()
        self._shown = QImage()
        self._halves: list[QImage] = []
        self._key: object = None

    def show(
        self,
        scan: Scan,
        plane: Plane,
        index: int,
        window: Window,
        is_inverted: bool,
        overlay: MatteOverlay | None,
        to_frame: QTransform,
    ) -> None:
        """Render a slice and put the overlay in; nothing is done twice."""
        bare = self.raster.render(scan, plane, index, window, is_inverted)
        self.to_frame = to_frame
        self._take(bare, overlay, self.raster.key)

    def show_difference(self, difference: NDArray[np.float32], limit: float, key: object, to_frame: QTransform) -> None:
        """Render a difference; mattes are left out, since tints would read as values."""
        self.to_frame = to_frame
        self._shown = self.raster.render_difference(difference, limit)
        self._key = key
        self._halves.clear()

    def shows(self, key: object) -> bool:
        """True when the picture of this key is still there."""
        return key == self._key

    def forget(self) -> None:
        """Render anew next time: voxels have changed."""
        self.raster.forget()
        self._key = None

    def _take(self, bare: QImage, overlay: MatteOverlay | None, raster_key: object) -> None:
        has_overlay = overlay is not None and overlay.has_pixels and overlay.image.size() == bare.size()
        key = (raster_key, overlay.revision if overlay is not None and has_overlay else None)
        if key == self._key:
            return
        self._key = key
        self._halves.clear()
        if not has_overlay or overlay is None:
            self._shown = bare
            return
        height, width = bare.height(), bare.width()
        if self._merged.shape != (height, width):
            self._merged = np.zeros((height, width), dtype=np.uint32)
            self._merged_image = QImage(self._merged.data, width, height, 4 * width, QImage.Format.Format_RGB32)
        self._shown = self._merged_image
        self._merge(overlay, (0, 0, width, height))

    def holds(self, overlay: MatteOverlay) -> bool:
        """True when the mattes are in the picture already."""
        return not overlay.has_pixels or self._shown is self._merged_image

    def patch(self, overlay: MatteOverlay, box: Box) -> None:
        """Put the overlay in anew in one box."""
        if self._shown is not self._merged_image or overlay.image.size() != self._shown.size():
            self._key = None  # there was nothing to put in before: build the whole next time
            return
        self._merge(overlay, box)
        self._key = (self.raster.key, overlay.revision)
        for level, half in enumerate(self._halves):
            larger = self._halves[level - 1] if level else self._shown
            box = (box[0] // 2, box[1] // 2, (box[2] + 1) // 2, (box[3] + 1) // 2)
            _halve(larger, half, QRect(box[0] - 1, box[1] - 1, box[2] - box[0] + 2, box[3] - box[1] + 2))

    def _merge(self, overlay: MatteOverlay, box: Box) -> None:
        u0, v0, u1, v1 = box
        area = QRect(u0, v0, u1 - u0, v1 - v0)
        painter = QPainter(self._merged_image)
        painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Source)
        painter.drawImage(area.topLeft(), self.raster.image, area)
        if overlay.box is not None:
            painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceOver)
            o = overlay.box
            part = area.intersected(QRect(o[0], o[1], o[2] - o[0], o[3] - o[1]))
            painter.drawImage(part.topLeft(), overlay.image, part)
        painter.end()

    def draw(self, painter: QPainter, to_widget: QTransform, is_smooth: bool) -> None:
        """Draw the picture through its place in the frame; the painter's clip says which part."""
        if self._shown.isNull():
            return
        through = self.to_frame * to_widget
        image, scale = self._shown, min(abs(through.m11()), abs(through.m22())) * painter.device().devicePixelRatioF()
        if is_smooth:
            for level in range(_LEVELS):
                if scale >= SMALLEST_SCALE or min(image.width(), image.height()) < 64:
                    break
                if level == len(self._halves):
                    half = QImage((image.width() + 1) // 2, (image.height() + 1) // 2, QImage.Format.Format_RGB32)
                    _halve(image, half, half.rect())
                    self._halves.append(half)
                image, scale = self._halves[level], scale * 2
                through = QTransform.fromScale(2, 2) * through
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, is_smooth)
        painter.setTransform(through)
        painter.drawImage(QPointF(0, 0), image)
        painter.restore()

    def area(self, to_widget: QTransform) -> QRectF:
        """The widget rectangle that the picture covers."""
        return (self.to_frame * to_widget).mapRect(QRectF(self._shown.rect()))


def _halve(image: QImage, half: QImage, area: QRect) -> None:
    """Average 2 x 2 pixels: bilinear sampling at exactly half the size reads the middle of each four."""
    painter = QPainter(half)
    painter.setClipRect(area)
    painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Source)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, True)
    painter.scale(0.5, 0.5)
    painter.drawImage(QPointF(0, 0), image)
    painter.end()
