"""Find command: type what you want to do."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QAction, QKeyEvent
from PySide6.QtWidgets import QFrame, QLineEdit, QListWidget, QListWidgetItem, QWidget

from medapp.ui.actions import SPECS, shown_key
from medapp.ui.widgets import column

_WIDTH = 460


class CommandSearch(QFrame):
    """A field and what fits; Enter does it, Esc goes away."""

    def __init__(self, parent: QWidget, actions: Mapping[str, QAction]) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setProperty("look", "toast")
        self._actions = actions
        self.field = QLineEdit()
        self.field.setPlaceholderText("What do you want to do?")
        self.field.setAccessibleName("Find command")
        self.field.textChanged.connect(self._search)
        self.field.installEventFilter(self)
        self.list = QListWidget()
        self.list.setAccessibleName("Commands")
        self.list.itemActivated.connect(self._run)
        self.list.itemClicked.connect(self._run)
        self.setLayout(column(self.field, self.list))
        self.resize(_WIDTH, 360)

    def present(self) -> None:
        """Show it under the menu, empty."""
        parent = self.parentWidget()
        if parent is not None:
            place = parent.mapToGlobal(parent.rect().topLeft())
            self.move(place.x() + (parent.width() - _WIDTH) // 2, place.y() + 64)
        self.field.clear()
        self._search("")
        self.show()
        self.field.setFocus()

    def _search(self, text: str) -> None:
        words = text.lower().split()
        self.list.clear()
        found: list[tuple[bool, int, str, QAction]] = []
        for name, action in self._actions.items():
            spec = SPECS[name]
            if name.startswith(("digit_", "flow_")) or not action.isEnabled():
                continue
            whole = f"{spec.text} {spec.help} {spec.menu}".lower()
            if all(word in whole for word in words):
                starts = bool(words) and spec.text.lower().startswith(words[0])
                found.append((not starts, len(found), name, action))
        for _, _, name, action in sorted(found)[:60]:
            key = action.shortcut().toString()
            text_ = SPECS[name].text + (f"    {shown_key(key)}" if key else "")
            item = QListWidgetItem(action.icon(), text_)
            item.setData(Qt.ItemDataRole.UserRole, name)
            item.setToolTip(SPECS[name].help)
            self.list.addItem(item)
        self.list.setCurrentRow(0)

    def _run(self, item: QListWidgetItem | None) -> None:
        if item is None:
            return
        self.hide()
        self._actions[item.data(Qt.ItemDataRole.UserRole)].trigger()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            steps: dict[int, int] = {
                Qt.Key.Key_Down: 1,
                Qt.Key.Key_Up: -1,
                Qt.Key.Key_PageDown: 8,
                Qt.Key.Key_PageUp: -8,
            }
            step = steps.get(event.key())
            if step is not None:
                self.list.setCurrentRow(min(max(self.list.currentRow() + step, 0), self.list.count() - 1))
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._run(self.list.currentItem())
                return True
        return False
