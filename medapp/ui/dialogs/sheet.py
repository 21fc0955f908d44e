"""The base of medapp's dialogs: not modal, Esc cancels, Enter triggers the default."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QVBoxLayout, QWidget

from medapp.ui import theme
from medapp.ui.widgets import button, label, row


class Sheet(QDialog):
    """A titled dialog with its buttons at the lower right, the default one last."""

    def __init__(self, parent: QWidget | None, title: str, width: int = 480) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setModal(False)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(width)
        self.body = QVBoxLayout()
        self.body.setSpacing(theme.MARGIN)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(theme.GROUP_GAP, theme.GROUP_GAP, theme.GROUP_GAP, theme.GROUP_GAP)
        layout.setSpacing(theme.GROUP_GAP)
        self.heading = label(title, "title")
        layout.addWidget(self.heading)
        layout.addLayout(self.body, 1)
        self._buttons = row(-1)
        layout.addLayout(self._buttons)

    def add_button(self, text: str, on_click, look: str = ""):  # type: ignore[no-untyped-def]
        """A button at the lower right; the primary one is the default."""
        made = button(text, look)
        made.setAutoDefault(look == "primary")
        made.setDefault(look == "primary")
        made.clicked.connect(lambda _c=False: on_click())
        self._buttons.addWidget(made)
        return made

    def present(self) -> None:
        """Show it, in front."""
        self.show()
        self.raise_()
        self.activateWindow()
