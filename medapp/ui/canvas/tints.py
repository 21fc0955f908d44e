"""Tables from stored alpha to premultiplied pixels, and the hatch of the unknown band."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QColor, QImage, QPainter, QPen

from medapp.annotation.matte import FULL
from medapp.ui import theme

TINT = 0.4
"""Opacity of a full matte over the image."""


@lru_cache(maxsize=64)
def tint_table(colour: str, strength: float) -> NDArray[np.uint32]:
    """``(65536,)`` premultiplied ARGB for stored alpha, at most ``strength`` opaque."""
    share = np.arange(FULL + 1, dtype=np.float32) * np.float32(strength / FULL)
    rgb = QColor(colour)
    return premultiplied(share, (rgb.red(), rgb.green(), rgb.blue()))


@lru_cache(maxsize=8)
def backdrop_table(grey: int) -> NDArray[np.uint32]:
    """``(65536,)`` premultiplied ARGB that puts a grey behind the matte: opaque where alpha is 0."""
    share = np.float32(1.0) - np.arange(FULL + 1, dtype=np.float32) / np.float32(FULL)
    return premultiplied(share, (grey, grey, grey))


@lru_cache(maxsize=1)
def grey_table() -> NDArray[np.uint32]:
    """``(65536,)`` opaque greys for stored alpha."""
    grey = (np.arange(FULL + 1, dtype=np.uint32) + 128) // 257
    return (grey * np.uint32(0x010101)) | np.uint32(0xFF000000)


def premultiplied(share: NDArray[np.float32], rgb: tuple[int, int, int]) -> NDArray[np.uint32]:
    """ARGB of one colour that covers by ``share``, 0..1; the same shape."""
    whole = np.rint(share * 255).astype(np.float64) * 0x1000000
    for value, weight in zip(rgb, (0x10000, 0x100, 1), strict=True):
        whole += np.rint(share * value) * weight  # exact: far below 2 ** 53
    return whole.astype(np.uint32)


def hatch() -> QImage:
    """Diagonal lines, light with a dark edge, that can be told over any grey."""
    side = 8
    tile = QImage(side, side, QImage.Format.Format_ARGB32_Premultiplied)
    tile.fill(QColor(0, 0, 0, 40))
    painter = QPainter(tile)
    for colour, shift in ((QColor(0, 0, 0, 170), 1), (QColor(theme.DARK.text), 0)):
        painter.setPen(QPen(colour, 1))
        for start in (-side, 0, side):
            painter.drawLine(start + shift, side - 1, start + side - 1 + shift, 0)
    painter.end()
    return tile
