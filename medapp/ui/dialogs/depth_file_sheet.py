"""Opening a depth file: a person states what its numbers mean; nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QWidget

from medapp.scan.depth_scale import PRESETS, UNITS_MM, side_car_of
from medapp.ui.dialogs.sheet import Sheet
from medapp.ui.widgets import column, field, wrapped

OWN, STATED = "own", "stated"
DEPTH_FILTER = "Depth maps (*.png *.tif *.tiff *.npy);;All files (*)"


class DepthFileSheet(Sheet):
    """Asks for the scale of one depth file.

    Args:
        on_read: Called with the text of the scale; empty = the file's side-car states it.
    """

    def __init__(self, parent: QWidget | None, path: Path, on_read: Callable[[str], object]) -> None:
        super().__init__(parent, "What do the numbers of this depth file mean?")
        self._on_read = on_read
        has_side_car = side_car_of(path).is_file()
        self.body.addWidget(wrapped(f"{path.name} holds numbers, not lengths. State where it comes from."))
        self.scale = QComboBox()
        self.scale.setAccessibleName("Scale")
        self.scale.addItem("Choose the scale…", "")
        if has_side_car:
            self.scale.addItem(f"As {side_car_of(path).name} states", OWN)
        for preset in PRESETS.values():
            if preset.unit != "relative":
                self.scale.addItem(preset.title, preset.name)
        self.scale.addItem("Another scale…", STATED)
        self.body.addLayout(field("Scale", self.scale, 72))
        self.unit = QComboBox()
        for unit in UNITS_MM:
            self.unit.addItem(unit, unit)
        self.factor, self.offset = _number(0.02, 1e-9), _number(0.0, -1e6)
        self.own = QWidget()
        self.own.setLayout(
            column(
                field("Unit", self.unit, 72),
                field("One step is", self.factor, 72),
                field("Zero is", self.offset, 72),
                margin=0,
            )
        )
        self.body.addWidget(self.own)
        self.meaning = wrapped()
        self.body.addWidget(self.meaning)
        self.add_button("Cancel", self.reject)
        self.read = self.add_button("Read depth file", self._take, "primary")
        self.scale.currentIndexChanged.connect(lambda _i: self._show())
        self.unit.currentIndexChanged.connect(lambda _i: self._show())
        for box in (self.factor, self.offset):
            box.valueChanged.connect(lambda _v: self._show())
        if has_side_car:
            self.scale.setCurrentIndex(1)
        self._show()

    @property
    def text(self) -> str:
        """The scale as it is stated."""
        chosen = str(self.scale.currentData() or "")
        if chosen == STATED:
            return f"unit={self.unit.currentData()},scale={self.factor.value():.9g},offset={self.offset.value():.9g}"
        return "" if chosen == OWN else chosen

    def _show(self) -> None:
        chosen = str(self.scale.currentData() or "")
        unit = str(self.unit.currentData())
        self.own.setVisible(chosen == STATED)
        self.read.setEnabled(bool(chosen))
        for box in (self.factor, self.offset):
            box.setSuffix(f" {unit}")
        if chosen in PRESETS:
            preset = PRESETS[chosen]
            unknown = " and ".join(f"{value:g}" for value in preset.invalid)
            verb = "means" if len(preset.invalid) == 1 else "mean"
            self.meaning.setText(f"{preset.words()}. {unknown} {verb} unknown.")
        elif chosen == STATED:
            mm = self.factor.value() * UNITS_MM[unit]
            self.meaning.setText(f"mm = value × {mm:.6g}. 0 means unknown.")
        elif chosen == OWN:
            self.meaning.setText("The file beside it states unit, scale and what is unknown.")
        else:
            self.meaning.setText("A wrong scale makes every length wrong, so that it is never guessed.")

    def _take(self) -> None:
        text = self.text
        self.accept()
        self._on_read(text)


class _PlainBox(QDoubleSpinBox):
    """Shows as few digits as the number needs."""

    def textFromValue(self, value: float) -> str:
        return f"{value:.9g}"


def _number(value: float, low: float) -> QDoubleSpinBox:
    box = _PlainBox()
    box.setDecimals(9)
    box.setRange(low, 1e6)
    box.setValue(value)
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    return box
