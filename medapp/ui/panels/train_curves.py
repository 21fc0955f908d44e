"""Loss and validation score of a run against its iterations; the value at the pointer stands above."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QColor, QFont
from PySide6.QtWidgets import QWidget

from medapp.ui import theme
from medapp.ui.training_state import Evidence
from medapp.ui.widgets import column, label, row

_MOST_POINTS = 1500
_SMOOTH_FROM = 40
_SMOOTHING = 40  # a part so large of the curve to each side
_DARKER = len(theme.LABEL_COLOURS)  # the same hues, darker: on a light panel the light ones would be faint

Points = tuple[tuple[int, float], ...]


def thinned(points: Points) -> Points:
    """At most so many points, the last one among them."""
    if len(points) <= _MOST_POINTS:
        return points
    step = len(points) // _MOST_POINTS + 1
    return (*points[:-1:step], points[-1])


def smoothed(points: Points) -> Points:
    """The mean of the neighbours on both sides, so that the way of a noisy loss can be seen without lagging behind."""
    reach = max(1, len(points) // _SMOOTHING)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    found = []
    for place, (iteration, _) in enumerate(points):
        low, high = max(0, place - reach), min(len(points), place + reach + 1)
        found.append((iteration, (sums[high] - sums[low]) / (high - low)))
    return tuple(found)


class CurvePlot(pg.PlotWidget):
    """A plot that reads off the point nearest the pointer; with the focus, ← and → walk along it."""

    def __init__(self, name: str, show: Any) -> None:
        super().__init__()
        self._show = show
        self.points: Points = ()
        self._place = -1
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMenuEnabled(False)
        self.setMouseEnabled(False, False)
        self.hideButtons()
        self.setMinimumSize(180, 110)
        self.cursor = pg.InfiniteLine(angle=90)
        self.cursor.setVisible(False)
        self.addItem(self.cursor, ignoreBounds=True)
        self.scene().sigMouseMoved.connect(self._on_moved)

    def read_at(self, place: int) -> None:
        """Show the value of the n-th point; -1 = the last one, without a line."""
        self._place = place if 0 <= place < len(self.points) else -1
        self.cursor.setVisible(self._place >= 0)
        if self._place >= 0:
            self.cursor.setValue(self.points[self._place][0])
        self._show(self.points[self._place] if self.points else None)

    def refresh(self) -> None:
        """New points are there."""
        self.read_at(self._place)

    def _on_moved(self, place: QPointF) -> None:
        if self.points and self.sceneBoundingRect().contains(place):
            x = self.getViewBox().mapSceneToView(place).x()
            after = bisect_left(self.points, (x,))
            near = [n for n in (after - 1, after) if 0 <= n < len(self.points)]
            self.read_at(min(near, key=lambda n: abs(self.points[n][0] - x)))

    def leaveEvent(self, event: QEvent) -> None:
        self.read_at(-1)
        super().leaveEvent(event)

    def keyPressEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(event.key())
        if step is None or not self.points:
            event.ignore()  # Tab, Esc and shortcuts go their way
            return
        start = self._place if self._place >= 0 else len(self.points) - (1 if step > 0 else 0)
        self.read_at(min(max(start + step, 0), len(self.points) - 1))


class Curve(QWidget):
    """A title, the value that is read off, and the plot."""

    def __init__(self, name: str, title: str, axis: str, colour: int) -> None:
        super().__init__()
        self._colour = colour
        self._axis = axis
        self.value = label("", "secondary")
        self.plot = CurvePlot(name, self._show_value)
        self._raw = self.plot.plot(antialias=True)
        self._line = self.plot.plot(antialias=True)
        self._best = self.plot.plot(antialias=True)
        self.setLayout(column(row(label(title), -1, self.value), self.plot, margin=0))
        self.dress()

    def dress(self) -> None:
        """Take on the colours of the theme."""
        tokens = theme.current()
        hue = QColor(theme.label_colour(self._colour + (_DARKER if tokens is theme.LIGHT else 0)))
        faint = QColor(hue)
        faint.setAlphaF(0.35)
        plot = self.plot
        plot.setBackground(tokens.panel)
        font = QFont(self.font())
        font.setPixelSize(theme.SECONDARY_PX - 1)
        for side, text in (("bottom", "iteration"), ("left", self._axis)):
            axis = plot.getAxis(side)
            axis.setPen(pg.mkPen(tokens.line))
            axis.setTextPen(pg.mkPen(tokens.text_2))
            axis.setStyle(tickFont=font, tickLength=-4, hideOverlappingLabels=True)
            axis.setLabel(text, **{"color": tokens.text_2, "font-size": f"{theme.SECONDARY_PX}px"})
            axis.enableAutoSIPrefix(False)
        plot.getAxis("left").setWidth(58)
        plot.showGrid(x=True, y=True, alpha=0.12)
        plot.cursor.setPen(pg.mkPen(tokens.text_2, style=Qt.PenStyle.DashLine))
        self._raw.setPen(pg.mkPen(faint, width=1))
        self._line.setPen(pg.mkPen(hue, width=2))
        self._line.setSymbolSize(8)
        self._line.setSymbolBrush(pg.mkBrush(hue))
        self._line.setSymbolPen(None)
        self._best.setPen(None)
        self._best.setSymbol("o")
        self._best.setSymbolSize(8)
        self._best.setSymbolBrush(pg.mkBrush(tokens.panel))
        self._best.setSymbolPen(pg.mkPen(hue, width=2))

    def show_points(self, points: Points, best: tuple[int, float] | None = None) -> None:
        """Draw a curve, and a ring at its best point."""
        points = thinned(points)
        self.plot.points = points
        self.plot.setXRange(0, max(1, points[-1][0]) if points else 1, padding=0.02)
        for side in ("bottom", "left"):
            self.plot.getAxis(side).setStyle(showValues=bool(points))
        is_noisy = len(points) >= _SMOOTH_FROM and best is None
        line = smoothed(points) if is_noisy else points
        self._raw.setData(*_xy(points if is_noisy else ()))
        self._line.setData(*_xy(line))
        self._line.setSymbol("o" if len(points) == 1 and best is None else None)
        self._best.setData(*_xy((best,) if best is not None else ()))
        self.plot.refresh()

    def _show_value(self, point: tuple[int, float] | None) -> None:
        text = "no points yet" if point is None else f"iteration {point[0]:,}: {point[1]:.4g}".replace("-", "−")
        self.value.setText(text)


class CurvesView(QWidget):
    """Both curves side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = Curve("Loss against iteration", "Loss", "loss", 0)
        self.score = Curve("Validation score against iteration", "Validation score, higher is better", "score", 1)
        both = row(self.loss, self.score, spacing=theme.GROUP_GAP)
        both.setStretch(0, 1)
        both.setStretch(1, 1)
        self.setLayout(both)

    def show_evidence(self, evidence: Evidence) -> None:
        """Draw what a run has shown so far."""
        self.loss.show_points(evidence.losses)
        self.score.show_points(evidence.scores, evidence.best)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.StyleChange:
            self.loss.dress()
            self.score.dress()


def _xy(points: Any) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]
