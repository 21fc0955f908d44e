"""Depth completion: what was measured on the frame, which model completes it, and what the map says."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QLocale, QObject, Qt, Signal
from PySide6.QtGui import QHideEvent, QKeyEvent, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHeaderView,
    QStackedLayout,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from medapp.scan.camera import Camera
from medapp.scan.depth_scale import PRESETS
from medapp.ui.depth_mode import DepthMode
from medapp.ui.depth_state import reading_text, signed
from medapp.ui.document import Document
from medapp.ui.widgets import EmptyState, button, column, field, icon_button, label, line, row, scrolling, wrapped

_ROWS_SHOWN = 5
_HEADER_PX, _ROW_PX = 28, 28
_UNKNOWN, _FOCAL = "unknown", "focal"


class DepthPanel(QWidget):
    """Points and depth file, model, run, read-out, ruler, export."""

    file_requested = Signal()
    export_requested = Signal()

    def __init__(self, document: Document, mode: DepthMode) -> None:
        super().__init__()
        self._document, self._mode, self._state = document, mode, document.depth
        self._is_filling = False
        self._build_measured()
        self._build_estimate()
        self._build_result()
        full = QWidget()
        full.setLayout(
            column(
                wrapped("PDDM-style depth completion. Research use; no measurement for diagnosis."),
                4,
                self._measured,
                line(),
                self._estimate,
                self._rule,
                self._result,
                -1,
                spacing=6,
            )
        )
        scroll = scrolling(full)
        self._nothing = EmptyState("Open a colour frame, such as an endoscopy image, to complete its depth.")
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._nothing)
        self._stack.addWidget(scroll)
        self._state.points_changed.connect(self._show_points)
        self._state.map_changed.connect(self._show_result)
        self._state.ruler_changed.connect(self._show_ruler)
        mode.choice_changed.connect(self._show_choice)
        mode.result_changed.connect(self._show_result)
        document.tool_changed.connect(self._show_tool)
        document.series_opened.connect(lambda _id: self._show())
        self._show()

    # ------------------------------------------------------------------------------------------------------- building

    def _build_measured(self) -> None:
        document, state = self._document, self._state
        self.place = button("Place points", "", "Place points — click the image and type the depth in mm", "map-pin")
        self.place.setCheckable(True)
        self.place.clicked.connect(lambda on: document.set_tool("depth" if on else "navigate"))
        self.open_file = button("Depth file…", "", "Depth file… — sparse depths of this frame, of a stated scale")
        self.open_file.clicked.connect(lambda _c=False: self.file_requested.emit())
        self._file_text = wrapped()
        self._drop_file = icon_button("x", "Do without the depth file")
        self._drop_file.clicked.connect(lambda _c=False: self._mode.drop_file())
        self._file = QWidget()
        self._file.setLayout(row(self._file_text, self._drop_file, spacing=4))
        self.table = QTableWidget(0, 2)
        self.table.setAccessibleName("Measured depths")
        self.table.setHorizontalHeaderLabels(["Pixel", "Depth, mm"])
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().setFixedHeight(_HEADER_PX)
        self.table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.table.itemChanged.connect(self._on_typed)
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.table.installEventFilter(self)
        self._no_points = wrapped("No points yet. Place points, or open a depth file of this frame.")
        self.delete = button("Delete point", "quiet")
        self.delete.clicked.connect(lambda _c=False: state.delete(self.table.currentRow()))
        self.clear = button("Clear all", "quiet")
        self.clear.clicked.connect(lambda _c=False: state.clear())
        self._table_buttons = QWidget()
        self._table_buttons.setLayout(row(self.delete, self.clear, -1, spacing=0))
        self._measured = QWidget()
        self._measured.setLayout(
            column(
                label("Measured depths"),
                row(self.place, self.open_file),
                self._file,
                self._no_points,
                self.table,
                self._table_buttons,
                margin=0,
                spacing=6,
            )
        )

    def _build_estimate(self) -> None:
        mode = self._mode
        self.model = QComboBox()
        self.model.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.model.setMinimumContentsLength(12)
        self.model.activated.connect(lambda _i: mode.choose(str(self.model.currentData())))
        self._model_text = wrapped()
        self.keeps = QCheckBox("Keep measured depths")
        self.keeps.setToolTip("Put the measured depths into the result; off: the model may smooth their noise")
        self.keeps.clicked.connect(mode.set_keeps_points)
        self.run = button("Estimate depth", "primary", "Estimate depth — of the frame on screen", "sparkle")
        self.run.clicked.connect(lambda _c=False: mode.run())
        self._estimate = QWidget()
        self._estimate.setLayout(
            column(field("Model", self.model, 60), self._model_text, self.keeps, self.run, margin=0, spacing=6)
        )

    def _build_result(self) -> None:
        document = self._document
        self.show_depth, self.show_sigma = button("Depth"), button("Uncertainty ±")
        for made, role in ((self.show_depth, "depth"), (self.show_sigma, "sigma")):
            made.setCheckable(True)
            made.clicked.connect(lambda _on, wanted=role: self._on_show(wanted))
        self.show_depth.setToolTip("Depth — colour map of the distance from the camera")
        self.show_sigma.setToolTip("Uncertainty ± — bright where the model's own answers disagree")
        self.reading = label()
        self.reading.setProperty("role", "headline")
        self.reading.setAccessibleName("Depth under the pointer")
        self._reading_hint = wrapped("Point at the image to read its depth.")
        self.ruler = button("Ruler", "", "Ruler (M) — drag on the image for a length on the surface", "ruler")
        self.ruler.setCheckable(True)
        self.ruler.clicked.connect(lambda on: document.set_tool("ruler" if on else "navigate"))
        self._ruler_text = wrapped()
        self.camera = QComboBox()
        self.camera.addItem("Unknown", _UNKNOWN)
        self.camera.addItem("Focal length", _FOCAL)
        for preset in PRESETS.values():
            if preset.camera is not None:
                self.camera.addItem(preset.camera.name, preset.name)
        self.camera.setToolTip("Camera — lengths in mm need its focal length in pixels")
        self.camera.activated.connect(lambda _i: self._on_camera())
        self.focal = QDoubleSpinBox()
        self.focal.setRange(1.0, 100_000.0)
        self.focal.setDecimals(1)
        self.focal.setSuffix(" px")
        self.focal.setValue(500.0)
        self.focal.setKeyboardTracking(False)
        self.focal.setAccessibleName("Focal length")
        self.focal.setToolTip("Focal length in pixels of this frame")
        self.focal.valueChanged.connect(lambda _v: self._on_camera())
        self.export = button("Export depth files…", "", "Export depth files… — 16-bit PNG, float TIFF, their scale")
        self.export.clicked.connect(lambda _c=False: self.export_requested.emit())
        self._report = wrapped()
        self._rule = line()
        self._result = QWidget()
        self._result.setLayout(
            column(
                row(self.show_depth, self.show_sigma),
                self.reading,
                self._reading_hint,
                row(self.ruler, -1),
                self._ruler_text,
                field("Camera", self.camera, 60),
                field("Focal", self.focal, 60),
                self.export,
                self._report,
                margin=0,
                spacing=6,
            )
        )

    # -------------------------------------------------------------------------------------------------------- showing

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._state.set_shown(True)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._state.set_shown(False)

    def _show(self) -> None:
        original = self._document.original
        self._stack.setCurrentIndex(1 if original is not None and original.is_colour else 0)
        self._show_points()
        self._show_result()
        self._show_tool()

    def _show_points(self) -> None:
        points = self._state.points
        self._is_filling = True
        self.table.setRowCount(len(points))
        for number, (x, y, depth) in enumerate(points):
            pixel, value = QTableWidgetItem(f"{x:.0f}, {y:.0f}"), QTableWidgetItem(f"{depth:g}")
            pixel.setFlags(pixel.flags() & ~Qt.ItemFlag.ItemIsEditable)
            value.setToolTip("Double-click to change")
            self.table.setItem(number, 0, pixel)
            self.table.setItem(number, 1, value)
        if 0 <= self._state.selected < len(points):
            self.table.selectRow(self._state.selected)
        else:
            self.table.clearSelection()
        self._is_filling = False
        rows = min(max(len(points), 2), _ROWS_SHOWN)
        self.table.setFixedHeight(_HEADER_PX + _ROW_PX * rows + 2 * self.table.frameWidth())
        for part in (self.table, self._table_buttons):
            part.setVisible(bool(points))
        self._no_points.setVisible(not points and self._mode.file is None)
        self.delete.setEnabled(self._state.selected >= 0)
        self._show_choice()

    def _show_choice(self) -> None:
        mode = self._mode
        models = mode.models
        if [self.model.itemData(i) for i in range(self.model.count())] != [model_id for model_id, _ in models]:
            self.model.clear()
            for model_id, title in models:
                self.model.addItem(title, model_id)
        self.model.setCurrentIndex(self.model.findData(mode.model_id))
        self.keeps.setChecked(mode.keeps_points)
        self.keeps.setVisible(not mode.needs_points)
        can_measure = self._state.can_measure
        for part in (self.place, self.open_file):
            part.setEnabled(can_measure)
        self._file.setVisible(mode.file is not None)
        self._no_points.setVisible(not self._state.points and mode.file is None)
        if mode.file is not None:
            self._file_text.setText(f"{mode.file_name} · {mode.file.points:,} depths")
        self.run.setEnabled(mode.can_run)
        if mode.is_running:
            text = "Estimating…"
        elif mode.needs_points and mode.measured == 0:
            text = "A fill needs at least one measured depth."
        elif mode.measured == 0:
            text = "Nothing measured: the result will be relative only."
        else:
            text = f"{mode.measured:,} measured {'depth' if mode.measured == 1 else 'depths'}."
        self._model_text.setText(text)

    def _show_tool(self) -> None:
        self.place.setChecked(self._document.tool == "depth")
        self.ruler.setChecked(self._document.tool == "ruler")

    def _show_result(self) -> None:
        mode, info = self._mode, self._mode.partner("depth")
        has_map = self._state.map is not None
        for part in (self._rule, self._result):
            part.setVisible(info is not None)
        if info is None:
            return
        self.show_depth.setChecked(mode.is_on_screen and mode.role == "depth")
        self.show_sigma.setChecked(mode.is_on_screen and mode.role == "sigma")
        has_sigma = mode.partner("sigma") is not None
        self.show_sigma.setVisible(has_sigma)
        self.show_depth.setVisible(has_sigma or not mode.is_on_screen)
        self.ruler.setEnabled(has_map)
        facts = info.provenance
        lines = [str(facts.get("model", "")), f"{int(facts.get('points', 0)):,} measured depths"]
        if "median_mm" in facts:
            lines.append(f"{facts['least_mm']:.1f} to {facts['most_mm']:.1f} mm, median {facts['median_mm']:.1f} mm")
        if facts.get("sigma_median_mm") is not None:
            lines.append(f"Median uncertainty ± {facts['sigma_median_mm']:.1f} mm")
        if "seconds" in facts:
            lines.append(f"{facts['seconds']:.1f} s on {str(facts.get('device', 'cpu')).upper()}")
        lines += [str(note) for note in facts.get("notes", ())]
        self._report.setText("\n".join(text for text in lines if text))
        self._show_ruler()
        self.show_reading(None)

    def show_reading(self, reading: tuple[float, float | None] | None) -> None:
        """What lies under the pointer."""
        self.reading.setText(reading_text(reading))
        self.reading.setVisible(reading is not None)
        self._reading_hint.setVisible(reading is None)

    def _show_ruler(self) -> None:
        state = self._state
        camera = state.camera
        preset = next((p.name for p in PRESETS.values() if p.camera is not None and p.camera == camera), "")
        place = self.camera.findData(preset or (_UNKNOWN if camera is None else _FOCAL))
        self.camera.setCurrentIndex(place)
        self.focal.setEnabled(self.camera.currentData() == _FOCAL)
        if camera is not None and not preset:
            self.focal.blockSignals(True)
            self.focal.setValue(camera.fx)
            self.focal.blockSignals(False)
        length = state.length
        if state.ruler is None:
            text = "Drag on the image to measure a length on the surface." if state.map is not None else ""
        elif length is None:
            text = "The line leaves the depth map."
        elif length.along_mm is None or length.straight_mm is None:
            text = (
                f"Depth difference {signed(length.depth_change_mm)} mm. Lengths need the camera: give its focal length."
            )
        elif length.crosses_edge:
            text = (
                f"{length.straight_mm:.1f} mm straight, depth {signed(length.depth_change_mm)} mm. "
                "The line jumps between two surfaces, so that it has no length along one."
            )
        else:
            text = (
                f"{length.along_mm:.1f} mm along the surface, {length.straight_mm:.1f} mm straight, "
                f"depth {signed(length.depth_change_mm)} mm."
            )
        self._ruler_text.setText(text)
        self._ruler_text.setVisible(bool(text))

    # ------------------------------------------------------------------------------------------------------- answering

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.table and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            is_delete = event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace)
            return is_delete and self._state.delete(self.table.currentRow())
        return super().eventFilter(watched, event)

    def _on_show(self, role: str) -> None:
        self._mode.show(role)
        self._show_result()

    def _on_typed(self, item: QTableWidgetItem) -> None:
        if self._is_filling or item.column() != 1:
            return
        depth, is_number = QLocale.c().toDouble(item.text().replace(",", ".").removesuffix("mm").strip())
        self._state.set_depth(item.row(), depth if is_number else float("nan"))

    def _on_selected(self) -> None:
        if not self._is_filling:
            rows = self.table.selectionModel().selectedRows()
            self._state.select(rows[0].row() if rows else -1)

    def _on_camera(self) -> None:
        original, chosen = self._document.original, str(self.camera.currentData())
        if original is None or chosen == _UNKNOWN:
            self._state.set_camera(None)
        elif chosen == _FOCAL:
            H, W = original.shape[1:3]
            self._state.set_camera(Camera.centred(self.focal.value(), W, H))
        else:
            self._state.set_camera(PRESETS[chosen].camera)
