"""Original and processed in one viewport, as a person sees them."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit

from medapp.ui.actions import build_actions
from medapp.ui.canvas.key_hold import KeyHold
from tests.ui.canvas.conftest import make_scan, open_scan, paint
from tests.ui.canvas.test_compare import finer
from tests.ui.canvas.test_slice_view import LEFT, NONE, SHIFT, drag, move, over, wheel

DARK, BRIGHT = 100, 1100


@pytest.fixture
def pair(grid, document):
    """A dark original and a bright restoration."""
    before = make_scan(stored=np.full((12, 60, 80), DARK, np.int16))
    after = make_scan(stored=np.full((12, 60, 80), BRIGHT, np.int16))
    open_scan(document, before, processed=after)
    paint(grid)
    return before, after


def brightness(grid, at: QPoint) -> int:
    return int(paint(grid)[at.y(), at.x(), 0])


def chips(view) -> list[str]:
    return [pane.chip.text for pane in view.panes]


def test_swipe_shows_original_left_and_processed_right_of_the_divider(grid, view, document, pair):
    document.set_compare("swipe")
    left, right = over(view, 20, 20), over(view, 60, 20)
    assert brightness(grid, left) < 60 < 180 < brightness(grid, right)
    assert chips(view) == ["ORIGINAL", "RESTORED · Restore-RWKV 1"]

    y = view.rect().center().y()
    drag(view, QPoint(view.divider_x + 4, y), QPoint(over(view, 70, 20).x(), y))
    assert document.divider > 0.6
    assert brightness(grid, over(view, 60, 20)) < 60


def test_divider_obeys_arrows_wheel_and_double_click(view, document, pair):
    document.set_compare("swipe")
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_Right)
    assert document.divider == pytest.approx(0.51)
    QTest.keyClick(view, Qt.Key.Key_Left)
    QTest.keyClick(view, Qt.Key.Key_Left)
    assert document.divider == pytest.approx(0.49)
    position = document.position_zyx
    wheel(view, 2, SHIFT, QPointF(view.divider_x, 100), sideways=True)
    assert document.divider == pytest.approx(0.51)
    assert document.position_zyx == position
    QTest.mouseDClick(view, LEFT, NONE, QPoint(view.divider_x, 100))
    assert document.divider == 0.5


def test_side_by_side_shows_the_same_place_twice(grid, view, document, pair):
    document.set_compare("side by side")
    shown = paint(grid)
    left, right = (pane.area for pane in view.panes)
    assert shown[left.center().y(), left.center().x(), 0] < 60
    assert shown[right.center().y(), right.center().x(), 0] > 180
    assert view.voxel_at(QPointF(left.center())) == view.voxel_at(QPointF(right.center()))
    assert len(chips(view)) == 2


def test_values_are_those_of_the_side_under_the_pointer(grid, view, document, pair):
    document.set_compare("swipe")
    paint(grid)
    assert view.value_at(QPointF(over(view, 20, 20)))["value"] == DARK
    assert view.value_at(QPointF(over(view, 60, 20)))["value"] == BRIGHT


def test_difference_is_grey_where_nothing_changed_and_keeps_its_range(grid, view, document):
    before = make_scan(stored=np.full((12, 60, 80), DARK, np.int16))
    stored = before.stored.copy()
    stored[:, :, 40:] += 10
    stored[:, :30, 40:] -= 20
    open_scan(document, before, processed=make_scan(stored=stored))
    document.set_compare("difference")
    shown = paint(grid)
    nothing, more, less = (over(view, x, y) for x, y in ((20, 20), (60, 45), (60, 15)))
    assert np.ptp(shown[nothing.y(), nothing.x()].astype(int)) <= 4
    assert shown[more.y(), more.x()].sum() > shown[nothing.y(), nothing.x()].sum() > shown[less.y(), less.x()].sum()
    assert view.content.limit == 10.0
    assert chips(view)[0].startswith("DIFFERENCE")
    wheel(view, 1)
    paint(grid)
    assert view.content.limit == 10.0


@pytest.mark.parametrize("key", [Qt.Key.Key_O, Qt.Key.Key_Backslash])
def test_holding_the_key_shows_the_original(grid, view, document, pair, qapp, key):
    hold = KeyHold(document, grid.show_original)
    qapp.installEventFilter(hold)
    document.set_compare("swipe")
    right = over(view, 60, 20)
    view.setFocus()
    try:
        QTest.keyPress(view, key)
        assert brightness(grid, right) < 60
        assert chips(view) == ["ORIGINAL"]
        QTest.keyRelease(view, key)
        assert brightness(grid, right) > 180
    finally:
        qapp.removeEventFilter(hold)


def test_slices_not_restored_yet_say_so_and_show_the_original(grid, view, document, pair):
    _, after = pair
    document.show_processed(after, document.processed_info, {6})
    document.set_compare("swipe")
    paint(grid)
    assert chips(view)[1] == "RESTORED · Restore-RWKV 1 · slice ready"
    wheel(view, 1)
    right = over(view, 60, 20)
    assert brightness(grid, right) < 60
    assert chips(view)[1] == "ORIGINAL · not restored yet"
    document.processed_slices.add(7)
    document.note_slice("partial", 7)
    assert brightness(grid, right) > 180


def test_a_new_preview_replaces_the_old_one_on_screen(grid, view, document, pair):
    document.set_compare("swipe")
    right = over(view, 60, 20)
    seen = []
    for value in (200, 400, 600, 800, 1000):
        fresh = make_scan(
            stored=np.full((12, 60, 80), value, np.int16)
        )  # the old one is gone, its memory is used again
        document.show_processed(fresh, document.processed_info, None)
        del fresh
        seen.append(brightness(grid, right))
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("kind", "words"),
    [("restored", "RESTORED · Restore-RWKV 1"), ("synthetic", "SYNTHETIC PET · Restore-RWKV 1")],
)
def test_the_chip_stays_when_overlays_are_hidden(grid, view, document, kind, words):
    scan = make_scan()
    open_scan(document, scan, processed=scan, kind=kind)
    document.set_compare("side by side")
    document.set_overlays_visible(False)
    shown = paint(grid)
    assert chips(view)[1] == words
    area = view.panes[1].clip
    corner = shown[8:30, area.left() + 8 : area.left() + 60]
    assert (corner.max(axis=2).astype(int) - corner.min(axis=2) > 50).mean() > 0.3  # the chip's colour


def test_screenshots_of_processed_images_are_marked_and_originals_are_not(grid, view, document, pair):
    def marked():
        plain, grabbed = paint(grid), grid.grab_image().convertToFormat(grid.grab_image().Format.Format_RGB32)
        lines = np.frombuffer(grabbed.constBits(), np.uint8).reshape(grabbed.height(), -1, 4)[..., 2::-1]
        return bool((lines[:, : plain.shape[1]] != plain).any())

    assert not marked()
    document.set_compare("swipe")
    assert marked()
    document.set_compare("difference")
    assert marked()


def test_painting_on_either_side_paints_the_same_place(grid, view, document, pair):
    document.set_compare("side by side")
    document.set_brush(radius_px=3.0, hardness=1.0)
    document.set_tool("brush")
    paint(grid)
    left, right = (pane.area.center() for pane in view.panes)
    QTest.mouseClick(view, LEFT, NONE, left)
    first = document.active_matte.volume().copy()
    document.undo()
    QTest.mouseClick(view, LEFT, NONE, right)
    assert first.any()
    assert np.array_equal(document.active_matte.volume() > 0, first > 0)


def test_mattes_lie_over_finer_pixels_too(grid, view, document):
    before = make_scan(stored=np.full((12, 60, 80), DARK, np.int16))
    fine = finer(before)
    open_scan(document, before, processed=fine)
    document.new_matte()
    document.set_compare("swipe")
    clean = paint(grid)
    document.set_brush(radius_px=4.0, hardness=1.0)
    document.set_tool("brush")
    right = over(view, 60, 20)
    QTest.mouseClick(view, LEFT, NONE, right)
    document.set_tool("navigate")
    painted = paint(grid)
    assert document.active_matte.slice_alpha(6)[20, 60] == 1.0
    assert (painted[right.y(), right.x()].astype(int) - clean[right.y(), right.x()])[0] > 60  # orange over dark
    assert (painted[20:-20, 60 : view.divider_x - 4] == clean[20:-20, 60 : view.divider_x - 4]).all()


def test_a_held_letter_gives_the_tool_back_and_a_tapped_one_keeps_it(grid, view, document, qapp, qtbot):
    hold = KeyHold(document, grid.show_original)
    qapp.installEventFilter(hold)
    view.setFocus()
    try:
        QTest.keyClick(view, Qt.Key.Key_B)
        assert document.tool == "brush"
        QTest.keyPress(view, Qt.Key.Key_W)
        assert document.tool == "window"
        start, width = over(view, 40, 30), document.window.width
        drag(view, start, start + QPoint(80, 0))
        QTest.keyRelease(view, Qt.Key.Key_W)
        assert document.tool == "brush"
        assert document.window.width > width
        QTest.keyClick(view, Qt.Key.Key_Space)
        assert document.tool == "brush"
        QTest.keyPress(view, Qt.Key.Key_E)
        qtbot.wait(350)
        QTest.keyRelease(view, Qt.Key.Key_E)
        assert document.tool == "brush"
    finally:
        qapp.removeEventFilter(hold)


def test_changed_tool_keys_are_held_and_the_old_ones_mean_nothing(grid, view, document, qapp):
    actions = build_actions(grid, {"tool_brush": lambda: None, "tool_pan": lambda: None}, {"tool_brush": "N"})
    hold = KeyHold(document, grid.show_original)
    hold.follow(actions)
    qapp.installEventFilter(hold)
    view.setFocus()
    try:
        QTest.keyClick(view, Qt.Key.Key_B)
        assert document.tool == "navigate"
        QTest.keyClick(view, Qt.Key.Key_N)
        assert document.tool == "brush"
        QTest.keyClick(view, Qt.Key.Key_Space)
        assert document.tool == "brush"
    finally:
        qapp.removeEventFilter(hold)


def test_letters_typed_into_a_field_are_text(grid, document, qapp, qtbot):
    hold = KeyHold(document, grid.show_original)
    qapp.installEventFilter(hold)
    field = QLineEdit()
    qtbot.addWidget(field)
    field.show()
    qtbot.waitExposed(field)
    field.setFocus()
    try:
        QTest.keyClicks(field, "web po")
        assert field.text() == "web po"
        assert document.tool == "navigate"
    finally:
        qapp.removeEventFilter(hold)


def test_undo_flashes_what_it_changed(grid, view, document, pair):
    document.set_tool("brush")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    document.set_position((2, 0, 0))
    document.undo()
    assert document.position_zyx[0] == 6
    assert view._flash is not None
    move(view, QPointF(5, 5), Qt.MouseButton.NoButton)
