"""Contours of a soft layer as loose segments: fast to find, to patch and to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QByteArray, QDataStream, QRectF, Qt
from PySide6.QtGui import QPainter, QPainterPath, QTransform

from medapp.annotation.labels import Outline
from medapp.ui.canvas.plane import Box

# Which two edges of a cell the contour crosses, by the corners inside (1 = top left, 2 = top right, 4 = bottom right,
# 8 = bottom left); edges: 0 top, 1 right, 2 bottom, 3 left. Saddles (5, 10) have two segments.
_CROSSINGS = ((1, 3, 0), (2, 0, 1), (3, 3, 1), (4, 1, 2), (6, 0, 2), (7, 3, 2), (8, 2, 3), (9, 2, 0), (11, 2, 1))
_CROSSINGS += ((12, 1, 3), (13, 1, 0), (14, 0, 3), (5, 3, 0), (5, 1, 2), (10, 0, 1), (10, 2, 3))

# Side of the blocks, in pixels, that leave gaps in an outline; 0 = no gaps. Blocks work without joining segments up.
_GAPS: dict[Outline, tuple[int, int]] = {
    "solid": (0, 0),
    "dash": (4, 0),
    "dot": (2, 0),
    "dash-dot": (4, 2),
    "dash-dot-dot": (6, 2),
    "long-dash": (8, 0),
    "double": (0, 0),
}


@dataclass
class Contour:
    """Segments of one level in display pixels.

    Attributes:
        segments: ``(N, 4)`` float32 ``u0, v0, u1, v1``.
        cells: ``(N, 2)`` int32, the pixel ``(u, v)`` whose centre is the top left corner of the segment's cell.
    """

    segments: NDArray[np.float32]
    cells: NDArray[np.int32]

    @classmethod
    def empty(cls) -> Contour:
        """No segments."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 2), np.int32))

    def replaced(self, box: Box, fresh: Contour) -> Contour:
        """With the segments of the cells that touch a box exchanged for new ones."""
        u, v = self.cells[:, 0], self.cells[:, 1]
        stays = (u < box[0] - 1) | (u >= box[2]) | (v < box[1] - 1) | (v >= box[3])
        return Contour(
            np.concatenate((self.segments[stays], fresh.segments)), np.concatenate((self.cells[stays], fresh.cells))
        )

    def gapped(self, outline: Outline) -> NDArray[np.float32]:
        """The segments that an outline pattern leaves."""
        long, short = _GAPS[outline]
        if not long:
            return self.segments
        u, v = self.cells[:, 0], self.cells[:, 1]
        is_drawn = (u // long + v // long) % 2 == 0
        if short:
            is_drawn |= (u // short + v // short) % (long // short + 1) == 0
        return self.segments[is_drawn]


def find_contour(values: NDArray, level: float, corner: tuple[int, int]) -> Contour:
    """Marching squares over an array in display orientation.

    Args:
        values: ``(h, w)``; the pixel ``[0, 0]`` is the display pixel ``corner``.
        level: In the array's own scale.
        corner: ``(u, v)``.
    """
    if min(values.shape) < 2:
        return Contour.empty()
    inside = (values >= level).view(np.uint8)
    case = inside[:-1, :-1] | (inside[:-1, 1:] << 1) | (inside[1:, 1:] << 2) | (inside[1:, :-1] << 3)
    rows, columns = np.divmod(np.flatnonzero((case - np.uint8(1)) < 14), case.shape[1])  # neither 0 nor 15
    if len(rows) == 0:
        return Contour.empty()
    kinds = case[rows, columns]
    order = np.argsort(kinds, kind="stable")
    rows, columns, kinds = rows[order], columns[order], kinds[order]
    a, b, c, d = (values[rows + dr, columns + dc].astype(np.float32) for dr, dc in ((0, 0), (0, 1), (1, 1), (1, 0)))
    origin = np.stack((columns + corner[0], rows + corner[1]), axis=1)
    base = origin.astype(np.float32) + np.float32(0.5)
    ends = np.searchsorted(kinds, np.arange(17))
    segments, cells = [], []
    for kind, start, end in _CROSSINGS:
        part = slice(ends[kind], ends[kind + 1])
        if part.start == part.stop:
            continue
        four = (a[part], b[part], c[part], d[part])
        segment = np.concatenate((_crossing(start, four, level), _crossing(end, four, level)), axis=1)
        segment[:, :2] += base[part]
        segment[:, 2:] += base[part]
        segments.append(segment)
        cells.append(origin[part])
    return Contour(np.concatenate(segments), np.concatenate(cells).astype(np.int32))


def _crossing(edge: int, corners: tuple[NDArray[np.float32], ...], level: float) -> NDArray[np.float32]:
    """Where the level crosses an edge of unit cells: ``(n, 2)``."""
    first, second = corners[edge], corners[(edge + 1) % 4]
    share = (np.float32(level) - first) / (second - first)
    if edge >= 2:  # bottom and left run against the axes
        share = np.float32(1.0) - share
    held = np.full_like(share, 1.0 if edge in (1, 2) else 0.0)
    return np.stack((share, held) if edge % 2 == 0 else (held, share), axis=1)


def draw_segments(
    painter: QPainter, segments: NDArray[np.float32], to_widget: QTransform, visible: QRectF, margin: float = 4.0
) -> None:
    """Draw the segments that lie in a rectangle of the widget, with the painter's pen."""
    if len(segments) == 0:
        return
    scale = np.array((to_widget.m11(), to_widget.m22()) * 2, dtype=np.float32)
    shift = np.array((to_widget.dx(), to_widget.dy()) * 2, dtype=np.float32)
    points = segments * scale + shift
    seen = (
        (np.maximum(points[:, 0], points[:, 2]) >= visible.left() - margin)
        & (np.minimum(points[:, 0], points[:, 2]) <= visible.right() + margin)
        & (np.maximum(points[:, 1], points[:, 3]) >= visible.top() - margin)
        & (np.minimum(points[:, 1], points[:, 3]) <= visible.bottom() + margin)
    )
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPath(path_of(points[seen]))


def path_of(segments: NDArray[np.float32]) -> QPainterPath:
    """Loose segments as one path, written the way Qt reads paths from a stream: ten times quicker than line by line."""
    count = 2 * len(segments)
    elements = np.zeros(count, dtype=[("kind", ">i4"), ("x", ">f8"), ("y", ">f8")])
    elements["kind"][1::2] = 1  # move to, line to, move to...
    points = segments.reshape(-1, 2)
    elements["x"], elements["y"] = points[:, 0], points[:, 1]
    path = QPainterPath()
    if count:
        closing = np.zeros(2, dtype=">i4").tobytes()  # start of the last subpath, fill rule
        stream = QDataStream(QByteArray(np.array([count], dtype=">i4").tobytes() + elements.tobytes() + closing))
        stream >> path
    return path
