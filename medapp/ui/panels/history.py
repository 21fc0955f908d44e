"""History: what was done, and what can be taken back."""

from __future__ import annotations

from PySide6.QtWidgets import QListWidget, QListWidgetItem, QStackedLayout, QWidget

from medapp.ui.document import Document
from medapp.ui.icons import icon
from medapp.ui.widgets import EmptyState, button, column, row

_SHOWN = 60


class HistoryPanel(QWidget):
    """The undo stack, newest first; what was undone stands above in the secondary colour."""

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self._undo = button("Undo", "", "Undo (Ctrl+Z) — take the last step back", "arrow-u-up-left")
        self._undo.clicked.connect(lambda _c=False: document.undo())
        self._redo = button("Redo", "", "Redo (Ctrl+Shift+Z) — do it again", "arrow-u-up-right")
        self._redo.clicked.connect(lambda _c=False: document.redo())
        self._list = QListWidget()
        self._list.setAccessibleName("Steps, newest first")
        full = QWidget()
        full.setLayout(column(row(self._undo, self._redo, -1), self._list))
        self._empty = EmptyState("Strokes, accepted proposals and other steps are listed here.")
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)
        self._stack.addWidget(full)
        document.history_changed.connect(self._show)
        document.series_list_changed.connect(self._show)
        self._show()

    def _show(self) -> None:
        history = self._document.history
        done, undone = history.steps()[-_SHOWN:], history.undone_steps()[-_SHOWN:]
        self._stack.setCurrentIndex(1 if done or undone else 0)
        self._undo.setEnabled(history.can_undo)
        self._redo.setEnabled(history.can_redo)
        self._list.clear()
        for series_id, edit in undone:
            item = QListWidgetItem(icon("arrow-u-up-left", "text_off"), self._line(series_id, edit))
            item.setToolTip("Taken back; Redo does it again")
            item.setForeground(self.palette().placeholderText())
            self._list.addItem(item)
        for series_id, edit in reversed(done):
            self._list.addItem(QListWidgetItem(icon("check", "text_2"), self._line(series_id, edit)))

    def _line(self, series_id: str, edit) -> str:  # type: ignore[no-untyped-def]
        _, z = edit.where
        place = f" · slice {z + 1}" if z is not None else ""
        info = self._document.info(series_id)
        other = ""
        if info is not None and series_id != self._document.annotated_series_id:
            other = f" · {info.title}"
        return f"{edit.text}{place}{other}"
