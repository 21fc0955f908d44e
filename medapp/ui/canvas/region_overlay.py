"""Regions over the image: faint fills of which no two neighbours share a hue, and thin outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPainterPath, QPen, QTransform

from medapp.ui import theme
from medapp.ui.canvas.contours import path_of
from medapp.ui.canvas.tints import premultiplied

if TYPE_CHECKING:
    from medapp.store.project import RegionMapRevision
    from medapp.ui.canvas.compare import Alignment
    from medapp.ui.document import Document

_LINE = 0.7
_HALO = QColor(0, 0, 0, 110)


class RegionOverlay:
    """Draws the region map of the document on the slice it belongs to."""

    def __init__(self) -> None:
        self._drawn: RegionMapRevision | None = None
        self._shown: NDArray[np.int32] = np.zeros((0, 0), dtype=np.int32)
        self._hue_of: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._filled = -1.0
        self._image = QImage()
        self._outlines = QPainterPath()
        self._accepted = QPainterPath()

    def is_shown(self, document: Document, at: Alignment | None) -> bool:
        """The regions are wanted, and they belong to this slice."""
        state, found = document.regions, document.regions.map
        if found is None or at is None or not (state.is_open and state.is_visible):
            return False
        is_here = (found.axis, found.slice_index) == (at.plane.axis, at.index)
        return is_here and found.series_id == document.annotated_series_id

    def draw(self, painter: QPainter, document: Document, at: Alignment | None, to_widget: QTransform) -> None:
        """Fills under outlines; those of accepted mattes are thicker."""
        if not self.is_shown(document, at):
            return
        found = document.regions.map
        assert found is not None
        assert at is not None
        if found is not self._drawn:
            self._follow(found, at)
        if document.regions.opacity != self._filled:
            self._fill(document.regions.opacity)
        painter.save()
        painter.setTransform(to_widget)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, False)
        painter.drawImage(0, 0, self._image)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        line = QColor(theme.DARK.text)
        line.setAlphaF(_LINE)
        for path, colour, width in (
            (self._outlines, line, 1.0),  # wider lines take ten times as long
            (self._accepted, _HALO, 4.0),
            (self._accepted, QColor(theme.DARK.text), 2.0),
        ):
            pen = QPen(colour, width)
            pen.setCosmetic(True)
            painter.setPen(pen)
            painter.drawPath(path)
        painter.restore()

    def _follow(self, found: RegionMapRevision, at: Alignment) -> None:
        self._drawn, self._filled = found, -1.0
        self._shown = np.ascontiguousarray(at.plane.shown(found.labels))
        self._hue_of = neighbour_hues(self._shown)
        self._outlines = path_of(edges(self._shown))
        accepted = np.where(self._shown > found.labels.max() - found.mattes, self._shown, 0) if found.mattes else None
        self._accepted = path_of(edges(accepted)) if accepted is not None else QPainterPath()

    def _fill(self, opacity: float) -> None:
        self._filled = opacity
        hues = [QColor(colour) for colour in theme.LABEL_COLOURS]
        share = np.full(1, opacity, np.float32)
        table = np.concatenate([premultiplied(share, (hue.red(), hue.green(), hue.blue())) for hue in hues])
        pixels = np.ascontiguousarray(table[self._hue_of[self._shown]])
        height, width = pixels.shape
        # Copied: the QImage outlives the array.
        self._image = QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()


def neighbour_hues(labels: NDArray[np.int32], hues: int = len(theme.LABEL_COLOURS)) -> NDArray[np.intp]:
    """A hue for each label such that neighbours differ; where too many touch, the hue least used around it.

    Args:
        labels: ``(H, W)`` from 0.

    Returns:
        ``(highest label + 1,)``, numbers below ``hues``.
    """
    count = int(labels.max(initial=0)) + 1
    around: list[set[int]] = [set() for _ in range(count)]
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        differ = a != b
        for first, second in np.unique(np.stack([a[differ], b[differ]], axis=1), axis=0).tolist():
            around[first].add(second)
            around[second].add(first)
    chosen = np.full(count, -1, dtype=np.intp)
    for label in sorted(range(count), key=lambda n: -len(around[n])):
        used = np.bincount([chosen[n] for n in around[label] if chosen[n] >= 0], minlength=hues)
        turned = np.roll(used, -label)  # ties start at another hue for each label, so that all hues are seen
        chosen[label] = (int(np.argmin(turned)) + label) % hues
    return chosen


def edges(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """``(N, 4)`` segments ``u0, v0, u1, v1`` between pixels of different labels, straight runs in one piece."""
    across = _runs(labels[:-1] != labels[1:])  # row, first column, end column
    down = _runs((labels[:, :-1] != labels[:, 1:]).T)
    rows = np.stack([across[:, 1], across[:, 0] + 1, across[:, 2], across[:, 0] + 1], axis=1)
    columns = np.stack([down[:, 0] + 1, down[:, 1], down[:, 0] + 1, down[:, 2]], axis=1)
    return np.concatenate([rows, columns]).astype(np.float32)


def _runs(marked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """``(N, 3)``: line, start and end of each run of marked places along a line."""
    steps = np.diff(np.pad(marked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    lines, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return np.stack([lines, starts, ends], axis=1)
