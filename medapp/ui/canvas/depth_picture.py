"""Depth maps in colours: turbo with its colour bar in mm, uncertainty as a one-hue ramp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PySide6.QtCore import QPointF, QRect, Qt
from PySide6.QtGui import QColor, QImage, QPainter

from medapp.scan.scan import Scan
from medapp.scan.turbo import depth_colours, sigma_colours, spread
from medapp.ui import theme
from medapp.ui.canvas.furniture import TextPainter

_BAR_WIDTH = 12
_TICKS = 5


@dataclass(frozen=True)
class DepthBar:
    """What the colours of a depth picture mean.

    Attributes:
        role: ``depth`` or ``sigma``.
        low_mm, high_mm: Depths at the ends of the bar.
    """

    role: str
    low_mm: float
    high_mm: float


def bar_of(info: Any, scan: Scan, z: int) -> DepthBar:
    """The colour range of a depth series: the one kept with it, else that of the frame."""
    provenance = getattr(info, "provenance", None) or {}
    role = "sigma" if provenance.get("role") == "sigma" else "depth"
    kept = provenance.get("shown_mm")
    if isinstance(kept, list | tuple) and len(kept) == 2 and float(kept[0]) < float(kept[1]):
        return DepthBar(role, float(kept[0]), float(kept[1]))
    low, high = spread(scan.slice_values(z))
    return DepthBar(role, 0.0 if role == "sigma" else low, high)


class DepthColours:
    """Turns a depth series into a colour one, frame by frame, each once."""

    def __init__(self) -> None:
        self._of: Scan | None = None
        self._bar: DepthBar | None = None
        self._coloured: Scan | None = None
        self._done: set[int] = set()

    def shown(self, scan: Scan, bar: DepthBar, z: int) -> Scan:
        """The series as RGB with this frame filled in."""
        if self._coloured is None or scan is not self._of or bar != self._bar:
            # only the pages of frames that are looked at are ever touched
            stored = np.zeros((*scan.shape[:3], 3), dtype=np.uint8)
            self._coloured = Scan(
                stored=stored,
                geometry=scan.geometry,
                modality=scan.modality,
                kind=scan.kind,
                pixel_spacing_mm=scan.pixel_spacing_mm,
                index_spacing_mm=scan.index_spacing_mm,
            )
            self._of, self._bar, self._done = scan, bar, set()
        if z not in self._done:
            self._coloured.stored[z] = coloured(scan.slice_values(z), bar)
            self._done.add(z)
        return self._coloured


def coloured(values: Any, bar: DepthBar) -> Any:
    """``(H, W)`` millimetres as ``(H, W, 3)`` uint8."""
    if bar.role == "sigma":
        return sigma_colours(values, bar.high_mm)
    return depth_colours(values, bar.low_mm, bar.high_mm)


def draw_depth_bar(painter: QPainter, texts: TextPainter, area: QRect, bar: DepthBar) -> None:
    """The colour bar at the right edge of a pane: near below, far above, a number at every quarter."""
    height = min(200, area.height() - 190)
    if height < 60 or area.width() < 90:
        return
    place = QRect(area.right() - 8 - _BAR_WIDTH, area.top() + 64, _BAR_WIDTH, height)
    shares = np.linspace(1.0, 0.0, height)[:, None]
    ramp = np.ascontiguousarray(coloured(bar.low_mm + shares * (bar.high_mm - bar.low_mm), bar))
    if bar.role == "depth" and bar.low_mm <= 0:
        ramp[-1] = ramp[-2]
    picture = QImage(ramp.data, 1, height, 3, QImage.Format.Format_RGB888).copy()
    painter.fillRect(place.adjusted(-1, -1, 1, 1), QColor(0, 0, 0, 170))
    painter.drawImage(place, picture)
    right = Qt.AlignmentFlag.AlignRight
    title = "± mm" if bar.role == "sigma" else "depth, mm"
    texts.draw(painter, title, QPointF(place.right(), place.top() - 24), right)
    decimals = 0 if bar.high_mm - bar.low_mm >= 20 else 1 if bar.high_mm - bar.low_mm >= 2 else 2
    for tick in range(_TICKS):
        share = tick / (_TICKS - 1)
        value = bar.high_mm + share * (bar.low_mm - bar.high_mm)
        y = place.top() + share * (height - 1)
        painter.fillRect(place.left() - 4, round(y), 4, 1, QColor(theme.DARK.text))
        texts.draw(painter, f"{value:.{decimals}f}", QPointF(place.left() - 7, y - 8), right)
