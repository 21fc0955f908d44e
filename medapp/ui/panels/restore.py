"""Restore: choose a model, see what it does, run it on the series."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QCheckBox, QComboBox, QSizePolicy, QStackedLayout, QWidget

from medapp.ui.canvas.furniture import plain_number
from medapp.ui.document import Document
from medapp.ui.panels.restore_regions import RegionsView
from medapp.ui.panels.restore_routing import RoutingView
from medapp.ui.region_maps import RegionMaps
from medapp.ui.restoring import Restoring
from medapp.ui.widgets import (
    EmptyState,
    NumberSlider,
    button,
    column,
    field,
    label,
    line,
    refresh_style,
    row,
    scrolling,
    wrapped,
)

FIT_TEXT = {"green": "Fits", "amber": "Fits with care", "blocked": "Does not fit"}
DEVICES = (("auto", "Automatic"), ("cpu", "CPU"), ("cuda", "GPU (CUDA)"), ("mps", "GPU (Apple)"))


class RestorePanel(QWidget):
    """Models with their fit, strength, preview, run, report."""

    import_requested = Signal()

    def __init__(self, document: Document, restoring: Restoring, regions: RegionMaps) -> None:
        super().__init__()
        self._document, self._restoring = document, restoring
        self._model = QComboBox()
        self._model.setAccessibleName("Model")
        self._model.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._model.setMinimumContentsLength(14)
        self._model.activated.connect(lambda _i: restoring.choose(self._model.currentData() or ""))
        self._chip = label()
        self._chip.setProperty("look", "chip")
        self._chip.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._reason = wrapped()
        self._strength = NumberSlider(
            "Strength", 0, 100, "%", step=5, tooltip="How much of the restored values is blended with the original"
        )
        self._strength.set_value(100)
        self._strength.value_changed.connect(lambda percent: restoring.set_strength(percent / 100))
        self.keep_measured = QCheckBox("Keep measured k-space")
        self.keep_measured.setToolTip(
            "Keep measured k-space — frequencies that the scanner measured are put back exactly"
        )
        self.keep_measured.clicked.connect(restoring.set_keeps_measured)
        self._result = wrapped()
        self.trust = QCheckBox("Trust map, 8 times as long")
        self.trust.setToolTip(
            "Trust map — restores every slice in 8 positions and shows where the answers differ, for previews and runs"
        )
        self.trust.clicked.connect(restoring.set_wants_trust)
        self._device = QComboBox()
        for device, text in DEVICES:
            self._device.addItem(text, device)
        self._device.setToolTip("Where the network runs")
        self._device.activated.connect(lambda _i: document.change_settings(device=self._device.currentData()))
        self._preview = QCheckBox("Preview this slice")
        self._preview.setToolTip("Restores the slice on screen and follows the view")
        self._preview.clicked.connect(self._on_preview)
        self.run = button("Run on series", "primary", "Run on series — the slice on screen first", "sparkle")
        self.run.clicked.connect(lambda _c=False: restoring.run())
        self._import = button("Import model file…", "quiet")
        self._import.clicked.connect(lambda _c=False: self.import_requested.emit())
        self._report_title = label("Last run")
        self._report = wrapped()
        self._rule = line()
        self.routing = RoutingView()
        self.regions = RegionsView(document, regions)
        full = QWidget()
        full.setLayout(
            column(
                field("Model", self._model, 60),
                row(self._chip, self._reason),
                4,
                self._strength,
                field("Device", self._device, 60),
                self.keep_measured,
                self._result,
                self.regions,
                self.trust,
                self._preview,
                self.run,
                row(self._import, -1),
                self._rule,
                self._report_title,
                self._report,
                4,
                self.routing,
                -1,
                spacing=6,
            )
        )
        self._nothing = EmptyState("Open a series to restore it. The original is never changed.")
        self._none = EmptyState(
            "No model restores this kind of image.", "Import model file…", self.import_requested.emit
        )
        self._stack = QStackedLayout(self)
        scroll = scrolling(full)
        for page in (self._nothing, self._none, scroll):
            self._stack.addWidget(page)
        restoring.models_changed.connect(self._show)
        restoring.choice_changed.connect(self._get_ready)
        restoring.choice_changed.connect(self._show_choice)
        restoring.report_changed.connect(self._show_report)
        restoring.routing_changed.connect(lambda: self.routing.show_routing(restoring.routing, restoring.routing_about))
        document.series_opened.connect(lambda _id: self._show())
        document.settings_changed.connect(self._show_choice)
        self._show()
        self._show_report()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._get_ready()

    def _get_ready(self) -> None:
        if self.isVisible():
            self._restoring.get_ready()

    def _show(self) -> None:
        restorers = self._restoring.restorers
        has_series = bool(self._restoring.series_id)
        if not has_series:
            self._stack.setCurrentIndex(0)
        elif not restorers and not self._restoring.is_loading:
            self._stack.setCurrentIndex(1)
        else:
            self._stack.setCurrentIndex(2)
        self._model.clear()
        for model in restorers:
            self._model.addItem(str(model["title"]), model["id"])
        self._show_choice()

    def _show_choice(self) -> None:
        restoring = self._restoring
        model = restoring.model
        self._model.setCurrentIndex(self._model.findData(restoring.model_id))
        fit = str(model["fit"]) if model is not None else ""
        self._chip.setText(FIT_TEXT.get(fit, "Looking for models…" if restoring.is_loading else "No model fits"))
        self._chip.setProperty("fit", fit)
        refresh_style(self._chip)
        reason = str(model.get("reason", "")) if model is not None else ""
        self._reason.setText(reason)
        self._reason.setVisible(bool(reason))
        can_run = restoring.can_run
        self.keep_measured.setVisible(restoring.can_keep_measured)
        self.keep_measured.setChecked(restoring.keeps_measured)
        info = self._document.info(restoring.series_id)
        text = result_text(restoring.factor, info.shape, info.in_plane_spacing_mm) if info is not None else ""
        self._result.setText(text)
        self._result.setVisible(bool(text) and can_run)
        self.trust.setChecked(restoring.wants_trust)
        self.trust.setEnabled(can_run)
        self.run.setEnabled(can_run)
        self._preview.setEnabled(can_run)
        self._preview.setChecked(restoring.is_previewing)
        if abs(self._strength.value() / 100 - restoring.strength) > 0.004:
            self._strength.set_value(restoring.strength * 100)
        self._device.setCurrentIndex(self._device.findData(self._document.settings.device))

    def _on_preview(self, checked: bool) -> None:
        if checked:
            self._restoring.start_preview()
        else:
            self._restoring.stop_preview()

    def _show_report(self) -> None:
        report = self._restoring.report
        for part in (self._rule, self._report_title, self._report):
            part.setVisible(bool(report))
        if report:
            self._report.setText(report_text(report))


def report_text(report: dict[str, Any]) -> str:
    """A run in plain words: change, not quality."""
    unit = str(report.get("unit", ""))
    shown_unit = "" if unit in ("", "arbitrary") else f" {unit}"
    lines = [str(report.get("model", ""))]
    if "mean_shift" in report:
        lines.append(f"Mean shift {float(report['mean_shift']):+.3g}{shown_unit}")
    if report.get("noise_change_percent") is not None:
        change = float(report["noise_change_percent"])
        lines.append(f"Noise estimate {'down' if change < 0 else 'up'} {abs(change):.0f} %")
    if "voxels_outside_range" in report:
        lines.append(f"{int(report['voxels_outside_range']):,} voxels outside the model's range kept as they were")
    if report.get("grid"):
        factor = int(report["grid"].get("factor", 1))
        kept = {True: ", measured k-space kept", False: ", measured k-space not kept"}
        light = ", light of the picture kept" if report.get("keeps_light") else ""
        lines.append(f"Pixels {factor} times finer{kept.get(report.get('keeps_measured'), '')}{light}")
    if report.get("trust"):
        median, high = (plain_number(float(report["trust"].get(key, 0))) for key in ("median", "high"))
        answers = int(report["trust"].get("answers", 8))
        lines.append(f"Spread of {answers} answers: median {median}{shown_unit}, nearly all below {high}{shown_unit}")
    if report.get("alpha"):
        lines.append("Transparency took no part; it stays with the original")
    if "strength" in report:
        lines.append(f"Strength {float(report['strength']) * 100:.0f} %")
    if "seconds" in report:
        place = str(report.get("device", "")).upper()
        tile = int(report.get("tile_px") or 0)
        how = f", tiles of {tile} px" if tile else ", whole slices"
        lines.append(f"{float(report['seconds']):.1f} s on {place or 'CPU'}{how}")
    if report.get("per_tile"):
        lines.append(f"Taken over each tile instead of the whole: {', '.join(report['per_tile'])}")
    return "\n".join(text for text in lines if text)


def result_text(factor: int, shape: tuple[int, ...], spacing_mm: tuple[float, float] | None) -> str:
    """What a finer result will be like; empty on the source's own grid.

    Args:
        factor: How many times finer.
        shape: ``(Z, Y, X)``, or ``(Z, Y, X, 3)`` for colour, of the source.
        spacing_mm: Its ``(y, x)``, or None.
    """
    if factor == 1:
        return ""
    z, y, x = shape[0], shape[1] * factor, shape[2] * factor
    pixel = f", {spacing_mm[1] / factor:.3g} × {spacing_mm[0] / factor:.3g} mm" if spacing_mm is not None else ""
    size = z * y * x * (3 if len(shape) == 4 else 4) / 1e6  # colours stay bytes, values become float32
    room = f"{size / 1000:.1f} GB" if size >= 1000 else f"{max(size, 1):.0f} MB"
    return f"Result: {x} × {y} px{pixel}; {room} for {'1 slice' if z == 1 else f'{z} slices'}"


def model_paths_filter() -> str:
    """What a file dialog offers for models."""
    return "Models (*.pth *.pt *.safetensors *.bin);;All files (*)"
