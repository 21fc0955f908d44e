"""The regions of the slice on screen as the image shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

if TYPE_CHECKING:
    from medapp.store.project import RegionMapRevision

OPACITY = 0.2


class RegionState(QObject):
    """Which region map lies over the image, and how.

    Attributes:
        map: Of the slice on screen, or None while it has none.
        is_open: The panel is in view, and the chosen model works within regions.
        is_visible: The person wants to see them.
        opacity: Of the fills, 0..1; outlines stay.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.map: RegionMapRevision | None = None
        self.is_open = False
        self.is_visible = True
        self.opacity = OPACITY

    def show_map(self, found: RegionMapRevision | None) -> None:
        """Another map, or none."""
        if found is not self.map:
            self.map = found
            self.changed.emit()

    def set_open(self, is_open: bool) -> None:
        """The panel came into view, or left it."""
        if is_open != self.is_open:
            self.is_open = is_open
            self.changed.emit()

    def set_visible(self, is_visible: bool) -> None:
        """Show or hide the regions."""
        if is_visible != self.is_visible:
            self.is_visible = is_visible
            self.changed.emit()

    def set_opacity(self, opacity: float) -> None:
        """How much of the image the fills cover, 0..1."""
        opacity = min(max(opacity, 0.0), 1.0)
        if opacity != self.opacity:
            self.opacity = opacity
            self.changed.emit()
