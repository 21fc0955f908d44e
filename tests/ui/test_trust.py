"""Restore: finer MR series and trust maps, from the panel to the library, by mouse and keys."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QCheckBox, QLabel

from medapp import paths
from medapp.networks.card import MR_SUPER_RESOLUTION, Intake
from medapp.requests import RestoreRequest
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan
from medapp.store.project import Project
from tests.networks.toys import keep_toy

LEFT = Qt.MouseButton.LeftButton
SHAPE = (3, 24, 28)


@pytest.fixture
def opened(window, tmp_path, qtbot):
    """A window in Restore with one MR series, and a model whose results are twice as fine."""
    intake = Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles")
    keep_toy(paths.user_models_dir(), "restore_rwkv", takes=(intake,), task=MR_SUPER_RESOLUTION, scale=2)
    values = np.random.default_rng(0).gamma(2.0, 100.0, SHAPE).astype(np.float32)
    with Project.create(tmp_path / "p") as project:
        project.add_series(Scan(values, Geometry.from_spacing((4.0, 2.0, 2.0)), "MR"))
    window.session.open_project(tmp_path / "p.medapp")
    qtbot.waitUntil(lambda: window.document.series is not None, timeout=20000)
    window.set_workspace("restore")
    window.grid.set_layout("1")
    qtbot.waitUntil(lambda: bool(window.restoring.models) and not window.restoring.is_loading, timeout=20000)
    window.restoring.choose("toy-restore-rwkv")
    window.show_dock("restore")
    qtbot.waitUntil(window.restore.keep_measured.isVisible, timeout=5000)
    return window


def tick(box):
    QTest.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))


def box_of(window, text):
    return next(box for box in window.restore.findChildren(QCheckBox) if box.text().startswith(text))


def said(window):
    return " | ".join(made.text() for made in window.restore.findChildren(QLabel) if made.isVisible())


def requests(window):
    return [made for made in window.bridge._queue.requests if isinstance(made, RestoreRequest)]


def test_the_panel_says_what_a_finer_result_will_be_like(opened):
    assert "Result: 56 × 48 px, 1 × 1 mm" in said(opened)
    assert "8 times" in box_of(opened, "Trust map").text()
    opened.restoring.choose("filter-nlm")
    assert "Result:" not in said(opened)
    assert not opened.restore.keep_measured.isVisible()
    assert opened.restore.trust.isVisible()


def test_a_preview_with_a_trust_map_shows_where_the_answers_differ(opened, qtbot):
    document = opened.document
    tick(opened.restore.trust)
    tick(box_of(opened, "Preview"))
    qtbot.waitUntil(lambda: document.trust is not None, timeout=30000)
    assert document.compare_mode == "trust overlay"
    assert document.processed.shape == document.trust.shape == (3, 48, 56)
    compare = opened.tool_options.compare
    overlay = compare.model().item(compare.findData("trust overlay"))
    assert overlay.isEnabled()
    view = opened.grid.views[0]
    opened.grab()
    assert view.panes[0].trust_bar is not None
    QTest.mouseMove(view, view.annotation_point(14, 12).toPoint())
    qtbot.waitUntil(lambda: "spread ±" in opened.status._value.text(), timeout=3000)

    tick(opened.restore.trust)
    qtbot.waitUntil(lambda: document.trust is None, timeout=30000)
    assert document.compare_mode == "swipe"
    assert not overlay.isEnabled()
    assert [(made.trust, made.only_first) for made in requests(opened)] == [(True, True), (False, True)]


def test_measured_frequencies_are_given_free_by_a_switch(opened, qtbot):
    assert opened.restore.keep_measured.isChecked()
    tick(opened.restore.keep_measured)
    QTest.mouseClick(opened.restore.run, LEFT)
    qtbot.waitUntil(lambda: bool(opened.restoring.report), timeout=30000)
    assert requests(opened)[0].keep_measured is False
    assert "measured k-space not kept" in said(opened)


def test_a_run_with_a_trust_map_ends_in_a_pair_that_opens_as_an_overlay(opened, qtbot):
    document, shapes = opened.document, []
    document.slice_arrived.connect(lambda _path, _z: shapes.append(document.processed.shape))
    document.set_position((1, 10, 20))
    tick(opened.restore.trust)
    QTest.mouseClick(opened.restore.run, LEFT)
    qtbot.waitUntil(lambda: bool(opened.restoring.report), timeout=60000)
    assert shapes == [(3, 48, 56)] * 3  # finer already while it runs
    assert "Pixels 2 times finer, measured k-space kept" in said(opened)
    assert "Spread of 8 answers" in said(opened)
    kinds = {info.kind: info for info in document.series_list}
    assert set(kinds) == {"original", "restored", "trust"}
    qtbot.waitUntil(lambda: document.trust is not None, timeout=10000)

    row = opened.library._find(kinds["trust"].series_id)
    assert "Trust map" in row.text(0)
    QTest.mouseClick(opened.library._tree.viewport(), LEFT, pos=opened.library._tree.visualItemRect(row).center())
    qtbot.waitUntil(lambda: document.series.series_id == kinds["restored"].series_id, timeout=10000)
    assert document.compare_mode == "trust overlay"
    assert document.position_zyx == (1, 20, 40)
    opened.grab()
    assert opened.grid.views[0].panes[0].trust_bar is not None

    modes = []
    opened.grid.views[0].setFocus()
    for _ in range(5):
        QTest.keyClick(opened.grid.views[0], Qt.Key.Key_Y)
        modes.append(document.compare_mode)
    assert modes == ["single", "side by side", "swipe", "difference", "trust overlay"]


def test_a_run_that_is_cancelled_leaves_the_series_as_it_was(opened, qtbot):
    document = opened.document
    document.slice_arrived.connect(
        lambda _path, _z: [opened.bridge.cancel(job.number) for job in opened.bridge.running()]
    )
    tick(opened.restore.trust)
    QTest.mouseClick(opened.restore.run, LEFT)
    qtbot.waitUntil(lambda: bool(requests(opened)) and not opened.bridge.running(), timeout=30000)
    qtbot.waitUntil(lambda: document.processed is None, timeout=10000)
    assert [info.kind for info in document.series_list] == ["original"]
    assert document.compare_mode == "single"


def test_a_trust_map_without_its_restoration_is_shown_in_its_own_range(opened, qtbot):
    document = opened.document
    tick(opened.restore.trust)
    QTest.mouseClick(opened.restore.run, LEFT)
    qtbot.waitUntil(lambda: bool(opened.restoring.report) and document.trust is not None, timeout=60000)
    document.set_window(1000.0, 2000.0)
    kinds = {info.kind: info.series_id for info in document.series_list}
    document.change_series(kinds["restored"], "Move series to Trash", is_trashed=True)
    document.open_series(kinds["trust"])
    qtbot.waitUntil(lambda: document.series.series_id == kinds["trust"], timeout=10000)
    assert document.compare_mode == "swipe"  # there is nothing to lie over
    assert document.window.width == pytest.approx(opened.restoring.report["trust"]["high"])
    opened.grab()
    assert opened.grid.views[0].panes[-1].chip.text.startswith("TRUST MAP")
    document.open_series(kinds["original"])
    qtbot.waitUntil(lambda: document.series.series_id == kinds["original"], timeout=10000)
    assert document.window.width > opened.restoring.report["trust"]["high"]
