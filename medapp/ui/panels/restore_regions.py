"""Regions for restorers that work within them: engine, search, what was found, how it lies over the image."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QCheckBox, QComboBox, QProgressBar, QWidget

from medapp.ui.document import Document
from medapp.ui.region_maps import TREE_NAME, RegionMaps
from medapp.ui.widgets import NumberSlider, button, column, field, label, line, refresh_style, row, wrapped

if TYPE_CHECKING:
    from medapp.store.project import RegionMapRevision


class RegionsView(QWidget):
    """A part of the Restore panel; hidden while the chosen model needs no regions."""

    def __init__(self, document: Document, regions: RegionMaps) -> None:
        super().__init__()
        self._document, self._regions = document, regions
        self._engine = QComboBox()
        self._engine.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._engine.setMinimumContentsLength(12)
        self._engine.setToolTip("What finds the regions: the region tree is always there, SAM where it was imported")
        self._engine.activated.connect(lambda _i: regions.choose(self._engine.currentData() or ""))
        self._trained = wrapped()
        self.find_button = button(
            "Find regions", "", "Find regions — of the slice on screen, as it is shown now", "polygon"
        )
        self.find_button.clicked.connect(lambda _c=False: regions.find())
        self._bar = QProgressBar()
        self._bar.setAccessibleName("Search for regions")
        self._bar.setTextVisible(False)
        self.cancel = button("Cancel", "quiet")
        self.cancel.clicked.connect(lambda _c=False: regions.cancel())
        self._doing = label("", "secondary")
        self._found = wrapped()
        self._old = wrapped("", "processed")
        self.shown = QCheckBox("Show regions")
        self.shown.setToolTip("Show regions — over the image, while this panel is open")
        self.shown.clicked.connect(lambda checked: document.regions.set_visible(checked))
        self.opacity = NumberSlider(
            "Opacity", 0, 100, "%", step=5, tooltip="How much of the image the regions cover; outlines stay"
        )
        self.opacity.value_changed.connect(lambda percent: document.regions.set_opacity(percent / 100))
        self._searching = QWidget()
        self._searching.setLayout(column(self._doing, row(self._bar, self.cancel), margin=0, spacing=2))
        self.setLayout(
            column(
                line(),
                label("Regions"),
                field("Engine", self._engine, 60),
                self._trained,
                self.find_button,
                self._searching,
                self._found,
                self._old,
                self.shown,
                self.opacity,
                line(),
                margin=0,
                spacing=6,
            )
        )
        regions.changed.connect(self._show)
        document.regions.changed.connect(self._show)
        document.project_changed.connect(self._show)
        self._show()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._document.regions.set_open(True)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._document.regions.set_open(False)

    def _show(self) -> None:
        regions = self._regions
        self.setVisible(regions.is_needed)
        if not regions.is_needed:
            return
        engines = regions.engines
        if [self._engine.itemData(i) for i in range(self._engine.count())] != [name for name, _ in engines]:
            self._engine.clear()
            for engine_id, title in engines:
                self._engine.addItem(title, engine_id)
        self._engine.setCurrentIndex(self._engine.findData(regions.engine_id))
        self._engine.setEnabled(not regions.is_finding)
        self._trained.setText(trained_text(regions.trained_with, regions.is_other_engine))
        self._trained.setProperty("role", "processed" if regions.is_other_engine else "secondary")
        refresh_style(self._trained)

        had_focus = self.find_button.hasFocus() or self.cancel.hasFocus()
        self._searching.setVisible(regions.is_finding)
        self.find_button.setVisible(not regions.is_finding)
        self.find_button.setEnabled(regions.can_find)
        if had_focus:  # one takes the other's place, also for the keyboard
            (self.cancel if regions.is_finding else self.find_button).setFocus()
        self._bar.setRange(0, max(regions.total, 0))  # 0 to 0 moves without end
        self._bar.setValue(regions.done)
        counted = f" · {regions.done} of {regions.total}" if regions.total else ""
        self._doing.setText(f"{regions.note or 'Finding regions'}{counted}")

        found = regions.map
        self._found.setText(found_text(found))
        self._found.setVisible(found is not None or not regions.is_finding)
        self._old.setText("Out of date: mattes have changed since. Restoring finds the regions again.")
        self._old.setVisible(found is not None and regions.is_out_of_date)
        state = self._document.regions
        self.shown.setChecked(state.is_visible)
        for control in (self.shown, self.opacity):
            control.setEnabled(found is not None)
        self.opacity.setEnabled(found is not None and state.is_visible)
        if abs(self.opacity.value() / 100 - state.opacity) > 0.004:
            self.opacity.set_value(state.opacity * 100)


def trained_text(engine: str, is_other: bool) -> str:
    """Which regions the model knows, and whether these are others."""
    if not engine:
        return "It is not known which regions this model was trained with."
    if is_other:
        return f"This model was trained with {_named(engine)}; it may do less well with other regions."
    return "This model was trained with these regions."


def found_text(found: RegionMapRevision | None) -> str:
    """How many regions the slice has, from whom and since when."""
    if found is None:
        return "No regions on this slice yet. Restoring finds them on its way."
    regions, mattes = found.regions, found.mattes
    parts = [f"{regions} {'region' if regions == 1 else 'regions'} on this slice"]
    if mattes:
        parts.append("1 from an accepted matte" if mattes == 1 else f"{mattes} from accepted mattes")
    made = datetime.fromisoformat(found.created).astimezone()
    day = "" if made.date() == datetime.now().astimezone().date() else f"{made:%Y-%m-%d} "
    return f"{', '.join(parts)}. Found {day}{made:%H:%M} by {_named(found.engine)}."


def _named(engine: str) -> str:
    return f"the {engine}" if engine == TREE_NAME else engine
