"""Small parts that panels share: buttons, number sliders, rows, empty states."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QAction, QColor, QIcon, QPainter, QPixmap
from PySide6.QtWidgets import (
    QDockWidget,
    QDoubleSpinBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from medapp.ui import theme
from medapp.ui.icons import icon


def label(text: str = "", role: str = "") -> QLabel:
    """A label; ``role`` is ``secondary``, ``title``, ``headline``, ``danger``, ``ok`` or ``processed``."""
    made = QLabel(text)
    if role:
        made.setProperty("role", role)
    return made


def wrapped(text: str = "", role: str = "secondary") -> QLabel:
    """A label of several lines."""
    made = label(text, role)
    made.setWordWrap(True)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    policy.setHeightForWidth(True)  # narrow places need more lines; setting a policy forgets that a label wraps
    made.setSizePolicy(policy)
    return made


def button(text: str, look: str = "", tooltip: str = "", icon_name: str = "") -> QPushButton:
    """A push button; ``look`` is ``primary``, ``danger``, ``quiet`` or nothing."""
    made = QPushButton(text)
    if look:
        made.setProperty("look", look)
    if icon_name:
        made.setText(f" {text}")  # room between icon and text
        made.setIcon(icon(icon_name, "on_accent" if look == "primary" else "text"))
        made.setIconSize(QSize(theme.ICON, theme.ICON))
    made.setToolTip(tooltip or text)
    made.setAccessibleName(text.rstrip("…"))
    return made


def icon_button(icon_name: str, name: str, tooltip: str = "", *, is_checkable: bool = False) -> QToolButton:
    """A button with an icon only; its name is for screen readers."""
    made = QToolButton()
    made.setProperty("look", "icon")
    made.setIcon(icon(icon_name))
    made.setIconSize(QSize(theme.ICON, theme.ICON))
    made.setAccessibleName(name)
    made.setToolTip(tooltip or name)
    made.setCheckable(is_checkable)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return made


def action_button(action: QAction, look: str = "icon") -> QToolButton:
    """A tool button of an action."""
    made = QToolButton()
    made.setProperty("look", look)
    made.setDefaultAction(action)
    made.setIconSize(QSize(theme.ICON, theme.ICON))
    made.setAccessibleName(action.text().rstrip("…"))
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return made


def scrolling(inner: QWidget, *, takes_focus: bool = True) -> QScrollArea:
    """A part that scrolls up and down where it is taller than its place; it is never wider.

    Args:
        inner: What scrolls.
        takes_focus: Whether the keys scroll it; not where Tab should go from one control to the next.
    """
    made = QScrollArea()
    made.setWidgetResizable(True)
    made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    if not takes_focus:
        made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    made.setWidget(inner)
    return made


def line() -> QFrame:
    """A thin separator."""
    made = QFrame()
    made.setProperty("look", "line")
    return made


def column(*parts: QWidget | QLayout | int, margin: int = theme.MARGIN, spacing: int = theme.GRID) -> QVBoxLayout:
    """A vertical layout; a number is a gap, -1 a stretch."""
    layout = QVBoxLayout()
    _fill(layout, parts, margin, spacing)
    return layout


def row(*parts: QWidget | QLayout | int, margin: int = 0, spacing: int = theme.MARGIN) -> QHBoxLayout:
    """A horizontal layout; a number is a gap, -1 a stretch."""
    layout = QHBoxLayout()
    _fill(layout, parts, margin, spacing)
    return layout


def _fill(layout: QHBoxLayout | QVBoxLayout, parts: tuple, margin: int, spacing: int) -> None:
    layout.setContentsMargins(margin, margin, margin, margin)
    layout.setSpacing(spacing)
    for part in parts:
        if isinstance(part, int):
            layout.addStretch(1) if part < 0 else layout.addSpacing(part)
        elif isinstance(part, QLayout):
            layout.addLayout(part)
        else:
            layout.addWidget(part)


def field(text: str, widget: QWidget, width: int = 84) -> QHBoxLayout:
    """A label in front of a control, on one line."""
    name = label(text, "secondary")
    name.setFixedWidth(width)
    name.setBuddy(widget)
    if not widget.accessibleName():
        widget.setAccessibleName(text)
    return row(name, widget)


def swatch(colour: str, letter: str = "", size: int = theme.ICON) -> QIcon:
    """A square of a label's colour with its letter."""
    pixmap = QPixmap(size * 2, size * 2)
    pixmap.setDevicePixelRatio(2.0)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    fill = QColor(colour)
    painter.setBrush(fill)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawRoundedRect(1, 1, size - 2, size - 2, 4, 4)
    if letter:
        light = 0.299 * fill.redF() + 0.587 * fill.greenF() + 0.114 * fill.blueF() > 0.55
        painter.setPen(QColor(theme.DARK.on_accent if light else theme.LIGHT.on_accent))
        font = painter.font()
        font.setPixelSize(11 if len(letter) == 1 else 9)
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(0, 0, size, size, Qt.AlignmentFlag.AlignCenter, letter)
    painter.end()
    return QIcon(pixmap)


class NumberSlider(QWidget):
    """A slider with its number field; Up and Down step, with Shift ten times as far."""

    value_changed = Signal(float)

    def __init__(
        self,
        name: str,
        low: float,
        high: float,
        unit: str,
        *,
        decimals: int = 0,
        step: float = 1.0,
        is_logarithmic: bool = False,
        slider_width: int = 90,
        tooltip: str = "",
    ) -> None:
        super().__init__()
        self._low, self._high, self._is_logarithmic = low, high, is_logarithmic
        self._name = label(name, "secondary")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, 1000)
        self.slider.setMinimumWidth(56)
        self.slider.setMaximumWidth(slider_width)
        self.box = _StepBox()
        self.box.setRange(low, high)
        self.box.setDecimals(decimals)
        self.box.setSingleStep(step)
        self.box.setSuffix(f" {unit}" if unit else "")
        self.box.setFixedWidth(84)
        self.box.setKeyboardTracking(False)
        for control in (self.slider, self.box):
            control.setAccessibleName(f"{name}, {unit}" if unit else name)
            control.setToolTip(tooltip or name)
        self.setToolTip(tooltip or name)
        self.setLayout(row(self._name, self.slider, self.box, spacing=6))
        self.slider.valueChanged.connect(self._on_slid)
        self.box.valueChanged.connect(self._on_typed)

    def value(self) -> float:
        """In the unit that is shown."""
        return self.box.value()

    def set_value(self, value: float) -> None:
        """Show a value without telling anyone."""
        for control in (self.box, self.slider):
            control.blockSignals(True)
        self.box.setValue(value)
        self.slider.setValue(self._to_slider(value))
        for control in (self.box, self.slider):
            control.blockSignals(False)

    def _to_slider(self, value: float) -> int:
        value = min(max(value, self._low), self._high)
        if self._is_logarithmic:
            import math

            return round(1000 * math.log(value / self._low) / math.log(self._high / self._low))
        return round(1000 * (value - self._low) / (self._high - self._low))

    def _on_slid(self, place: int) -> None:
        share = place / 1000
        if self._is_logarithmic:
            value = self._low * (self._high / self._low) ** share
        else:
            value = self._low + share * (self._high - self._low)
        self.box.blockSignals(True)
        self.box.setValue(value)
        self.box.blockSignals(False)
        self.value_changed.emit(self.box.value())

    def _on_typed(self, value: float) -> None:
        self.slider.blockSignals(True)
        self.slider.setValue(self._to_slider(value))
        self.slider.blockSignals(False)
        self.value_changed.emit(value)


class _StepBox(QDoubleSpinBox):
    """Shift makes a step ten times as large."""

    def keyPressEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down) and event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.stepBy(10 if event.key() == Qt.Key.Key_Up else -10)
            event.accept()
            return
        super().keyPressEvent(event)


class DockTitle(QWidget):
    """The title of a dock, with float and close."""

    def __init__(self, dock: QDockWidget) -> None:
        super().__init__()
        self._name = label(dock.windowTitle(), "title")
        self._float = icon_button("arrow-square-out", f"Float {dock.windowTitle()}")
        self._float.clicked.connect(lambda _c=False: dock.setFloating(not dock.isFloating()))
        self._close = icon_button(
            "x", f"Close {dock.windowTitle()}", f"Close — View › Panels brings {dock.windowTitle()} back"
        )
        self._close.clicked.connect(lambda _c=False: dock.close())
        for made in (self._float, self._close):
            made.setIconSize(QSize(14, 14))
            made.setIcon(icon("arrow-square-out" if made is self._float else "x", "text_2"))
        layout = row(self._name, -1, self._float, self._close, spacing=0)
        layout.setContentsMargins(theme.MARGIN + 2, 4, theme.GRID, 2)
        self.setLayout(layout)


class EmptyState(QWidget):
    """One sentence and one button."""

    def __init__(self, sentence: str, button_text: str = "", on_click: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._sentence = label(sentence, "secondary")
        self._sentence.setWordWrap(True)
        self._sentence.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.button = button(button_text)
        self.button.setVisible(bool(button_text))
        if on_click is not None:
            self.button.clicked.connect(lambda _checked=False: on_click())
        centred = row(-1, self.button, -1)
        self.setLayout(column(-1, self._sentence, 4, centred, -1, margin=theme.GROUP_GAP))

    def say(self, sentence: str) -> None:
        """Another sentence."""
        self._sentence.setText(sentence)


def focus_first(*widgets: QWidget) -> None:
    """Hand the keyboard to the first one that is there and can be used."""
    for widget in widgets:
        if not widget.isHidden() and widget.isEnabled():
            widget.setFocus()
            return


def refresh_style(widget: QWidget) -> None:
    """Let the style sheet see a changed property."""
    widget.style().unpolish(widget)
    widget.style().polish(widget)
