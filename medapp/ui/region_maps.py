"""The regions of the slice on screen: which engine finds them, the search, whether they are still up to date."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer, Signal

from medapp.annotation.accepted import accepted_masks, masks_sha256
from medapp.progress import ProgressEvent
from medapp.requests import Outcome, RegionMapRequest, RegionMapResult, Stopped
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Messages
from medapp.ui.restoring import Restoring

if TYPE_CHECKING:
    from medapp.store.project import RegionMapRevision

TREE = ("", "Region tree")
TREE_NAME = "region tree"
_LOOK_MS = 60
_COMPARE_MS = 150


class RegionMaps(QObject):
    """Finds region maps for the chosen restorer and shows that of the slice on screen.

    Attributes:
        is_out_of_date: Mattes of the slice have changed since its map was found.
        done, total: Of the running search; 0 of 0 before it counts.
        note: What the running search does.
    """

    changed = Signal()

    def __init__(
        self,
        document: Document,
        bridge: JobBridge,
        background: Background,
        messages: Messages,
        restoring: Restoring,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._bridge, self._background = document, bridge, background
        self._messages, self._restoring = messages, restoring
        self.is_out_of_date = False
        self.done = self.total = 0
        self.note = ""
        self._job = 0
        self._waits_for_saving = False
        self._ticket = 0
        self._look = QTimer(self, singleShot=True, interval=_LOOK_MS)
        self._look.timeout.connect(self._load)
        self._compare = QTimer(self, singleShot=True, interval=_COMPARE_MS)
        self._compare.timeout.connect(self._judge)
        for signal in (document.series_opened, document.project_changed, document.position_changed):
            signal.connect(self.look_again)
        for signal in (document.slice_arrived, document.compare_changed, restoring.report_changed):
            signal.connect(self.look_again)  # a run or preview may have found regions on its way
        for signal in (restoring.choice_changed, restoring.models_changed):
            signal.connect(self._on_choice)
        document.annotation_changed.connect(self._compare.start)
        document.matte_painted.connect(lambda *_: self._compare.start())
        document.save_state_changed.connect(self._on_saved)

    # ------------------------------------------------------------------------------------------------------- engines

    @property
    def is_needed(self) -> bool:
        """The chosen restorer works within regions, and there is a series."""
        return self._restoring.needs_regions and bool(self._restoring.series_id)

    @property
    def engines(self) -> list[tuple[str, str]]:
        """What can find regions: model id and title; the tree is always there."""
        sams = [m for m in self._restoring.segmenters if m.get("architecture") == "sam"]
        return [TREE, *((str(m["id"]), str(m["title"])) for m in sams)]

    @property
    def engine_id(self) -> str:
        """The chosen engine."""
        return self._restoring.region_model_id

    def choose(self, engine_id: str) -> None:
        """Let another engine find the regions."""
        self._restoring.set_region_model(engine_id)

    @property
    def trained_with(self) -> str:
        """Name of the engine that the chosen restorer was trained with; empty when unknown."""
        model = self._restoring.model
        return str(model.get("region_engine", "")) if model is not None else ""

    @property
    def is_other_engine(self) -> bool:
        """The restorer was trained with regions of another engine, or of an unknown one."""
        title = dict(self.engines).get(self.engine_id, "")
        named = TREE_NAME if not self.engine_id else f"SAM · {title.removeprefix('SAM ')}"
        return self.trained_with != named

    def _on_choice(self) -> None:
        if self.engine_id not in dict(self.engines) and not self._restoring.is_loading:
            self.choose("")
        self.look_again()
        self.changed.emit()

    # --------------------------------------------------------------------------------------------------- what is there

    @property
    def map(self) -> RegionMapRevision | None:
        """The newest map of the slice on screen by the chosen engine."""
        return self._document.regions.map

    def look_again(self, *_: Any) -> None:
        """The slice, the engine or the project's maps may be others: look up the newest map soon."""
        self._ticket += 1
        found, document = self.map, self._document
        if found is not None and (
            not self.is_needed
            or found.slice_index != document.position_zyx[0]
            or found.engine_id != self.engine_id
            or found.series_id != self._restoring.series_id
        ):
            document.regions.show_map(None)
            self.is_out_of_date = False
            self.changed.emit()
        self._look.start()

    def _load(self) -> None:
        document, project = self._document, self._document.project
        series_id, z, engine_id, ticket = (
            self._restoring.series_id,
            document.position_zyx[0],
            self.engine_id,
            self._ticket,
        )
        if not self.is_needed or project is None:
            self._take(None)
            return
        shown = self.map

        def read() -> RegionMapRevision | None:
            return project.region_map(series_id, z, 0, engine_id)

        def show(found: RegionMapRevision | None) -> None:
            if ticket != self._ticket:
                return
            is_same = shown is not None and found is not None and shown.region_map_id == found.region_map_id
            self._take(shown if is_same else found)

        self._background.run(read, show, self._messages.tell_error)

    def _take(self, found: RegionMapRevision | None) -> None:
        self._document.regions.show_map(found)
        self._judge()
        self.changed.emit()

    def _judge(self) -> None:
        """Compare the mattes that were painted in with those that are there now."""
        found, annotation = self.map, self._document.annotation
        is_old = False
        if found is not None and annotation is not None and annotation.series_id == found.series_id:
            is_old = masks_sha256(accepted_masks(annotation, found.slice_index)) != found.mattes_sha256
        if is_old != self.is_out_of_date:
            self.is_out_of_date = is_old
            self.changed.emit()

    # ---------------------------------------------------------------------------------------------------------- search

    @property
    def is_finding(self) -> bool:
        """A search is under way."""
        return bool(self._job) or self._waits_for_saving

    @property
    def can_find(self) -> bool:
        """There is a slice whose regions can be stored."""
        return self.is_needed and not self._document.is_read_only and self._document.project is not None

    def find(self) -> None:
        """Find the regions of the slice on screen, as it is shown now; waits until the last stroke is saved."""
        if not self.can_find or self.is_finding:
            return
        self.done = self.total = 0
        self.note = ""
        if self._document.save_state[0] == "saving":
            self._waits_for_saving = True
            self.changed.emit()
            return
        self._submit()

    def cancel(self) -> None:
        """Stop the search; what was stored before stays."""
        self._waits_for_saving = False
        if self._job:
            self.note = "Cancelling…"
            self._bridge.cancel(self._job)
        self.changed.emit()

    def _on_saved(self) -> None:
        if self._waits_for_saving and self._document.save_state[0] != "saving":
            self._waits_for_saving = False
            self._submit()

    def _submit(self) -> None:
        document, project = self._document, self._document.project
        if project is None or not self.can_find:
            self.changed.emit()
            return
        z, window = document.position_zyx[0], document.window

        def over(and_then: Callable[[], None]) -> None:
            self._job = 0
            and_then()
            self.changed.emit()

        def done(_result: RegionMapResult) -> None:
            over(self.look_again)
            self._restoring.renew_preview()

        def failed(outcome: Outcome) -> None:
            over(lambda: None)
            if not isinstance(outcome, Stopped):
                self._messages.tell_outcome(outcome, "the search for regions")

        self._job = self._bridge.submit(
            RegionMapRequest(
                str(project.path), self._restoring.series_id, z, 0, window.center, window.width, self.engine_id
            ),
            subject=f"slice {z + 1}",
            on_progress=self._on_progress,
            on_done=done,
            on_failed=failed,
        )
        self.changed.emit()

    def _on_progress(self, event: ProgressEvent) -> None:
        if event.total > 1:
            self.done, self.total = max(event.done, self.done), event.total
        if self.note != "Cancelling…":
            self.note = event.note or self.note
        self.changed.emit()
