"""What is written over an image: text with a halo, chips, orientation letters, scale bar, colour bar."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QImage, QPainter, QPen

from medapp.ui import theme
from medapp.ui.canvas.raster import diverging_ramp

MARGIN = 8
_HALO = QColor(0, 0, 0, 225)
_OFFSETS = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))
_KEPT_TEXTS = 96


@dataclass(frozen=True)
class Chip:
    """The header chip of a pane: what kind of image this is.

    Attributes:
        kind: ``original``, ``restored``, ``filtered`` or ``synthetic``.
    """

    text: str
    kind: str = "original"

    @property
    def is_processed(self) -> bool:
        """True for everything that is not the original."""
        return self.kind != "original"

    @property
    def colour(self) -> str:
        """Fill of the chip as ``#rrggbb``."""
        if self.kind == "synthetic":
            return theme.DARK.synthetic
        return theme.DARK.processed if self.is_processed else theme.DARK.text_2


class TextPainter:
    """Draws overlay text; each line is drawn with its halo once and then copied."""

    def __init__(self) -> None:
        self._lines: OrderedDict[tuple[str, str, int, bool, float], QImage] = OrderedDict()
        self._fonts: dict[tuple[int, bool], QFont] = {}
        self._widths: dict[str, int] = {}
        self._elided: dict[tuple[str, int, Qt.TextElideMode], str] = {}

    def font(self, px: int = theme.SECONDARY_PX, is_bold: bool = False) -> QFont:
        """The overlay font."""
        if (px, is_bold) not in self._fonts:
            font = QFont()
            font.setPixelSize(px)
            font.setBold(is_bold)
            self._fonts[px, is_bold] = font
        return self._fonts[px, is_bold]

    def line(self, painter: QPainter, text: str, colour: str, px: int, is_bold: bool) -> QImage:
        """The picture of a line in device pixels."""
        ratio = painter.device().devicePixelRatioF()
        key = (text, colour, px, is_bold, ratio)
        picture = self._lines.get(key)
        if picture is None:
            font = self.font(px, is_bold)
            metrics = QFontMetrics(font)
            width, height = metrics.horizontalAdvance(text) + 4, metrics.height() + 2
            picture = _clear_image(width, height, ratio)
            brush = QPainter(picture)
            brush.setFont(font)
            baseline = 1 + metrics.ascent()
            brush.setPen(_HALO)
            for dx, dy in _OFFSETS:
                brush.drawText(2 + dx, baseline + dy, text)
            brush.setPen(QColor(colour))
            brush.drawText(2, baseline, text)
            brush.end()
            self._lines[key] = picture
            if len(self._lines) > _KEPT_TEXTS:
                self._lines.popitem(last=False)
        else:
            self._lines.move_to_end(key)
        return picture

    def draw(
        self,
        painter: QPainter,
        text: str,
        at: QPointF,
        align: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignLeft,
        colour: str = theme.DARK.text,
        px: int = theme.SECONDARY_PX,
        is_bold: bool = False,
    ) -> QRectF:
        """One line with its top edge at ``at``, which is its left end, right end or middle; returns where it went."""
        picture = self.line(painter, text, colour, px, is_bold)
        size = picture.deviceIndependentSize()
        x = at.x()
        if align == Qt.AlignmentFlag.AlignRight:
            x -= size.width()
        elif align == Qt.AlignmentFlag.AlignHCenter:
            x -= size.width() / 2
        painter.drawImage(QPointF(round(x), round(at.y())), picture)
        return QRectF(x, at.y(), size.width(), size.height())

    def elided(self, text: str, room: int, mode: Qt.TextElideMode = Qt.TextElideMode.ElideRight) -> str:
        """Text shortened to a width; remembered."""
        key = (text, room, mode)
        if key not in self._elided:
            if len(self._elided) > _KEPT_TEXTS:
                self._elided.clear()
            self._elided[key] = QFontMetrics(self.font()).elidedText(text, mode, room)
        return self._elided[key]

    def chip_width(self, chip: Chip) -> int:
        """Width of a chip that has all the room it wants; remembered."""
        if chip.text not in self._widths:
            self._widths[chip.text] = QFontMetrics(self.font(is_bold=True)).horizontalAdvance(chip.text) + 16
        return self._widths[chip.text]

    def draw_chip(self, painter: QPainter, chip: Chip, at: QPointF, room: float) -> None:
        """The chip with its left top corner at ``at``; text that does not fit is shortened in the middle."""
        ratio = painter.device().devicePixelRatioF()
        key = (chip.text, chip.kind, int(room), False, ratio)
        picture = self._lines.get(key)
        if picture is None:
            picture = self._lines[key] = self._chip(chip, int(room), ratio)
        else:
            self._lines.move_to_end(key)
        painter.drawImage(QPointF(round(at.x()), round(at.y())), picture)

    def _chip(self, chip: Chip, room: int, ratio: float) -> QImage:
        font = self.font(theme.SECONDARY_PX, True)
        metrics = QFontMetrics(font)
        text = metrics.elidedText(chip.text, Qt.TextElideMode.ElideMiddle, room - 16)
        box = QRectF(0, 0, metrics.horizontalAdvance(text) + 16, metrics.height() + 6)
        picture = _clear_image(box.width(), box.height(), ratio)
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        painter.setFont(font)
        if chip.is_processed:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(chip.colour))
            painter.drawRoundedRect(box, 4, 4)
            painter.setPen(QColor(theme.DARK.surround))
        else:
            painter.setPen(QPen(QColor(chip.colour), 1))
            painter.setBrush(QColor(theme.DARK.surround))
            painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
            painter.setPen(QColor(theme.DARK.text))
        painter.drawText(box, int(Qt.AlignmentFlag.AlignCenter), text)
        painter.end()
        return picture


def _clear_image(width: float, height: float, ratio: float) -> QImage:
    size = math.ceil(width * ratio), math.ceil(height * ratio)
    picture = QImage(*size, QImage.Format.Format_ARGB32_Premultiplied)
    picture.setDevicePixelRatio(ratio)
    picture.fill(Qt.GlobalColor.transparent)
    return picture


def nice_length(longest: float) -> float:
    """The largest of 1, 2, 5 · 10ⁿ that is not longer."""
    if not longest > 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(longest))
    return max((step * power for step in (1.0, 2.0, 5.0) if step * power <= longest * (1 + 1e-9)), default=power)


def plain_number(value: float) -> str:
    """A number as people write it: no exponent where it can be helped, no idle zeros."""
    if abs(value) >= 1000 or value == int(value):
        return f"{value:.0f}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def draw_scale_bar(
    painter: QPainter, texts: TextPainter, left_bottom: QPointF, points_per_unit: float, unit: str, longest: float
) -> None:
    """A horizontal bar of a round length, its text above it."""
    length = nice_length(longest / points_per_unit)
    if unit == "px" and length < 1:
        return
    width = length * points_per_unit
    x, y = left_bottom.x(), left_bottom.y()
    painter.fillRect(QRectF(x - 1, y - 7, width + 2, 9), _HALO)
    colour = QColor(theme.DARK.text)
    painter.fillRect(QRectF(x, y - 2, width, 2), colour)
    painter.fillRect(QRectF(x, y - 6, 1, 6), colour)
    painter.fillRect(QRectF(x + width - 1, y - 6, 1, 6), colour)
    texts.draw(painter, f"{plain_number(length)} {unit}", QPointF(x - 2, y - 24))


def draw_colour_bar(painter: QPainter, texts: TextPainter, area: QRect, limit: float, unit: str) -> None:
    """The colour bar of a difference: its two ends, zero, and the unit."""
    ramp = diverging_ramp()
    # Copied, since the array behind a temporary QImage would have to outlive the call.
    picture = QImage(ramp[::-1].copy().tobytes(), 1, 256, 4, QImage.Format.Format_RGB32).copy()
    painter.fillRect(area.adjusted(-1, -1, 1, 1), _HALO)
    painter.drawImage(area, picture)
    for share, value in ((0.0, limit), (0.5, 0.0), (1.0, -limit)):
        sign = "+" if value > 0 else ""
        y = area.top() + share * area.height() - 8
        text = f"{sign}{plain_number(value)}" + (f" {unit}" if value > 0 else "")
        texts.draw(painter, text, QPointF(area.left() - 4, y), Qt.AlignmentFlag.AlignRight)
