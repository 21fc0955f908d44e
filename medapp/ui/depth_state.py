"""Depth completion as the image shows it: measured points, the map under the pointer, the ruler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal

from medapp.annotation.annotation import DepthPoint
from medapp.annotation.edits import ChangeDepthPoints
from medapp.scan.camera import Camera, SurfaceLength, surface_length

if TYPE_CHECKING:
    from medapp.ui.document import Document

XY = tuple[float, float]
LEAST_MM, MOST_MM = 0.01, 100_000.0


@dataclass(frozen=True, eq=False)
class ShownDepth:
    """A completed depth map of the frame on screen.

    Attributes:
        series_id: Its series; ``pair`` is shared with its uncertainty.
        z: The frame.
        depth_mm, sigma_mm: ``(H, W)`` float32; ``sigma_mm`` is None for fills.
    """

    series_id: str
    pair: str
    z: int
    depth_mm: NDArray[np.float32]
    sigma_mm: NDArray[np.float32] | None


class DepthState(QObject):
    """Points a person measured on the frame, and what can be read off its depth map.

    Points are edits of the annotation: undone, journalled and kept like strokes.

    Attributes:
        pending: A placed point that waits for its depth, or None.
        selected: Index of the point that Delete removes; -1 = none.
        is_shown: The panel is open: points are drawn with every tool.
        map: What was completed, or None.
        camera: For lengths in mm; None = unknown.
        ruler: Both ends in pixels of the frame, or None.
    """

    points_changed = Signal()
    map_changed = Signal()
    ruler_changed = Signal()
    shown_changed = Signal()

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self._document = document
        self.pending: XY | None = None
        self.selected = -1
        self.is_shown = False
        self.map: ShownDepth | None = None
        self.camera: Camera | None = None
        self.ruler: tuple[XY, XY] | None = None
        self._last: tuple[DepthPoint, ...] = ()
        document.annotation_changed.connect(self._on_annotation)
        document.position_changed.connect(self._on_annotation)

    @property
    def z(self) -> int:
        """The frame on screen."""
        return self._document.position_zyx[0]

    @property
    def points(self) -> tuple[DepthPoint, ...]:
        """``(x, y, depth in mm)`` on the frame on screen, in the order in which they were placed."""
        annotation = self._document.annotation
        return annotation.depth_points.get(self.z, ()) if annotation is not None else ()

    @property
    def can_measure(self) -> bool:
        """A colour frame is on screen, and the project can be written."""
        scan = self._document.original
        return scan is not None and scan.is_colour and not self._document.is_read_only

    # -------------------------------------------------------------------------------------------------------- points

    def place(self, x: float, y: float) -> None:
        """Begin a point; it counts once it has a depth."""
        if self.can_measure:
            self.pending, self.selected = (float(round(x)), float(round(y))), -1
            self.points_changed.emit()

    def give_depth(self, depth_mm: float) -> bool:
        """The depth of the point that waits; False where it is no depth."""
        if self.pending is None or not (math.isfinite(depth_mm) and LEAST_MM <= depth_mm <= MOST_MM):
            return False
        (x, y), self.pending = self.pending, None
        rest = tuple(point for point in self.points if point[:2] != (x, y))  # one depth a pixel
        self.selected = len(rest)
        self._change((*rest, (x, y, float(depth_mm))), "Measure a depth")
        return True

    def drop_pending(self) -> bool:
        """Forget the point that waits; False when there is none."""
        if self.pending is None:
            return False
        self.pending = None
        self.points_changed.emit()
        return True

    def select(self, index: int) -> None:
        """Take a point in hand; -1 = none."""
        index = index if 0 <= index < len(self.points) else -1
        if index != self.selected:
            self.selected = index
            self.points_changed.emit()

    def move(self, index: int, x: float, y: float) -> None:
        """Put a point elsewhere; its depth stays."""
        points = list(self.points)
        points[index] = (float(round(x)), float(round(y)), points[index][2])
        self._change(tuple(points), "Move a measured depth")

    def set_depth(self, index: int, depth_mm: float) -> None:
        """Another depth for a point."""
        points = list(self.points)
        if 0 <= index < len(points) and math.isfinite(depth_mm) and LEAST_MM <= depth_mm <= MOST_MM:
            points[index] = (*points[index][:2], float(depth_mm))
            self._change(tuple(points), "Change a measured depth")
        else:
            self.points_changed.emit()

    def delete(self, index: int) -> bool:
        """Remove a point; False when there is none of that index."""
        points = self.points
        if not 0 <= index < len(points):
            return False
        self.selected = min(index, len(points) - 2)
        self._change((*points[:index], *points[index + 1 :]), "Delete a measured depth")
        return True

    def clear(self) -> None:
        """Remove every point of the frame."""
        self.selected, self.pending = -1, None
        self._change((), "Delete the measured depths")

    def _change(self, after: tuple[DepthPoint, ...], text: str) -> None:
        before = self.points
        if after != before and self._document.apply(ChangeDepthPoints(self.z, before, after, text), mark=None):
            return
        self.points_changed.emit()

    def _on_annotation(self) -> None:
        if self.points != self._last:
            self._last = self.points
            self.selected = min(self.selected, len(self._last) - 1)
        if self._document.original is None or not self._document.original.is_colour:
            self.pending = None
        self.points_changed.emit()

    # ---------------------------------------------------------------------------------------------- the map and ruler

    def show_map(self, found: ShownDepth | None) -> None:
        """Read off another depth map."""
        self.map = found
        self.map_changed.emit()
        self.ruler_changed.emit()

    def set_shown(self, is_shown: bool) -> None:
        """Draw points and ruler with every tool, or only with their own."""
        if is_shown != self.is_shown:
            self.is_shown = is_shown
            self.shown_changed.emit()

    def set_camera(self, camera: Camera | None) -> None:
        """Another camera for lengths; None = unknown."""
        if camera != self.camera:
            self.camera = camera
            self.ruler_changed.emit()

    def lay_ruler(self, start: XY, end: XY) -> None:
        """Measure from pixel to pixel."""
        self.ruler = (start, end)
        self.ruler_changed.emit()

    def take_ruler(self) -> bool:
        """Take the ruler away; False when there is none."""
        if self.ruler is None:
            return False
        self.ruler = None
        self.ruler_changed.emit()
        return True

    @property
    def has_map_here(self) -> bool:
        """The map belongs to the frame on screen."""
        return self.map is not None and self.map.z == self.z

    @property
    def length(self) -> SurfaceLength | None:
        """What the ruler reads; None without ruler or map, or where the line leaves the map."""
        if self.ruler is None or self.map is None or not self.has_map_here:
            return None
        return surface_length(self.map.depth_mm, *self.ruler, self.camera)

    def ruler_text(self) -> str:
        """What stands beside the ruler."""
        length = self.length
        if length is None:
            return "no depth here" if self.ruler is not None else ""
        if length.along_mm is None:
            return f"depth {signed(length.depth_change_mm)} mm"
        return f"{length.straight_mm:.1f} mm straight" if length.crosses_edge else f"{length.along_mm:.1f} mm"

    def reading_at(self, x: float, y: float) -> tuple[float, float | None] | None:
        """Depth and uncertainty in mm of a pixel; None where there is none."""
        if self.map is None or not self.has_map_here:
            return None
        column, row = round(x), round(y)
        H, W = self.map.depth_mm.shape
        if not (0 <= column < W and 0 <= row < H):
            return None
        sigma = self.map.sigma_mm
        return float(self.map.depth_mm[row, column]), None if sigma is None else float(sigma[row, column])


def signed(value: float) -> str:
    """``+3.2`` or ``−3.2`` with the proper minus."""
    return f"{value:+.1f}".replace("-", "−")


def reading_text(reading: tuple[float, float | None] | None) -> str:
    """``43.2 ± 1.1 mm``."""
    if reading is None:
        return ""
    depth, sigma = reading
    return f"{depth:.1f} mm" if sigma is None else f"{depth:.1f} ± {sigma:.1f} mm"
