"""The Library: patient groups, series, and what was made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QIcon, QPixmap
from PySide6.QtWidgets import QLineEdit, QMenu, QStackedLayout, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from medapp.ui import theme
from medapp.ui.document import Document
from medapp.ui.icons import icon
from medapp.ui.widgets import EmptyState, wrapped

if TYPE_CHECKING:
    from medapp.store.project import SeriesInfo

_ID = Qt.ItemDataRole.UserRole
STATE_ICONS = {
    "new": "circle",
    "in work": "circle-half",
    "done": "check-circle",
    "flagged": "flag",
    "reviewed": "checks",
}
NO_GROUP = "No patient given"
REFERENCE_HELP = "Restoration models learn from series that are marked as reference"


class LibraryPanel(QWidget):
    """The series of the project; derived ones stand under their source."""

    open_requested = Signal()
    paths_dropped = Signal(list)
    details_requested = Signal(str)

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self._filter = QLineEdit()
        self._filter.setPlaceholderText("Filter series")
        self._filter.setAccessibleName("Filter series")
        self._filter.setClearButtonEnabled(True)
        self._filter.textChanged.connect(self._apply_filter)
        self._tree = QTreeWidget()
        self._tree.setHeaderHidden(True)
        self._tree.setIndentation(12)
        self._tree.setIconSize(QSize(40, 40))
        self._tree.setAccessibleName("Series of this project")
        self._tree.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._tree.customContextMenuRequested.connect(self._show_menu)
        self._tree.currentItemChanged.connect(self._on_current)
        self._tree.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._warning = wrapped()
        self._warning.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self._warning.linkActivated.connect(lambda _link: self.details_requested.emit(self._shown_id()))
        self._warning.hide()
        full = QWidget()
        layout = QVBoxLayout(full)
        layout.setContentsMargins(theme.MARGIN, 0, theme.MARGIN, theme.MARGIN)
        layout.setSpacing(theme.GRID)
        layout.addWidget(self._filter)
        layout.addWidget(self._tree, 1)
        layout.addWidget(self._warning)
        self._empty = EmptyState(
            "Series you open appear here. Drop files, folders or ZIP archives.",
            "Open images…",
            self.open_requested.emit,
        )
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)
        self._stack.addWidget(full)
        self.setAcceptDrops(True)
        document.series_list_changed.connect(self._rebuild)
        document.series_opened.connect(self._select_open)
        document.settings_changed.connect(self._rebuild)

    def _rebuild(self) -> None:
        document = self._document
        self._stack.setCurrentIndex(1 if document.series_list else 0)
        self._tree.blockSignals(True)
        self._tree.clear()
        groups: dict[str, QTreeWidgetItem] = {}
        items: dict[str, QTreeWidgetItem] = {}
        for info in document.series_list:
            if info.source_id is not None:
                continue
            name = info.group or NO_GROUP
            if document.settings.hide_identity and info.group:
                name = f"Patient {len(groups) + 1}" if name not in groups else name
            if info.group not in groups:
                group = QTreeWidgetItem(self._tree, [name])
                group.setFlags(Qt.ItemFlag.ItemIsEnabled)
                group.setForeground(0, _brush("text_2"))
                groups[info.group] = group
            items[info.series_id] = self._item(groups[info.group], info)
        for info in document.series_list:
            if info.source_id in items:
                items[info.series_id] = self._item(items[info.source_id], info)
        self._tree.expandAll()
        self._tree.blockSignals(False)
        self._apply_filter()
        self._select_open()

    def _item(self, parent: QTreeWidgetItem, info: SeriesInfo) -> QTreeWidgetItem:
        item = QTreeWidgetItem(parent, [f"{info.title}\n{describe(info)}"])
        item.setData(0, _ID, info.series_id)
        item.setToolTip(0, tooltip_of(info))
        item.setIcon(0, thumbnail_icon(info))
        if info.source_id is not None:
            item.setForeground(0, _brush("processed" if info.kind != "synthetic" else "synthetic"))
        elif warnings_of(info):
            item.setText(0, f"{info.title}\n⚠ {describe(info)}")
        return item

    def _apply_filter(self) -> None:
        words = self._filter.text().lower().split()

        def visit(item: QTreeWidgetItem) -> bool:
            shown = False
            for i in range(item.childCount()):
                shown = visit(item.child(i)) or shown
            info = self._document.info(item.data(0, _ID) or "")
            if info is not None:
                text = f"{info.title} {describe(info)} {info.modality} {info.state} {info.group} {info.kind}".lower()
                shown = shown or all(word in text for word in words)
            item.setHidden(not shown)
            return shown

        for i in range(self._tree.topLevelItemCount()):
            visit(self._tree.topLevelItem(i))

    def _find(self, series_id: str) -> QTreeWidgetItem | None:
        stack = [self._tree.topLevelItem(i) for i in range(self._tree.topLevelItemCount())]
        while stack:
            item = stack.pop()
            if item.data(0, _ID) == series_id:
                return item
            stack += [item.child(i) for i in range(item.childCount())]
        return None

    def _shown_id(self) -> str:
        return self._document.series.series_id if self._document.series is not None else ""

    def _select_open(self, _series_id: str = "") -> None:
        item = self._find(self._shown_id()) if self._shown_id() else None
        self._tree.blockSignals(True)
        self._tree.setCurrentItem(item)
        self._tree.blockSignals(False)
        info = self._document.series
        notes = warnings_of(info) if info is not None else []
        if notes:
            more = f" and {len(notes) - 1} more" if len(notes) > 1 else ""
            self._warning.setText(f"⚠ {notes[0]}{more} <a href='#details'>Details</a>")
        self._warning.setVisible(bool(notes))

    def _on_current(self, item: QTreeWidgetItem | None, _previous: QTreeWidgetItem | None) -> None:
        if item is not None and item.data(0, _ID):
            self._document.open_series(item.data(0, _ID))

    def _show_menu(self, place) -> None:  # type: ignore[no-untyped-def]
        item = self._tree.itemAt(place)
        series_id = item.data(0, _ID) if item is not None else None
        info = self._document.info(series_id) if series_id else None
        if info is None:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(icon("info"), "Details", lambda: self.details_requested.emit(series_id))
        states = menu.addMenu(icon("circle-half"), "State")
        for state, name in STATE_ICONS.items():
            states.addAction(
                icon(name),
                state.capitalize(),
                lambda s=state: self._document.change_series(series_id, f"State: {s}", state=s),
            )
        if info.source_id is None:
            reference = menu.addAction(icon("target"), "Reference")
            reference.setCheckable(True)
            reference.setChecked(info.is_reference)
            reference.setToolTip(REFERENCE_HELP)
            reference.triggered.connect(lambda _c=False: mark_reference(self._document, series_id))
        menu.addSeparator()
        menu.addAction(
            icon("trash"),
            "Move to Trash",
            lambda: self._document.change_series(series_id, "Move series to Trash", is_trashed=True),
        )
        menu.popup(self._tree.viewport().mapToGlobal(place))

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.paths_dropped.emit(paths)


def mark_reference(document: Document, series_id: str) -> None:
    """Mark a series as what a restored one should look like, or take the mark away; one undo step."""
    info = document.info(series_id)
    if info is not None and info.source_id is None:
        text = "Take reference mark away" if info.is_reference else "Mark as reference"
        document.change_series(series_id, text, is_reference=not info.is_reference)


def describe(info: SeriesInfo) -> str:
    """Modality, size and state in a few words."""
    z, y, x = info.shape[:3]
    size = f"{x}×{y}" if z == 1 else f"{x}×{y}×{z}"
    parts = [info.modality or "Image", size]
    if info.source_id is not None:
        parts = [
            {"filtered": "Filtered", "synthetic": "Synthetic", "depth": "Depth map", "trust": "Trust map"}.get(
                info.kind, "Restored"
            ),
            size,
        ]
    if info.state != "new":
        parts.append(info.state)
    if info.is_reference:
        parts.append("reference")
    return " · ".join(parts)


def warnings_of(info: SeriesInfo) -> list[str]:
    """What a person should know before working on a series."""
    return [*info.problems, *info.notes]


def tooltip_of(info: SeriesInfo) -> str:
    """Title, size, spacing and warnings."""
    lines = [info.title, describe(info)]
    if info.spacing_mm is not None:
        z, y, x = info.spacing_mm
        lines.append(f"{x:.3g} × {y:.3g} × {z:.3g} mm")
    if info.is_reference:
        lines.append(f"Reference: {REFERENCE_HELP[:1].lower()}{REFERENCE_HELP[1:]}")
    lines += [f"⚠ {note}" for note in warnings_of(info)[:4]]
    return "\n".join(lines)


def thumbnail_icon(info: SeriesInfo) -> QIcon:
    """The series' picture, or a sign for its kind."""
    if info.thumbnail:
        pixmap = QPixmap()
        if pixmap.loadFromData(info.thumbnail):
            made = QIcon(pixmap)
            made.addPixmap(pixmap, QIcon.Mode.Selected)  # a selected picture keeps its colours
            return made
    return icon("image", "text_2")


def _brush(role: str):  # type: ignore[no-untyped-def]
    from PySide6.QtGui import QBrush, QColor

    return QBrush(QColor(getattr(theme.current(), role)))
