"""Curate: one row a series; filter, sort, include, group, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QPersistentModelIndex,
    QSize,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QPixmap
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QStackedLayout,
    QTableView,
    QWidget,
)

from medapp.ui import theme
from medapp.ui.document import Document
from medapp.ui.grouping import DEFAULT_PATTERN, groups_by_pattern
from medapp.ui.icons import icon
from medapp.ui.panels.library import STATE_ICONS, thumbnail_icon
from medapp.ui.widgets import EmptyState, button, column, label, row

if TYPE_CHECKING:
    from medapp.store.project import SeriesInfo

Index = QModelIndex | QPersistentModelIndex
COLUMNS = ("Include", "Series", "Patient group", "Modality", "Labels", "State", "Reader", "Problems")
_INCLUDE, _SERIES, _GROUP, _MODALITY, _LABELS, _STATE, _READER, _PROBLEMS = range(len(COLUMNS))
SERIES_ID = Qt.ItemDataRole.UserRole
SORT = Qt.ItemDataRole.UserRole + 1


class SeriesModel(QAbstractTableModel):
    """The project's series as a table."""

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self._rows: tuple[SeriesInfo, ...] = ()
        self._labels: dict[str, str] = {}
        self._icons: dict[str, Any] = {}
        document.series_list_changed.connect(self.reload)
        self.reload()

    def reload(self) -> None:
        """Read the list again; rows that stayed keep their place."""
        rows = self._document.series_list
        if [r.series_id for r in rows] == [r.series_id for r in self._rows]:
            self._rows = rows
            if rows:
                self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, len(COLUMNS) - 1))
            return
        self.beginResetModel()
        self._rows = rows
        self._icons = {}
        self.endResetModel()

    def set_labels(self, labels: dict[str, str]) -> None:
        """What is annotated, by series."""
        self._labels = labels
        if self._rows:
            self.dataChanged.emit(self.index(0, _LABELS), self.index(len(self._rows) - 1, _LABELS))

    def info(self, place: int) -> SeriesInfo:
        """The series of a row."""
        return self._rows[place]

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's own default
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's own default
        return len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        flags = super().flags(index)
        if index.column() == _INCLUDE:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        if index.column() == _GROUP and self._rows[index.row()].source_id is None:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        info, place = self._rows[index.row()], index.column()
        if role == SERIES_ID:
            return info.series_id
        if role == Qt.ItemDataRole.CheckStateRole and place == _INCLUDE:
            return Qt.CheckState.Checked if info.included else Qt.CheckState.Unchecked
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole, SORT):
            if place == _INCLUDE:
                return int(info.included) if role == SORT else None
            return self._text(info, place, role)
        if role == Qt.ItemDataRole.DecorationRole:
            if place == _SERIES:
                if info.series_id not in self._icons:
                    self._icons[info.series_id] = thumbnail_icon(info)
                return self._icons[info.series_id]
            if place == _STATE:
                return _small(STATE_ICONS[info.state], "text_2")
            if place == _PROBLEMS and info.problems:
                return _small("warning", "processed")
        if role == Qt.ItemDataRole.ForegroundRole and place == _SERIES and info.source_id is not None:
            return QColor(theme.current().processed)
        if role == Qt.ItemDataRole.ToolTipRole and place == _PROBLEMS:
            return "\n".join((*info.problems, *info.notes)) or "No problems were found"
        return None

    def _text(self, info: SeriesInfo, place: int, role: int) -> str:
        if place == _SERIES:
            return info.title
        if place == _GROUP:
            info = self._document.info(info.source_id or info.series_id) or info
            if self._document.settings.hide_identity and role == Qt.ItemDataRole.DisplayRole:
                return "hidden" if info.group else ""
            return info.group
        if place == _MODALITY:
            return info.modality or "—"
        if place == _LABELS:
            return self._labels.get(info.source_id or info.series_id, "")
        if place == _STATE:
            return info.state
        if place == _READER:
            return info.reader
        count = len(info.problems) or len(info.notes)
        if not count:
            return ""
        return (info.problems or info.notes)[0] + (f" (+{count - 1})" if count > 1 else "")

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        info = self._rows[index.row()]
        if index.column() == _INCLUDE and role == Qt.ItemDataRole.CheckStateRole:
            included = Qt.CheckState(value) == Qt.CheckState.Checked
            self._document.change_series(
                info.series_id, "Include series" if included else "Exclude series", included=included
            )
            return True
        if index.column() == _GROUP and role == Qt.ItemDataRole.EditRole:
            self._document.change_series(info.series_id, "Change patient group", group=str(value).strip())
            return True
        return False


def _small(name: str, role: str) -> QPixmap:
    """An icon that a row does not blow up to the size of its thumbnail."""
    return icon(name, role).pixmap(theme.ICON, theme.ICON)


class _Filter(QSortFilterProxyModel):
    """All words must be somewhere in the row, and the state must fit."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.state = ""
        self.setSortRole(SORT)
        self.setSortCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)

    def filterAcceptsRow(self, source_row: int, source_parent: Index) -> bool:
        model = self.sourceModel()
        if self.state and model.index(source_row, _STATE).data() != self.state:
            return False
        text = " ".join(str(model.index(source_row, place).data() or "") for place in range(1, len(COLUMNS)))
        return all(word in text.lower() for word in self.words)


class CuratePage(QWidget):
    """The table with its filter, grouping and export."""

    open_requested = Signal()
    series_requested = Signal(str)
    export_requested = Signal(list)

    def __init__(self, document: Document) -> None:
        super().__init__()
        self.setObjectName("curatePage")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._document = document
        self.model = SeriesModel(document)
        self.filtered = _Filter()
        self.filtered.setSourceModel(self.model)
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter: words in title, group, modality, labels, problems")
        self.filter.setAccessibleName("Filter series")
        self.filter.setClearButtonEnabled(True)
        self.filter.textChanged.connect(self._on_filter)
        self.state = QComboBox()
        self.state.addItem("Any state", "")
        for state in STATE_ICONS:
            self.state.addItem(state.capitalize(), state)
        self.state.setAccessibleName("State")
        self.state.activated.connect(lambda _i: self._on_filter())
        self.pattern = QLineEdit(DEFAULT_PATTERN)
        self.pattern.setAccessibleName("Group pattern")
        self.pattern.setToolTip("Files without a patient id are grouped by what stands in the brackets; .* = anything")
        self.pattern.textChanged.connect(lambda _t: self._show_matches())
        self.matches = label("", "secondary")
        self.apply_groups = button("Use groups", "", "Give series without a patient id the groups shown at the left")
        self.apply_groups.clicked.connect(lambda _c=False: self._on_group())
        self.table = QTableView()
        self.table.setModel(self.filtered)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(_SERIES, Qt.SortOrder.AscendingOrder)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.table.setIconSize(QSize(32, 32))
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.setAccessibleName("Series, one row each")
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(40)
        header = self.table.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for place, width in enumerate((72, 240, 130, 84, 140, 100, 100, 200)):
            self.table.setColumnWidth(place, width)
        header.setSectionResizeMode(_PROBLEMS, QHeaderView.ResizeMode.Stretch)
        self.table.doubleClicked.connect(lambda index: self.series_requested.emit(index.data(SERIES_ID)))
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._show_count())
        self.include = button("Include", "", "Take the selected series into exports")
        self.include.clicked.connect(lambda _c=False: self._set_included(True))
        self.exclude = button("Exclude", "", "Leave the selected series out of exports")
        self.exclude.clicked.connect(lambda _c=False: self._set_included(False))
        self.set_state = QComboBox()
        self.set_state.addItem("Set state…", "")
        for state, sign in STATE_ICONS.items():
            self.set_state.addItem(icon(sign), state.capitalize(), state)
        self.set_state.setAccessibleName("Set the state of the selected series")
        self.set_state.activated.connect(self._on_set_state)
        self.count = label("", "secondary")
        self.export = button("Export selection…", "primary", "Export (Ctrl+E) — a dry run comes first", "export")
        self.export.clicked.connect(lambda _c=False: self.export_requested.emit(self.chosen()))
        full = QWidget()
        full.setLayout(
            column(
                row(label("Series", "title"), theme.MARGIN, self.filter, self.state),
                row(label("Group by", "secondary"), self.pattern, self.apply_groups, self.matches, -1),
                self.table,
                row(self.include, self.exclude, self.set_state, self.count, -1, self.export),
                spacing=theme.MARGIN,
                margin=theme.GROUP_GAP,
            )
        )
        self.pattern.setMaximumWidth(260)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(
            EmptyState("Every series of the project gets a row here.", "Open images…", self.open_requested.emit)
        )
        self._stack.addWidget(full)
        document.series_list_changed.connect(self._refresh)
        document.settings_changed.connect(self.model.reload)
        self._refresh()

    def _refresh(self) -> None:
        self._stack.setCurrentIndex(1 if self._document.series_list else 0)
        self._show_matches()
        self._show_count()

    def selected(self) -> list[str]:
        """The series of the selected rows."""
        return [index.data(SERIES_ID) for index in self.table.selectionModel().selectedRows(_SERIES)]

    def chosen(self) -> list[str]:
        """What an export would take: the selected rows, or all shown ones, as far as they are ticked."""
        ids = self.selected() or [
            self.filtered.index(place, _SERIES).data(SERIES_ID) for place in range(self.filtered.rowCount())
        ]
        return [info.series_id for info in self._document.series_list if info.included and info.series_id in set(ids)]

    def _show_count(self) -> None:
        chosen = len(self.chosen())
        self.count.setText(f"{self.filtered.rowCount()} of {self.model.rowCount()} shown · {chosen} for export")
        self.export.setEnabled(chosen > 0)
        has_selection = bool(self.selected())
        for control in (self.include, self.exclude, self.set_state):
            control.setEnabled(has_selection)

    def _on_filter(self) -> None:
        self.filtered.beginFilterChange()
        self.filtered.words = self.filter.text().lower().split()
        self.filtered.state = self.state.currentData()
        self.filtered.endFilterChange(QSortFilterProxyModel.Direction.Rows)
        self._show_count()

    def _set_included(self, included: bool) -> None:
        for series_id in self.selected():
            self._document.change_series(
                series_id, "Include series" if included else "Exclude series", included=included
            )
        self._show_count()

    def _on_set_state(self, _index: int) -> None:
        state = self.set_state.currentData()
        self.set_state.setCurrentIndex(0)
        for series_id in self.selected() if state else ():
            self._document.change_series(series_id, f"State: {state}", state=state)

    def _found_groups(self) -> dict[str, str]:
        ungrouped = {i.series_id: i.title for i in self._document.series_list if i.source_id is None and not i.group}
        return groups_by_pattern(ungrouped, self.pattern.text())

    def _show_matches(self) -> None:
        try:
            found = self._found_groups()
        except ValueError as error:
            self.matches.setText(str(error))
            self.apply_groups.setEnabled(False)
            return
        names = list(dict.fromkeys(found.values()))
        shown = ", ".join(names[:4]) + ("…" if len(names) > 4 else "")
        if names:
            self.matches.setText(f"{len(found)} series without a patient id → {len(names)} groups: {shown}")
        else:
            self.matches.setText("Every series has a patient group, or the pattern matches none")
        self.apply_groups.setEnabled(bool(names))

    def _on_group(self) -> None:
        for series_id, group in self._found_groups().items():
            self._document.change_series(series_id, "Group series", group=group)
