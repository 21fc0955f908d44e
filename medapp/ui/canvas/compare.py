"""Two series in one viewport: lined up in millimetres, subtracted in native units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QTransform

from medapp.scan.scan import Scan
from medapp.ui.canvas.furniture import nice_length
from medapp.ui.canvas.plane import Plane

MODES = ("single", "side by side", "swipe", "difference", "trust overlay")


@dataclass(frozen=True)
class Alignment:
    """Where a slice of another series lies under the slice on screen.

    Attributes:
        plane: Of the other series.
        index: Its slice; None where it has none at this position.
        to_frame: Its display pixels to those of the series on screen.
    """

    plane: Plane
    index: int | None
    to_frame: QTransform


def align(frame: Scan, frame_plane: Plane, frame_index: int, other: Scan, keeps_centres: bool = False) -> Alignment:
    """Find the nearest slice of ``other`` and lay it over the frame; both are taken to have parallel axes.

    Args:
        keeps_centres: Of scans without a place in the patient: their first pixels have the same centre, else the same
            corner.
    """
    if other is frame:
        return Alignment(frame_plane, frame_index, QTransform())
    plane = Plane.of(other, frame_plane.axis)
    if frame.geometry is None or other.geometry is None:
        share = plane.count / frame_plane.count
        su, sv = frame_plane.width / plane.width, frame_plane.height / plane.height
        du, dv = ((1 - su) / 2, (1 - sv) / 2) if keeps_centres else (0.0, 0.0)
        index = min(int((frame_index + 0.5) * share), plane.count - 1)
        return Alignment(plane, index, QTransform(su, 0, 0, sv, du, dv))
    middle = frame_plane.to_index(frame_plane.width / 2, frame_plane.height / 2, frame_index)
    at = other.geometry.to_index(frame.geometry.to_mm(np.array(middle)))
    index = int(np.rint(at[plane.axis]))
    corners = np.array([plane.to_index(u, v, at[plane.axis]) for u, v in ((0.0, 0.0), (plane.width, plane.height))])
    low, high = (frame_plane.to_display(c) for c in frame.geometry.to_index(other.geometry.to_mm(corners)))
    su, sv = (high[0] - low[0]) / plane.width, (high[1] - low[1]) / plane.height
    return Alignment(plane, index if 0 <= index < plane.count else None, QTransform(su, 0, 0, sv, low[0], low[1]))


def slice_values(scan: Scan, plane: Plane, index: int) -> NDArray[np.float32]:
    """A slice in native units and display orientation, float32; of colours their mean."""
    raw = plane.shown(plane.raw(np.asarray(scan.stored), index))
    if scan.is_colour:
        return raw.mean(axis=2, dtype=np.float32)
    return raw.astype(np.float32) * np.float32(scan.slope) + np.float32(scan.intercept)


def difference(
    original: Scan, at_original: Alignment, processed: Scan, at_processed: Alignment
) -> NDArray[np.float32] | None:
    """Processed minus original on the processed slice's grid, in native units; None where either has no slice.

    Of pictures in colour it is that of the mean of their colours; None where only one is in colour.
    """
    if at_original.index is None or at_processed.index is None or original.is_colour != processed.is_colour:
        return None
    after = slice_values(processed, at_processed.plane, at_processed.index)
    before = slice_values(original, at_original.plane, at_original.index)
    if before.shape != after.shape or at_original.to_frame != at_processed.to_frame:
        to_original = at_processed.to_frame * at_original.to_frame.inverted()[0]
        columns = (np.arange(after.shape[1]) + 0.5) * to_original.m11() + to_original.dx() - 0.5
        rows = (np.arange(after.shape[0]) + 0.5) * to_original.m22() + to_original.dy() - 0.5
        before = _interpolated(_interpolated(before, rows, 0), columns, 1)
    return np.subtract(after, before, out=after)


def difference_limit(values: NDArray[np.float32]) -> float:
    """A round symmetric range that holds nearly all of a difference."""
    sample = np.abs(values[:: max(1, values.shape[0] // 256), :: max(1, values.shape[1] // 256)])
    extent = float(np.percentile(sample, 99.5))
    if not extent > 0:
        return 1.0
    below = nice_length(extent)
    return below if below >= extent else nice_length(below * 2.6)


def _interpolated(values: NDArray[np.float32], at: NDArray, axis: int) -> NDArray[np.float32]:
    """Linear interpolation along one axis; the border is held."""
    at = np.clip(at, 0, values.shape[axis] - 1)
    low = np.minimum(at.astype(np.intp), max(values.shape[axis] - 2, 0))
    high = np.minimum(low + 1, values.shape[axis] - 1)
    share = (at - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None, :]
    below, above = values.take(low, axis=axis), values.take(high, axis=axis)
    return below + (above - below) * share
