"""The trust map of a restoration over its image: one hue, opaque where eight answers differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRect, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QTransform

from medapp.scan.scan import Scan
from medapp.ui import theme
from medapp.ui.canvas.compare import Alignment, slice_values
from medapp.ui.canvas.furniture import TextPainter, nice_length, plain_number
from medapp.ui.canvas.tints import premultiplied

HUE = theme.LABEL_COLOURS[5]
LEGEND = ("spread of 8 answers;", "not a guarantee")
_MOST = 0.85
_LEAST = 0.04
_BAR_WIDTH = 12


@dataclass(frozen=True)
class TrustBar:
    """What the opacity means.

    Attributes:
        limit: Spread at the full end of the bar, in native units; the same for all slices.
        unit: Of the restoration.
    """

    limit: float
    unit: str


class TrustLayer:
    """Colours one slice of a trust map; nothing is done twice."""

    def __init__(self) -> None:
        self._key: object = None
        self._image = QImage()

    def forget(self) -> None:
        """Colour anew next time."""
        self._key = None

    def show(self, trust: Scan, at: Alignment) -> TrustBar:
        """Take a slice; returns what its colours mean."""
        bar = bar_of(trust)
        key = (trust, at.plane, at.index, bar)
        if key != self._key and at.index is not None:
            self._key = key
            self._image = image_of(slice_values(trust, at.plane, at.index), bar.limit)
        return bar

    def draw(self, painter: QPainter, to_widget: QTransform, is_smooth: bool) -> None:
        """Draw the slice through its place in the frame."""
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, is_smooth)
        painter.setTransform(to_widget)
        painter.drawImage(QPointF(0, 0), self._image)
        painter.restore()


def bar_of(trust: Scan) -> TrustBar:
    """A round end of the bar, just beyond what nearly all voxels have."""
    high = trust.windows[0].width if trust.windows else 1.0
    below = nice_length(high) or 1.0
    limit = below if below >= high else nice_length(below * 2.6)
    return TrustBar(limit, "" if trust.unit == "arbitrary" else trust.unit)


def tinted(spread: NDArray[np.float32], limit: float) -> NDArray[np.uint32]:
    """``(H, W)`` premultiplied colours, nothing where the answers agree."""
    steps = np.minimum(spread * np.float32(255 / limit), 255).astype(np.uint8)
    return _ramp().take(steps)


@lru_cache(maxsize=1)
def _ramp() -> NDArray[np.uint32]:
    """``(256,)`` premultiplied colours from no spread to the end of the bar."""
    share = np.linspace(0, 1, 256, dtype=np.float32)
    tint = QColor(HUE)
    covers = np.where(share < _LEAST, 0, share).astype(np.float32) * np.float32(_MOST)
    return premultiplied(covers, (tint.red(), tint.green(), tint.blue()))


def image_of(spread: NDArray[np.float32], limit: float) -> QImage:
    """A slice of the map as a picture to lay over the restoration."""
    pixels = np.ascontiguousarray(tinted(spread, limit))
    height, width = pixels.shape
    # Copied: the QImage outlives the array.
    return QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()


def spread_text(spread: float, unit: str) -> str:
    """The spread at a place, as the status bar says it."""
    number = plain_number(float(f"{spread:.3g}"))
    return f"spread ± {number} {unit}".rstrip()


def draw_trust_bar(painter: QPainter, texts: TextPainter, area: QRect, bar: TrustBar) -> None:
    """The colour bar at the right edge of a pane, in native units, with its legend below."""
    height = min(160, max(40, area.height() // 2 - 90))
    if area.width() < 120:
        return
    right = Qt.AlignmentFlag.AlignRight
    place = QRect(area.right() - 20, area.top() + 64, _BAR_WIDTH, height)
    painter.fillRect(place.adjusted(-1, -1, 1, 1), QColor(0, 0, 0, 170))
    ramp = tinted(np.linspace(bar.limit, 0, max(height, 2), dtype=np.float32)[:, None], bar.limit)
    picture = QImage(ramp.data, 1, len(ramp), 4, QImage.Format.Format_ARGB32_Premultiplied).copy()
    painter.drawImage(place, picture)
    unit = bar.unit or "a.u."
    for share, text in ((0.0, f"± {plain_number(bar.limit)} {unit}"), (0.5, plain_number(bar.limit / 2)), (1.0, "0")):
        texts.draw(painter, text, QPointF(place.left() - 4, place.top() + share * (height - 1) - 8), right)
    for line, words in enumerate(LEGEND):
        texts.draw(painter, words, QPointF(place.right() + 1, place.bottom() + 8 + 15 * line), right)
