"""The trust map over its restoration, and series whose pixels are finer than those of their source."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import AddMatte
from medapp.scan.finer import FinerGrid
from medapp.scan.scan import Window
from medapp.ui.canvas.trust_overlay import bar_of, spread_text
from tests.ui.canvas.conftest import make_scan, open_scan, paint

LEFT = Qt.MouseButton.LeftButton


def restored(scan, factor=1):
    grid = FinerGrid(factor)
    return grid.scan(scan, np.full(grid.shape(scan.shape), 500, np.float32))


@pytest.fixture(params=[1, 4])
def trusted(request, document, grid):
    """The view over a CT whose restoration, perhaps finer, has a trust map."""
    scan = make_scan()
    processed = restored(scan, request.param)
    stored = np.zeros(processed.shape, np.float32)
    stored[:, :, processed.shape[2] // 2 :] = 8.0
    open_scan(document, scan, processed)
    document.show_processed(
        processed, document.processed_info, None, replace(processed, stored=stored, windows=(Window(4, 8),))
    )
    document.set_compare("trust overlay")
    paint(grid)
    return grid.views[0]


def colour_at(view, u, v):
    """The colour at a display place of the original's grid."""
    image = view.grab_image()
    at = view.annotation_transform.map(QPointF(u, v)) * image.devicePixelRatio()
    return image.pixelColor(at.toPoint())


def test_doubt_has_a_hue_and_certainty_is_the_bare_image(trusted):
    doubtful, certain = colour_at(trusted, 60, 40), colour_at(trusted, 20, 40)
    assert doubtful.red() > doubtful.green() + 40 > doubtful.blue()
    assert certain.red() == certain.green() == certain.blue()
    assert "trust overlay" in trusted.panes[0].chip.text
    assert trusted.panes[0].chip.text.startswith("RESTORED")


def test_the_spread_can_be_read_off_at_the_pointer(trusted):
    found = trusted.value_at(trusted.annotation_transform.map(QPointF(60.5, 40.5)))
    assert found["spread"] == 8.0
    assert found["value"] == 500.0
    assert trusted.value_at(trusted.annotation_transform.map(QPointF(20.5, 40.5)))["spread"] == 0.0
    trusted.document.set_compare("swipe")
    paint(trusted)
    assert "spread" not in trusted.value_at(trusted.annotation_transform.map(QPointF(60.5, 40.5)))


def test_the_bar_ends_at_a_round_spread_in_native_units(trusted):
    bar = trusted.panes[0].trust_bar
    assert (bar.limit, bar.unit) == (10.0, "HU")
    assert spread_text(3.14159, "HU") == "spread ± 3.14 HU"


@pytest.mark.parametrize(("high", "limit"), [(1.0, 1.0), (1.2, 2.0), (2.3, 5.0), (0.07, 0.1), (0.0, 1.0)])
def test_every_spread_has_a_bar(high, limit):
    scan = SimpleNamespace(windows=(Window(high / 2, high),), unit="arbitrary")
    assert bar_of(scan).limit == pytest.approx(limit)


def test_without_a_trust_map_the_overlay_is_refused_in_words(document, grid):
    said = []
    document.message_requested.connect(said.append)
    open_scan(document, make_scan(), restored(make_scan()))
    document.set_compare("trust overlay")
    assert document.compare_mode == "single"
    assert "Restore panel" in said[0]


def test_the_overlay_ends_with_its_trust_map(trusted):
    document = trusted.document
    document.show_processed(document.processed, document.processed_info, None)
    assert document.compare_mode == "swipe"
    document.show_processed(None, None, None)
    assert document.compare_mode == "single"


@pytest.mark.parametrize("mode", ["side by side", "swipe"])
@pytest.mark.parametrize("changes", [{}, {"geometry": None, "kind": "stack", "pixel_spacing_mm": (1.0, 1.0)}])
def test_a_finer_series_lies_over_its_source_whether_its_place_is_known_or_not(document, grid, mode, changes):
    scan = make_scan(**changes)
    finer = restored(scan, 4)
    open_scan(document, scan, finer)
    document.processed_info.provenance["grid"] = {"factor": 4, "keeps_centres": True}
    document.set_compare(mode)
    paint(grid)
    view = grid.views[0]
    left, right = view.panes
    for index in ((6, 10, 20), (6, 50, 70)):
        fine = np.array(FinerGrid(4).index(index), float)
        places = []
        for pane, place in ((left, np.array(index, float)), (right, fine)):
            u, v = pane.alignment.plane.to_display(place)
            at = (pane.alignment.to_frame * view.camera.transform(pane.area)).map(QPointF(u, v))
            places.append((at.x() - pane.area.center().x(), at.y() - pane.area.center().y()))
        assert places[0] == pytest.approx(places[1], abs=0.01)


def _show(document, info_id, scan, original, annotation):
    info = SimpleNamespace(
        series_id=info_id, source_id="s1" if scan is not original else None, kind="restored", title="R", provenance={}
    )
    processed = None if scan is original else scan
    document.show_series(
        info, scan, original, annotation, processed=processed, processed_info=info, window=Window(1.0, 2.0),
        value_range=(0.0, 1.0),
    )  # fmt: skip


def test_from_the_source_to_a_finer_series_and_back_the_place_window_and_zoom_stay(document, grid):
    scan, annotation = make_scan(), Annotation("s1", (12, 60, 80))
    finer = restored(scan, 4)
    _show(document, "s1", scan, scan, annotation)
    document.set_position((3, 20, 60))
    document.set_window(444.0, 333.0)
    view = grid.views[0]
    view.zoom_by(3.0)
    view.pan_by(40, -25)
    paint(grid)
    before = view.annotation_transform.map(QPointF(33.0, 22.0))

    _show(document, "s2", finer, scan, annotation)
    paint(grid)
    assert document.position_zyx == (3, 80, 240)
    assert document.matte_position_zyx == (3, 20, 60)
    assert (document.window.center, document.window.width) == (444.0, 333.0)
    after = view.annotation_transform.map(QPointF(33.0, 22.0))
    assert (after.x(), after.y()) == pytest.approx((before.x(), before.y()), abs=0.6)
    _show(document, "s1", scan, scan, annotation)
    assert document.position_zyx == (3, 20, 60)


def test_on_a_finer_series_mattes_and_proposals_belong_to_the_source(document, grid):
    scan, annotation = make_scan(), Annotation("s1", (12, 60, 80))
    finer = restored(scan, 4)
    _show(document, "s2", finer, scan, annotation)
    assert document.proposed_series_id == "s1"
    matte = annotation.new_matte("Liver", reader="r", origin="test")
    document.apply(AddMatte(matte))
    document.set_tool("brush")
    document.set_brush(radius_px=4.0)
    paint(grid)
    view = grid.views[0]
    at = view.annotation_point(40, 30).toPoint()
    QTest.mousePress(view, LEFT, pos=at)
    QTest.mouseMove(view, at + QPoint(2, 0))
    QTest.mouseRelease(view, LEFT, pos=at + QPoint(2, 0))
    painted = document.active_matte
    assert painted.shape_zyx == (12, 60, 80)
    alpha = painted.slice_stored(document.matte_position_zyx[0])
    ys, xs = np.nonzero(alpha)
    assert abs(ys.mean() - 30) < 1.5
    assert abs(xs.mean() - 40) < 2.5
