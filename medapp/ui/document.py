"""The open project as signals; nothing in it blocks."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PySide6.QtCore import QObject, Signal

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import BrushSettings
from medapp.annotation.edits import (
    AddMatte,
    ChangeMarks,
    ChangeMatte,
    ChangeSeries,
    Compound,
    Edit,
    MoveMatte,
    RemoveMatte,
    Stroke,
)
from medapp.annotation.history import History
from medapp.annotation.matte import Matte, MatteProps
from medapp.scan.scan import Scan, Window
from medapp.settings import Settings
from medapp.ui.depth_state import DepthState
from medapp.ui.prompts import PROMPT_KINDS, Candidate, MattingSet, Prompt, PromptKind
from medapp.ui.region_state import RegionState

if TYPE_CHECKING:
    from medapp.store.project import Project, SeriesInfo

log = logging.getLogger(__name__)

COMPARE_MODES = ("single", "side by side", "swipe", "difference", "trust overlay")
MATTE_VIEWS = ("tint", "outline", "on black", "on white", "on checker", "grey", "unknown band")
PAINT_TOOLS = ("brush", "eraser", "unknown")
AcceptMode = Literal["add", "replace", "subtract"]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]


class Document(QObject):
    """The open project: what is on screen, what is held, what is painted.

    Widgets read its attributes and call its wishes; it answers with signals. Everything slow happens elsewhere and
    comes back through ``show_series`` and its like.

    Attributes:
        project: The open project, or None on the start page.
        series, scan: The series on screen; while it is still arriving ``series`` is None and ``scan`` maps its file.
        original, processed: The pair for Compare; ``processed`` may be a restoration under way.
        processed_slices: Slices of ``processed`` that are there, or None when all are.
        trust: How far eight answers differ, on the grid of ``processed``; None where nobody asked for it.
        arrived_slices: The same for ``scan``.
        annotation: The mattes of the original series.
        position_zyx: The crosshair, in voxels.
        window, is_inverted: Display window in the scan's unit, and whether grey runs the other way.
        tool: A name of ``canvas.tools.TOOL_NAMES``.
        prompt_kind: What the prompt tool draws.
        is_exact_edge: Accept a region with its hard edge instead of refining it.
        accept_mode: What *Accept* does: add, replace or subtract.
        is_proposing: A prompt waits for its answer.
        matting: What a matting model made of the prompts, beside the candidates; None elsewhere.
        hovered_candidate: Place of the candidate under the pointer: shown, but not what *Accept* takes.
        shows_uncertainty: The uncertainty of ``matting`` lies over the image.
        active_axis: The plane that was last clicked or has the focus.
        preview: An edit that is shown but not made yet.
        regions: The region map over the image, and how it is shown.
        depth: Measured depths of the frame on screen, its depth map, and the ruler.
    """

    project_changed = Signal()
    series_list_changed = Signal()
    series_opened = Signal(str)
    position_changed = Signal()
    window_changed = Signal()
    annotation_changed = Signal()
    matte_painted = Signal(str, tuple, tuple)
    active_matte_changed = Signal()
    tool_changed = Signal()
    brush_changed = Signal()
    compare_changed = Signal()
    overlays_changed = Signal()
    history_changed = Signal()
    save_state_changed = Signal()
    slice_arrived = Signal(str, int)
    proposals_changed = Signal()
    uncertainty_changed = Signal()
    flash_requested = Signal(str, int)
    settings_changed = Signal()
    message_requested = Signal(str)

    edit_made = Signal(str, str, object)  # kind (do, undo, redo), series id, edit: for the journal
    open_requested = Signal(str)  # a series id
    prompt_added = Signal()
    accept_requested = Signal(str)
    preview_changed = Signal()

    def __init__(self, settings: Settings | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.settings = settings or Settings()
        self.project: Project | None = None
        self.series_list: tuple[SeriesInfo, ...] = ()
        self.history = History(limit_bytes=self.settings.undo_memory_mb * 2**20)
        self.is_read_only = False
        self.save_state: tuple[str, str] = ("saved", "")  # saved | saving | not saved, and time or reason
        self.is_exact_edge = False
        self.accept_mode: AcceptMode = "add"
        self.prompt_kind: PromptKind = "point"
        self.overlays_visible = True
        self.matte_view = "tint"
        self.tool = "navigate"
        self.held_tool: str | None = None
        self.brush = BrushSettings(
            radius_px=max(self.settings.brush_radius_px, 0.5),
            hardness=self.settings.brush_hardness,
            flow=self.settings.brush_flow,
            opacity=self.settings.brush_opacity,
        )
        self.compare_mode = "single"
        self.divider = 0.5
        self.is_compare_linked = True
        self.active_axis = 0
        self.shows_uncertainty = False
        self._trashed: dict[str, SeriesInfo] = {}
        self.preview: Edit | None = None
        self._forget_series()
        self.depth = DepthState(self)
        self.regions = RegionState(self)

    def _forget_series(self) -> None:
        self.series: SeriesInfo | None = None
        self.scan: Scan | None = None
        self.original: Scan | None = None
        self.processed: Scan | None = None
        self.processed_info: Any = None
        self.processed_slices: set[int] | None = None
        self.trust: Scan | None = None
        self.arrived_slices: set[int] | None = None
        self.arriving_path = ""
        self.annotation: Annotation | None = None
        self.active_matte: Matte | None = None
        self.position_zyx = (0, 0, 0)
        self.window = Window(0.0, 1.0)
        self.default_window = Window(0.0, 1.0)
        self.value_range = (0.0, 1.0)
        self.is_inverted = False
        self.prompts: list[Prompt] = []
        self.candidates: list[Candidate] = []
        self.candidate_index = 0
        self.matting: MattingSet | None = None
        self.hovered_candidate: int | None = None
        self.is_proposing = False

    # ------------------------------------------------------------------------------------------------------- project

    def set_project(self, project: Project | None, *, is_read_only: bool = False) -> None:
        """Show another project; None goes back to the start page."""
        self.end_preview(accept=False)
        self._forget_series()
        self.project = project
        self.is_read_only = is_read_only
        self.history.clear()
        self.series_list = tuple(project.series()) if project is not None else ()
        self.project_changed.emit()
        self.series_list_changed.emit()
        self.annotation_changed.emit()
        self.active_matte_changed.emit()
        self.history_changed.emit()

    def show_nothing(self) -> None:
        """Take the series off the screen; the project stays."""
        self.end_preview(accept=False)
        self._forget_series()
        self.compare_mode = "single"
        self.series_opened.emit("")
        self._announce_series()

    def reload_series_list(self) -> None:
        """Read the list of series again after a worker added to it."""
        if self.project is not None:
            self.series_list = tuple(self.project.series())
            self.series_list_changed.emit()

    def info(self, series_id: str) -> SeriesInfo | None:
        """The row of a series."""
        return next((info for info in self.series_list if info.series_id == series_id), None)

    def derived_of(self, series_id: str) -> list[SeriesInfo]:
        """The series made from another, oldest first."""
        return [info for info in self.series_list if info.source_id == series_id]

    @property
    def annotated_series_id(self) -> str:
        """The series that holds the mattes: the original of the one on screen; empty without one."""
        return self.annotation.series_id if self.annotation is not None else ""

    @property
    def shows_mattes_grid(self) -> bool:
        """The series on screen lies on the grid of the mattes; a finer restoration does not."""
        return self.scan is None or self.original is None or self.scan.shape[:3] == self.original.shape[:3]

    @property
    def proposed_series_id(self) -> str:
        """The series in which regions are looked for: the one on screen, or the original under a finer one."""
        if not self.shows_mattes_grid:
            return self.annotated_series_id
        return self.series.series_id if self.series is not None else ""

    @property
    def matte_position_zyx(self) -> tuple[int, int, int]:
        """The crosshair in voxels of the mattes' grid."""
        if self.scan is None or self.original is None or self.shows_mattes_grid:
            return self.position_zyx
        at, sides = _same_place(self.scan, self.position_zyx, self.original), self.original.shape[:3]
        z, y, x = (min(max(i, 0), n - 1) for i, n in zip(at, sides, strict=True))
        return z, y, x

    def open_series(self, series_id: str) -> None:
        """Ask for another series on screen."""
        if self.series is None or self.series.series_id != series_id:
            self.open_requested.emit(series_id)

    def show_series(
        self,
        info: SeriesInfo,
        scan: Scan,
        original: Scan,
        annotation: Annotation,
        *,
        processed: Scan | None,
        processed_info: SeriesInfo | None,
        trust: Scan | None = None,
        window: Window,
        value_range: tuple[float, float],
        view: dict[str, Any] | None = None,
    ) -> None:
        """Put a loaded series on screen.

        Args:
            view: What was kept of it when it was last on screen: position, window, inversion, active matte.
        """
        self.end_preview(accept=False)
        is_beside = self.scan is not None and self.original is not None and self.annotation is not None
        is_beside = is_beside and self.annotation.series_id == annotation.series_id
        same_grid = is_beside and self.scan.shape == scan.shape
        before = self.scan if is_beside else None
        keeps_window = is_beside and "trust" not in (info.kind, self.series.kind if self.series is not None else "")
        position, kept_window = self.position_zyx, self.window
        is_inverted, active = self.is_inverted, self.active_matte
        tail = (self.prompts, self.candidates, self.candidate_index, self.matting)
        arrived_position = position if self.arriving_path and self.scan is not None else None
        if arrived_position is not None and self.scan is not None and self.scan.shape != scan.shape:
            arrived_position = None
        self._forget_series()
        self.series, self.scan, self.original, self.annotation = info, scan, original, annotation
        self.processed, self.processed_info, self.trust = processed, processed_info, trust
        self.default_window, self.value_range = window, value_range
        self.window = window
        self.is_inverted = scan.is_inverted != (scan.modality in ("PT", "NM"))
        view = view or {}
        z, y, x = scan.shape[:3]
        self.position_zyx = (z // 2, y // 2, x // 2)
        active_id = view.get("active_matte", "")
        if same_grid:  # from original to restored and back: nothing moves
            self.position_zyx = position
            if keeps_window:
                self.window, self.is_inverted = kept_window, is_inverted
            active_id = active.matte_id if active is not None else active_id
            self.prompts, self.candidates, self.candidate_index, self.matting = tail
        elif before is not None:  # the same place on a finer or coarser grid
            self.position_zyx = self._clamped(_same_place(before, position, scan))
            if keeps_window:
                self.window, self.is_inverted = kept_window, is_inverted
            active_id = active.matte_id if active is not None else active_id
            self.prompts, self.candidates, self.candidate_index, self.matting = tail
        else:
            if arrived_position is not None:
                self.position_zyx = arrived_position
            if "position_zyx" in view:
                self.position_zyx = self._clamped(view["position_zyx"])
            if "window" in view:
                center, width = view["window"]
                self.window = Window(float(center), float(width))
            self.is_inverted = bool(view.get("is_inverted", self.is_inverted))
        self.active_matte = annotation.matte(active_id) if active_id in annotation else next(iter(annotation), None)
        self._check_compare()
        self.series_opened.emit(info.series_id)
        self._announce_series()

    def show_arriving(self, scan: Scan, path: str, first_slice: int, window: Window) -> None:
        """Put a series on screen whose slices are still being read."""
        self.end_preview(accept=False)
        self._forget_series()
        self.scan = self.original = scan
        self.arriving_path, self.arrived_slices = path, set()
        self.position_zyx = (first_slice, scan.shape[1] // 2, scan.shape[2] // 2)
        self.window = self.default_window = window
        self.is_inverted = scan.is_inverted != (scan.modality in ("PT", "NM"))
        self.compare_mode = "single"
        self.series_opened.emit("")
        self._announce_series()

    def _announce_series(self) -> None:
        self.position_changed.emit()
        self.window_changed.emit()
        self.annotation_changed.emit()
        self.active_matte_changed.emit()
        self.compare_changed.emit()
        self.proposals_changed.emit()

    def note_slice(self, path: str, z: int) -> None:
        """A slice of a series or restoration under way can be looked at."""
        if path == self.arriving_path and self.arrived_slices is not None:
            self.arrived_slices.add(z)
        self.slice_arrived.emit(path, z)

    def show_processed(
        self, processed: Scan | None, info: Any, slices: set[int] | None, trust: Scan | None = None
    ) -> None:
        """Put a restoration of the open series, finished or under way, on the other side of Compare."""
        self.processed, self.processed_info, self.processed_slices = processed, info, slices
        self.trust = trust
        self._check_compare()
        self.compare_changed.emit()

    def _check_compare(self) -> None:
        """What is there decides how it can be compared."""
        if self.compare_mode != "single" and self.processed is None:
            self.compare_mode = "single"
        if self.compare_mode == "trust overlay" and self.trust is None:
            self.compare_mode = "swipe"

    @property
    def is_derived(self) -> bool:
        """True when the series on screen is a processed one."""
        return self.series is not None and self.series.source_id is not None

    # ---------------------------------------------------------------------------------------------------- navigation

    def _clamped(self, position_zyx: Any) -> tuple[int, int, int]:
        shape = self.scan.shape[:3] if self.scan is not None else (1, 1, 1)
        z, y, x = (int(min(max(int(p), 0), n - 1)) for p, n in zip(position_zyx, shape, strict=True))
        return z, y, x

    def set_position(self, position_zyx: tuple[int, int, int]) -> None:
        """Move the crosshair; places outside are clipped."""
        position = self._clamped(position_zyx)
        if self.scan is not None and position != self.position_zyx:
            self.position_zyx = position
            self.position_changed.emit()

    def step_slice(self, axis: int, steps: int) -> None:
        """Go forward or back along an axis."""
        position = list(self.position_zyx)
        position[axis] += steps
        self.set_position((position[0], position[1], position[2]))

    def go_to_slice(self, axis: int, index: int) -> None:
        """Go to a slice by its index from 0."""
        position = list(self.position_zyx)
        position[axis] = index
        self.set_position((position[0], position[1], position[2]))

    def set_window(self, center: float, width: float) -> None:
        """Set the display window, in the scan's unit."""
        window = Window(float(center), max(float(width), 1e-6))
        if window != self.window:
            self.window = window
            self.window_changed.emit()

    def reset_window(self) -> None:
        """Back to the window the series opened with."""
        self.set_window(self.default_window.center, self.default_window.width)

    def full_range_window(self) -> None:
        """Show every value."""
        low, high = self.value_range
        self.set_window((low + high) / 2, max(high - low, 1e-6))

    def invert_display(self) -> None:
        """Grey runs the other way."""
        self.is_inverted = not self.is_inverted
        self.window_changed.emit()

    # --------------------------------------------------------------------------------------------- tools and display

    def set_tool(self, name: str) -> None:
        """Take another tool in hand."""
        self.held_tool = None
        if name != self.tool:
            self.tool = name
            self.tool_changed.emit()

    def hold_tool(self, name: str) -> None:
        """Use a tool while its key is held."""
        if self.held_tool is None and name != self.tool:
            self.held_tool, self.tool = self.tool, name
            self.tool_changed.emit()

    def release_tool(self) -> None:
        """The key went up: the previous tool returns."""
        if self.held_tool is not None:
            self.tool, self.held_tool = self.held_tool, None
            self.tool_changed.emit()

    @property
    def is_painting_tool(self) -> bool:
        """Digits mean opacity and Shift+wheel the size then."""
        return self.tool in PAINT_TOOLS

    def set_brush(self, **changes: Any) -> None:
        """Change fields of the brush; impossible values are clipped."""
        limits = {"hardness": (0.0, 1.0), "flow": (0.01, 1.0), "opacity": (0.01, 1.0), "value": (0.0, 1.0)}
        limits |= {"radius_px": (0.5, 2000.0), "edge_strength": (0.0, 1.0), "depth_mm": (0.0, 500.0)}
        for name, (low, high) in limits.items():
            if name in changes:
                changes[name] = min(max(float(changes[name]), low), high)
        if changes.get("radius_mm") is not None:
            changes["radius_mm"] = min(max(float(changes["radius_mm"]), 0.05), 1000.0)
        brush = replace(self.brush, **changes)
        if brush != self.brush:
            self.brush = brush
            self.brush_changed.emit()

    def scale_brush(self, factor: float) -> None:
        """Make the brush larger or smaller."""
        if self.brush.radius_mm is not None:
            self.set_brush(radius_mm=self.brush.radius_mm * factor)
        else:
            self.set_brush(radius_px=self.brush.radius_px * factor)

    def set_compare(self, mode: str) -> None:
        """How original and processed share the viewport; without a processed series only ``single``."""
        if mode != "single" and self.processed is None:
            self.message_requested.emit("There is no restored series to compare with yet. Run a restoration first.")
            return
        if mode == "trust overlay" and self.trust is None:
            self.message_requested.emit(
                "There is no trust map of this restoration. Switch Trust map on in the Restore panel and run it again."
            )
            self.compare_changed.emit()
            return
        if mode != self.compare_mode:
            self.compare_mode = mode
            self.compare_changed.emit()

    def set_divider(self, share: float) -> None:
        """Where the swipe line is, 0..1 from the left."""
        self.divider = min(max(share, 0.0), 1.0)
        self.compare_changed.emit()

    def set_overlays_visible(self, visible: bool) -> None:
        """Hide or show everything over the image but the chip."""
        if visible != self.overlays_visible:
            self.overlays_visible = visible
            self.overlays_changed.emit()

    def set_matte_view(self, name: str) -> None:
        """How mattes are drawn."""
        self.matte_view = name
        self.overlays_changed.emit()

    def cycle_matte_view(self) -> None:
        """The next way to draw mattes."""
        place = MATTE_VIEWS.index(self.matte_view) if self.matte_view in MATTE_VIEWS else 0
        self.set_matte_view(MATTE_VIEWS[(place + 1) % len(MATTE_VIEWS)])

    # -------------------------------------------------------------------------------------------------------- mattes

    def set_active_matte(self, matte_id: str) -> None:
        """The layer that brush and proposals change."""
        if self.annotation is None or matte_id not in self.annotation:
            return
        if self.active_matte is None or self.active_matte.matte_id != matte_id:
            self.active_matte = self.annotation.matte(matte_id)
            self.active_matte_changed.emit()

    def step_matte(self, steps: int) -> None:
        """The next or previous layer."""
        if self.annotation is None or not len(self.annotation) or self.active_matte is None:
            return
        place = (self.annotation.index(self.active_matte.matte_id) + steps) % len(self.annotation)
        self.set_active_matte(self.annotation.mattes[place].matte_id)

    def new_matte(self, name: str = "") -> Matte | None:
        """Add a layer with the next label and take it in hand."""
        if self.annotation is None:
            return None
        matte = self.annotation.new_matte(name, reader=self.settings.reader)
        if self.apply(AddMatte(matte, len(self.annotation))):
            self.set_active_matte(matte.matte_id)
            return self.active_matte
        return None

    def active_or_new_matte(self) -> Matte | None:
        """The active layer, or a fresh one where there is none."""
        return self.active_matte if self.active_matte is not None else self.new_matte()

    def delete_matte(self, matte_id: str) -> None:
        """Take a layer out; undo brings it back with everything on it."""
        if self.annotation is None or matte_id not in self.annotation:
            return
        matte = self.annotation.matte(matte_id)
        self.apply(RemoveMatte(matte.copy(), self.annotation.index(matte_id), f"Delete {matte.name}"))

    def change_matte(self, matte_id: str, text: str = "Change matte", **changes: Any) -> None:
        """Change name, colour, label, group or a switch of a layer."""
        if self.annotation is None or matte_id not in self.annotation:
            return
        before: MatteProps = self.annotation.matte(matte_id).props
        after = replace(before, **changes)
        if after != before:
            self.apply(ChangeMatte(matte_id, before, after, text))

    def move_matte(self, matte_id: str, index: int) -> None:
        """Another place in the layer list."""
        if self.annotation is None:
            return
        before = self.annotation.index(matte_id)
        index = min(max(index, 0), len(self.annotation) - 1)
        if index != before:
            self.apply(MoveMatte(matte_id, before, index))

    # --------------------------------------------------------------------------------------------- editing and undo

    def apply(self, edit: Edit, *, mark: str | None = "annotated") -> bool:
        """Carry out an edit, remember it for undo, and hand it to the journal.

        Args:
            mark: What the slice rail says about slices that strokes of the edit touch; None leaves the marks.

        Returns:
            False when nothing may be changed now.
        """
        if self.annotation is None:
            return False
        if self.is_read_only:
            self.message_requested.emit("This project is open for reading only; nothing was changed.")
            return False
        self.end_preview(accept=True)
        edit = self._with_marks(edit, mark) if mark is not None else edit
        edit.apply(self.annotation)
        self.history.push(self.annotation.series_id, edit)
        self._announce(edit)
        self.edit_made.emit("do", self.annotation.series_id, edit)
        self.history_changed.emit()
        return True

    def _with_marks(self, edit: Edit, mark: str) -> Edit:
        touched = sorted({z for stroke in strokes_of(edit) for z in _slices_of(stroke)})
        marks = self.annotation.marks if self.annotation is not None else {}
        changed = [z for z in touched if marks.get(z) != mark]
        if not changed:
            return edit
        change = ChangeMarks({z: marks.get(z) for z in changed}, dict.fromkeys(changed, mark))
        return Compound((edit, change), edit.text)

    def undo(self) -> None:
        """Take the last step back; goes to its slice and layer first and flashes it."""
        if self.preview is not None:
            self.end_preview(accept=False)
            return
        self._turn("undo")

    def redo(self) -> None:
        """Do again what was taken back."""
        self._turn("redo")

    def _turn(self, kind: Literal["undo", "redo"]) -> None:
        step = self.history.peek_undo() if kind == "undo" else self.history.peek_redo()
        if step is None or self.is_read_only:
            return
        series_id, edit = step
        changes = [part for part in parts_of(edit) if isinstance(part, ChangeSeries)]
        if changes:
            self.history.undo() if kind == "undo" else self.history.redo()
            for change in changes:
                self._change_info(series_id, change.after)
            self.edit_made.emit(kind, series_id, edit)
            self.history_changed.emit()
            return
        if self.annotation is None or self.annotation.series_id != series_id:
            self.open_requested.emit(series_id)
            self.message_requested.emit(f"{edit.text} was made on this series. Press again to {kind} it.")
            return
        matte_id, z = edit.where
        if z is not None and z != self.position_zyx[0]:
            self.go_to_slice(0, z)
        if matte_id is not None:
            self.set_active_matte(matte_id)
            self.flash_requested.emit(matte_id, z if z is not None else self.position_zyx[0])
        done = self.history.undo() if kind == "undo" else self.history.redo()
        if done is None:
            return
        done[1].apply(self.annotation)
        self._announce(done[1])
        self.edit_made.emit(kind, series_id, done[1])
        self.history_changed.emit()

    def change_series(self, series_id: str, text: str = "Change series", **changes: Any) -> None:
        """Change state, title, group, inclusion or trash of a series; one undo step, journalled."""
        info = self.info(series_id)
        if info is None or self.is_read_only:
            return
        before = {name: getattr(info, name) for name in changes}
        if before == changes:
            return
        edit = ChangeSeries(before, dict(changes), text)
        self.history.push(series_id, edit)
        self._change_info(series_id, changes)
        self.edit_made.emit("do", series_id, edit)
        self.history_changed.emit()

    def _change_info(self, series_id: str, changes: dict[str, Any]) -> None:
        info = self.info(series_id)
        if info is None:  # it comes back from the trash
            self._trashed = {**self._trashed}
            info = self._trashed.pop(series_id, None)
            if info is None:
                return
            self.series_list = (*self.series_list, info)
        new = replace(info, **changes)
        if new.is_trashed:
            self._trashed[series_id] = new
            self.series_list = tuple(i for i in self.series_list if i.series_id != series_id)
        else:
            self.series_list = tuple(new if i.series_id == series_id else i for i in self.series_list)
        if self.series is not None and self.series.series_id == series_id:
            self.series = new
        self.series_list_changed.emit()

    def begin_preview(self, edit: Edit) -> None:
        """Show an edit that is not made yet: Enter accepts it, Esc takes it away, painting accepts it."""
        if self.annotation is None or self.is_read_only:
            return
        self.end_preview(accept=False)
        edit.apply(self.annotation)
        self.preview = edit
        self._announce(edit)
        self.preview_changed.emit()

    def end_preview(self, *, accept: bool) -> None:
        """Make the previewed edit one undo step, or take it away."""
        edit, self.preview = self.preview, None
        if edit is None or self.annotation is None:
            return
        taken_back = edit.reversed()
        taken_back.apply(self.annotation)
        if accept:
            self.apply(edit, mark=None)
        else:
            self._announce(taken_back)
        self.preview_changed.emit()

    def _announce(self, edit: Edit) -> None:
        """Say what an applied edit changed."""
        annotation = self.annotation
        if annotation is None:
            return
        only_strokes = all(isinstance(part, Stroke) for part in parts_of(edit))
        if not only_strokes:
            if self.active_matte is not None and self.active_matte.matte_id not in annotation:
                self.active_matte = None
            if self.active_matte is None and len(annotation):
                added = [part.snapshot.matte_id for part in parts_of(edit) if isinstance(part, AddMatte)]
                self.active_matte = annotation.matte(added[-1]) if added else annotation.mattes[-1]
            elif self.active_matte is not None:
                self.active_matte = annotation.matte(self.active_matte.matte_id)
            self.annotation_changed.emit()
            self.active_matte_changed.emit()
        for stroke in strokes_of(edit):
            box = _box_of(stroke)
            if box is not None:
                self.matte_painted.emit(stroke.matte_id, *box)

    def set_save_state(self, state: str, detail: str = "") -> None:
        """``saved`` with a time, ``saving``, or ``not saved`` with the reason."""
        if (state, detail) != self.save_state:
            self.save_state = (state, detail)
            self.save_state_changed.emit()

    # --------------------------------------------------------------------------------------- prompts and candidates

    def cycle_prompt_kind(self) -> None:
        """Point, box, scribble, point..."""
        place = PROMPT_KINDS.index(self.prompt_kind)
        self.prompt_kind = PROMPT_KINDS[(place + 1) % len(PROMPT_KINDS)]
        self.tool_changed.emit()

    def add_prompt(self, prompt: Prompt) -> None:
        """Point at something; prompts of another slice go."""
        self.prompts = [p for p in self.prompts if (p.axis, p.slice_index) == (prompt.axis, prompt.slice_index)]
        if prompt.kind == "box":
            self.prompts = [p for p in self.prompts if p.kind != "box"]
        self.prompts.append(prompt)
        self.proposals_changed.emit()
        self.prompt_added.emit()

    def move_prompt(self, index: int, points_xy: tuple[tuple[float, float], ...]) -> None:
        """Drag a prompt's handle."""
        self.prompts[index] = replace(self.prompts[index], points_xy=points_xy)
        self.proposals_changed.emit()
        self.prompt_added.emit()

    def remove_prompt(self, index: int) -> None:
        """Delete one prompt."""
        del self.prompts[index]
        if not self.prompts:
            self.clear_prompts()
            return
        self.proposals_changed.emit()
        self.prompt_added.emit()

    def clear_prompts(self) -> None:
        """Reject: drop prompts and candidates; accepted work stays."""
        self.prompts, self.candidates, self.candidate_index = [], [], 0
        self.matting = self.hovered_candidate = None
        self.proposals_changed.emit()

    def reject_candidate(self) -> None:
        """Take the preview or the shown region away; of several proposals without prompts the next one follows."""
        if self.preview is not None:
            self.end_preview(accept=False)
        elif not self.prompts and len(self.candidates) > 1:
            rest = [c for i, c in enumerate(self.candidates) if i != self.candidate_index]
            self.set_candidates(rest, min(self.candidate_index, len(rest) - 1))
        else:
            self.clear_prompts()

    def turn_candidate(self, steps: int) -> None:
        """The next proposal; the first follows the last."""
        if self.candidates:
            self.set_candidates(self.candidates, (self.candidate_index + steps) % len(self.candidates))

    def set_candidates(self, candidates: list[Candidate], index: int = 0, matting: MattingSet | None = None) -> None:
        """Regions that answer the prompts, with ``matting`` where a matting model made them."""
        if candidates is not self.candidates:
            self.matting = matting
        self.candidates, self.hovered_candidate = candidates, None
        self.candidate_index = min(max(index, 0), max(len(candidates) - 1, 0))
        self.proposals_changed.emit()

    @property
    def candidate(self) -> Candidate | None:
        """The region that *Accept* would take."""
        return self.candidates[self.candidate_index] if self.candidates else None

    @property
    def shown_candidate(self) -> Candidate | None:
        """The region over the image: the one under the pointer in the tray, else what *Accept* would take."""
        place = self.hovered_candidate
        return self.candidates[place] if place is not None and place < len(self.candidates) else self.candidate

    def hover_candidate(self, place: int | None) -> None:
        """Show a candidate while the pointer is over it in the tray; None when it has left."""
        if place != self.hovered_candidate:
            self.hovered_candidate = place
            self.uncertainty_changed.emit()

    def show_uncertainty(self, shows: bool) -> None:
        """Lay the uncertainty over the image, or take it away."""
        if shows != self.shows_uncertainty:
            self.shows_uncertainty = shows
            self.uncertainty_changed.emit()

    def step_candidate(self, steps: int) -> None:
        """A smaller or larger region, or the next candidate."""
        if self.candidates:
            index = min(max(self.candidate_index + steps, 0), len(self.candidates) - 1)
            if index != self.candidate_index:
                self.candidate_index = index
                self.proposals_changed.emit()

    def accept_candidate(self, mode: AcceptMode | None = None) -> None:
        """Merge the region into the active layer; without a mode in the way that was chosen last."""
        if self.preview is not None:
            self.end_preview(accept=True)
        elif self.candidate is not None:
            self.accept_requested.emit(mode or self.accept_mode)

    # ------------------------------------------------------------------------------------------------------ settings

    def change_settings(self, **changes: Any) -> None:
        """Change and announce preferences; the window saves them."""
        settings = replace(self.settings, **changes)
        if settings != self.settings:
            self.settings = settings
            self.history.limit_bytes = settings.undo_memory_mb * 2**20
            self.settings_changed.emit()

    def view_state(self) -> dict[str, Any]:
        """What is kept of the view, so that the project reopens where it was left."""
        return {
            "position_zyx": list(self.position_zyx),
            "window": [self.window.center, self.window.width],
            "is_inverted": self.is_inverted,
            "active_matte": self.active_matte.matte_id if self.active_matte is not None else "",
            "series_id": self.series.series_id if self.series is not None else "",
            "tool": self.held_tool or self.tool,
            "compare_mode": self.compare_mode,
        }


def parts_of(edit: Edit) -> list[Edit]:
    """The simple edits inside an edit."""
    if isinstance(edit, Compound):
        return [part for inner in edit.edits for part in parts_of(inner)]
    return [edit]


def strokes_of(edit: Edit) -> list[Stroke]:
    """The strokes inside an edit."""
    return [part for part in parts_of(edit) if isinstance(part, Stroke)]


def _slices_of(stroke: Stroke) -> set[int]:
    slices: set[int] = set()
    for patch in stroke.patches:
        if patch.layer != "alpha":
            continue
        z = patch.start_zyx[0]
        if patch.shape[0] == 1:
            slices.add(z)
        else:
            changed = (patch.before != patch.after).any(axis=(1, 2))
            slices.update(z + i for i in range(patch.shape[0]) if changed[i])
    return slices


def _box_of(stroke: Stroke) -> Box | None:
    if not stroke.patches:
        return None
    starts = [patch.start_zyx for patch in stroke.patches]
    ends = [tuple(s + n for s, n in zip(p.start_zyx, p.shape, strict=True)) for p in stroke.patches]
    z, y, x = (min(start[a] for start in starts) for a in range(3))
    d, h, w = (max(end[a] for end in ends) - low for a, low in enumerate((z, y, x)))
    return (z, y, x), (d, h, w)


def _same_place(before: Scan, position_zyx: tuple[int, int, int], after: Scan) -> tuple[int, int, int]:
    """The voxel of another grid that lies where a voxel lay."""
    if before.geometry is not None and after.geometry is not None:
        index = after.geometry.to_index(before.geometry.to_mm(np.array(position_zyx, dtype=np.float64)))
        return tuple(round(float(i)) for i in index)  # type: ignore[return-value]
    sides = zip(position_zyx, before.shape[:3], after.shape[:3], strict=True)
    return tuple(int((p + 0.5) * new / old) for p, old, new in sides)  # type: ignore[return-value]
