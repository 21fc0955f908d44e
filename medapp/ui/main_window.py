"""Builds the panels and wires all signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import shiboken6
from PySide6.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QApplication,
    QDockWidget,
    QHBoxLayout,
    QMainWindow,
    QMenu,
    QMenuBar,
    QStackedWidget,
    QToolBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from medapp.settings import Settings
from medapp.ui import theme
from medapp.ui.actions import MENUS, SPECS, TOOL_ACTIONS, attach, build_actions, change_keys
from medapp.ui.background import Background
from medapp.ui.canvas.key_hold import KeyHold
from medapp.ui.canvas.viewport_grid import ViewportGrid
from medapp.ui.commands import Commands
from medapp.ui.depth_mode import DepthMode
from medapp.ui.dialogs.command_search import CommandSearch
from medapp.ui.dialogs.help_sheets import HINTS
from medapp.ui.dialogs.sheet import Sheet
from medapp.ui.document import Document
from medapp.ui.job_bridge import JobBridge, Queue
from medapp.ui.matte_proposing import MatteProposing
from medapp.ui.messages import Messages
from medapp.ui.opening import Opening
from medapp.ui.panels.curate import CuratePage
from medapp.ui.panels.depth import DepthPanel
from medapp.ui.panels.history import HistoryPanel
from medapp.ui.panels.info import InfoPanel
from medapp.ui.panels.layers import LayersPanel
from medapp.ui.panels.library import LibraryPanel
from medapp.ui.panels.model import ModelPanel
from medapp.ui.panels.proposals import ProposalsPanel
from medapp.ui.panels.restore import RestorePanel
from medapp.ui.panels.start_page import StartPage
from medapp.ui.panels.status import StatusBar
from medapp.ui.panels.tasks import TasksDrawer
from medapp.ui.panels.toasts import BannerHost, ToastHost
from medapp.ui.panels.tool_options import ToolOptions
from medapp.ui.panels.train import TrainPage
from medapp.ui.propagating import Propagating
from medapp.ui.proposing import Proposing
from medapp.ui.region_maps import RegionMaps
from medapp.ui.restoring import Restoring
from medapp.ui.session import Session
from medapp.ui.training import Training
from medapp.ui.widgets import DockTitle, action_button, wrapped
from medapp.ui.workspaces import WORKSPACES, LayoutKeeper, by_name

MIN_SIZE = QSize(1024, 700)
_FLAT = ("SM", "GM")
"""Modalities of colour pictures without any depth: stained tissue."""
START_SIZE = QSize(1440, 900)
_NARROW = 1280
_NEED_SCAN = ("brush", "digit", "flow", "preset", "zoom", "fit", "layout", "toggle_overlays", "matte_view")
_RIGHT_WIDTH, _LEFT_WIDTH = 300, 272
_MATTING_HEIGHT, _LAYERS_HEIGHT = (440, 560), (160, 272)
"""Least and most, in px, where both share a side; the layers give way first."""
_DOCKS = {
    "library": "Library",
    "layers": "Layers and mattes",
    "proposals": "Proposals",
    "restore": "Restore",
    "model": "Model",
    "depth_map": "Depth",
    "history": "History",
    "info": "Info",
}


class MainWindow(QMainWindow):
    """The window: menu, workspaces, tool strip, docks around the image, tasks, status."""

    first_painted = Signal()
    closed = Signal()

    def __init__(self, queue: Queue, settings: Settings | None = None) -> None:
        super().__init__()
        self.setWindowTitle("medapp")
        self.setMinimumSize(MIN_SIZE)
        self.setAcceptDrops(True)
        self.setDockNestingEnabled(True)
        self.setAnimated(False)  # an animated dock leaves its tab bar behind when another workspace comes
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self.workspace = "review"
        self._layouts = LayoutKeeper()
        self._is_bare = self._has_workspace = False
        self._was_painted = self._has_made_room = False
        self._may_close = self._may_lose_edits = False
        self._hidden: list[QWidget] = []

        self.document = Document(settings, self)
        self.messages = Messages(self)
        self.background = Background(self)
        self.bridge = JobBridge(queue, self)
        document, messages = self.document, self.messages
        self.session = Session(document, self.background, messages, self)
        self.opening = Opening(document, self.session, self.bridge, self.background, messages, self)
        self.proposing = Proposing(document, self.bridge, self.background, messages, self)
        self.matte_proposing = MatteProposing(document, self.proposing, self.bridge, self.background, messages, self)
        self.propagating = Propagating(document, self.background, messages, self)
        self.restoring = Restoring(document, self.session, self.bridge, self.background, messages, self)
        self.region_maps = RegionMaps(document, self.bridge, self.background, messages, self.restoring, self)
        self.depth_mode = DepthMode(
            document, self.session, self.bridge, self.background, messages, self.restoring, self
        )

        self.training = Training(document, self.bridge, self.background, messages, self)

        self.commands = Commands(self)
        self.actions_by_name = build_actions(self, self.commands.handlers(), document.settings.shortcuts)
        attach(self.actions_by_name, self)
        self.command_search = CommandSearch(self, self.actions_by_name)

        self._build_bars()
        self._build_middle()
        self._build_docks()
        self.toasts = ToastHost(self, messages)
        self._key_hold = KeyHold(document, self.grid.show_original, self)
        self._key_hold.follow(self.actions_by_name)
        QApplication.instance().installEventFilter(self._key_hold)
        for view in self.grid.views:
            view.installEventFilter(self)
        self._connect_signals()
        self.resize(START_SIZE)
        kept = self._layouts.get("geometry")
        if kept is not None:
            self.restoreGeometry(kept)
        self.set_workspace(by_name(self._layouts.text("workspace")).name, keep_tool=True)
        self._show_page()
        self._update_actions()

    # ------------------------------------------------------------------------------------------------------- building

    def _build_bars(self) -> None:
        actions = self.actions_by_name
        bar = QWidget()
        bar.setObjectName("topBar")
        bar.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.menu_bar = QMenuBar()
        self.menu_bar.setNativeMenuBar(False)
        self._fill_menus()
        layout = QHBoxLayout(bar)
        layout.setContentsMargins(4, 3, theme.MARGIN, 3)
        layout.setSpacing(theme.GRID)
        layout.addWidget(self.menu_bar)
        layout.addSpacing(theme.MARGIN)
        for workspace in WORKSPACES:
            made = action_button(actions[f"workspace_{workspace.name}"], "workspace")
            made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
            layout.addWidget(made)
        layout.addStretch(1)
        find = action_button(actions["find_command"], "find")
        find.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        layout.addWidget(find)
        for name in ("undo", "redo", "settings"):
            layout.addWidget(action_button(actions[name]))
        self.setMenuWidget(bar)

        self.tool_options = ToolOptions(self.document, actions)
        self.addToolBar(Qt.ToolBarArea.TopToolBarArea, self.tool_options)

        self.tool_strip = QToolBar("Tools")
        self.tool_strip.setObjectName("toolStrip")
        self.tool_strip.setMovable(False)
        self.tool_strip.setOrientation(Qt.Orientation.Vertical)
        for name in TOOL_ACTIONS:
            if name not in actions:
                continue
            if name in ("tool_brush", "tool_prompt", "tool_depth"):
                self.tool_strip.addSeparator()
            made = QToolButton()
            made.setDefaultAction(actions[name])
            made.setIconSize(QSize(theme.ICON, theme.ICON))
            made.setAccessibleName(actions[name].text())
            made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            self.tool_strip.addWidget(made)
        self.addToolBar(Qt.ToolBarArea.LeftToolBarArea, self.tool_strip)

        self.tasks = TasksDrawer(self.bridge, self.messages)
        self._tasks_bar = QToolBar("Tasks")
        self._tasks_bar.setObjectName("tasksBar")
        self._tasks_bar.setMovable(False)
        self._tasks_bar.addWidget(self.tasks)
        self._tasks_bar.layout().setContentsMargins(0, 0, 0, 0)
        self.addToolBar(Qt.ToolBarArea.BottomToolBarArea, self._tasks_bar)

        self.status = StatusBar(self.document)
        self.setStatusBar(self.status)

    def _fill_menus(self) -> None:
        for title in MENUS:
            menu = self.menu_bar.addMenu(title)
            section = None
            for name, action in self.actions_by_name.items():
                spec = SPECS[name]
                if spec.menu != title:
                    continue
                if section is not None and spec.section != section:
                    menu.addSeparator()
                section = spec.section
                menu.addAction(action)
            if title == "View":
                self._panels_menu = QMenu("Panels", menu)
                menu.insertMenu(self.actions_by_name["toggle_panels"], self._panels_menu)

    def _build_middle(self) -> None:
        self.grid = ViewportGrid(self.document)
        self.start_page = StartPage(self.document)
        self.curate = CuratePage(self.document)
        self.train = TrainPage(self.document, self.training, self.background)
        self._pages = QStackedWidget()
        self._pages.setObjectName("centralStack")
        for page in (self.start_page, self.grid, self.curate, self.train):
            self._pages.addWidget(page)
        self.banners = BannerHost(self.messages)
        middle = QWidget()
        layout = QVBoxLayout(middle)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.banners)
        layout.addWidget(self._pages, 1)
        self.setCentralWidget(middle)

    def _build_docks(self) -> None:
        self.library = LibraryPanel(self.document)
        self.layers = LayersPanel(self.document)
        self.proposals = ProposalsPanel(self.document, self.proposing.propose_slice, self.matte_proposing)
        self.restore = RestorePanel(self.document, self.restoring, self.region_maps)
        self.model = ModelPanel(self.restoring, self.bridge)
        self.depth_map = DepthPanel(self.document, self.depth_mode)
        self.history = HistoryPanel(self.document)
        self.info = InfoPanel(self.document)
        panels = {name: getattr(self, name) for name in _DOCKS}
        self.docks: dict[str, QDockWidget] = {}
        for name, title in _DOCKS.items():
            dock = QDockWidget(title)
            dock.setObjectName(name)
            dock.setAccessibleName(title)
            dock.setTitleBarWidget(DockTitle(dock))
            panels[name].setMinimumWidth(theme.DOCK_MIN_WIDTH - 4)
            dock.setWidget(panels[name])
            self.docks[name] = dock
            toggle = dock.toggleViewAction()
            toggle.setText(title)
            self._panels_menu.addAction(toggle)
        self._arrange_docks()

    def _arrange_docks(self) -> None:
        self.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, self.docks["library"])
        right = [name for name in _DOCKS if name != "library"]
        for name in right:
            self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self.docks[name])
        self.splitDockWidget(self.docks["layers"], self.docks["proposals"], Qt.Orientation.Vertical)
        for name in ("restore", "model", "depth_map", "history", "info"):
            self.tabifyDockWidget(self.docks["proposals"], self.docks[name])

    # --------------------------------------------------------------------------------------------------------- signals

    def _connect_signals(self) -> None:
        """The map: who tells whom."""
        document = self.document
        for signal in (document.series_opened, document.project_changed, document.series_list_changed):
            signal.connect(self._show_page)
            signal.connect(self._update_actions)
        for signal in (
            document.tool_changed,
            document.history_changed,
            document.active_matte_changed,
            document.annotation_changed,
            document.proposals_changed,
            document.preview_changed,
            document.compare_changed,
            document.overlays_changed,
            document.brush_changed,
            self.restoring.choice_changed,
            self.region_maps.changed,
            self.depth_mode.choice_changed,
            self.depth_mode.result_changed,
            self.training.changed,
        ):
            signal.connect(self._update_actions)
        document.settings_changed.connect(self._on_settings_changed)
        document.message_requested.connect(self.messages.say)
        document.series_opened.connect(self._offer_hints)
        document.series_opened.connect(lambda _id: self._offer_depth())

        self.grid.pointer_moved.connect(self.status.show_pointer)
        self.grid.pointer_moved.connect(self._read_depth)
        self.grid.prompt_requested.connect(self.proposing.prepare)
        self.grid.message_requested.connect(self.messages.say)
        for view in self.grid.views:
            view.focused.connect(lambda v=view: setattr(document, "active_axis", v.axis))

        commands = self.commands
        for page in (self.start_page, self.library, self.curate, self.train):
            page.open_requested.connect(commands.open_files)
        self.start_page.folder_requested.connect(commands.open_folder)
        self.start_page.sample_requested.connect(self.opening.open_sample)
        self.start_page.project_requested.connect(lambda path: self.session.open_project(Path(path)))
        self.start_page.paths_dropped.connect(self.opening.open_paths)
        self.library.paths_dropped.connect(self.opening.open_paths)
        self.library.details_requested.connect(commands.show_details)
        self.restore.import_requested.connect(commands.import_model)
        self.depth_map.file_requested.connect(commands.open_depth_file)
        self.depth_map.export_requested.connect(commands.export_depth)
        self.restoring.models_changed.connect(lambda: self.proposals.set_segmenters(self.restoring.segmenters))
        document.proposals_changed.connect(self._make_room_for_mattes)
        self.restoring.models_changed.connect(lambda: self.proposals.set_matting_models(self.restoring.matting_models))
        self.curate.series_requested.connect(self._review_series)
        self.curate.export_requested.connect(commands.export)
        self.train.annotate_requested.connect(lambda: self.set_workspace("annotate"))
        self.train.library_requested.connect(self._show_library)
        self.training.show_requested.connect(lambda: self.set_workspace("train"))
        self.training.models_switched.connect(self.restoring.refresh)
        self.opening.modality_needed.connect(commands.ask_modality)
        self.opening.problems_found.connect(commands.show_refused)
        self.status.retry_requested.connect(self.session.retry_saving)
        self.status.save_copy_requested.connect(lambda: commands.save_copy())
        self.background.crashed.connect(self._say_crash)
        hints = QApplication.styleHints()
        hints.colorSchemeChanged.connect(lambda _scheme: self._apply_theme())

    def _make_room_for_mattes(self) -> None:
        """The first strip of masks gets the height it needs; afterwards the panels stay as the person wants them."""
        dock = self.docks["proposals"]
        if self.document.matting is not None and not self._has_made_room and dock.isVisible():
            self._has_made_room = True
            layers = self.docks["layers"]
            height = layers.height() + dock.height()
            kept = min(max(height - _MATTING_HEIGHT[0], _LAYERS_HEIGHT[0]), _LAYERS_HEIGHT[1])
            wanted = max(dock.height(), min(_MATTING_HEIGHT[1], height - kept))
            self.resizeDocks([layers, dock], [height - wanted, wanted], Qt.Orientation.Vertical)

    # ------------------------------------------------------------------------------------------------------ workspaces

    def set_workspace(self, name: str, *, keep_tool: bool = False) -> None:
        """Show other panels; data, zoom, slice and selection stay."""
        workspace = by_name(name)
        if self._is_bare:
            self.toggle_panels()
        if self._has_workspace:
            self._keep_docks()
        self._has_workspace = True
        self.workspace = workspace.name
        for other in WORKSPACES:
            self.actions_by_name[f"workspace_{other.name}"].setChecked(other.name == workspace.name)
        self._show_docks(workspace.name, self._layouts.docks(workspace.name))
        self._offer_depth()
        if workspace.name == "curate":
            self.session.list_labels(self.curate.model.set_labels)
        if not keep_tool and self.document.scan is not None:
            self.document.set_tool(workspace.tool)
        self._show_page()

    def _keep_docks(self) -> None:
        """Remember what this workspace shows. Qt's own ``restoreState`` leaves a dead tab bar behind at every call."""
        kept = {}
        for name, dock in self.docks.items():
            if not dock.isHidden():
                in_front = not dock.visibleRegion().isEmpty()
                kept[name] = [dock.width(), dock.height(), int(in_front)]
        self._layouts.put_docks(self.workspace, kept)

    def _show_docks(self, name: str, kept: dict[str, list[int]] | None = None) -> None:
        workspace = by_name(name)
        narrow = self.width() < _NARROW
        shown = list(kept) if kept is not None else [n for n in workspace.docks if not (n == "library" and narrow)]
        for dock_name, dock in self.docks.items():
            dock.setVisible(dock_name in shown)
        front = [n for n, (_, _, in_front) in kept.items() if in_front] if kept is not None else [workspace.front]
        for dock_name in front:
            if dock_name in self.docks:
                self.docks[dock_name].raise_()
        first = {"library": (_LEFT_WIDTH, 0), "layers": (_RIGHT_WIDTH, 420), "proposals": (_RIGHT_WIDTH, 360)}
        sizes = {n: kept[n][:2] if kept is not None else first.get(n, (_RIGHT_WIDTH, 0)) for n in shown}
        wide = [n for n in shown if kept is None or kept[n][2]]  # a dock behind another has no width of its own
        if wide:
            widths = [max(sizes[n][0], theme.DOCK_MIN_WIDTH) for n in wide]
            self.resizeDocks([self.docks[n] for n in wide], widths, Qt.Orientation.Horizontal)
        pair = [n for n in ("layers", "proposals") if n in shown]
        if len(pair) == 2:
            self.resizeDocks([self.docks[n] for n in pair], [sizes[n][1] for n in pair], Qt.Orientation.Vertical)

    def reset_layout(self) -> None:
        """Panels of this workspace as at first."""
        self._layouts.put_docks(self.workspace, None)
        for dock in self.docks.values():
            dock.setFloating(False)
        self._show_docks(self.workspace)
        self._show_page()
        self._tasks_bar.show()

    def toggle_panels(self) -> None:
        """Hide every dock and bar except image, tool options and status; again restores."""
        if self._is_bare:
            for widget in self._hidden:
                widget.show()
            self._hidden = []
        else:
            parts = [*self.docks.values(), self.tool_strip, self._tasks_bar, self.menuWidget()]
            self._hidden = [part for part in parts if part.isVisible()]
            for part in self._hidden:
                part.hide()
        self._is_bare = not self._is_bare

    def show_dock(self, name: str) -> None:
        """Bring a panel to the front."""
        self.docks[name].show()
        self.docks[name].raise_()

    def show_start_page(self) -> None:
        """Recent projects and the sample; the open project stays open behind it."""
        self._pages.setCurrentWidget(self.start_page)

    def _show_library(self) -> None:
        self.set_workspace("review")
        self.show_dock("library")

    def _review_series(self, series_id: str) -> None:
        self.set_workspace("review")
        self.document.open_series(series_id)
        self._show_page()

    def _show_page(self, *_: Any) -> None:
        own_pages: dict[str, QWidget] = {"curate": self.curate, "train": self.train}
        page = own_pages.get(self.workspace, self.grid if self.document.scan is not None else self.start_page)
        self._pages.setCurrentWidget(page)
        for bar in (self.tool_options, self.tool_strip):
            bar.setVisible(page is self.grid and not (self._is_bare and bar is self.tool_strip))
        name = self.document.project.name if self.document.project is not None else ""
        self.setWindowTitle(f"{name} — medapp" if name else "medapp")

    # ------------------------------------------------------------------------------------------------------- actions

    def _update_actions(self, *_: Any) -> None:
        document, actions = self.document, self.actions_by_name
        has_scan, has_series = document.scan is not None, document.series is not None
        can_edit = has_series and document.annotation is not None and not document.is_read_only
        has_matte = can_edit and document.active_matte is not None
        has_candidate = bool(document.candidates) or document.preview is not None
        for name, action in actions.items():
            spec = SPECS[name]
            enabled = True
            if name in ("undo", "redo"):
                history = document.history
                enabled = (history.can_undo if name == "undo" else history.can_redo) and not document.is_read_only
                enabled = enabled or (name == "undo" and document.preview is not None)
                text = history.undo_text if name == "undo" else history.redo_text
                action.setText(f"{spec.text} {text[:1].lower() + text[1:]}" if text else spec.text)
            elif name in ("accept", "region_smaller", "region_larger", "proposal_next", "proposal_previous"):
                enabled = has_candidate
            elif name in ("uncertain_to_band", "draw_anew", "show_uncertainty"):
                enabled = can_edit and document.matting is not None
            elif name in ("matte_new", "propose", "prompt_kind", "import_masks"):
                enabled = can_edit
            elif spec.menu == "Matte" and name != "reject":
                enabled = has_matte
            elif name.startswith("train_"):
                enabled = self.training.allows(name.removeprefix("train_"))
            elif name in ("save_version", "export"):
                enabled = document.project is not None and bool(document.series_list)
            elif name in ("tool_depth", "depth_file"):
                enabled = document.depth.can_measure
            elif name == "depth_run":
                enabled = self.depth_mode.can_run
            elif name in ("tool_ruler", "depth_export"):
                enabled = document.depth.map is not None
            elif name == "regions_find":
                enabled = self.region_maps.can_find and not self.region_maps.is_finding
            elif name == "regions_show":
                enabled = self.region_maps.map is not None
            elif name == "series_reference":
                enabled = bool(document.annotated_series_id) and has_series and not document.is_read_only
            elif name in ("restore_run", "restore_preview"):
                enabled = has_series and self.restoring.can_run
            elif spec.menu == "Image" or spec.is_tool or name.startswith(_NEED_SCAN):
                enabled = has_scan
            elif name == "compare_cycle":
                enabled = document.processed is not None
            action.setEnabled(enabled)
        for name in TOOL_ACTIONS:
            if name in actions:
                actions[name].setChecked(name == f"tool_{document.tool}")
        for workspace in WORKSPACES:
            actions[f"workspace_{workspace.name}"].setChecked(workspace.name == self.workspace)
        if "brush_edges" in actions:
            actions["brush_edges"].setChecked(document.brush.edge_aware)

    def _read_depth(self, facts: dict[str, Any]) -> None:
        xy, zyx = facts.get("xy_px"), facts.get("zyx")
        is_frame = xy is not None and zyx is not None and zyx[0] == self.document.depth.z
        self.depth_map.show_reading(self.document.depth.reading_at(*xy) if is_frame else None)

    def _offer_depth(self) -> None:
        """A colour frame has depth to complete, grey scans and slides are restored: their panel comes to the front."""
        original = self.document.original
        if original is None or self.workspace != "restore":
            return
        has_depth = original.is_colour and original.modality not in _FLAT
        if has_depth and not self.docks["depth_map"].isHidden():
            self.docks["depth_map"].raise_()
        elif not has_depth and self._is_in_front("depth_map") and not self.docks["restore"].isHidden():
            self.docks["restore"].raise_()

    def _is_in_front(self, name: str) -> bool:
        return not self.docks[name].isHidden() and not self.docks[name].visibleRegion().isEmpty()

    def _on_settings_changed(self) -> None:
        change_keys(self.actions_by_name, self.document.settings.shortcuts)
        self._key_hold.follow(self.actions_by_name)
        self._apply_theme()

    def _say_crash(self, report: str) -> None:
        text = "Something unexpected happened. Your work is saved."
        self.messages.say(text, kind="error", hint="Copy the report to send it.", details=report)

    def _apply_theme(self) -> None:
        app = QApplication.instance()
        if not isinstance(app, QApplication):
            return
        if theme.resolve(app, self.document.settings.theme) != app.property("medappTheme"):
            theme.apply(app, self.document.settings.theme)
            self.document.series_list_changed.emit()  # lists hold colours

    def _offer_hints(self, series_id: str) -> None:
        if series_id and not set(self.document.settings.hints_seen) >= {name for name, _ in HINTS}:
            self.commands.show_hints()

    # -------------------------------------------------------------------------------------------------------- Qt events

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent) and self.document.preview is not None:
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.document.end_preview(accept=True)
                return True
            if event.key() == Qt.Key.Key_Escape:
                self.document.end_preview(accept=False)
                return True
        return False

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.opening.open_paths(paths)

    def paintEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        super().paintEvent(event)
        if not self._was_painted:
            self._was_painted = True
            self._pages.currentWidget().setFocus()
            QTimer.singleShot(0, self, self.first_painted.emit)

    def closeEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        running = self.bridge.running()
        if running and not self._may_close:
            event.ignore()
            self._ask_about_jobs(len(running))
            return
        unsaved = 0 if self._may_lose_edits else self.session.finish_saving()
        if unsaved:
            event.ignore()
            self._ask_about_unsaved(unsaved)
            return
        self._keep_docks()
        self.hide()
        self._layouts.put("geometry", bytes(self.saveGeometry().data()))
        self._layouts.put("workspace", self.workspace)
        self._layouts.save()
        QApplication.instance().removeEventFilter(self._key_hold)
        self.session.close()
        self.bridge.close()
        self.background.close()
        event.accept()
        self.closed.emit()

    def _ask_about_jobs(self, count: int) -> None:
        sheet = Sheet(self, "Jobs are still running")
        sheet.body.addWidget(
            wrapped(f"{count} {'job is' if count == 1 else 'jobs are'} not done. Your mattes are saved either way.")
        )
        if self.training.is_busy:
            sheet.body.addWidget(wrapped("The training keeps its run: the next start offers to go on where it was."))

        def quit_now() -> None:
            self._may_close = True
            sheet.accept()
            self.close()

        sheet.add_button("Cancel jobs and quit", quit_now, "danger")
        sheet.add_button("Stay open", sheet.reject, "primary")
        sheet.present()

    def _ask_about_unsaved(self, count: int) -> None:
        edits = "1 edit" if count == 1 else f"{count} edits"
        sheet = Sheet(self, f"{edits} not saved")
        reason = self.document.save_state[1] or "the project cannot be written"
        held = "It is in memory only." if count == 1 else "They are in memory only."
        sheet.body.addWidget(wrapped(f"{edits} could not be saved: {reason}. {held}"))

        def quit_now() -> None:
            self._may_lose_edits = True
            sheet.accept()
            self.close()

        def close_again() -> None:
            if shiboken6.isValid(sheet):  # a copy may be done after the question was put aside
                sheet.accept()
                self.close()

        sheet.add_button(f"Discard {edits} and quit", quit_now, "danger")
        sheet.add_button("Stay open", sheet.reject)
        sheet.add_button("Save copy elsewhere", lambda: self.commands.save_copy(close_again))
        sheet.add_button("Retry and quit", close_again, "primary")
        sheet.present()
