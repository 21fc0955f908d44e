"""Restorations of the open series: which models fit, previews, runs that can be looked at while they go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from medapp.requests import (
    ImportModelRequest,
    ModelsRequest,
    Outcome,
    PrepareModelRequest,
    RestoreRequest,
    RestoreResult,
)
from medapp.scan.finer import FinerGrid
from medapp.scan.scan import Scan
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Messages
from medapp.ui.restoring_view import Follower, read_preview, uncover_colours, under_way
from medapp.ui.session import Session

_PREVIEW_DELAY_MS = 250


class Restoring(QObject):
    """Chooses, previews and runs restorations of the original of the series on screen.

    Attributes:
        models: What ``ModelsRequest`` said: dicts with ``id``, ``title``, ``fit``, ``reason``.
        model_id: The chosen one.
        strength: 0..1.
        keeps_measured: Models that bring MR slices onto a finer grid put the measured frequencies back.
        wants_trust: Previews and runs make a trust map, from eight answers.
        region_model_id: The SAM that finds regions for models that need them; empty = the region tree.
        report: Of the last finished run on this series, or empty.
        routing: What the routers of the last run or preview chose, dicts with ``name``, ``kind`` and ``shares``.
        routing_about: What that is of, such as ``Slice 14``.
    """

    models_changed = Signal()
    choice_changed = Signal()
    report_changed = Signal()
    routing_changed = Signal()

    def __init__(
        self,
        document: Document,
        session: Session,
        bridge: JobBridge,
        background: Background,
        messages: Messages,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._session, self._bridge = document, session, bridge
        self._background, self._messages = background, messages
        self.models: tuple[dict[str, Any], ...] = ()
        self.model_id = ""
        self.strength = 1.0
        self.keeps_measured = True
        self.wants_trust = False
        self.report: dict[str, Any] = {}
        self.routing: list[dict[str, Any]] = []
        self.routing_about = ""
        self.is_previewing = False
        self.is_loading = False
        self.tile_px = 0
        self.region_model_id = ""
        self._asked_for = ""
        self._made_ready = ("", "")
        self._ticket = 0
        self._preview_job = 0
        self._preview_timer = QTimer(self, singleShot=True, interval=_PREVIEW_DELAY_MS)
        self._preview_timer.timeout.connect(self._run_preview)
        document.series_opened.connect(self._on_series_opened)
        document.position_changed.connect(self._on_view_changed)

    # -------------------------------------------------------------------------------------------------------- models

    @property
    def series_id(self) -> str:
        """The original of the series on screen."""
        return self._document.annotated_series_id

    @property
    def model(self) -> dict[str, Any] | None:
        """The chosen model."""
        return next((model for model in self.models if model["id"] == self.model_id), None)

    @property
    def can_run(self) -> bool:
        """The chosen model fits the series on screen, and the project can be written."""
        model = self.model
        return model is not None and model["fit"] != "blocked" and not self._document.is_read_only

    @property
    def factor(self) -> int:
        """How many times finer the results of the chosen model are in-plane."""
        return int((self.model or {}).get("scale", 1))

    @property
    def can_keep_measured(self) -> bool:
        """The chosen model fills k-space, of which the measured part can be kept."""
        return bool((self.model or {}).get("fills_kspace"))

    @property
    def needs_regions(self) -> bool:
        """The chosen model works within a region map."""
        model = self.model
        return model is not None and "region_map" in model.get("inputs", ())

    @property
    def restorers(self) -> list[dict[str, Any]]:
        """Models that restore."""
        return [model for model in self.models if model.get("serves", "restoration") == "restoration"]

    @property
    def segmenters(self) -> list[dict[str, Any]]:
        """Models that answer clicks."""
        return [model for model in self.models if model.get("serves") == "regions"]

    @property
    def matting_models(self) -> list[dict[str, Any]]:
        """Models that answer clicks with several masks and an alpha."""
        return [m for m in self.models if m.get("serves") == "matting" and m.get("fit") != "blocked"]

    def _on_series_opened(self, _series_id: str) -> None:
        if self.series_id != self._asked_for:
            self.stop_preview()
            self.report = {}
            self.report_changed.emit()
            self._note_routing({}, "")
            self.refresh()

    def refresh(self) -> None:
        """Ask again which models there are and how they fit."""
        project, series_id = self._document.project, self.series_id
        self._asked_for = series_id
        if project is None or not series_id:
            self.models = ()
            self.models_changed.emit()
            return
        self.is_loading = True

        def done(models: Any) -> None:
            if series_id != self._asked_for:
                return
            self.is_loading = False
            self.models = tuple(dict(model) for model in models)
            usable = [model["id"] for model in self.restorers if model["fit"] != "blocked"]
            if self.model_id not in usable:
                self.model_id = usable[0] if usable else next((m["id"] for m in self.restorers), "")
            self.models_changed.emit()
            self.choice_changed.emit()

        def failed(outcome: Outcome) -> None:
            self.is_loading = False
            self.models_changed.emit()
            self._messages.tell_outcome(outcome, "listing the models")

        self._bridge.submit(ModelsRequest(str(project.path), series_id), is_quiet=True, on_done=done, on_failed=failed)
        self.models_changed.emit()

    def choose(self, model_id: str) -> None:
        """Take another model."""
        if model_id != self.model_id:
            self.model_id = model_id
            self._note_routing({}, "")
            self.choice_changed.emit()
            self._on_view_changed()

    def set_strength(self, strength: float) -> None:
        """How much of the restored values is blended in, 0..1."""
        if strength != self.strength:
            self.strength = min(max(strength, 0.0), 1.0)
            self.choice_changed.emit()
            self._on_view_changed()

    def set_keeps_measured(self, keeps: bool) -> None:
        """Put the measured frequencies back, or leave them to the network."""
        if keeps != self.keeps_measured:
            self.keeps_measured = keeps
            self.choice_changed.emit()
            self._on_view_changed()

    def set_wants_trust(self, wants: bool) -> None:
        """Make trust maps from now on, or make none."""
        if wants != self.wants_trust:
            self.wants_trust = wants
            self.choice_changed.emit()
            self._on_view_changed()

    def set_region_model(self, model_id: str) -> None:
        """Let another engine find the regions; empty = the region tree."""
        if model_id != self.region_model_id:
            self.region_model_id = model_id
            self.choice_changed.emit()
            self._on_view_changed()

    def renew_preview(self) -> None:
        """Something that the preview was made with has changed: make it again, if there is one."""
        self._on_view_changed()

    def get_ready(self) -> None:
        """Load the chosen model in its worker, so that the first preview does not wait for it."""
        model, device = self.model, self._document.settings.device
        if model is None or model["fit"] == "blocked" or (self.model_id, device) == self._made_ready:
            return
        self._made_ready = (self.model_id, device)
        self._bridge.submit(PrepareModelRequest(self.model_id, device), is_quiet=True)

    def import_model(self, path: Path) -> None:
        """Check a foreign weights file and add it to the library."""

        def done(model_id: str) -> None:
            self._messages.say(f"Model “{model_id}” was imported.")
            self.refresh()

        self._bridge.submit(
            ImportModelRequest(str(path)),
            subject=path.name,
            on_done=done,
            on_failed=lambda outcome: self._messages.tell_outcome(outcome, "the import of the model"),
        )

    # ------------------------------------------------------------------------------------------------------ previews

    def start_preview(self) -> None:
        """Restore the slice on screen, and again when the view changes."""
        self.is_previewing = True
        self.choice_changed.emit()
        self._run_preview()

    def stop_preview(self) -> None:
        """No more previews."""
        if not self.is_previewing:
            return
        self.is_previewing = False
        self._preview_timer.stop()
        if self._preview_job:
            self._bridge.cancel(self._preview_job)
            self._preview_job = 0
        self.choice_changed.emit()

    def _on_view_changed(self) -> None:
        if self.is_previewing:
            self._preview_timer.start()

    def _run_preview(self) -> None:
        document = self._document
        project, original, z = document.project, document.original, document.position_zyx[0]
        if not self.is_previewing or project is None or original is None or not self.can_run:
            return
        model = self.model
        self._ticket += 1
        ticket, series_id = self._ticket, self.series_id
        if self._preview_job:
            self._bridge.cancel(self._preview_job)

        def done(result: RestoreResult) -> None:
            self._preview_job = 0
            if ticket == self._ticket and self.series_id == series_id:
                self._note_routing(result.report, f"Slice {z + 1}")
                self._background.run(lambda: read_preview(result, original, z), show, self._messages.tell_error)

        def show(made: tuple[Scan, Scan | None, FinerGrid]) -> None:
            processed, trust, grid = made
            if ticket == self._ticket and self.series_id == series_id and self.is_previewing:
                had_trust = document.trust is not None
                document.show_processed(processed, under_way(model, grid), {z}, trust)
                if trust is not None and (not had_trust or document.compare_mode == "single"):
                    document.set_compare("trust overlay")
                elif document.compare_mode == "single":
                    document.set_compare("swipe")
                    uncover_colours(document)

        def failed(outcome: Outcome) -> None:
            self._preview_job = 0
            self._messages.tell_outcome(outcome, "the preview")

        request = self._request(z, is_preview=True)
        self._preview_job = self._bridge.submit(request, subject=f"slice {z + 1}", on_done=done, on_failed=failed)

    def _note_routing(self, report: dict[str, Any], about: str) -> None:
        routing = list(report.get("routing") or ())
        if routing or self.routing:
            self.routing, self.routing_about = routing, about
            self.routing_changed.emit()

    def _request(self, first_slice: int, is_preview: bool) -> RestoreRequest:
        document = self._document
        assert document.project is not None
        return RestoreRequest(
            str(document.project.path),
            self.series_id,
            self.model_id,
            first_slice=first_slice,
            strength=self.strength,
            only_first=is_preview,
            device=document.settings.device,
            tile_px=self.tile_px,
            region_model_id=self.region_model_id,
            region_window=(document.window.center, document.window.width),
            keep_measured=self.keeps_measured,
            trust=self.wants_trust,
        )

    # ---------------------------------------------------------------------------------------------------------- runs

    def run(self) -> None:
        """Restore the whole series, the slice on screen first."""
        document = self._document
        project, original, model = document.project, document.original, self.model
        if project is None or original is None or not self.can_run or model is None:
            return
        self.stop_preview()
        series_id = self.series_id
        follower = Follower(document, series_id, original, model)

        def done(result: RestoreResult) -> None:
            if document.project is not project:
                return
            document.reload_series_list()
            self.report = {**result.report, "series_id": result.series_id}
            self.report_changed.emit()
            if self.series_id == series_id:
                self._note_routing(result.report, "Mean over the series")
            if self.series_id == series_id and document.series is not None:
                self._session.load_series(document.series.series_id, compare_mode=document.compare_mode)
            self._messages.say(
                "The restored series is in the library, under its source.",
                actions=(("Open", lambda: document.open_series(result.series_id)),),
            )

        def failed(outcome: Outcome) -> None:
            self._messages.tell_outcome(outcome, "the restoration")
            if self.series_id == series_id and document.series is not None and follower.is_shown:
                document.show_processed(None, None, None)
                self._session.load_series(document.series.series_id)

        self._bridge.submit(
            self._request(document.position_zyx[0], is_preview=False),
            subject=document.info(series_id).title if document.info(series_id) else "",  # type: ignore[union-attr]
            on_progress=follower.on_progress,
            on_done=done,
            on_failed=failed,
        )
