"""Regions in Restore: found, shown over the image, out of date after a stroke, another engine, cancelled."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel

from medapp import paths
from medapp.annotation.edits import Stroke
from medapp.regions.sam_checkpoint import import_checkpoint
from medapp.requests import RegionMapRequest, RestoreRequest
from medapp.scan.geometry import Geometry
from medapp.scan.phantoms import ct_torso
from medapp.scan.scan import Scan
from medapp.services import region_maps as service
from medapp.store.project import Project
from medapp.ui.canvas.region_overlay import edges, neighbour_hues
from tests.networks.toys import keep_toy
from tests.regions.toy_sam import make_toy_sam

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def sam_id(tmp_path):
    torch.save(make_toy_sam().state_dict(), tmp_path / "sam_toy.pth")
    return import_checkpoint(tmp_path / "sam_toy.pth", paths.user_models_dir())


@pytest.fixture
def restorers():
    keep_toy(paths.user_models_dir(), "rat")


@pytest.fixture
def opened(window, restorers, tmp_path, qtbot):
    """A window in Restore with one CT, whose chosen model works within regions."""
    phantom = ct_torso((3, 72, 64), (20.0, 6.0, 6.0))
    with Project.create(tmp_path / "p") as project:
        project.add_series(
            Scan(np.asarray(phantom.values, dtype=np.float32), Geometry.from_spacing(phantom.spacing_mm), "CT", "HU")
        )
    window.session.open_project(tmp_path / "p.medapp")
    qtbot.waitUntil(lambda: window.document.series is not None, timeout=20000)
    window.set_workspace("restore")
    window.grid.set_layout("1")
    window.document.set_window(40.0, 400.0)
    qtbot.waitUntil(lambda: bool(window.restoring.models) and not window.restoring.is_loading, timeout=20000)
    window.restoring.choose("toy-rat")
    window.show_dock("restore")
    qtbot.waitUntil(window.restore.regions.isVisible, timeout=5000)
    return window


def said(window):
    return " | ".join(made.text() for made in window.restore.regions.findChildren(QLabel) if made.isVisible())


def tick(box):
    QTest.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))


def find(window, qtbot):
    before = window.region_maps.map
    QTest.mouseClick(window.restore.regions.find_button, LEFT)
    qtbot.waitUntil(lambda: window.region_maps.map is not None and window.region_maps.map is not before, timeout=20000)
    qtbot.waitUntil(lambda: not window.region_maps.is_finding, timeout=5000)


def paint(window, z, rows, columns):
    document = window.document
    matte = document.new_matte("Liver")
    alpha = np.zeros((1, *matte.shape_zyx[1:]), dtype=np.float32)
    alpha[0, rows, columns] = 1
    document.apply(Stroke(matte.matte_id, (matte.make_patch("alpha", (z, 0, 0), alpha),)))


def picture(window):
    image = window.grid.views[0].grab_image()
    return np.array(image.constBits()).reshape(image.height(), image.bytesPerLine() // 4, 4)[..., :3].astype(int)


def test_regions_are_found_counted_and_lie_over_the_image(opened, qtbot):
    z = opened.document.position_zyx[0]
    assert "No regions on this slice yet" in said(opened)
    assert not opened.restore.regions.shown.isEnabled()
    bare = picture(opened)
    paint(opened, z, slice(20, 40), slice(20, 40))
    painted = picture(opened)
    find(opened, qtbot)

    found = opened.region_maps.map
    assert f"{found.regions} regions on this slice, 1 from an accepted matte" in said(opened)
    assert "by the region tree" in said(opened)
    assert "Out of date" not in said(opened)
    over = picture(opened)
    assert (over != painted).any(axis=2).mean() > 0.3  # fills nearly everywhere on the slice
    assert np.abs(over - painted).mean() < 40  # and the image is still to be seen

    tick(opened.restore.regions.shown)
    assert not opened.document.regions.is_visible
    assert np.array_equal(picture(opened), painted)
    tick(opened.restore.regions.shown)
    opened.actions_by_name["regions_show"].trigger()
    assert not opened.restore.regions.shown.isChecked()
    opened.actions_by_name["regions_show"].trigger()
    opened.restore.regions.opacity.slider.setFocus()
    QTest.keyClick(opened.restore.regions.opacity.slider, Qt.Key.Key_Home)
    assert opened.document.regions.opacity == 0
    assert 0 < (picture(opened) != painted).any(axis=2).mean() < 0.2  # outlines stay
    opened.document.set_overlays_visible(False)
    hidden = picture(opened)
    opened.document.regions.set_visible(False)
    assert np.array_equal(picture(opened), hidden)
    assert not np.array_equal(bare, painted)


def test_after_a_stroke_the_map_is_out_of_date_until_it_is_found_again(opened, qtbot):
    z = opened.document.position_zyx[0]
    find(opened, qtbot)
    first = opened.region_maps.map
    other = (z + 1) % 3
    paint(opened, other, slice(0, 9), slice(0, 9))
    QTest.qWait(400)
    assert "Out of date" not in said(opened)  # a stroke on another slice

    paint(opened, z, slice(20, 40), slice(20, 40))
    qtbot.waitUntil(lambda: "Out of date" in said(opened), timeout=5000)
    opened.document.undo()
    opened.document.undo()
    qtbot.waitUntil(lambda: "Out of date" not in said(opened), timeout=5000)

    paint(opened, z, slice(20, 40), slice(20, 40))
    find(opened, qtbot)
    assert "Out of date" not in said(opened)  # although it was asked for right after the stroke
    assert opened.region_maps.map.region_map_id > first.region_map_id
    assert opened.region_maps.map.mattes == 1


def test_each_slice_has_its_own_map_and_a_preview_may_bring_one(opened, qtbot):
    z = opened.document.position_zyx[0]
    find(opened, qtbot)
    opened.document.go_to_slice(0, (z + 1) % 3)
    assert opened.region_maps.map is None  # at once: regions of another slice are never shown
    assert not opened.grid.views[0].regions.is_shown(opened.document, opened.grid.views[0].annotation_at)
    qtbot.waitUntil(lambda: "No regions on this slice yet" in said(opened), timeout=5000)
    opened.document.go_to_slice(0, z)
    qtbot.waitUntil(lambda: opened.region_maps.map is not None, timeout=5000)

    opened.document.go_to_slice(0, (z + 1) % 3)
    tick(opened.restore._preview)
    qtbot.waitUntil(lambda: opened.document.processed is not None, timeout=30000)
    qtbot.waitUntil(lambda: opened.region_maps.map is not None, timeout=5000)
    assert opened.region_maps.map.slice_index == (z + 1) % 3
    opened.restoring.stop_preview()


def test_another_engine_than_in_training_is_amber_and_is_used(opened, sam_id, qtbot, monkeypatch):
    monkeypatch.setattr("medapp.regions.automatic.AutomaticSettings", small_grid())
    assert "trained with these regions" in said(opened)
    find(opened, qtbot)
    opened.restoring.refresh()
    engine = opened.restore.regions._engine
    qtbot.waitUntil(lambda: engine.findData(sam_id) >= 0, timeout=10000)
    engine.setFocus()
    QTest.keyClick(engine, Qt.Key.Key_Down)
    assert opened.restoring.region_model_id == sam_id
    assert "trained with the region tree; it may do less well" in said(opened)
    assert opened.restore.regions._trained.property("role") == "processed"
    qtbot.waitUntil(lambda: opened.region_maps.map is None, timeout=5000)  # that was the tree's
    find(opened, qtbot)
    assert opened.region_maps.map.engine.startswith("SAM · ")

    opened.restoring.run()
    qtbot.waitUntil(lambda: bool(opened.restoring.report), timeout=60000)
    (asked,) = [r for r in opened.bridge._queue.requests if isinstance(r, RestoreRequest)]
    assert asked.region_model_id == sam_id


def test_a_search_can_be_cancelled_and_stores_nothing(opened, qtbot, monkeypatch):
    is_there = threading.Event()

    def endless(values, window, model_id, workspace, progress):
        progress.start(16, "batches", "Finding regions")
        progress.step()
        is_there.set()
        while True:
            progress.check()
            threading.Event().wait(0.01)

    monkeypatch.setattr(service, "engine_regions", endless)
    view = opened.restore.regions
    view.find_button.setFocus()
    QTest.keyClick(view.find_button, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: is_there.is_set() and view._bar.value() == 1, timeout=10000)
    assert "Finding regions · 1 of 16" in said(opened)
    assert not view.find_button.isVisible()
    assert view.cancel.hasFocus()
    QTest.keyClick(view.cancel, Qt.Key.Key_Space)
    assert "Cancelling…" in said(opened)
    qtbot.waitUntil(lambda: not opened.region_maps.is_finding, timeout=10000)
    assert view.find_button.isVisible()
    assert view.find_button.hasFocus()
    assert opened.document.project.region_maps(opened.restoring.series_id) == ()


def test_models_that_need_no_regions_show_none_of_it(opened, qtbot):
    find(opened, qtbot)
    opened.restoring.choose("filter-nlm")
    assert not opened.restore.regions.isVisible()
    assert not opened.document.regions.is_open
    assert not opened.actions_by_name["regions_find"].isEnabled()
    assert not opened.grid.views[0].regions.is_shown(opened.document, opened.grid.views[0].annotation_at)
    assert len([r for r in opened.bridge._queue.requests if isinstance(r, RegionMapRequest)]) == 1


def small_grid():
    from functools import partial

    from medapp.regions.automatic import AutomaticSettings

    return partial(AutomaticSettings, points_per_side=3)


def test_neighbours_never_share_a_hue():
    rng = np.random.default_rng(5)
    cells = rng.permutation(60).reshape(6, 10)
    labels = np.repeat(np.repeat(cells, 7, axis=0), 5, axis=1).astype(np.int32)
    hues = neighbour_hues(labels)[labels]
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        x, y = (hues[:, :-1], hues[:, 1:]) if a.shape[1] < labels.shape[1] else (hues[:-1], hues[1:])
        assert (x[a != b] != y[a != b]).all()
    assert len(np.unique(hues)) >= 5


def test_outlines_run_between_pixels_in_straight_pieces():
    labels = np.ones((4, 6), dtype=np.int32)
    labels[1:3, 2:5] = 2
    found = {tuple(segment) for segment in edges(labels).tolist()}
    assert found == {(2, 1, 5, 1), (2, 3, 5, 3), (2, 1, 2, 3), (5, 1, 5, 3)}
    assert len(edges(np.ones((3, 3), dtype=np.int32))) == 0
