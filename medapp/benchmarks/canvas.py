"""``medapp bench canvas``: a slice step, three planes, a window drag and a brush dab, beside pyqtgraph and napari.

Times are wall milliseconds of the action with its paint forced (``repaint``), after a warm-up, offscreen. For
slices ours and the peer's calls take turns, so that other work on the machine meets both alike.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.benchmarks.timing import row

VIEW_PX = 1024
SHAPE = (400, 512, 512)
_REPEATS = 120
_WARM_UP = 20


def run() -> list[dict[str, Any]]:
    """Rows ``{name, p50_ms, p95_ms, peer, peer_p50_ms, ratio}``; the peers are in the same process."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtWidgets import QApplication

    app = QApplication.instance() or QApplication([])
    volume = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    rows = [*_slice_rows(app, volume), *_dab_rows(app)]
    if importlib.util.find_spec("napari") is not None:
        rows += _napari_rows(volume)
    return rows


def _take_turns(ours: Callable[[int], Any], peer: Callable[[int], Any] | None) -> tuple[list[float], list[float]]:
    """Milliseconds of each call, ours and the peer's in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for n in range(_WARM_UP + _REPEATS):
        for action, taken in zip((ours, peer), times, strict=True):
            if action is None:
                continue
            since = time.perf_counter()
            action(n)
            taken.append((time.perf_counter() - since) * 1000)
    return times[0][_WARM_UP:], times[1][_WARM_UP:]


def _slice_rows(app: Any, volume: NDArray[np.int16]) -> list[dict[str, Any]]:
    from medapp.ui.canvas.viewport_grid import ViewportGrid

    document = _document(volume)
    grid = ViewportGrid(document)
    grid.resize(VIEW_PX, VIEW_PX)
    grid.show()
    app.processEvents()
    rows = []
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        view = grid.views[axis]
        for other in grid.views:
            other.setVisible(other is view)
        view.setGeometry(0, 0, VIEW_PX, VIEW_PX)
        app.processEvents()

        def step(n: int, axis: int = axis, view: Any = view) -> None:
            position = [200, 250, 250]
            position[axis] += n % 16
            document.set_position((position[0], position[1], position[2]))
            view.repaint()

        ours, theirs = _take_turns(step, _pyqtgraph_step(app, volume, axis))
        rows.append(row(f"slice step, {name}, 1024 px, three mattes", ours, "pyqtgraph ImageItem", theirs))

    view = grid.views[0]
    for other in grid.views:
        other.setVisible(other is view)
    app.processEvents()

    def drag(n: int) -> None:
        document.set_window(40.0 + n % 50, 400.0)
        view.repaint()

    rows.append(row("window drag, 1024 px, three mattes", _take_turns(drag, None)[0]))
    grid.set_layout("2x2")
    grid.second.hide()
    app.processEvents()

    def three(n: int) -> None:
        document.set_position((192 + n % 16, 240 + n % 30, 240 + n % 30))
        view.repaint()  # flushes all that is due in the window: the three planes

    ours, theirs = _take_turns(three, _pyqtgraph_three(app, volume))
    rows.append(row("three planes with crosshair, 512 px each, three mattes", ours, "pyqtgraph, no mattes", theirs))
    grid.close()
    return rows


def _dab_rows(app: Any) -> list[dict[str, Any]]:
    from PySide6.QtCore import QEvent, QPointF

    from medapp.ui.canvas.tools import Pointer
    from medapp.ui.canvas.viewport_grid import ViewportGrid

    rows = []
    for side in (512, 2048, 4096):
        document = _document(np.zeros((1, side, side), np.int16), mattes=1, kind="image")
        document.set_tool("brush")
        document.set_brush(radius_px=20.5, hardness=0.5, flow=0.5)
        grid = ViewportGrid(document)
        grid.resize(VIEW_PX, VIEW_PX)
        grid.show()
        app.processEvents()
        view = grid.views[0]
        view.show_percent(100.0)
        app.processEvents()
        tool = view.tools["brush"]
        middle = QPointF(view.image_area.center())

        def at(n: int, middle: QPointF = middle) -> Pointer:
            angle = n * 0.0205  # about one dab further each time
            return Pointer(middle + QPointF(200 * np.cos(angle), 200 * np.sin(angle)))

        def dab(n: int, tool: Any = tool, grid: Any = grid, at: Callable[[int], Pointer] = at) -> None:
            if n % 40 == 0:  # every fortieth ends a stroke: its edit and undo step are in the figures
                tool.release(at(n))
                tool.press(at(n))
            tool.move(at(n))
            app.sendPostedEvents(grid, QEvent.Type.UpdateRequest)  # paints what has become due, of this window only

        peer = _pyqtgraph_dab(app, side) if side == 2048 else None
        ours, _ = _take_turns(dab, None)
        theirs, _ = _take_turns(peer, None) if peer is not None else ([], [])  # not in turns: it empties the caches
        tool.release(at(0))
        name = f"brush dab 41 px on {side}², undo and overlay included"
        rows.append(row(name, ours, "pyqtgraph setImage" if peer else "", theirs or None))
        grid.close()
    return rows


def _document(volume: NDArray[np.int16], mattes: int = 3, kind: str = "scan") -> Any:
    """A document with a CT and soft balls on it."""
    from medapp.annotation.annotation import Annotation
    from medapp.scan.geometry import Geometry
    from medapp.scan.scan import Scan, Window
    from medapp.ui.document import Document

    scan = Scan(volume, Geometry.from_spacing((1.0, 0.7, 0.7)), "CT", "HU", kind)  # type: ignore[arg-type]
    annotation = Annotation("bench", scan.shape[:3])  # type: ignore[arg-type]
    for number in range(mattes):
        matte = annotation.new_matte()
        annotation.add(matte)
        if volume.shape[0] > 1:
            z, y, x = np.ogrid[-40:41, -100:101, -100:101]
            ball = np.clip((90 - np.sqrt(4.0 * z * z + y * y + x * x)) / 6 + 0.5, 0, 1).astype(np.float32)
            patch = matte.make_patch("alpha", (160, 120 + 40 * number, 140 + 50 * number), ball)
            if patch is not None:
                matte.paste(patch)
    document = Document()
    info: Any = SimpleNamespace(
        series_id="bench", source_id=None, kind="original", title="Bench", provenance={}, shape=scan.shape
    )
    document.show_series(
        info,
        scan,
        scan,
        annotation,
        processed=None,
        processed_info=None,
        window=Window(40.0, 400.0),
        value_range=(-1000.0, 1000.0),
    )
    return document


def _pyqtgraph_step(app: Any, volume: NDArray[np.int16], axis: int) -> Callable[[int], None]:
    """A plain ImageItem of the same size, levels and colour table, no overlay."""
    widget, item = _pyqtgraph_view(VIEW_PX, np.take(volume, 200, axis=axis), (-160, 240))
    app.processEvents()

    def step(n: int) -> None:
        place: list[Any] = [slice(None)] * 3
        place[axis] = 200 + n % 16
        item.setImage(volume[tuple(place)], autoLevels=False)
        widget.viewport().repaint()

    return step


def _pyqtgraph_three(app: Any, volume: NDArray[np.int16]) -> Callable[[int], None]:
    """Three views with lines for the crosshair."""
    import pyqtgraph as pg

    views = []
    for axis in range(3):
        widget, item = _pyqtgraph_view(VIEW_PX // 2, np.take(volume, 200, axis=axis), (-160, 240))
        lines = [pg.InfiniteLine(angle=angle) for angle in (0, 90)]
        for line in lines:
            item.getViewBox().addItem(line)
        views.append((axis, widget, item, lines))
    app.processEvents()

    def three(n: int) -> None:
        for axis, widget, item, lines in views:
            place: list[Any] = [slice(None)] * 3
            place[axis] = (192, 240, 240)[axis] + n % 16
            item.setImage(volume[tuple(place)], autoLevels=False)
            for line in lines:
                line.setValue(240 + n % 30)
            widget.viewport().repaint()

    return three


def _pyqtgraph_view(side: int, image: NDArray, levels: tuple[float, float]) -> tuple[Any, Any]:
    """A plain view with one image and a colour table: ``(widget, item)``."""
    import pyqtgraph as pg

    pg.setConfigOptions(imageAxisOrder="row-major")
    widget = pg.GraphicsView()
    widget.resize(side, side)
    box = pg.ViewBox(lockAspect=True, invertY=True, enableMenu=False)
    widget.setCentralItem(box)
    item = pg.ImageItem(image, levels=levels)
    item.setLookupTable(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1))
    box.addItem(item)
    widget.show()
    return widget, item


def _pyqtgraph_dab(app: Any, side: int) -> Callable[[int], None]:
    """The usual way: alpha as one float image, set as a whole after each dab."""
    alpha = np.zeros((side, side), np.float32)
    widget, item = _pyqtgraph_view(VIEW_PX, alpha, (0, 1))
    app.processEvents()
    y, x = np.mgrid[-20:21, -20:21]
    stamp = np.clip(1.0 - np.hypot(x, y) / 20.5, 0, 1).astype(np.float32)

    def dab(n: int) -> None:
        row_, column = side // 2 + int(300 * np.sin(n * 0.11)), side // 2 + int(300 * np.cos(n * 0.11))
        part = alpha[row_ - 20 : row_ + 21, column - 20 : column + 21]
        part += (1 - part) * stamp * 0.5
        item.setImage(alpha, autoLevels=False)
        widget.viewport().repaint()

    return dab


def _napari_rows(volume: NDArray[np.int16]) -> list[dict[str, Any]]:
    """napari's own slice step, where it is installed and can draw."""
    import napari

    viewer = napari.Viewer(show=False)
    viewer.add_image(volume, contrast_limits=(-160, 240))

    def step(n: int) -> None:
        viewer.dims.set_current_step(0, 200 + n % 16)
        viewer.screenshot(canvas_only=True, flash=False)

    times, _ = _take_turns(step, None)
    viewer.close()
    return [row("napari slice step, for comparison", times)]
