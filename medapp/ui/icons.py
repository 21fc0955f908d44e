"""Phosphor icons, tinted by the theme when they are painted.

The glyphs are those that qtawesome carries. Its package is not imported: that would load every family before the first
paint, and its icons keep the colour they were made with.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QIcon, QIconEngine, QPainter, QPixmap

from medapp.ui import theme


@cache
def _fonts_dir() -> Path:
    spec = find_spec("qtawesome")
    if spec is None or spec.origin is None:
        raise RuntimeError("qtawesome, which carries the icons, is not installed")
    return Path(spec.origin).parent / "fonts"


@cache
def _characters() -> dict[str, str]:
    charmap = next(iter(sorted(_fonts_dir().glob("phosphor-charmap-*.json"))))
    codes = json.loads(charmap.read_text(encoding="utf-8"))
    return {name: chr(int(code, 16)) for name, code in codes.items()}


@cache
def _family() -> str:
    file = next(path for path in sorted(_fonts_dir().glob("phosphor-*.ttf")))
    return QFontDatabase.applicationFontFamilies(QFontDatabase.addApplicationFont(str(file)))[0]


class _GlyphEngine(QIconEngine):
    """Paints one glyph in the theme's present colour."""

    def __init__(self, character: str, role: str) -> None:
        super().__init__()
        self._character, self._role = character, role

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        colours = theme.current()
        role = "text_off" if mode == QIcon.Mode.Disabled else self._role
        colour = self._role if self._role.startswith("#") else getattr(colours, role)
        font = QFont(_family())
        font.setPixelSize(max(1, min(rect.width(), rect.height())))
        painter.save()
        painter.setFont(font)
        painter.setPen(QColor(colour))
        painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, self._character)
        painter.restore()

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        pixmap = QPixmap(size)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        self.paint(painter, QRect(QPoint(0, 0), size), mode, state)
        painter.end()
        return pixmap

    def clone(self) -> QIconEngine:
        return _GlyphEngine(self._character, self._role)


def icon(name: str, role: str = "text") -> QIcon:
    """A Phosphor icon.

    Args:
        name: Phosphor's name, such as ``paint-brush``.
        role: A token of the theme such as ``text_2``, or a fixed ``#rrggbb``.
    """
    return QIcon(_GlyphEngine(_characters()[name], role))
