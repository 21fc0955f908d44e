"""What the actions do: one method each, over the window and its document."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog

from medapp.annotation.edits import Stroke
from medapp.annotation.matte import FULL
from medapp.ui.dialogs.depth_file_sheet import DEPTH_FILTER, DepthFileSheet
from medapp.ui.dialogs.export_sheet import ExportSheet
from medapp.ui.dialogs.help_sheets import HINTS, AboutSheet, ShortcutSheet
from medapp.ui.dialogs.questions import (
    DetailsSheet,
    FilesSheet,
    ModalityQuestion,
    SliceSheet,
    VersionSheet,
)
from medapp.ui.dialogs.settings_sheet import SettingsSheet
from medapp.ui.document import COMPARE_MODES
from medapp.ui.messages import Message
from medapp.ui.panels.library import mark_reference, warnings_of
from medapp.ui.panels.restore import model_paths_filter
from medapp.ui.proposing import plane_patch

if TYPE_CHECKING:
    from medapp.ui.main_window import MainWindow

_BRUSH_STEP = 1.1
_ZOOM_STEP = 1.25
_TOOLS = (
    "navigate",
    "window",
    "zoom",
    "pan",
    "brush",
    "eraser",
    "unknown",
    "fill",
    "lasso",
    "prompt",
    "depth",
    "ruler",
)


class Commands:
    """The handlers of the action table."""

    def __init__(self, window: MainWindow) -> None:
        self._window = window
        self._document = window.document

    def handlers(self) -> dict[str, Callable[[], object]]:
        """Action name to what it does; an action without a handler is not made."""
        window, document = self._window, self._document
        found: dict[str, Callable[[], object]] = {
            "open_files": self.open_files,
            "open_folder": self.open_folder,
            "open_sample": window.opening.open_sample,
            "new_project": window.session.new_project,
            "open_project": self.open_project,
            "start_page": window.show_start_page,
            "import_masks": self.import_masks,
            "import_model": self.import_model,
            "save_version": self.save_version,
            "export": lambda: self.export([]),
            "quit": window.close,
            "undo": document.undo,
            "redo": document.redo,
            "delete": lambda: window.grid.delete_selected(),
            "find_command": lambda: window.command_search.present(),
            "settings": self.settings,
            "layout_1": lambda: window.grid.set_layout("1"),
            "layout_4": lambda: window.grid.set_layout("2x2"),
            "layout_3_1": lambda: window.grid.set_layout("3+1"),
            "fit": lambda: window.grid.fit(),
            "zoom_100": lambda: window.grid.show_percent(100),
            "zoom_in": lambda: window.grid.zoom_by(_ZOOM_STEP),
            "zoom_out": lambda: window.grid.zoom_by(1 / _ZOOM_STEP),
            "compare_cycle": self.cycle_compare,
            "toggle_overlays": lambda: document.set_overlays_visible(not document.overlays_visible),
            "matte_view_cycle": document.cycle_matte_view,
            "toggle_panels": window.toggle_panels,
            "full_screen": lambda: window.setWindowState(window.windowState() ^ Qt.WindowState.WindowFullScreen),
            "reset_layout": window.reset_layout,
            "invert_display": document.invert_display,
            "window_default": document.reset_window,
            "window_full": document.full_range_window,
            "slice_next": lambda: window.grid.step_slices(1),
            "slice_previous": lambda: window.grid.step_slices(-1),
            "slice_next_10": lambda: window.grid.step_slices(10),
            "slice_previous_10": lambda: window.grid.step_slices(-10),
            "slice_first": lambda: window.grid.go_to_end(False),
            "slice_last": lambda: window.grid.go_to_end(True),
            "slice_go": self.go_to_slice,
            "restore_run": window.restoring.run,
            "restore_preview": window.restoring.start_preview,
            "regions_find": window.region_maps.find,
            "regions_show": lambda: document.regions.set_visible(not document.regions.is_visible),
            "depth_file": self.open_depth_file,
            "depth_run": window.depth_mode.run,
            "depth_export": self.export_depth,
            "matte_new": document.new_matte,
            "matte_delete": lambda: self._with_active(document.delete_matte),
            "matte_previous": lambda: document.step_matte(-1),
            "matte_next": lambda: document.step_matte(1),
            "matte_visible": self.toggle_matte,
            "matte_invert": self.invert_matte,
            "propose": self.propose,
            "accept": lambda: document.accept_candidate(),
            "reject": self.reject,
            "region_smaller": lambda: document.step_candidate(-1),
            "region_larger": lambda: document.step_candidate(1),
            "proposal_next": lambda: document.turn_candidate(1),
            "proposal_previous": lambda: document.turn_candidate(-1),
            "prompt_kind": document.cycle_prompt_kind,
            "refine": window.proposing.refine,
            "uncertain_to_band": lambda: window.proposals.matting.put_into_band(),
            "draw_anew": lambda: window.matte_proposing.draw_anew(),
            "show_uncertainty": lambda: document.show_uncertainty(not document.shows_uncertainty),
            "copy_next": window.propagating.copy_to_next,
            "interpolate": window.propagating.interpolate,
            "series_reference": lambda: mark_reference(document, document.annotated_series_id),
            "train_start": window.training.start,
            "train_pause": window.training.pause,
            "train_resume": window.training.resume,
            "train_adopt": window.training.adopt,
            "train_roll_back": lambda: window.training.roll_back(),
            "shortcuts": lambda: ShortcutSheet(window, document.settings.shortcuts).present(),
            "hints": self.show_hints,
            "messages": lambda: window.tasks.show_messages(),
            "about": lambda: AboutSheet(window).present(),
            "brush_smaller": lambda: document.scale_brush(1 / _BRUSH_STEP),
            "brush_larger": lambda: document.scale_brush(_BRUSH_STEP),
            "brush_softer": lambda: document.set_brush(hardness=document.brush.hardness - 0.25),
            "brush_harder": lambda: document.set_brush(hardness=document.brush.hardness + 0.25),
            "brush_swap": lambda: document.set_brush(value=1.0 - document.brush.value),
            "brush_reset": lambda: document.set_brush(value=1.0),
            "brush_edges": lambda: document.set_brush(edge_aware=not document.brush.edge_aware),
        }
        for name in ("review", "restore", "annotate", "curate", "train"):
            found[f"workspace_{name}"] = partial(window.set_workspace, name)
        for name in _TOOLS:
            found[f"tool_{name}"] = partial(document.set_tool, name)
        for n in range(10):
            found[f"digit_{n}"] = partial(self.digit, n)
            found[f"flow_{n}"] = partial(self.flow, n)
            if n:
                found[f"preset_{n}"] = partial(self.preset, n)
        return found

    # --------------------------------------------------------------------------------------------------------- depth

    def open_depth_file(self) -> None:
        """Choose a depth file of the frame and state what its numbers mean."""

        def chosen(files: list[str]) -> None:
            path = Path(files[0])
            DepthFileSheet(self._window, path, lambda scale: self._window.depth_mode.read_file(path, scale)).present()

        self._choose("Open depth file", QFileDialog.FileMode.ExistingFile, chosen, DEPTH_FILTER)

    def export_depth(self) -> None:
        """Choose a folder for the files of the depth map on screen."""
        self._choose(
            "Folder for the depth files",
            QFileDialog.FileMode.Directory,
            lambda folders: self._window.depth_mode.export(Path(folders[0])),
        )

    # --------------------------------------------------------------------------------------------------------- files

    def _choose(
        self, title: str, mode: QFileDialog.FileMode, then: Callable[[list[str]], object], filters: str = ""
    ) -> None:
        dialog = QFileDialog(self._window, title, str(Path.home()), filters)
        dialog.setFileMode(mode)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.filesSelected.connect(then)
        dialog.open()

    def open_files(self) -> None:
        """Choose images."""
        self._choose("Open images", QFileDialog.FileMode.ExistingFiles, self._window.opening.open_paths)

    def open_folder(self) -> None:
        """Choose a folder of images."""
        self._choose("Open folder", QFileDialog.FileMode.Directory, self._window.opening.open_paths)

    def open_project(self) -> None:
        """Choose a project folder."""
        self._choose(
            "Open project",
            QFileDialog.FileMode.Directory,
            lambda chosen: self._window.session.open_project(Path(chosen[0])),
        )

    def import_masks(self) -> None:
        """Choose masks for the open series."""
        if self._document.annotation is not None:
            self._choose("Import masks", QFileDialog.FileMode.ExistingFiles, self._window.opening.import_masks)

    def import_model(self) -> None:
        """Choose a weights file."""
        self._choose(
            "Import model file",
            QFileDialog.FileMode.ExistingFile,
            lambda chosen: self._window.restoring.import_model(Path(chosen[0])),
            model_paths_filter(),
        )

    def ask_modality(self, paths: list[str]) -> None:
        """These files do not say what made them."""
        ModalityQuestion(self._window, paths, self._window.opening.open_paths).present()

    def show_refused(self, result: object) -> None:
        """Which files were not opened, and why."""
        FilesSheet(self._window, result).present()  # type: ignore[arg-type]

    def show_details(self, series_id: str) -> None:
        """Everything that was noted about a series."""
        info = self._document.info(series_id)
        if info is not None:
            DetailsSheet(self._window, info.title, warnings_of(info)).present()

    def save_version(self) -> None:
        """Name the present state."""
        if self._document.annotation is None or self._document.is_read_only:
            self._document.message_requested.emit("There is nothing to name yet: open a series first.")
            return
        VersionSheet(self._window, self._window.session.save_version).present()

    def save_copy(self, then: Callable[[], None] = lambda: None) -> None:
        """Choose where a copy of the project goes; ``then`` is called once it is there."""
        dialog = QFileDialog(self._window, "Save copy elsewhere", str(Path.home() / "Copy.medapp"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self._window.session.save_copy(Path(path), then))
        dialog.open()

    def export(self, series_ids: list[str]) -> None:
        """Export the chosen series, or the one on screen with what was made from it."""
        document = self._document
        if document.project is None:
            return
        if not series_ids and self._window.workspace == "curate":
            series_ids = self._window.curate.chosen()
        if not series_ids and document.annotated_series_id:
            original_id = document.annotated_series_id
            series_ids = [original_id, *(d.series_id for d in document.derived_of(original_id) if d.included)]
        if not series_ids:
            document.message_requested.emit("Nothing is chosen for export. Include at least one series.")
            return
        ExportSheet(self._window, document, self._window.bridge, self._window.messages, series_ids).present()

    def settings(self) -> None:
        """Theme, reader, device, privacy, keys."""
        SettingsSheet(self._window, self._document).present()

    # ----------------------------------------------------------------------------------------------------- view, matte

    def cycle_compare(self) -> None:
        """The next compare mode."""
        document = self._document
        modes = [mode for mode in COMPARE_MODES if mode != "trust overlay" or document.trust is not None]
        place = modes.index(document.compare_mode)
        document.set_compare(modes[(place + 1) % len(modes)])

    def go_to_slice(self) -> None:
        """Ask for a slice number."""
        document, axis = self._document, self._document.active_axis
        if document.scan is None:
            return
        SliceSheet(
            self._window,
            document.position_zyx[axis] + 1,
            document.scan.shape[axis],
            lambda index: document.go_to_slice(axis, index),
        ).present()

    def _with_active(self, act: Callable[[str], object]) -> None:
        if self._document.active_matte is not None:
            act(self._document.active_matte.matte_id)

    def toggle_matte(self) -> None:
        """Show or hide the active layer."""
        active = self._document.active_matte
        if active is not None:
            text = "Hide matte" if active.is_visible else "Show matte"
            self._document.change_matte(active.matte_id, text, is_visible=not active.is_visible)

    def invert_matte(self) -> None:
        """On the slice on screen α becomes 1 − α."""
        document, active = self._document, self._document.active_matte
        if active is None:
            return
        if active.is_locked:
            document.message_requested.emit(f"“{active.name}” is locked; nothing was changed.")
            return
        axis = document.active_axis
        index = document.matte_position_zyx[axis]
        patch = plane_patch(active, FULL - active.slice_stored(index, axis), index, axis)
        if patch is not None:
            document.apply(Stroke(active.matte_id, (patch,), "Invert matte"))

    def propose(self) -> None:
        """Put the regions of this slice into the tray, and show the tray."""
        self._window.show_dock("proposals")
        self._window.proposing.propose_slice()

    def reject(self) -> None:
        """Preview first, then what the image would cancel."""
        if self._document.preview is not None:
            self._document.end_preview(accept=False)
        else:
            self._window.grid.escape()

    def digit(self, n: int) -> None:
        """Opacity with a paint tool, else a window preset; 0 = full."""
        if self._document.is_painting_tool:
            self._document.set_brush(opacity=(n or 10) / 10)
        elif n == 0:
            self._document.full_range_window()
        else:
            self.preset(n)

    def flow(self, n: int) -> None:
        """Flow with a paint tool."""
        if self._document.is_painting_tool:
            self._document.set_brush(flow=(n or 10) / 10)

    def preset(self, n: int) -> None:
        """The n-th window preset of this modality."""
        windows = self._window.tool_options.windows()
        if n <= len(windows):
            self._document.set_window(windows[n - 1].center, windows[n - 1].width)

    def show_hints(self) -> None:
        """Three things to know, until dismissed."""
        messages, document = self._window.messages, self._document

        def dismiss() -> None:
            messages.show_banner("hints", None)
            document.change_settings(hints_seen=tuple(name for name, _ in HINTS))

        messages.show_banner("hints", Message(" ".join(text for _, text in HINTS), actions=(("Got it", dismiss),)))
