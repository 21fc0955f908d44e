"""Info: geometry, notes and provenance of the series on screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QStackedLayout, QVBoxLayout, QWidget

from medapp.ui import theme
from medapp.ui.document import Document
from medapp.ui.panels.restore_routing import RoutingView, routing_of_slice
from medapp.ui.widgets import EmptyState, label, scrolling, wrapped

_HIDDEN = ("pixel_sha256", "settings", "pair", "role", "keeps_measured")


class InfoPanel(QWidget):
    """What is known of the series, in plain words."""

    def __init__(self, document: Document) -> None:
        super().__init__()
        self._document = document
        self._grid = QGridLayout()
        self._grid.setColumnStretch(1, 1)
        self._grid.setHorizontalSpacing(theme.MARGIN)
        self._grid.setVerticalSpacing(theme.GRID)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(theme.MARGIN, theme.MARGIN, theme.MARGIN, theme.MARGIN)
        layout.addLayout(self._grid)
        self.routing = RoutingView("Routing")
        self.routing.setContentsMargins(0, theme.MARGIN, 0, 0)
        layout.addWidget(self.routing)
        layout.addStretch(1)
        scroll = scrolling(inner)
        self._empty = EmptyState("Open a series to see its size, notes and origin.")
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)
        self._stack.addWidget(scroll)
        document.series_opened.connect(lambda _id: self._show())
        document.series_list_changed.connect(self._show)
        document.settings_changed.connect(self._show)
        document.position_changed.connect(self._show_routing)
        self._show()

    def _show(self) -> None:
        while self._grid.count():
            widget = self._grid.takeAt(0).widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        facts = facts_of(self._document)
        self._stack.setCurrentIndex(1 if facts else 0)
        for place, (name, text) in enumerate(facts):
            key = label(name, "secondary")
            key.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
            value = wrapped(text, "")
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._grid.addWidget(key, place, 0)
            self._grid.addWidget(value, place, 1)
        self._show_routing()

    def _show_routing(self) -> None:
        """The routing of the slice on screen, where the series was made by a network that has any."""
        info, z = self._document.series, self._document.position_zyx[0]
        choices, about = routing_of_slice(info.provenance, z, info.shape[0]) if info is not None else ([], "")
        self.routing.show_routing(choices, about)


def facts_of(document: Document) -> list[tuple[str, str]]:
    """Rows of name and text for the series on screen."""
    info, scan = document.series, document.scan
    if info is None or scan is None:
        return []
    z, y, x = info.shape[:3]
    facts = [
        ("Series", info.title),
        ("Kind", {"trust": "Trust map"}.get(info.kind, info.kind.capitalize())),
        ("Modality", info.modality or "not known"),
        ("Unit", info.unit),
        ("Size", f"{x} × {y} px" + (f", {z} slices" if z > 1 else "")),
    ]
    if info.spacing_mm is not None:
        facts.append(("Spacing", f"{info.spacing_mm[2]:.4g} × {info.spacing_mm[1]:.4g} × {info.spacing_mm[0]:.4g} mm"))
    elif info.in_plane_spacing_mm is not None:
        rows, columns = info.in_plane_spacing_mm
        facts.append(("Pixel", f"{columns:.4g} × {rows:.4g} mm; slice distance not known"))
    else:
        facts.append(("Spacing", "not known; lengths are in px"))
    geometry = scan.geometry
    if geometry is None:
        facts.append(("Orientation", "not known"))
    else:
        across, down, through = (geometry.letters(axis) for axis in (2, 1, 0))
        facts.append(("Orientation", f"x {across[0]}→{across[1]}, y {down[0]}→{down[1]}, z {through[0]}→{through[1]}"))
        if geometry.is_sheared:
            facts.append(("Gantry", "tilted"))
    if info.group:
        facts.append(("Patient", "hidden" if document.settings.hide_identity else info.group))
    facts.append(("State", info.state))
    if info.reader:
        facts.append(("Reader", info.reader))
    facts += [("Note" if i == 0 else "", note) for i, note in enumerate((*info.problems, *info.notes))]
    facts += _restored_facts(info.provenance)
    for name, value in info.provenance.items():
        if name not in _HIDDEN and not isinstance(value, dict | list):
            facts.append((name.replace("_", " ").capitalize(), _short(value)))
    return facts


def _restored_facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of a restoration on a finer grid, and of one with a trust map."""
    grid, trust, facts = provenance.get("grid"), provenance.get("trust"), []
    if isinstance(grid, dict):
        facts.append(("Grid", f"{grid.get('factor')} times finer in-plane than its source"))
    if isinstance(provenance.get("keeps_measured"), bool):
        kept = "kept exactly" if provenance["keeps_measured"] else "not kept; the model may have changed it"
        facts.append(("Measured k-space", kept))
    if isinstance(trust, dict):
        facts.append(("Trust map", f"standard deviation of {trust.get('answers')} answers; not a guarantee"))
    return facts


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 64 else f"{text[:61]}…"
