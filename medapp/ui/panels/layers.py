"""Layers and mattes: the list of soft layers of the open series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QColorDialog,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from medapp.ui import theme
from medapp.ui.document import MATTE_VIEWS, Document
from medapp.ui.widgets import EmptyState, button, column, field, icon_button, label, row, scrolling, swatch

if TYPE_CHECKING:
    from medapp.annotation.matte import Matte

_VIEW_TEXT = {
    "tint": "Tint",
    "outline": "Outline",
    "on black": "On black",
    "on white": "On white",
    "on checker": "On checker",
    "grey": "α as grey",
    "unknown band": "Unknown band",
}


class MatteRow(QFrame):
    """One layer: colour, name, how many slices, eye, lock."""

    def __init__(self, panel: LayersPanel, matte: Matte, is_active: bool, slices: int) -> None:
        super().__init__()
        self.matte_id = matte.matte_id
        self._panel = panel
        self.setProperty("look", "matte-active" if is_active else "matte")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(f"Matte {matte.name}, label {matte.label}{', active' if is_active else ''}")
        self.eye = icon_button(
            "eye" if matte.is_visible else "eye-slash",
            f"Hide {matte.name}" if matte.is_visible else f"Show {matte.name}",
        )
        self.eye.clicked.connect(lambda _c=False: panel.toggle(matte.matte_id, "is_visible"))
        self.lock = icon_button(
            "lock-simple" if matte.is_locked else "lock-simple-open",
            f"Unlock {matte.name}" if matte.is_locked else f"Lock {matte.name}",
        )
        self.lock.clicked.connect(lambda _c=False: panel.toggle(matte.matte_id, "is_locked"))
        self.colour = icon_button("circle", f"Colour of {matte.name}")
        self.colour.setIcon(swatch(matte.colour, matte.letter))
        self.colour.clicked.connect(lambda _c=False: panel.choose_colour(matte.matte_id))
        name = label(matte.name)
        name.setMinimumWidth(30)
        font = name.font()
        font.setBold(is_active)
        name.setFont(font)
        count = label(f"{slices} sl." if slices != 1 else "1 sl.", "secondary")
        count.setToolTip(f"Painted on {slices} slices")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.setSpacing(2)
        for part in (self.colour, name):
            layout.addWidget(part)
        layout.addStretch(1)
        if matte.group:
            group = label(matte.group)
            group.setProperty("look", "chip")
            group.setToolTip("Layers of one group sum to at most 1")
            layout.addWidget(group)
        for part in (count, self.eye, self.lock):
            layout.addWidget(part)

    def mousePressEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        self._panel.activate(self.matte_id)
        event.accept()

    def keyPressEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._panel.activate(self.matte_id)
        elif event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self._panel.remove(self.matte_id)
        else:
            super().keyPressEvent(event)


class LayersPanel(QWidget):
    """Add, name, colour, show, lock, order and delete mattes."""

    deleted = Signal(str)

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self._rows: list[MatteRow] = []
        self._list = QVBoxLayout()
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(2)
        inner = QWidget()
        holder = QVBoxLayout(inner)
        holder.setContentsMargins(0, 0, 0, 0)
        holder.addLayout(self._list)
        holder.addStretch(1)
        scroll = scrolling(inner)
        self._add = button(
            "New matte", tooltip="New matte (Ctrl+Shift+N) — a soft layer with the next label", icon_name="plus"
        )
        self._add.clicked.connect(lambda _c=False: document.new_matte())
        self._delete = icon_button("trash", "Delete matte", "Delete matte (Ctrl+Delete) — undo brings it back")
        self._delete.clicked.connect(lambda _c=False: self.remove_active())
        self._up = icon_button("arrow-up", "Move up")
        self._up.clicked.connect(lambda _c=False: self._move(-1))
        self._down = icon_button("arrow-down", "Move down")
        self._down.clicked.connect(lambda _c=False: self._move(1))
        self._name = QLineEdit()
        self._name.editingFinished.connect(self._on_name)
        self._label = QSpinBox()
        self._label.setRange(1, 65535)
        self._label.setKeyboardTracking(False)
        self._label.setToolTip("Number in exported label maps")
        self._label.valueChanged.connect(self._on_label)
        self._group = QComboBox()
        self._group.setEditable(True)
        self._group.setToolTip("Layers of one group sum to at most 1; empty = in no group")
        self._group.lineEdit().setPlaceholderText("none")
        self._group.lineEdit().editingFinished.connect(self._on_group)
        self._group.activated.connect(lambda _i: self._on_group())
        self._view = QComboBox()
        for view in MATTE_VIEWS:
            self._view.addItem(_VIEW_TEXT[view], view)
        self._view.setToolTip("Matte view (T) — how mattes are drawn")
        self._view.activated.connect(lambda _i: document.set_matte_view(self._view.currentData()))
        fields = QWidget()
        fields.setLayout(
            column(
                field("Name", self._name, 56),
                field("Label", self._label, 56),
                field("Group", self._group, 56),
                margin=0,
            )
        )
        self._details = scrolling(fields, takes_focus=False)  # in a small window a proposal needs the height
        self._details.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._details.setMinimumHeight(self._name.sizeHint().height())
        full = QWidget()
        full.setLayout(
            column(
                row(self._add, -1, self._up, self._down, self._delete, spacing=2),
                scroll,
                self._details,
                field("View", self._view, 56),
            )
        )
        self._empty = EmptyState(
            "A matte is a soft layer: how much of each voxel belongs to a structure.", "New matte", document.new_matte
        )
        self._nothing = EmptyState("Open a series to paint mattes on it.")
        self._stack = QStackedLayout(self)
        for page in (self._nothing, self._empty, full):
            self._stack.addWidget(page)
        document.annotation_changed.connect(self._rebuild)
        document.active_matte_changed.connect(self._rebuild)
        document.matte_painted.connect(lambda *_: self._recount())
        document.overlays_changed.connect(self._show_view)
        self._rebuild()

    def _rebuild(self) -> None:
        annotation = self._document.annotation
        mattes = annotation.mattes if annotation is not None else ()
        self._stack.setCurrentIndex(0 if annotation is None else 1 if not mattes else 2)
        focused = next((r.matte_id for r in self._rows if r.hasFocus()), None)
        for old in self._rows:
            self._list.removeWidget(old)
            old.hide()
            old.deleteLater()
        active = self._document.active_matte
        self._rows = [
            MatteRow(
                self, matte, active is not None and matte.matte_id == active.matte_id, len(matte.annotated_slices())
            )
            for matte in mattes
        ]
        for made in self._rows:
            self._list.addWidget(made)
            if made.matte_id == focused:
                made.setFocus()
        self._details.setVisible(active is not None)
        if active is not None:
            for control in (self._name, self._label, self._group):
                control.blockSignals(True)
            if not self._name.hasFocus() or self._name.text() != active.name:
                self._name.setText(active.name)
            self._label.setValue(active.label)
            self._group.clear()
            self._group.addItems(["", *sorted({m.group for m in mattes if m.group})])
            self._group.setCurrentText(active.group or "")
            for control in (self._name, self._label, self._group):
                control.blockSignals(False)
            place = mattes.index(active) if active in mattes else 0
            self._up.setEnabled(place > 0)
            self._down.setEnabled(place + 1 < len(mattes))
        self._delete.setEnabled(active is not None)

    def _recount(self) -> None:
        annotation = self._document.annotation
        if annotation is None:
            return
        for made, matte in zip(self._rows, annotation, strict=False):
            text = f"{len(matte.annotated_slices())} sl."
            for child in made.findChildren(type(label())):
                if child.property("role") == "secondary" and child.text() != text:
                    child.setText(text)

    def _show_view(self) -> None:
        self._view.setCurrentIndex(max(0, self._view.findData(self._document.matte_view)))

    # --------------------------------------------------------------------------------------------------- what rows ask

    def activate(self, matte_id: str) -> None:
        """Take a layer in hand."""
        self._document.set_active_matte(matte_id)

    def toggle(self, matte_id: str, switch: str) -> None:
        """Turn visibility or lock around."""
        annotation = self._document.annotation
        if annotation is not None and matte_id in annotation:
            value = not getattr(annotation.matte(matte_id).props, switch)
            words = {"is_visible": ("Hide matte", "Show matte"), "is_locked": ("Unlock matte", "Lock matte")}
            self._document.change_matte(matte_id, words[switch][int(value)], **{switch: value})

    def choose_colour(self, matte_id: str) -> None:
        """Pick another colour; the proposals are safe for colour-vision deficiencies."""
        annotation = self._document.annotation
        if annotation is None or matte_id not in annotation:
            return
        dialog = QColorDialog(QColor(annotation.matte(matte_id).colour), self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle("Colour of the matte")
        for index in range(14):
            QColorDialog.setCustomColor(index, QColor(theme.label_colour(index)))
        dialog.colorSelected.connect(
            lambda colour: self._document.change_matte(matte_id, "Change colour", colour=colour.name())
        )
        dialog.open()

    def remove(self, matte_id: str) -> None:
        """Delete a layer; undo brings it back."""
        self._document.delete_matte(matte_id)
        self.deleted.emit(matte_id)

    def remove_active(self) -> None:
        """Delete the active layer."""
        if self._document.active_matte is not None:
            self.remove(self._document.active_matte.matte_id)

    def _move(self, steps: int) -> None:
        active, annotation = self._document.active_matte, self._document.annotation
        if active is not None and annotation is not None:
            self._document.move_matte(active.matte_id, annotation.index(active.matte_id) + steps)

    def _on_name(self) -> None:
        active, name = self._document.active_matte, self._name.text().strip()
        if active is not None and name and name != active.name:
            self._document.change_matte(active.matte_id, "Rename matte", name=name)

    def _on_label(self, number: int) -> None:
        active = self._document.active_matte
        if active is not None and number != active.label:
            self._document.change_matte(active.matte_id, "Change label", label=number)

    def _on_group(self) -> None:
        active, name = self._document.active_matte, self._group.currentText().strip()
        if active is not None and (name or None) != active.group:
            self._document.change_matte(active.matte_id, "Change group", group=name or None)
