"""The tool options bar: only the active tool's controls, all numeric."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QStandardItemModel
from PySide6.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QStackedWidget, QToolBar, QWidget

from medapp.scan.scan import Window
from medapp.ui.document import COMPARE_MODES, Document
from medapp.ui.prompts import PROMPT_KINDS
from medapp.ui.widgets import NumberSlider, action_button, label, row

_PAGES = {"brush": 1, "eraser": 1, "unknown": 1, "prompt": 2}
_COMPARE_TEXT = {
    "single": "Single",
    "side by side": "Side by side",
    "swipe": "Swipe",
    "difference": "Difference",
    "trust overlay": "Trust overlay",
}


class ToolOptions(QToolBar):
    """Brush, prompt or display controls, and the compare mode at the right."""

    def __init__(self, document: Document, actions: Mapping[str, QAction]) -> None:
        super().__init__("Tool options")
        self.setObjectName("toolOptions")
        self.setMovable(False)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self._document = document
        self._name = label("", "title")
        self._name.setMinimumWidth(92)
        self._stack = QStackedWidget()
        for page in (self._display_page(actions), self._brush_page(actions), self._prompt_page(actions)):
            self._stack.addWidget(page)
        self.compare = QComboBox()
        self.compare.setAccessibleName("Compare")
        self.compare.setToolTip("Compare (Y) — original beside processed")
        for mode in COMPARE_MODES:
            self.compare.addItem(_COMPARE_TEXT[mode], mode)
        self.compare.activated.connect(lambda _i: document.set_compare(self.compare.currentData()))
        right = QWidget()
        right.setLayout(row(label("Compare", "secondary"), self.compare))
        self._right = right
        whole = QWidget()
        whole.setLayout(row(self._name, self._stack, -1, right))
        self.addWidget(whole)
        document.tool_changed.connect(self._show)
        document.brush_changed.connect(self._show_brush)
        document.window_changed.connect(self._show_window)
        document.series_opened.connect(lambda _id: self._show())
        document.series_opened.connect(lambda _id: self._show_brush())
        document.compare_changed.connect(self._show_compare)
        self._show()
        self._show_brush()
        self._show_window()
        self._show_compare()

    def _display_page(self, actions: Mapping[str, QAction]) -> QWidget:
        self.center, self.width_box = QDoubleSpinBox(), QDoubleSpinBox()
        for box, name in ((self.center, "Window level"), (self.width_box, "Window width")):
            box.setRange(-1e6, 1e6)
            box.setDecimals(1)
            box.setFixedWidth(104)
            box.setKeyboardTracking(False)
            box.setAccessibleName(name)
            box.setToolTip(f"{name} (W) — drag on the image with W held")
            box.valueChanged.connect(self._on_window)
        self.width_box.setMinimum(0.001)
        self.presets = QComboBox()
        self.presets.setAccessibleName("Window preset")
        self.presets.setToolTip("Window presets (1–9) — for this modality")
        self.presets.setMinimumContentsLength(10)
        self.presets.activated.connect(self._on_preset)
        page = QWidget()
        page.setLayout(
            row(
                label("Level", "secondary"),
                self.center,
                label("Width", "secondary"),
                self.width_box,
                self.presets,
                action_button(actions["invert_display"]),
                -1,
            )
        )
        return page

    def _brush_page(self, actions: Mapping[str, QAction]) -> QWidget:
        document = self._document
        self.diameter = NumberSlider(
            "Size", 0.2, 400, "px", decimals=1, is_logarithmic=True, tooltip="Diameter ([ ]) — of the whole brush"
        )
        self.diameter.value_changed.connect(self._on_size)
        self.in_mm = QCheckBox("mm")
        self.in_mm.setToolTip("Size in millimetres, so that it stays the same in the patient")
        self.in_mm.toggled.connect(self._on_in_mm)
        self.hardness = NumberSlider("Hardness", 0, 100, "%", tooltip="Hardness (Shift+[ ]) — how sharp the rim is")
        self.hardness.value_changed.connect(lambda v: document.set_brush(hardness=v / 100))
        self.opacity = NumberSlider("Opacity", 1, 100, "%", tooltip="Opacity (1–9, 0) — what a whole stroke reaches")
        self.opacity.value_changed.connect(lambda v: document.set_brush(opacity=v / 100))
        self.flow = NumberSlider("Flow", 1, 100, "%", tooltip="Flow (Shift+1–9, 0) — what one dab adds")
        self.flow.value_changed.connect(lambda v: document.set_brush(flow=v / 100))
        self.depth_box = QDoubleSpinBox()
        self.depth_box.setRange(0, 200)
        self.depth_box.setSuffix(" mm")
        self.depth_box.setDecimals(1)
        self.depth_box.setFixedWidth(84)
        self.depth_box.setAccessibleName("Depth")
        self.depth_box.setToolTip("Depth — how far across slices the brush reaches; 0 = this slice")
        self.depth_box.valueChanged.connect(lambda v: document.set_brush(depth_mm=v))
        self.edges = QCheckBox("Edges")
        self.edges.setToolTip("Edge-aware brush (Shift+B) — the falloff stops at image edges")
        self.edges.toggled.connect(lambda on: document.set_brush(edge_aware=on))
        self.depth_name = label("Depth", "secondary")
        page = QWidget()
        page.setLayout(
            row(
                self.diameter,
                self.in_mm,
                self.hardness,
                self.opacity,
                self.flow,
                self.depth_name,
                self.depth_box,
                self.edges,
                -1,
                spacing=6,
            )
        )
        return page

    def _prompt_page(self, actions: Mapping[str, QAction]) -> QWidget:
        self.kind = QComboBox()
        for kind in PROMPT_KINDS:
            self.kind.addItem(kind.capitalize(), kind)
        self.kind.setAccessibleName("Prompt kind")
        self.kind.setToolTip("Point, box or scribble (Shift+P)")
        self.kind.activated.connect(self._on_kind)
        page = QWidget()
        page.setLayout(
            row(
                label("Draw", "secondary"),
                self.kind,
                action_button(actions["region_smaller"]),
                action_button(actions["region_larger"]),
                action_button(actions["accept"]),
                action_button(actions["reject"]),
                -1,
            )
        )
        return page

    # --------------------------------------------------------------------------------------------------------- showing

    def resizeEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        super().resizeEvent(event)
        wide = event.size().width() >= 1360
        medium = event.size().width() >= 1180
        for control in (self.diameter, self.hardness, self.opacity, self.flow):
            control.slider.setVisible(wide)
        self.depth_name.setVisible(medium)
        self.depth_box.setVisible(medium)

    def _show(self) -> None:
        document = self._document
        has_image = document.scan is not None
        page = _PAGES.get(document.tool, 0)
        self._stack.setCurrentIndex(page)
        self._stack.setVisible(has_image)
        names = {"window": "Contrast", "unknown": "Unknown band"}
        self._name.setText(names.get(document.tool, document.tool.capitalize()) if has_image else "")
        self.kind.setCurrentIndex(PROMPT_KINDS.index(document.prompt_kind))
        self._show_window()

    def _show_brush(self) -> None:
        brush, scan = self._document.brush, self._document.scan
        can_mm = scan is None or scan.in_plane_spacing_mm is not None
        in_mm = brush.radius_mm is not None and can_mm
        for box in (self.in_mm, self.depth_box, self.edges):
            box.blockSignals(True)
        self.in_mm.setChecked(in_mm)
        self.in_mm.setEnabled(can_mm)
        self.depth_box.setValue(brush.depth_mm)
        self.depth_box.setEnabled(scan is not None and scan.spacing_mm is not None)
        self.edges.setChecked(brush.edge_aware)
        for box in (self.in_mm, self.depth_box, self.edges):
            box.blockSignals(False)
        self.diameter.box.setSuffix(" mm" if in_mm else " px")
        self.diameter.set_value(2 * (brush.radius_mm if in_mm and brush.radius_mm is not None else brush.radius_px))
        self.hardness.set_value(brush.hardness * 100)
        self.opacity.set_value(brush.opacity * 100)
        self.flow.set_value(brush.flow * 100)

    def _show_window(self) -> None:
        window, scan = self._document.window, self._document.scan
        unit = scan.unit if scan is not None and scan.unit != "arbitrary" else ""
        decimals = 0 if window.width >= 100 else 2
        for box, value in ((self.center, window.center), (self.width_box, window.width)):
            box.blockSignals(True)
            box.setDecimals(decimals)
            box.setSuffix(f" {unit}" if unit else "")
            box.setSingleStep(max(window.width / 100, 0.01))
            box.setValue(value)
            box.blockSignals(False)
        if self._presets_for != (scan.modality if scan is not None else None, unit):
            self._fill_presets()

    _presets_for: tuple[str | None, str] = ("", "")

    def _fill_presets(self) -> None:
        scan = self._document.scan
        unit = scan.unit if scan is not None and scan.unit != "arbitrary" else ""
        self._presets_for = (scan.modality if scan is not None else None, unit)
        self.presets.clear()
        self.presets.addItem("Default", None)
        self.presets.addItem("Full range", "full")
        for window in self.windows():
            self.presets.addItem(window.name, window)

    def windows(self) -> tuple[Window, ...]:
        """The presets that digits 1 to 9 take."""
        scan = self._document.scan
        if scan is None:
            return ()
        from medapp.scan.intensity import presets

        return presets(scan.modality, scan.unit)

    def _show_compare(self) -> None:
        document = self._document
        self._right.setVisible(document.processed is not None)
        modes = self.compare.model()
        assert isinstance(modes, QStandardItemModel)  # what a QComboBox has unless it is given another
        overlay = modes.item(COMPARE_MODES.index("trust overlay"))
        overlay.setEnabled(document.trust is not None)
        overlay.setToolTip("" if document.trust is not None else "There is no trust map of this restoration")
        self.compare.setCurrentIndex(COMPARE_MODES.index(document.compare_mode))

    # --------------------------------------------------------------------------------------------------------- changing

    def _on_window(self) -> None:
        self._document.set_window(self.center.value(), self.width_box.value())

    def _on_preset(self, _index: int) -> None:
        chosen = self.presets.currentData()
        if chosen is None:
            self._document.reset_window()
        elif chosen == "full":
            self._document.full_range_window()
        else:
            self._document.set_window(chosen.center, chosen.width)

    def _on_size(self, diameter: float) -> None:
        if self.in_mm.isChecked():
            self._document.set_brush(radius_mm=diameter / 2)
        else:
            self._document.set_brush(radius_px=diameter / 2)

    def _on_in_mm(self, in_mm: bool) -> None:
        scan, brush = self._document.scan, self._document.brush
        spacing = scan.in_plane_spacing_mm if scan is not None else None
        finer = min(spacing) if spacing is not None else 1.0
        if in_mm:
            self._document.set_brush(radius_mm=brush.radius_px * finer)
        elif brush.radius_mm is not None:
            self._document.set_brush(radius_px=brush.radius_mm / finer, radius_mm=None)

    def _on_kind(self, _index: int) -> None:
        self._document.prompt_kind = self.kind.currentData()
        self._document.tool_changed.emit()
