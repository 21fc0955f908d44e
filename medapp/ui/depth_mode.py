"""Depth completion of the frame on screen: what was measured, which model, the run, the map that comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PySide6.QtCore import QObject, Signal

from medapp.errors import UsageError
from medapp.requests import DepthExportRequest, DepthFileRequest, DepthFileResult, DepthRequest, DepthResult
from medapp.scan.camera import Camera
from medapp.ui.background import Background
from medapp.ui.depth_state import ShownDepth
from medapp.ui.document import Document
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Messages
from medapp.ui.restoring import Restoring
from medapp.ui.session import Session

if TYPE_CHECKING:
    from medapp.store.project import SeriesInfo

FILLS = (("fill-linear", "Linear fill"), ("fill-nearest", "Nearest fill"))


class DepthMode(QObject):
    """Asks for depth maps and shows them beside the frame.

    Attributes:
        model_id: The chosen model or fill.
        keeps_points: Put the measured depths back into the result.
        file: The depth file that was read for the frame on screen, or None; ``file_name`` is what it is called.
        is_running: A map is under way.
    """

    choice_changed = Signal()
    result_changed = Signal()

    def __init__(
        self,
        document: Document,
        session: Session,
        bridge: JobBridge,
        background: Background,
        messages: Messages,
        restoring: Restoring,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._session, self._bridge = document, session, bridge
        self._background, self._messages, self._restoring = background, messages, restoring
        self.model_id = ""
        self.keeps_points = False
        self.file: DepthFileResult | None = None
        self.file_name = ""
        self.is_running = False
        self._file_of = ("", -1)
        self._job = 0
        self._loaded_pair = ""
        self._ticket = 0
        document.series_opened.connect(lambda _id: self._follow())
        document.compare_changed.connect(self._follow)
        document.position_changed.connect(self._drop_foreign_file)
        document.series_list_changed.connect(self._follow)
        restoring.models_changed.connect(self._on_models)
        self._on_models()

    # -------------------------------------------------------------------------------------------------------- choices

    @property
    def series_id(self) -> str:
        """The frame's own series."""
        return self._document.annotated_series_id

    @property
    def models(self) -> list[tuple[str, str]]:
        """Ids and names: networks first, then the fills, which need no weights."""
        found = [
            (str(m["id"]), str(m["title"]))
            for m in self._restoring.models
            if m.get("serves") == "depth" and m.get("fit") != "blocked"
        ]
        return [*found, *FILLS]

    @property
    def needs_points(self) -> bool:
        """The chosen method cannot do without a measured point."""
        return self.model_id.startswith("fill-")

    @property
    def measured(self) -> int:
        """Depths that are known so far: points, and pixels of the file."""
        return len(self._document.depth.points) + (self.file.points if self.file is not None else 0)

    @property
    def can_run(self) -> bool:
        """There is a colour frame, nothing under way, and as much measured as the method needs."""
        has_enough = self.measured > 0 or not self.needs_points
        return self._document.depth.can_measure and bool(self.series_id) and not self.is_running and has_enough

    def choose(self, model_id: str) -> None:
        """Take another model or fill."""
        self.model_id = model_id
        self.choice_changed.emit()

    def set_keeps_points(self, keeps: bool) -> None:
        """Put the measured depths back into the result, or leave the model's own."""
        self.keeps_points = keeps
        self.choice_changed.emit()

    def _on_models(self) -> None:
        ids = [model_id for model_id, _ in self.models]
        if self.model_id not in ids or (self.model_id.startswith("fill-") and not ids[0].startswith("fill-")):
            self.model_id = ids[0]
        self.choice_changed.emit()

    # ----------------------------------------------------------------------------------------------------- depth files

    def read_file(self, path: Path, scale: str) -> None:
        """Read a depth file of the frame by the scale that was stated."""
        project = self._document.project
        if project is None:
            return
        frame = (self.series_id, self._document.depth.z)

        def done(found: DepthFileResult) -> None:
            original = self._document.original
            if frame != (self.series_id, self._document.depth.z) or original is None:
                return
            if found.size != original.shape[1:3]:
                (h, w), (H, W) = found.size, original.shape[1:3]
                self._messages.tell_error(
                    UsageError(f"{path.name} is {w} × {h}, the frame {W} × {H}.", "Both must be of one picture.")
                )
                return
            self.file, self.file_name, self._file_of = found, path.name, frame
            camera = found.record.get("camera")
            if camera and self._document.depth.camera is None:
                self._document.depth.set_camera(Camera.from_dict(camera))
            for note in found.notes:
                self._messages.say(note)
            self.choice_changed.emit()

        self._bridge.submit(
            DepthFileRequest(str(project.path), str(path), scale),
            subject=path.name,
            on_done=done,
            on_failed=lambda outcome: self._messages.tell_outcome(outcome, "the depth file"),
        )

    def drop_file(self) -> None:
        """Do without the depth file."""
        self.file, self.file_name, self._file_of = None, "", ("", -1)
        self.choice_changed.emit()

    def _drop_foreign_file(self) -> None:
        if self.file is not None and self._file_of != (self.series_id, self._document.depth.z):
            self.drop_file()

    # ------------------------------------------------------------------------------------------------------- the run

    def run(self) -> None:
        """Complete the depth of the frame on screen."""
        document, project = self._document, self._document.project
        if project is None or not self.can_run:
            return
        series_id, state = self.series_id, document.depth
        self.is_running = True
        self.choice_changed.emit()

        def done(result: DepthResult) -> None:
            self.is_running = False
            self.choice_changed.emit()
            if document.project is not project:
                return
            document.reload_series_list()
            if self.series_id == series_id:
                mode = document.compare_mode if document.compare_mode in ("side by side", "swipe") else "side by side"
                self._session.load_series(series_id, compare_mode=mode)
            for note in result.report.get("notes", ()):
                self._messages.say(str(note))

        def failed(outcome: Any) -> None:
            self.is_running = False
            self.choice_changed.emit()
            self._messages.tell_outcome(outcome, "the depth estimate")

        self._job = self._bridge.submit(
            DepthRequest(
                str(project.path),
                series_id,
                state.z,
                self.model_id,
                points=state.points,
                sparse_path=self.file.path if self.file is not None else "",
                sparse_record=self.file.record if self.file is not None else {},
                camera=state.camera.as_dict() if state.camera is not None else None,
                keep_points=self.keeps_points,
                device=document.settings.device,
            ),
            subject=f"frame {state.z + 1}",
            on_done=done,
            on_failed=failed,
        )

    # ------------------------------------------------------------------------------------------------- maps on screen

    @property
    def shown(self) -> SeriesInfo | None:
        """The depth series that is on screen, alone or beside the frame; else the newest one of the frame."""
        document = self._document
        for info in (document.series, document.processed_info):
            if info is not None and info.kind == "depth":
                return info
        made = [info for info in document.derived_of(self.series_id) if info.kind == "depth"]
        depths = [info for info in made if info.provenance.get("role") == "depth"]
        return depths[-1] if depths else None

    @property
    def role(self) -> str:
        """``depth`` or ``sigma``: which one is on screen."""
        info = self.shown
        return str(info.provenance.get("role", "depth")) if info is not None else "depth"

    @property
    def is_on_screen(self) -> bool:
        """A depth series is the series on screen, or its other side in Compare."""
        document = self._document
        info = document.series if document.is_derived else document.processed_info
        return info is not None and info.kind == "depth"

    def partner(self, role: str) -> SeriesInfo | None:
        """Depth or uncertainty of the map on screen."""
        info = self.shown
        if info is None:
            return None
        pair = info.provenance.get("pair", "")
        rows = [row for row in self._document.series_list if row.kind == "depth" and row.provenance.get("pair") == pair]
        return next((row for row in rows if row.provenance.get("role", "depth") == role), None)

    def show(self, role: str) -> None:
        """Put depth or uncertainty on screen, in the place where the other is."""
        info, document, project = self.partner(role), self._document, self._document.project
        if info is None or project is None:
            return
        if document.is_derived and document.series is not None and document.series.kind == "depth":
            document.open_series(info.series_id)
            return
        series_id = self.series_id

        def put(scan: Any) -> None:
            if self.series_id != series_id or document.project is not project:
                return
            document.show_processed(scan, info, None)
            if document.compare_mode not in ("side by side", "swipe") and not document.is_derived:
                document.set_compare("side by side")

        self._background.run(lambda: project.scan(info.series_id), put, self._messages.tell_error)

    def _follow(self) -> None:
        """Load what can be read off: depth and uncertainty of the map on screen."""
        self._drop_foreign_file()
        depth, sigma, project = self.partner("depth"), self.partner("sigma"), self._document.project
        pair = str(depth.series_id) if depth is not None else ""
        if depth is None or project is None:
            self._ticket += 1
            if self._document.depth.map is not None or self._loaded_pair:
                self._loaded_pair = ""
                self._document.depth.show_map(None)
            self.result_changed.emit()
            return
        if pair == self._loaded_pair:
            self.result_changed.emit()
            return
        self._loaded_pair = pair
        self._ticket += 1
        ticket, z = self._ticket, int(depth.provenance.get("slice_index", 0))
        self._document.depth.show_map(None)

        def load() -> ShownDepth:
            values = np.asarray(project.scan(depth.series_id).slice_values(z))
            spread = None if sigma is None else np.asarray(project.scan(sigma.series_id).slice_values(z))
            return ShownDepth(depth.series_id, str(depth.provenance.get("pair", "")), z, values, spread)

        def done(found: ShownDepth) -> None:
            if ticket == self._ticket:
                kept = depth.provenance.get("camera")
                self._document.depth.set_camera(Camera.from_dict(kept) if kept else self._document.depth.camera)
                self._document.depth.show_map(found)
                self.result_changed.emit()

        self._background.run(load, done, self._messages.tell_error)
        self.result_changed.emit()

    def export(self, folder: Path, then: Callable[[], object] | None = None) -> None:
        """Write depth and uncertainty of the map on screen as files."""
        info, project = self.partner("depth"), self._document.project
        if info is None or project is None:
            return
        camera = self._document.depth.camera

        def done(files: tuple[str, ...]) -> None:
            self._messages.say(f"{len(files)} depth files were written to {folder.name}.")
            if then is not None:
                then()

        self._bridge.submit(
            DepthExportRequest(
                str(project.path), info.series_id, str(folder), camera.as_dict() if camera is not None else None
            ),
            subject=info.title,
            on_done=done,
            on_failed=lambda outcome: self._messages.tell_outcome(outcome, "the depth files"),
        )
