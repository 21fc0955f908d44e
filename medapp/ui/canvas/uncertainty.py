"""The uncertainty of a matting model over the image, in bits: one hue, opaque where the masks disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPen, QTransform

from medapp.ui import theme
from medapp.ui.canvas.furniture import TextPainter
from medapp.ui.canvas.tints import premultiplied
from medapp.ui.prompts import MattingSet

if TYPE_CHECKING:
    from medapp.ui.canvas.compare import Alignment
    from medapp.ui.document import Document

HUE = theme.LABEL_COLOURS[6]
_MOST = 0.85
_LEAST_BITS = 0.02


class UncertaintyOverlay:
    """Draws the map of the document's matting set on the slice it belongs to."""

    def __init__(self) -> None:
        self._drawn: MattingSet | None = None
        self._image = QImage()
        self._at = QPointF()

    def is_shown(self, document: Document, at: Alignment | None) -> bool:
        """The map is wanted, and it belongs to this slice."""
        matting = document.matting
        is_here = matting is not None and at is not None and (matting.axis, matting.slice_index) == _slice_of(at)
        return is_here and document.shows_uncertainty

    def draw(self, painter: QPainter, document: Document, at: Alignment | None, to_widget: QTransform) -> None:
        """The crop's frame, and the map where it is wanted."""
        matting = document.matting
        if matting is None or at is None or (matting.axis, matting.slice_index) != _slice_of(at):
            return
        if matting is not self._drawn:
            self._follow(matting, at)
        frame = to_widget.mapRect(QRectF(self._at.x(), self._at.y(), self._image.width(), self._image.height()))
        if document.shows_uncertainty:
            painter.save()
            painter.setTransform(to_widget)
            painter.drawImage(self._at, self._image)
            painter.restore()
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for pen in (QPen(QColor(0, 0, 0, 130), 2), QPen(QColor(theme.DARK.text_2), 1, Qt.PenStyle.DotLine)):
            painter.setPen(pen)
            painter.drawRect(frame)

    def _follow(self, matting: MattingSet, at: Alignment) -> None:
        left, top, right, bottom = matting.box_xyxy
        low, high = (a for a in range(3) if a != matting.axis)
        start, size = [0, 0, 0], [1, 1, 1]
        start[low], start[high] = top, left
        size[low], size[high] = bottom - top, right - left
        u0, v0, _, _ = at.plane.box_to_display(tuple(start), tuple(size))
        self._drawn, self._at = matting, QPointF(u0, v0)
        pixels = tinted(np.ascontiguousarray(at.plane.shown(matting.uncertainty)))
        height, width = pixels.shape
        # Copied: the QImage outlives the array.
        self._image = QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()


def tinted(bits: NDArray[np.float32]) -> NDArray[np.uint32]:
    """``(H, W)`` premultiplied colours, nothing where the masks agree."""
    tint = QColor(HUE)
    share = np.where(bits < _LEAST_BITS, 0, np.clip(bits, 0, 1)) * np.float32(_MOST)
    return premultiplied(share, (tint.red(), tint.green(), tint.blue()))


def draw_bits_bar(painter: QPainter, texts: TextPainter, area: QRect) -> None:
    """The colour bar of the map, from 0 to 1 bit."""
    painter.fillRect(area.adjusted(-1, -1, 1, 1), QColor(0, 0, 0, 170))
    ramp = tinted(np.linspace(1, 0, max(area.height(), 2), dtype=np.float32)[:, None])
    picture = QImage(ramp.data, 1, len(ramp), 4, QImage.Format.Format_ARGB32_Premultiplied).copy()
    painter.drawImage(area, picture)
    for share, text in ((0.0, "1 bit"), (1.0, "0")):
        at = QPointF(area.left() - 4, area.top() + share * area.height() - 8)
        texts.draw(painter, text, at, Qt.AlignmentFlag.AlignRight)


def _slice_of(at: Alignment) -> tuple[int, int | None]:
    return at.plane.axis, at.index
