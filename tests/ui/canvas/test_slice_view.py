"""Stories with real mouse and key events."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent, QPointingDevice, QTabletEvent, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from medapp.annotation.edits import Stroke
from medapp.annotation.matte import FULL
from medapp.ui.canvas.tools import TOOL_NAMES
from medapp.ui.canvas.viewport_grid import ViewportGrid
from medapp.ui.prompts import Candidate
from tests.ui.canvas.conftest import make_scan, open_scan, paint

LEFT, RIGHT, MIDDLE = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton, Qt.MouseButton.MiddleButton
NONE, CTRL, SHIFT, ALT = (
    Qt.KeyboardModifier.NoModifier,
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.AltModifier,
)


def over(view, x: float, y: float) -> QPoint:
    """The widget point over a pixel of the raw slice on screen."""
    return view.camera.to_widget(*view.content.plane.from_raw_xy(x, y), view.image_area).toPoint()


def drag(view, start: QPoint, end: QPoint, button=LEFT, modifiers=NONE, steps=8, release=True) -> None:
    QTest.mousePress(view, button, modifiers, start)
    for n in range(1, steps + 1):
        at = QPointF(start) + (QPointF(end) - QPointF(start)) * n / steps
        move(view, at, button, modifiers)
    if release:
        QTest.mouseRelease(view, button, modifiers, end)


def move(view, at: QPointF, buttons, modifiers=NONE) -> None:
    """QTest's mouseMove carries no button; window systems do."""
    event = QMouseEvent(QEvent.Type.MouseMove, at, view.mapToGlobal(at), Qt.MouseButton.NoButton, buttons, modifiers)
    QApplication.sendEvent(view, event)


def wheel(view, notches: int, modifiers=NONE, at: QPointF | None = None, sideways=False) -> None:
    at = at or QPointF(view.image_area.center())
    delta = QPoint(notches * 120, 0) if sideways else QPoint(0, notches * 120)
    event = QWheelEvent(
        at,
        view.mapToGlobal(at),
        QPoint(),
        delta,
        Qt.MouseButton.NoButton,
        modifiers,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view, event)


def alpha(document, z=None) -> np.ndarray:
    return document.active_matte.slice_alpha(document.position_zyx[0] if z is None else z)


# ------------------------------------------------------------------------------------------------------------- slices


def test_wheel_goes_through_slices_and_shift_goes_five(view, document):
    start = document.position_zyx[0]
    wheel(view, 1)
    assert document.position_zyx[0] == start + 1
    wheel(view, -1, SHIFT, sideways=True)
    assert document.position_zyx[0] == start - 4


def test_wheel_on_a_single_image_zooms(grid, view, document):
    open_scan(document, make_scan((1, 60, 80), kind="image"))
    paint(grid)
    before = view.camera.zoom
    wheel(view, 1)
    assert view.camera.zoom > before


def test_ctrl_wheel_zooms_at_the_pointer(view, document):
    at = QPointF(over(view, 20, 15))
    under = view.voxel_at(at)
    zoom, position = view.camera.zoom, document.position_zyx
    wheel(view, 3, CTRL, at)
    assert view.camera.zoom == pytest.approx(zoom * 1.2**3)
    assert view.voxel_at(at) == under
    assert document.position_zyx == position


def test_keys_go_through_slices(view, document):
    view.setFocus()
    for key, slice_index in (
        (Qt.Key.Key_Home, 0),
        (Qt.Key.Key_Up, 1),
        (Qt.Key.Key_PageUp, 11),
        (Qt.Key.Key_Down, 10),
        (Qt.Key.Key_End, 11),
    ):
        QTest.keyClick(view, key)
        assert document.position_zyx[0] == slice_index


def test_a_click_on_the_rail_jumps(view, document):
    area = view.rail.area
    QTest.mouseClick(view, LEFT, NONE, QPoint(area.center().x(), area.bottom() - 10))
    assert document.position_zyx[0] == 0
    QTest.mouseClick(view, LEFT, NONE, QPoint(area.center().x(), area.top() + 10))
    assert document.position_zyx[0] == 11


def test_a_click_places_the_crosshair_and_the_other_planes_follow(grid, view, document):
    grid.set_layout("3+1")
    paint(grid)
    QTest.mouseClick(view, LEFT, NONE, over(view, 33, 21))
    paint(grid)
    assert document.position_zyx == (6, 21, 33)
    assert [v.content.index for v in grid.views] == [6, 21, 33]


def test_hovering_with_shift_moves_the_other_planes_only(grid, view, document):
    grid.set_layout("3+1")
    paint(grid)
    move(view, QPointF(over(view, 11, 44)), Qt.MouseButton.NoButton)
    assert document.position_zyx[1:] == (30, 40)
    move(view, QPointF(over(view, 11, 44)), Qt.MouseButton.NoButton, SHIFT)
    assert document.position_zyx == (6, 44, 11)


def test_the_pointer_reads_position_value_unit_and_alpha(grid, view, document, qtbot):
    document.new_matte()
    paint(grid)
    with qtbot.waitSignal(grid.pointer_moved) as told:
        move(view, QPointF(over(view, 40, 30)), Qt.MouseButton.NoButton)
    facts = told.args[0]
    assert facts["zyx"] == (6, 30, 40)
    assert facts["xy_px"] == (40, 30)
    assert facts["value"] == document.scan.stored[6, 30, 40]
    assert facts["unit"] == "HU"
    assert facts["alpha"] == 0.0


# ---------------------------------------------------------------------------------------------------- zoom, pan, window


def test_middle_drag_pans_whatever_the_tool(view, document):
    document.set_tool("brush")
    start = over(view, 40, 30)
    under = view.voxel_at(QPointF(start))
    drag(view, start, start + QPoint(30, 12), MIDDLE)
    assert view.voxel_at(QPointF(start + QPoint(30, 12))) == under
    assert document.active_matte is None


def test_right_drag_zooms_and_offers_no_menu(view, qtbot):
    asked = []
    view.customContextMenuRequested.connect(asked.append)
    zoom, start = view.camera.zoom, over(view, 40, 30)
    drag(view, start, start - QPoint(0, 60), RIGHT)
    assert view.camera.zoom > zoom
    assert asked == []
    QTest.mouseClick(view, RIGHT, NONE, start)
    assert len(asked) == 1


def test_window_drag_changes_contrast_and_double_click_takes_the_default(view, document):
    document.set_tool("window")
    default = document.window
    start = over(view, 40, 30)
    drag(view, start, start + QPoint(100, 0))
    assert document.window.width > default.width
    assert document.window.center == default.center
    drag(view, start, start + QPoint(0, -50))
    assert document.window.center < default.center
    QTest.mouseDClick(view, LEFT, NONE, start)
    assert document.window == default


def test_double_click_maximises_and_restores(grid, view):
    grid.set_layout("3+1")
    assert len(grid.visible_views) == 3
    QTest.mouseDClick(grid.views[1], LEFT, NONE, grid.views[1].rect().center())
    assert grid.visible_views == (grid.views[1],)
    QTest.mouseDClick(grid.views[1], LEFT, NONE, grid.views[1].rect().center())
    assert len(grid.visible_views) == 3


def test_two_by_two_adds_the_matte_alone_or_the_other_side(grid, document):
    grid.set_layout("2x2")
    assert len(grid.visible_views) == 4
    paint(grid)
    assert grid.second.panes[0].chip.text == "ORIGINAL"
    open_scan(document, make_scan(), processed=make_scan())
    paint(grid)
    assert grid.second.panes[0].chip.text.startswith("RESTORED")


def test_a_volume_opens_in_three_planes_and_a_slab_in_one(qtbot, document):
    grid = ViewportGrid(document)
    qtbot.addWidget(grid)
    open_scan(document, make_scan((60, 60, 80), spacing_mm=(1.0, 1.0, 1.0)))
    assert len(grid.visible_views) == 3
    open_scan(document, make_scan((5, 60, 80)))
    assert len(grid.visible_views) == 1
    grid.set_layout("3+1")
    assert len(grid.visible_views) == 3


def test_moving_the_crosshair_leaves_nothing_behind(grid, view, document):
    grid.set_layout("3+1")
    paint(grid)
    for position in ((2, 30, 70), (9, 30, 11), (4, 30, 30)):  # the coronal slice stays
        document.set_position(position)
        QApplication.processEvents()

    def on_screen():
        QApplication.processEvents()
        return grid.screen().grabWindow(grid.winId()).toImage()

    stepwise = on_screen()
    assert stepwise.pixelColor(stepwise.rect().center()).isValid()
    for v in grid.views:
        v.update()
    assert on_screen() == stepwise


def test_images_without_a_third_dimension_have_one_viewport(grid, document):
    grid.set_layout("2x2")
    open_scan(document, make_scan((1, 60, 80), kind="image", geometry=None))
    assert len(grid.visible_views) == 1


def test_pixels_are_shown_in_true_aspect(grid, view, document):
    open_scan(document, make_scan((12, 60, 80), spacing_mm=(3.0, 2.0, 1.0)))
    paint(grid)
    across = over(view, 50, 20).x() - over(view, 10, 20).x()
    down = over(view, 10, 40).y() - over(view, 10, 20).y()
    assert across == pytest.approx(down, abs=2)


# ------------------------------------------------------------------------------------------------------------- painting


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_stroke_paints_one_undo_step_and_what_was_previewed(grid, document, axis):
    document.new_matte()
    document.set_tool("brush")
    document.set_brush(radius_px=4.0, hardness=0.3, flow=0.5)
    grid.set_layout("3+1")
    view = grid.views[axis]
    paint(grid)
    steps = len(document.history)
    middle = {0: (40, 30), 1: (40, 6), 2: (30, 6)}[axis]
    start = over(view, *middle)
    drag(view, start, start + QPoint(30, 4), release=False)
    previewed = view.overlay.image.copy()
    QTest.mouseRelease(view, LEFT, NONE, start + QPoint(30, 4))

    assert len(document.history) == steps + 1
    assert view.overlay.image == previewed
    painted = document.active_matte.volume()
    assert painted.any()
    assert set(np.nonzero(painted)[axis]) == {document.position_zyx[axis]}
    document.undo()
    assert not document.active_matte.volume().any()
    paint(grid)
    assert not any(v.overlay.has_pixels and v.overlay.image.pixel(40, 6) for v in grid.views)


def test_a_brush_with_no_matte_makes_one(grid, view, document):
    document.set_tool("brush")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    assert document.active_matte is not None
    assert alpha(document)[30, 40] == 1.0


def test_what_is_painted_shows_on_screen_and_only_there(grid, view, document):
    document.new_matte()
    document.set_tool("brush")
    document.set_brush(radius_px=5.0, hardness=1.0)
    document.set_tool("navigate")
    clean = paint(grid)
    document.set_tool("brush")
    spot = over(view, 40, 30)
    QTest.mouseClick(view, LEFT, NONE, spot)
    document.set_tool("navigate")
    painted = paint(grid)

    changed = (clean != painted).any(axis=2)
    reach = 7 * view.camera.zoom + 20  # the letter stands above it
    rows, columns = np.nonzero(changed)
    inside = (abs(rows - spot.y()) < reach) & (abs(columns - spot.x()) < reach)
    on_rail = columns >= view.rail.area.left()
    assert changed[spot.y(), spot.x()]
    assert (inside | on_rail).all()


def test_eraser_and_held_ctrl_take_away(view, document):
    document.set_brush(radius_px=6.0, hardness=1.0)
    document.set_tool("brush")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    QTest.mouseClick(view, LEFT, CTRL, over(view, 40, 30))
    assert alpha(document)[30, 40] == 0.0
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    document.set_tool("eraser")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    assert alpha(document)[30, 40] == 0.0


def test_shift_click_paints_straight_from_the_last_point(view, document):
    document.set_brush(radius_px=2.0, hardness=1.0)
    document.set_tool("brush")
    QTest.mouseClick(view, LEFT, NONE, over(view, 20, 30))
    QTest.mouseClick(view, LEFT, SHIFT, over(view, 60, 30))
    assert (alpha(document)[30, 21:60] == 1.0).all()


def test_alt_click_picks_alpha(view, document):
    document.set_brush(radius_px=6.0, hardness=1.0, opacity=0.5)
    document.set_tool("brush")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    QTest.mouseClick(view, LEFT, ALT, over(view, 40, 30))
    assert document.brush.value == pytest.approx(0.5, abs=1e-4)


def test_escape_drops_the_stroke_then_the_tool(grid, view, document):
    document.new_matte()
    document.set_tool("brush")
    steps = len(document.history)
    start = over(view, 40, 30)
    drag(view, start, start + QPoint(20, 0), release=False)
    QTest.keyClick(view, Qt.Key.Key_Escape)
    QTest.mouseRelease(view, LEFT, NONE, start)
    assert len(document.history) == steps
    assert not document.active_matte.volume().any()
    assert not view.overlay.has_pixels or not view.overlay.image.pixel(40, 30)
    assert document.tool == "brush"
    QTest.keyClick(view, Qt.Key.Key_Escape)
    assert document.tool == "navigate"


def test_a_stroke_is_kept_when_the_slice_changes_under_it(view, document):
    document.new_matte()
    document.set_tool("brush")
    start = over(view, 40, 30)
    drag(view, start, start + QPoint(20, 0), release=False)
    wheel(view, 1)
    QTest.mouseRelease(view, LEFT, NONE, start)
    assert document.position_zyx[0] == 7
    assert alpha(document, 6).any()
    assert not alpha(document, 7).any()


def test_another_button_does_not_end_a_stroke(view, document):
    document.new_matte()
    document.set_tool("brush")
    steps, start = len(document.history), over(view, 40, 30)
    drag(view, start, start + QPoint(20, 0), release=False)
    QTest.mouseClick(view, MIDDLE, NONE, start)
    assert len(document.history) == steps
    QTest.mouseRelease(view, LEFT, NONE, start)
    assert len(document.history) == steps + 1


def test_locked_and_hidden_layers_are_not_painted_and_say_so(view, document, qtbot):
    matte = document.new_matte()
    document.set_tool("brush")
    for name, word in (("is_locked", "locked"), ("is_visible", "hidden")):
        document.change_matte(matte.matte_id, **{name: name == "is_locked"})
        with qtbot.waitSignal(view.message_requested) as said:
            QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
        assert word in said.args[0]
        document.change_matte(matte.matte_id, is_locked=False, is_visible=True)
    assert not matte.volume().any()


def test_the_unknown_brush_marks_the_band_and_leaves_alpha(view, document):
    document.set_tool("unknown")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    matte = document.active_matte
    assert matte.slice_stored(6, layer="unknown")[30, 40] == 1
    assert not matte.volume().any()


def test_fill_closes_an_outline_without_a_seam_and_refuses_an_open_one(view, document, qtbot):
    matte = document.new_matte()
    y, x = np.mgrid[0:60, 0:80]
    ring = np.clip(2.0 - abs(np.hypot(x - 40, y - 30) - 15) / 2, 0, 1)
    document.apply(Stroke(matte.matte_id, (matte.make_patch("alpha", (6, 0, 0), ring[None].astype(np.float32)),)))
    document.set_tool("fill")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    inside = np.hypot(x - 40, y - 30) <= 15
    assert (alpha(document)[inside] == 1.0).all()
    assert (alpha(document)[np.hypot(x - 40, y - 30) > 19.5] == 0.0).all()
    with qtbot.waitSignal(view.message_requested):
        QTest.mouseClick(view, LEFT, NONE, over(view, 3, 3))
    QTest.mouseClick(view, LEFT, CTRL, over(view, 40, 30))
    assert not alpha(document).any()


def test_lasso_adds_and_ctrl_takes_away(view, document):
    document.set_tool("lasso")
    for modifiers, expected in ((NONE, 1.0), (CTRL, 0.0)):
        QTest.mousePress(view, LEFT, modifiers, over(view, 20, 20))
        for x, y in ((60, 20), (60, 45), (20, 45)):
            move(view, QPointF(over(view, x, y)), LEFT, modifiers)
        QTest.mouseRelease(view, LEFT, modifiers, over(view, 20, 45))
        assert alpha(document)[32, 40] == expected
        assert alpha(document)[10, 10] == 0.0


def test_pen_pressure_drives_the_size_and_the_eraser_end_erases(view, document):
    document.set_brush(radius_px=10.0, hardness=1.0, pressure_size=True)
    document.set_tool("brush")

    def pen(kind, pressure, end=QPointingDevice.PointerType.Pen):
        at = QPointF(over(view, 40, 30))
        device = QPointingDevice(
            "pen", 7, QPointingDevice.DeviceType.Stylus, end, QPointingDevice.Capability.Pressure, 1, 2
        )
        pressed = LEFT if kind != QEvent.Type.TabletRelease else Qt.MouseButton.NoButton
        event = QTabletEvent(
            kind, device, at, QPointF(view.mapToGlobal(at)), pressure, 0, 0, 0, 0, 0, NONE, LEFT, pressed
        )
        QApplication.sendEvent(view, event)

    pen(QEvent.Type.TabletPress, 0.4)
    pen(QEvent.Type.TabletRelease, 0.0)
    light = (alpha(document) > 0.5).sum()
    pen(QEvent.Type.TabletPress, 1.0)
    pen(QEvent.Type.TabletRelease, 0.0)
    assert (alpha(document) > 0.5).sum() > 3 * light
    pen(QEvent.Type.TabletPress, 1.0, QPointingDevice.PointerType.Eraser)
    pen(QEvent.Type.TabletRelease, 0.0, QPointingDevice.PointerType.Eraser)
    assert alpha(document)[25:36, 35:46].max() == 0.0


def test_shift_wheel_and_alt_right_drag_change_the_brush(view, document):
    document.set_tool("brush")
    radius, position = document.brush.radius_px, document.position_zyx
    wheel(view, 1, SHIFT, sideways=True)
    assert document.brush.radius_px == pytest.approx(radius * 1.1)
    assert document.position_zyx == position
    hardness, radius, zoom = document.brush.hardness, document.brush.radius_px, view.camera.zoom
    start = over(view, 40, 30)
    drag(view, start, start + QPoint(50, 40), RIGHT, ALT)
    assert document.brush.radius_px > radius
    assert document.brush.hardness < hardness
    assert view.camera.zoom == zoom


def test_the_brush_ring_is_as_large_as_what_it_paints(grid, view, document):
    document.set_brush(radius_px=8.0, hardness=0.5)
    document.set_tool("brush")
    move(view, QPointF(over(view, 40, 30)), Qt.MouseButton.NoButton)
    cursor = view.tools["brush"]._cursor
    assert cursor.reach == pytest.approx((8 * view.camera.zoom, 8 * view.camera.zoom))
    assert cursor.half == 0.75
    assert cursor.effect == "add"
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    row = alpha(document)[30]
    assert row[40 + 6] == pytest.approx(0.5, abs=0.1)  # half effect at 0.75 of the reach
    assert row[40 + 9] == 0.0
    document.set_brush(radius_px=0.5)
    document.set_tool("eraser")
    move(view, QPointF(over(view, 41, 30)), Qt.MouseButton.NoButton)
    view.camera.zoom = 1.0
    move(view, QPointF(over(view, 40, 30)), Qt.MouseButton.NoButton)
    assert view.tools["eraser"]._cursor.is_dot
    assert view.tools["eraser"]._cursor.effect == "erase"


# -------------------------------------------------------------------------------------------------------------- prompts


def test_clicks_include_right_clicks_exclude(view, document, qtbot):
    document.set_tool("prompt")
    with qtbot.waitSignal(document.prompt_added):
        QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    QTest.mouseClick(view, RIGHT, NONE, over(view, 50, 20))
    QTest.mouseClick(view, LEFT, ALT, over(view, 10, 10))

    assert [p.is_include for p in document.prompts] == [True, False, False]
    x, y = document.prompts[0].points_xy[0]
    assert (round(x), round(y)) == (40, 30)
    assert (document.prompts[0].axis, document.prompts[0].slice_index) == (0, 6)


def test_a_prompt_can_be_dragged_and_deleted(view, document):
    document.set_tool("prompt")
    QTest.mouseClick(view, LEFT, NONE, over(view, 40, 30))
    drag(view, over(view, 40, 30), over(view, 50, 35))
    assert len(document.prompts) == 1
    x, y = document.prompts[0].points_xy[0]
    assert (round(x), round(y)) == (50, 35)
    view.setFocus()
    QTest.keyClick(view, Qt.Key.Key_Delete)
    assert document.prompts == []


def test_boxes_and_scribbles_are_drawn(view, document):
    document.set_tool("prompt")
    document.cycle_prompt_kind()
    drag(view, over(view, 20, 20), over(view, 50, 40))
    (box,) = document.prompts
    assert box.kind == "box"
    assert [tuple(round(c) for c in point) for point in box.points_xy] == [(20, 20), (50, 40)]
    document.cycle_prompt_kind()
    drag(view, over(view, 10, 10), over(view, 30, 12))
    assert document.prompts[-1].kind == "scribble"
    assert len(document.prompts[-1].points_xy) > 4


def test_a_prompt_can_be_placed_by_keyboard(view, document):
    document.set_tool("prompt")
    view.setFocus()
    for _ in range(3):
        QTest.keyClick(view, Qt.Key.Key_Right, SHIFT)
    QTest.keyClick(view, Qt.Key.Key_Down)
    QTest.keyClick(view, Qt.Key.Key_Return)
    assert len(document.prompts) == 1
    assert document.position_zyx[0] == 6


def test_alt_wheel_grows_the_region_and_enter_accepts_it(grid, view, document, qtbot):
    document.set_tool("prompt")
    masks = [np.hypot(*(np.mgrid[0:60, 0:80] - np.array([30, 40])[:, None, None])) < r for r in (5, 10)]
    document.set_candidates([Candidate(mask, 0.9, "region tree", 0, 6) for mask in masks])
    small = paint(grid)
    wheel(view, 1, ALT, sideways=True)
    assert document.candidate_index == 1
    large = paint(grid)
    assert (small != large).any()
    view.setFocus()
    with qtbot.waitSignal(document.accept_requested):
        QTest.keyClick(view, Qt.Key.Key_Return)
    QTest.keyClick(view, Qt.Key.Key_Escape)
    assert document.candidates == []
    assert document.tool == "prompt"


def test_all_tools_of_the_strip_exist(view):
    assert tuple(view.tools) == TOOL_NAMES
    assert FULL == 65535
