"""The same five validation images at every check: what went in, what comes out, what it should be."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from medapp.ui import theme
from medapp.ui.training_state import MOST_SAMPLES

ROWS = ("Input", "Result", "Reference")
_LABEL_WIDTH = 76
_GAP = 4
_PAD = 8


def parts_of(picture: QImage) -> tuple[QImage, ...]:
    """Input, result and reference, which stand side by side in one file."""
    width = picture.width() // len(ROWS)
    return tuple(picture.copy(n * width, 0, width, picture.height()) for n in range(len(ROWS)))


class SampleStrip(QWidget):
    """Five columns of three; one of them fills the strip after a click or Enter, and Esc or a click brings all back."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._columns: tuple[tuple[QImage, ...], ...] = ()
        self.current = 0
        self.is_large = False
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMinimumHeight(150)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip("Click or Enter shows one larger; ← → the next; Esc all five")
        self._name()

    def sizeHint(self) -> QSize:
        return QSize(640, 260)

    @property
    def count(self) -> int:
        """How many images are there."""
        return len(self._columns)

    def show_pictures(self, pictures: tuple[QImage, ...]) -> None:
        """The newest ones."""
        self._columns = tuple(parts_of(picture) for picture in pictures[:MOST_SAMPLES])
        if not self._columns:
            self.is_large = False
        self.current = min(self.current, max(0, len(self._columns) - 1))
        self._name()
        self.update()

    def _name(self) -> None:
        if not self._columns:
            self.setAccessibleName("Validation images, none yet")
        elif self.is_large:
            self.setAccessibleName(f"Validation image {self.current + 1} of {self.count}, large")
        else:
            self.setAccessibleName(f"{self.count} validation images: input, result, reference")

    # -------------------------------------------------------------------------------------------------------- drawing

    def cells(self) -> list[tuple[int, int, QRect]]:
        """Column, row and place of every picture that is shown."""
        if not self._columns:
            return []
        area = self.rect().adjusted(_PAD, _PAD, -_PAD, -_PAD)
        if self.is_large:
            top = area.adjusted(0, 18, 0, 0)
            width = (top.width() - _GAP * (len(ROWS) - 1)) // len(ROWS)
            places = [QRect(top.left() + n * (width + _GAP), top.top(), width, top.height()) for n in range(len(ROWS))]
            return [(self.current, n, _inside(place, self._columns[self.current][n])) for n, place in enumerate(places)]
        area.setLeft(area.left() + _LABEL_WIDTH)
        height = (area.height() - _GAP * (len(ROWS) - 1)) // len(ROWS)
        widest = max(column[0].width() / max(1, column[0].height()) for column in self._columns)
        width = min((area.width() - _GAP * (MOST_SAMPLES - 1)) // MOST_SAMPLES, int(height * widest) + 1)
        height = min(height, int(width / widest) + 1)
        area.setTop(area.top() + (area.height() - len(ROWS) * (height + _GAP) + _GAP) // 2)
        found = []
        for column, pictures in enumerate(self._columns):
            for line, picture in enumerate(pictures):
                cell = QRect(area.left() + column * (width + _GAP), area.top() + line * (height + _GAP), width, height)
                found.append((column, line, _inside(cell, picture)))
        return found

    def paintEvent(self, event: QPaintEvent) -> None:
        tokens = theme.DARK  # around images the colours are the same in every theme
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.fillRect(self.rect(), QColor(tokens.surround))
        font = painter.font()
        font.setPixelSize(theme.SECONDARY_PX)
        painter.setFont(font)
        painter.setPen(QColor(tokens.text_2))
        cells = self.cells()
        if not cells:
            painter.drawText(
                self.rect().adjusted(_PAD, _PAD, -_PAD, -_PAD),
                Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap,
                "The same five validation images appear here at every check.",
            )
        for column, line, place in cells:
            painter.drawImage(place, self._columns[column][line])
            if self.is_large:
                title = f"{ROWS[line]} · image {column + 1} of {self.count}" if line == 0 else ROWS[line]
                painter.drawText(place.left(), self.rect().top() + _PAD + 11, title)
            elif column == 0:
                at = QRect(_PAD, place.top(), _LABEL_WIDTH - _PAD, place.height())
                painter.drawText(at, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, ROWS[line])
        if self.hasFocus():
            painter.setPen(QPen(QColor(tokens.accent), 2))
            shown = [place for column, _line, place in cells if column == self.current]
            ring = self.rect().adjusted(1, 1, -1, -1)
            if shown and not self.is_large:
                ring = shown[0].united(shown[-1]).adjusted(-2, -2, 2, 2)
            painter.drawRect(ring)
        painter.end()

    # --------------------------------------------------------------------------------------------------- mouse and keys

    def choose(self, column: int, *, is_large: bool) -> None:
        """Show one larger, or all again."""
        if not self._columns:
            return
        self.current, self.is_large = column % self.count, is_large
        self._name()
        self.update()
        self.chosen.emit(self.current)

    def mousePressEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if self.is_large:
            self.choose(self.current, is_large=False)
            return
        at = event.position().toPoint()
        for column, _line, place in self.cells():
            if place.left() <= at.x() <= place.right():
                self.choose(column, is_large=True)
                return

    def keyPressEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        key = event.key()
        if key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self.choose(self.current + (1 if key == Qt.Key.Key_Right else -1), is_large=self.is_large)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.choose(self.current, is_large=not self.is_large)
        elif key == Qt.Key.Key_Escape and self.is_large:
            self.choose(self.current, is_large=False)
        else:
            super().keyPressEvent(event)


def _inside(place: QRect, picture: QImage) -> QRect:
    """As large as fits, in proportion, at the left of the place and in the middle of its height."""
    size = picture.size().scaled(place.size(), Qt.AspectRatioMode.KeepAspectRatio)
    return QRect(place.left(), place.top() + (place.height() - size.height()) // 2, size.width(), size.height())
