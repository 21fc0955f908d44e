"""The status bar: what is under the pointer, and whether the work is saved."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QStatusBar

from medapp.ui.canvas.trust_overlay import spread_text
from medapp.ui.document import Document
from medapp.ui.widgets import button, label, refresh_style

_DEVICE_TEXT = {"auto": "Device: automatic", "cpu": "Device: CPU", "cuda": "Device: GPU", "mps": "Device: GPU"}


class StatusBar(QStatusBar):
    """Position, voxel, value, alpha, window, brush, digits | saved, device, reader."""

    retry_requested = Signal()
    save_copy_requested = Signal()

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self.setSizeGripEnabled(False)
        self._place, self._value, self._alpha = label(), label(), label()
        self._window, self._zoom, self._brush, self._digits = label(), label(), label(), label()
        for part in (self._place, self._value, self._alpha, self._window, self._zoom, self._brush, self._digits):
            self.addWidget(part)
        self.saved = label()
        self.saved.setAccessibleName("Save state")
        self._retry = button("Retry")
        self._retry.clicked.connect(lambda _c=False: self.retry_requested.emit())
        self._copy = button("Save copy elsewhere")
        self._copy.clicked.connect(lambda _c=False: self.save_copy_requested.emit())
        self._device, self._reader = label(), label()
        for part in (self.saved, self._retry, self._copy, self._device, self._reader):
            self.addPermanentWidget(part)
        document.window_changed.connect(self._show_window)
        document.brush_changed.connect(self._show_tool)
        document.tool_changed.connect(self._show_tool)
        document.save_state_changed.connect(self._show_saved)
        document.project_changed.connect(self._show_saved)
        document.settings_changed.connect(self._show_people)
        document.series_opened.connect(lambda _id: self._show_all())
        document.position_changed.connect(self._show_crosshair)
        self._show_all()

    def _show_all(self) -> None:
        self._show_crosshair()
        self._show_window()
        self._show_tool()
        self._show_saved()
        self._show_people()

    def _show_crosshair(self) -> None:
        document = self._document
        if document.scan is None:
            for part in (self._place, self._value, self._alpha):
                part.clear()
            return
        z, y, x = document.position_zyx
        if document.arrived_slices is not None and z not in document.arrived_slices:
            return
        pixel = document.scan.stored[z, y, x]
        value: Any = (
            tuple(int(v) for v in pixel)
            if document.scan.is_colour
            else float(pixel) * document.scan.slope + document.scan.intercept
        )
        alpha = None
        if document.active_matte is not None:
            alpha = float(document.active_matte.read(document.matte_position_zyx, (1, 1, 1))[0, 0, 0]) / 65535
        self.show_pointer({"zyx": (z, y, x), "value": value, "alpha": alpha, "unit": document.scan.unit})

    def show_pointer(self, facts: dict[str, Any]) -> None:
        """What is under the pointer: ``zyx``, ``value``, ``unit``, ``alpha``, perhaps ``zoom``."""
        scan = self._document.scan
        zyx = facts.get("zyx")
        if zyx is None or scan is None:
            self._value.clear()
            return
        z, y, x = (round(float(v)) for v in zyx)
        text = f"x {x}  y {y}  z {z}"
        if scan.geometry is not None:
            import numpy as np

            right, front, head = scan.geometry.to_mm(np.array([z, y, x], dtype=float))
            text = f"{right:.1f}, {front:.1f}, {head:.1f} mm · {text}"
        self._place.setText(text)
        value, unit = facts.get("value"), str(facts.get("unit") or "")
        spread = facts.get("spread")
        more = "" if spread is None else f" · {spread_text(float(spread), unit)}"
        self._value.setText(value_text(value, unit) + more)
        alpha = facts.get("alpha")
        self._alpha.setText("" if alpha is None else f"α {float(alpha):.2f}")
        if facts.get("zoom"):
            self._zoom.setText(f"zoom {float(facts['zoom']) * 100:.0f} %")

    def show_zoom(self, share: float) -> None:
        """Screen pixels per image pixel."""
        self._zoom.setText(f"zoom {share * 100:.0f} %")

    def _show_window(self) -> None:
        document = self._document
        if document.scan is None:
            self._window.clear()
            self._zoom.clear()
            return
        self._window.setText(f"L {_figure(document.window.center)} W {_figure(document.window.width)}")

    def _show_tool(self) -> None:
        document = self._document
        if document.scan is None:
            self._brush.clear()
            self._digits.clear()
            return
        if document.is_painting_tool:
            brush = document.brush
            size = f"{2 * brush.radius_mm:.3g} mm" if brush.radius_mm is not None else f"{2 * brush.radius_px:.3g} px"
            self._brush.setText(f"{size} · {brush.opacity * 100:.0f} %")
            self._digits.setText("digits: opacity")
        else:
            self._brush.clear()
            self._digits.setText("digits: window presets")

    def _show_saved(self) -> None:
        state, detail = self._document.save_state
        has_project = self._document.project is not None
        text, role = "", ""
        if has_project and self._document.is_read_only:
            text = "read-only"
        elif has_project and state == "saved":
            text, role = (f"✓ saved {detail}" if detail else "✓ saved"), "ok"
        elif has_project and state == "saving":
            text = "saving…"
        elif has_project:
            text, role = f"✗ not saved: {detail}", "danger"
        self.saved.setText(text)
        self.saved.setProperty("role", role)
        refresh_style(self.saved)
        failed = has_project and state == "not saved"
        self._retry.setVisible(failed)
        self._copy.setVisible(failed)

    def _show_people(self) -> None:
        settings = self._document.settings
        self._device.setText(_DEVICE_TEXT[settings.device])
        self._reader.setText(f"Reader: {settings.reader}" if settings.reader else "Reader: not named")

    def resizeEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        super().resizeEvent(event)
        width = event.size().width()
        self._device.setVisible(width >= 1240)
        self._reader.setVisible(width >= 1100)
        self._digits.setVisible(width >= 1160)


def value_text(value: Any, unit: str) -> str:
    """A value with its unit; colours as three numbers."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return "RGB " + " ".join(str(int(v)) for v in value)
    shown = "" if unit in ("", "arbitrary") else f" {unit}"
    return f"value {_figure(float(value))}{shown}"


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
