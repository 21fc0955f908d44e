"""The strip of masks and the alpha of a matting model, and what can be done with their disagreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QColor, QIcon, QImage, QLinearGradient, QPainter, QPaintEvent, QPixmap
from PySide6.QtWidgets import QAbstractItemView, QCheckBox, QListWidget, QListWidgetItem, QSpinBox, QWidget

from medapp.ui import theme
from medapp.ui.canvas.uncertainty import HUE
from medapp.ui.document import Document
from medapp.ui.matte_proposing import MOST_MASKS
from medapp.ui.prompts import MattingSet
from medapp.ui.widgets import NumberSlider, button, column, label, line, row

if TYPE_CHECKING:
    from PySide6.QtGui import QMouseEvent

    from medapp.ui.matte_proposing import MatteProposing

THUMBNAIL_PX = 60
_CELL = QSize(THUMBNAIL_PX + 10, THUMBNAIL_PX + 26)
_BITS = 0.1


class ThumbnailStrip(QListWidget):
    """One row of pictures: arrows step, the pointer looks without choosing, a click chooses."""

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self._shown: MattingSet | None = None
        self.setProperty("look", "strip")
        self.setViewMode(QListWidget.ViewMode.IconMode)
        self.setFlow(QListWidget.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMovement(QListWidget.Movement.Static)
        self.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.setGridSize(_CELL)
        self.setUniformItemSizes(True)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFixedHeight(_CELL.height() + 14)
        self.setMouseTracking(True)
        self.setAccessibleName("Masks and alpha of the matting model")
        self.setToolTip("← and → or N step through them; the one under the pointer is shown on the image")
        self.itemEntered.connect(lambda item: document.hover_candidate(self.row(item)))
        self.currentRowChanged.connect(self._on_row)

    def show_set(self) -> None:
        """Follow the document."""
        document = self._document
        matting = document.matting
        self.blockSignals(True)
        if matting is not self._shown:
            self._shown = matting
            self.clear()
            for candidate, picture in zip(document.candidates, matting.thumbnails if matting else (), strict=False):
                item = QListWidgetItem(_icon(picture, matting.aspect if matting else 1.0), candidate.name)
                item.setTextAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)
                item.setToolTip(_tooltip(candidate.name, candidate.mask, candidate.alpha))
                self.addItem(item)
        self.setCurrentRow(document.candidate_index)
        current = self.currentItem()
        if current is not None:
            self.scrollToItem(current)
        self.blockSignals(False)

    def _on_row(self, place: int) -> None:
        if place >= 0:
            self._document.hover_candidate(None)
            self._document.step_candidate(place - self._document.candidate_index)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        if self.itemAt(event.position().toPoint()) is None:
            self._document.hover_candidate(None)

    def leaveEvent(self, event: QEvent) -> None:
        self._document.hover_candidate(None)
        super().leaveEvent(event)


class MattingTray(QWidget):
    """Strip, number of masks, other draws, uncertainty, and the way from there to an unknown band."""

    def __init__(self, document: Document, proposing: MatteProposing) -> None:
        super().__init__()
        self._document, self._proposing = document, proposing
        self.strip = ThumbnailStrip(document)
        self.count = QSpinBox()
        self.count.setRange(2, MOST_MASKS)
        self.count.setValue(document.settings.matting_count)
        self.count.setToolTip(f"Masks to draw, 2 to {MOST_MASKS}; the first ones stay the same")
        self.count.setKeyboardTracking(False)
        self.count.valueChanged.connect(self._on_count)
        self.anew = button(
            "New draw", "", "New draw — other masks at the same place; the same click alone repeats them"
        )
        self.anew.clicked.connect(lambda _c=False: proposing.draw_anew())
        self.mean_first = QCheckBox("Mean first")
        self.mean_first.setToolTip("The first mask, and with it α, comes from the most likely draw: it varies least")
        self.mean_first.setChecked(document.settings.matting_mean_first)
        self.mean_first.toggled.connect(self._on_mean_first)
        self.uncertainty = QCheckBox("Uncertainty")
        self.uncertainty.setToolTip("Show where the masks disagree, in bits: 1 = half of them against the other half")
        self.uncertainty.toggled.connect(document.show_uncertainty)
        self.bar = BitsBar()
        self.bits = NumberSlider(
            "At least",
            0.02,
            1.0,
            "bit",
            decimals=2,
            step=0.05,
            tooltip="Pixels that are uncertain by at least so much go into the unknown band",
        )
        self.bits.set_value(_BITS)
        self.bits.value_changed.connect(self._on_bits)
        self._has_chosen_bits = False
        self._seen: MattingSet | None = None
        self.to_band = button(
            "Uncertain → unknown band",
            "",
            "Uncertain to unknown band — the active matte's band takes them; Refine (Shift+A) then solves α",
        )
        self.to_band.clicked.connect(lambda _c=False: self.put_into_band())
        self._share = label("", "secondary")
        self.setLayout(
            column(
                self.strip,
                row(*_field("Masks", self.count), self.anew, -1),
                self.mean_first,
                line(),
                row(self.uncertainty, -1, self.bar),
                self.bits,
                self._share,
                self.to_band,
                -1,
                margin=0,
                spacing=6,
            )
        )
        document.uncertainty_changed.connect(self._show_switch)
        self.show_set()

    def put_into_band(self) -> None:
        """Everything at or above the threshold."""
        self._proposing.uncertain_to_band(self.bits.value())

    def show_set(self) -> None:
        """Follow the document."""
        self.strip.show_set()
        self._show_switch()
        matting, candidate = self._document.matting, self._document.candidate
        if matting is not None and candidate is not None and matting is not self._seen and not self._has_chosen_bits:
            self.bits.set_value(matting.suggested_bits(candidate.mask))
        self._seen = matting
        self._show_share()

    def _show_switch(self) -> None:
        self.uncertainty.blockSignals(True)
        self.uncertainty.setChecked(self._document.shows_uncertainty)
        self.uncertainty.blockSignals(False)

    def _show_share(self) -> None:
        matting = self._document.matting
        if matting is not None:
            pixels = int(np.count_nonzero(matting.uncertainty >= self.bits.value()))
            self._share.setText(f"{pixels} px, {100 * pixels / matting.uncertainty.size:.0f} % of the crop")
            self.to_band.setEnabled(pixels > 0)

    def _on_bits(self, _value: float) -> None:
        self._has_chosen_bits = True
        self._show_share()

    def _on_count(self, count: int) -> None:
        self._document.change_settings(matting_count=count)
        self._proposing.ask_again()

    def _on_mean_first(self, checked: bool) -> None:
        self._document.change_settings(matting_mean_first=checked)
        self._proposing.ask_again()


class BitsBar(QWidget):
    """The colours of the uncertainty, from 0 to 1 bit."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedSize(112, 16)
        self.setAccessibleName("Colour bar of the uncertainty, 0 to 1 bit")

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        bar = self.rect().adjusted(14, 3, -34, -3)
        ramp = QLinearGradient(bar.topLeft(), bar.topRight())
        ramp.setColorAt(0, QColor(theme.DARK.surround))
        ramp.setColorAt(1, QColor(HUE))
        painter.fillRect(bar, ramp)
        painter.setPen(QColor(theme.current().line))
        painter.drawRect(bar.adjusted(0, 0, -1, -1))
        painter.setPen(QColor(theme.current().text_2))
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(self.rect(), middle | Qt.AlignmentFlag.AlignLeft, "0")
        painter.drawText(self.rect(), middle | Qt.AlignmentFlag.AlignRight, "1 bit")


def _field(text: str, widget: QWidget) -> tuple[QWidget, QWidget]:
    name = label(text, "secondary")
    name.setBuddy(widget)
    widget.setAccessibleName(text)
    return name, widget


def _icon(picture: NDArray[np.uint8], aspect: float) -> QIcon:
    height, width = picture.shape[:2]
    # Copied: the QImage outlives the array.
    image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    side = 2 * THUMBNAIL_PX  # sharp on dense screens too
    wide = width * aspect
    scale = side / max(wide, height)
    size = QSize(max(1, round(wide * scale)), max(1, round(height * scale)))
    scaled = image.scaled(size, Qt.AspectRatioMode.IgnoreAspectRatio, Qt.TransformationMode.SmoothTransformation)
    pixmap = QPixmap(side, side)
    pixmap.fill(QColor(theme.DARK.surround))
    painter = QPainter(pixmap)
    painter.drawImage((side - size.width()) // 2, (side - size.height()) // 2, scaled)
    painter.end()
    made = QIcon(pixmap)
    made.addPixmap(pixmap, QIcon.Mode.Selected)  # Qt would tint the chosen one
    return made


def _tooltip(name: str, mask: NDArray[np.bool_], alpha: NDArray[np.float32] | None) -> str:
    if alpha is None:
        return f"{name} — {int(mask.sum())} px; Enter accepts it"
    return f"α, soft — {float(alpha.sum()):.0f} px; Enter accepts it as it is"
