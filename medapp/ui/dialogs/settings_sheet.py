"""Settings: theme, reader, device, privacy, undo memory, keys."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QKeySequenceEdit,
    QLineEdit,
    QSpinBox,
    QTabWidget,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from medapp.ui.actions import SPECS, conflicts, shown_key
from medapp.ui.dialogs.sheet import Sheet
from medapp.ui.document import Document
from medapp.ui.panels.restore import DEVICES
from medapp.ui.widgets import button, column, field, label, refresh_style, row, wrapped

_THEMES = (("system", "As the system"), ("light", "Light"), ("dark", "Dark"))


class SettingsSheet(Sheet):
    """Every change acts at once."""

    def __init__(self, parent: QWidget | None, document: Document) -> None:
        super().__init__(parent, "Settings", 560)
        self._document = document
        settings = document.settings
        self.theme = QComboBox()
        for value, text in _THEMES:
            self.theme.addItem(text, value)
        self.theme.setCurrentIndex(self.theme.findData(settings.theme))
        self.theme.activated.connect(lambda _i: document.change_settings(theme=self.theme.currentData()))
        self.reader = QLineEdit(settings.reader)
        self.reader.setPlaceholderText("Your name or initials; goes into every revision")
        self.reader.editingFinished.connect(lambda: document.change_settings(reader=self.reader.text().strip()))
        self.device = QComboBox()
        for value, text in DEVICES:
            self.device.addItem(text, value)
        self.device.setCurrentIndex(self.device.findData(settings.device))
        self.device.activated.connect(lambda _i: document.change_settings(device=self.device.currentData()))
        self.undo = QSpinBox()
        self.undo.setRange(64, 8192)
        self.undo.setSingleStep(64)
        self.undo.setSuffix(" MB")
        self.undo.setValue(settings.undo_memory_mb)
        self.undo.setKeyboardTracking(False)
        self.undo.valueChanged.connect(lambda value: document.change_settings(undo_memory_mb=value))
        self.privacy = QCheckBox("Hide names, ids and dates on screen and in screenshots")
        self.privacy.setChecked(settings.hide_identity)
        self.privacy.toggled.connect(lambda on: document.change_settings(hide_identity=on))
        self.motion = QCheckBox("Reduced motion")
        self.motion.setChecked(settings.reduced_motion)
        self.motion.toggled.connect(lambda on: document.change_settings(reduced_motion=on))
        general = QWidget()
        general.setLayout(
            column(
                field("Theme", self.theme, 96),
                field("Reader", self.reader, 96),
                field("Device", self.device, 96),
                field("Undo memory", self.undo, 96),
                self.privacy,
                self.motion,
                -1,
                spacing=8,
            )
        )
        self._keys = dict(settings.shortcuts)
        self.table = QTreeWidget()
        self.table.setHeaderLabels(["Action", "Key", "What it does"])
        self.table.setRootIsDecorated(False)
        self.table.setColumnWidth(0, 190)
        self.table.setColumnWidth(1, 110)
        self.table.setMinimumHeight(260)
        self.table.setAccessibleName("Actions and their keys")
        self.table.currentItemChanged.connect(lambda item, _old: self._on_action(item))
        self.key = QKeySequenceEdit()
        self.key.setMaximumSequenceLength(1)
        self.key.setAccessibleName("New key")
        use = button("Use key")
        use.clicked.connect(lambda _c=False: self._on_use())
        reset = button("Default key")
        reset.clicked.connect(lambda _c=False: self._on_reset())
        self.warning = wrapped("", "danger")
        keys = QWidget()
        keys.setLayout(
            column(self.table, row(label("New key", "secondary"), self.key, use, reset), self.warning, spacing=8)
        )
        tabs = QTabWidget()
        tabs.addTab(general, "General")
        tabs.addTab(keys, "Shortcuts")
        self.body.addWidget(tabs)
        self.add_button("Close", self.accept, "primary")
        self._fill()

    def _fill(self) -> None:
        chosen = self.table.currentItem().data(0, Qt.ItemDataRole.UserRole) if self.table.currentItem() else ""
        self.table.clear()
        for name, spec in SPECS.items():
            key = self._keys.get(name, spec.keys[0] if spec.keys else "")
            item = QTreeWidgetItem(self.table, [spec.text.rstrip("…"), shown_key(key) if key else "", spec.help])
            item.setData(0, Qt.ItemDataRole.UserRole, name)
            if name == chosen:
                self.table.setCurrentItem(item)

    def _on_action(self, item: QTreeWidgetItem | None) -> None:
        if item is not None:
            name = item.data(0, Qt.ItemDataRole.UserRole)
            spec = SPECS[name]
            self.key.setKeySequence(QKeySequence(self._keys.get(name, spec.keys[0] if spec.keys else "")))

    def _on_use(self) -> None:
        item = self.table.currentItem()
        key = self.key.keySequence().toString(QKeySequence.SequenceFormat.PortableText)
        if item is None:
            return
        name = item.data(0, Qt.ItemDataRole.UserRole)
        wanted = {**self._keys, name: key}
        clash = [pair for pair in conflicts(wanted) if name in pair[1:]]
        if clash:
            other = next(n for n in clash[0][1:] if n != name)
            self.warning.setText(f"{shown_key(key)} is already the key of “{SPECS[other].text.rstrip('…')}”.")
            refresh_style(self.warning)
            return
        self._set(wanted)

    def _on_reset(self) -> None:
        item = self.table.currentItem()
        if item is not None:
            name = item.data(0, Qt.ItemDataRole.UserRole)
            self._set({n: k for n, k in self._keys.items() if n != name})

    def _set(self, keys: dict[str, str]) -> None:
        self.warning.clear()
        self._keys = keys
        self._document.change_settings(shortcuts=keys)
        self._fill()
