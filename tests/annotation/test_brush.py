"""The brush model of ``ux.md`` 5, against the formula written out plainly."""

import numpy as np
import pytest

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import BrushSettings, PlaneBox, StrokeBuilder, half_effect, reach_px
from medapp.annotation.dabs import dab, depth_offsets
from medapp.annotation.matte import FULL, Matte, MatteProps
from medapp.errors import UsageError

SHAPE = (6, 300, 280)


def soft_matte(matte_id="m", shape=SHAPE, top=FULL):
    matte = Matte(matte_id, shape)
    random = np.random.default_rng(3)
    matte.paste(matte.make_patch("alpha", (0, 0, 0), random.integers(0, top + 1, shape).astype(np.uint16)))
    return matte


def wander(builder, n=12, seed=0, size=(300, 280)):
    random = np.random.default_rng(seed)
    boxes = [
        builder.add_point((random.uniform(-20, size[1] + 20), random.uniform(-20, size[0] + 20)), random.random())
        for _ in range(n)
    ]
    return [box for box in boxes if box is not None]


def apply(matte, builder):
    for patch in builder.finish() or ():
        matte.paste(patch)


BRUSHES = [
    BrushSettings(radius_px=20),
    BrushSettings(radius_px=7.3, hardness=0.0, flow=0.2, opacity=0.6),
    BrushSettings(radius_px=33, hardness=1.0, value=0.0),
    BrushSettings(radius_px=12, flow=0.5, value=0.35, pressure_size=True, pressure_flow=True, pressure_opacity=True),
    BrushSettings(radius_px=9, mode="unknown"),
    BrushSettings(radius_px=9, mode="keep"),
    BrushSettings(radius_px=25, mode="smooth", flow=0.4),
    BrushSettings(radius_px=15, edge_aware=True),
    BrushSettings(radius_mm=12.0, depth_mm=6.0, hardness=0.2),
    BrushSettings(radius_px=0.5, hardness=1.0),
]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("brush", BRUSHES)
def test_the_preview_equals_the_result_bit_for_bit(brush, axis):
    matte = soft_matte(shape=(40, 90, 150))
    planes = {0: (90, 150), 1: (40, 150), 2: (40, 90)}
    image = np.add.outer(np.arange(planes[axis][0]), np.arange(planes[axis][1])).astype(np.float32) // 40
    builder = StrokeBuilder(matte, brush, 20, axis, (3.0, 1.0, 1.0), image_slice=image)
    wander(builder, 8, size=planes[axis])
    random = np.random.default_rng(5)
    boxes = [PlaneBox(0, 0, *planes[axis])]
    for _ in range(20):
        top, left = (int(random.integers(0, n - 1)) for n in planes[axis])
        boxes.append(
            PlaneBox(
                top,
                left,
                int(random.integers(top + 1, planes[axis][0] + 1)),
                int(random.integers(left + 1, planes[axis][1] + 1)),
            )
        )
    offsets = [o for o, _ in builder._offsets]
    previews = {(box, o): builder.preview(box, o) for box in boxes for o in offsets}
    before = matte.copy()
    apply(matte, builder)
    layer = brush.mode if brush.mode in ("unknown", "keep") else "alpha"
    for (box, offset), preview in previews.items():
        result = matte.slice_stored(20 + offset, axis, layer)[box.top : box.bottom, box.left : box.right]
        assert preview.dtype == result.dtype
        assert np.array_equal(preview, result)
    assert not matte.equals(before)


def test_the_stroke_follows_the_formula():
    matte, brush = (
        soft_matte(),
        BrushSettings(radius_px=10, hardness=0.4, flow=0.3, opacity=0.7, value=0.9, spacing=0.1),
    )
    before = matte.slice_stored(2).astype(np.float64)
    builder = StrokeBuilder(matte, brush, 2)
    builder.add_point((40, 50))
    builder.add_point((52, 50))  # dabs each 2 px: 40, 42, ... 52
    cover = np.zeros(SHAPE[1:])
    yy, xx = np.mgrid[: SHAPE[1], : SHAPE[2]]
    for x in range(40, 53, 2):
        t = np.clip((np.hypot(yy - 50, xx - x) / 10 - 0.4) / 0.6, 0, 1)
        k = 1 - (3 * t**2 - 2 * t**3)
        cover = np.minimum(1 - (1 - cover) * (1 - 0.3 * k), 0.7)
    expected = before + (0.9 * FULL - before) * cover
    apply(matte, builder)
    assert np.abs(matte.slice_stored(2) - expected).max() < 1.5  # of 65535
    assert np.array_equal(matte.slice_stored(1), soft_matte().slice_stored(1))


def test_crossing_the_own_stroke_never_exceeds_the_opacity():
    matte = Matte("m", SHAPE)
    builder = StrokeBuilder(matte, BrushSettings(radius_px=15, opacity=0.4, flow=0.8), 0)
    for _ in range(6):
        builder.add_point((30, 30))
        builder.add_point((120, 120))
        builder.add_point((30, 120))
        builder.add_point((120, 30))
    apply(matte, builder)
    assert matte.slice_alpha(0).max() == pytest.approx(0.4, abs=1e-4)


def test_dabs_lie_on_the_way_however_the_points_come():
    brush = BrushSettings(radius_px=8, flow=0.3, hardness=0.2)
    many, few = Matte("m", SHAPE), Matte("m", SHAPE)
    builder = StrokeBuilder(many, brush, 0)
    for x in np.linspace(20, 200, 400):
        builder.add_point((x, 60.0))
    apply(many, builder)
    builder = StrokeBuilder(few, brush, 0)
    builder.add_point((20, 60.0))
    builder.add_point((200, 60.0))  # Shift+click
    apply(few, builder)
    assert np.abs(many.slice_alpha(0) - few.slice_alpha(0)).max() < 0.02
    assert few.slice_alpha(0)[60, 30:190].min() > 0.85


def test_dirty_boxes_hold_everything_that_changes():
    matte = Matte("m", SHAPE)
    builder = StrokeBuilder(matte, BrushSettings(radius_px=13), 1)
    seen = np.zeros(SHAPE[1:], bool)
    everything = PlaneBox(0, 0, *SHAPE[1:])
    before = builder.preview(everything)
    random = np.random.default_rng(2)
    for _ in range(15):
        box = builder.add_point((random.uniform(-20, 300), random.uniform(-20, 320)))
        after = builder.preview(everything)
        seen[...] = False
        if box is not None:
            assert 0 <= box.top < box.bottom <= SHAPE[1]
            assert 0 <= box.left < box.right <= SHAPE[2]
            seen[box.top : box.bottom, box.left : box.right] = True
        assert not (after != before)[~seen].any()
        before = after


def test_cancelling_and_painting_outside_change_nothing():
    matte = soft_matte()
    builder = StrokeBuilder(matte, BrushSettings(radius_px=20), 0)
    wander(builder)
    assert builder.cancel() is not None
    assert builder.finish() is None
    outside = StrokeBuilder(matte, BrushSettings(radius_px=5), 0)
    assert outside.add_point((-50, -50)) is None
    assert outside.add_point((float("nan"), 3)) is None
    assert outside.finish_edit() is None


def test_hardness_sets_where_the_effect_is_half():
    for hardness in (0.0, 0.25, 0.5, 0.75):
        cover = dab((40.0, 40.0), hardness, (0.0, 0.0))
        middle = cover[cover.shape[0] // 2, cover.shape[1] // 2 :]
        assert middle[0] == 1
        assert np.interp(half_effect(hardness) * 40, np.arange(len(middle)), middle) == pytest.approx(0.5, abs=0.02)
        assert middle[41:].max() == 0


def test_the_smallest_brush_paints_one_pixel():
    matte = Matte("m", SHAPE)
    builder = StrokeBuilder(matte, BrushSettings(radius_px=0.5, hardness=1.0), 0)
    builder.add_point((30, 40))
    apply(matte, builder)
    assert list(zip(*np.nonzero(matte.slice_stored(0)), strict=True)) == [(40, 30)]


def test_a_circle_in_millimetres_is_an_ellipse_in_pixels():
    spacing = (5.0, 1.0, 0.5)
    brush = BrushSettings(radius_mm=10.0, hardness=1.0)
    assert reach_px(brush, spacing, 0) == (10, 20)
    assert reach_px(brush, spacing, 1) == (2, 20)
    assert reach_px(BrushSettings(radius_px=4), spacing, 2) == (0.8, 4)
    assert reach_px(BrushSettings(radius_px=4), None, 0) == (4, 4)
    matte = Matte("m", SHAPE)
    builder = StrokeBuilder(matte, brush, 0, 0, spacing)
    builder.add_point((140, 150))
    apply(matte, builder)
    rows, columns = np.nonzero(matte.slice_stored(0) > FULL // 4)
    assert (rows.max() - rows.min(), columns.max() - columns.min()) == (20, 40)


def test_depth_reaches_neighbouring_slices_and_fades():
    matte = Matte("m", SHAPE)
    brush = BrushSettings(radius_px=20, hardness=0.3, depth_mm=6.0)
    assert [o for o, _ in depth_offsets(brush, (3.0, 1, 1), 0)] == [0, 1, -1, 2, -2]
    assert depth_offsets(BrushSettings(), (3.0, 1, 1), 0) == ((0, 0.0),)
    builder = StrokeBuilder(matte, brush, 1, 0, (3.0, 1.0, 1.0))
    builder.add_point((100, 100))
    apply(matte, builder)
    middle = matte.volume()[:, 100, 100].astype(int)
    assert matte.annotated_slices() == (0, 1, 2, 3)
    assert middle[1] == FULL
    assert middle[1] > middle[2] > middle[3] > 0
    assert middle[0] == middle[2]
    assert middle[4] == 0


def test_only_where_limits_hold_while_painting():
    matte = soft_matte()
    limit = np.zeros(SHAPE[1:], bool)
    limit[:, 100:] = True
    builder = StrokeBuilder(matte, BrushSettings(radius_px=30), 0, limit_mask=limit)
    wander(builder)
    before = matte.slice_stored(0)
    apply(matte, builder)
    changed = matte.slice_stored(0) != before
    assert changed.any()
    assert not changed[:, :100].any()


def test_edge_aware_paint_stops_at_the_edge_and_does_not_jump_over_it():
    image = np.full(SHAPE[1:], 100.0, np.float32)
    image[:, 140:150] = 900.0  # a wall
    strong = BrushSettings(radius_px=40, hardness=0.8, edge_aware=True, edge_strength=0.8)
    matte = Matte("m", SHAPE)
    builder = StrokeBuilder(matte, strong, 0, image_slice=image)
    builder.add_point((120, 150))
    apply(matte, builder)
    painted = matte.slice_alpha(0)
    assert painted[150, 110:139].min() > 0.95
    assert painted[:, 140:].max() == 0
    plain = Matte("m", SHAPE)
    builder = StrokeBuilder(plain, BrushSettings(radius_px=40, hardness=0.8), 0, image_slice=image)
    builder.add_point((120, 150))
    apply(plain, builder)
    assert plain.slice_alpha(0)[150, 145] > 0.9


def test_locked_layers_cannot_be_painted():
    matte = Matte("m", SHAPE)
    matte.props = MatteProps(is_locked=True)
    with pytest.raises(UsageError, match="locked"):
        StrokeBuilder(matte, BrushSettings(), 0)


def test_layers_of_an_exclusive_group_sum_to_at_most_one():
    annotation = Annotation("s", SHAPE)
    for name, locked in (("a", False), ("b", False), ("c", True), ("d", False)):
        matte = soft_matte(name, top=FULL // 4)
        matte.props = MatteProps(name, group="organs" if name != "d" else None, is_locked=locked)
        annotation.add(matte)
    before = annotation.copy()
    painted = annotation.matte("a")
    builder = StrokeBuilder(painted, BrushSettings(radius_px=40, flow=0.8), 1, others=annotation.others_in_group("a"))
    wander(builder)
    everything = PlaneBox(0, 0, *SHAPE[1:])
    preview, others = builder.preview(everything), builder.preview_others(everything)
    edit = builder.finish_edit()
    edit.apply(annotation)
    assert np.array_equal(painted.slice_stored(1), preview)
    assert set(others) == {"b"}
    assert np.array_equal(annotation.matte("b").slice_stored(1), others["b"])
    total = sum(annotation.matte(m).volume().astype(int) for m in "abc")
    assert total.max() <= FULL
    assert annotation.matte("c").equals(before.matte("c"))
    assert annotation.matte("d").equals(before.matte("d"))
    assert painted.slice_stored(1).max() > FULL // 2
    edit.reversed().apply(annotation)
    assert annotation.equals(before)


def test_strokes_can_mark_what_refining_must_keep():
    matte = Matte("m", SHAPE)
    builder = StrokeBuilder(matte, BrushSettings(radius_px=10, marks_keep=True), 0)
    builder.add_point((50, 50))
    apply(matte, builder)
    assert np.array_equal(matte.slice_stored(0, layer="keep") > 0, matte.slice_stored(0) > 0)


def test_the_unknown_brush_paints_and_clears_the_band():
    matte = Matte("m", SHAPE)
    for value, expected in ((1.0, True), (0.0, False)):
        builder = StrokeBuilder(matte, BrushSettings(radius_px=10, mode="unknown", value=value), 0)
        builder.add_point((50, 50))
        assert builder.finish_edit().text == ("Paint unknown band" if expected else "Clear unknown band")
        apply(matte, builder)
        assert bool(matte.slice_stored(0, layer="unknown").any()) is expected
    assert not matte.volume().any()


def test_undo_of_a_stroke_holds_only_the_tiles_it_touched():
    matte = Matte("m", (1, 2048, 2048))
    builder = StrokeBuilder(matte, BrushSettings(radius_px=20), 0)
    builder.add_point((1000, 1000))
    edit = builder.finish_edit()
    assert edit.nbytes < 4 * 45 * 45 * 2


@pytest.mark.parametrize("wrong", [{"spacing": 0.2}, {"flow": 1.5}, {"radius_px": 0.0}, {"hardness": -0.1}])
def test_impossible_brushes_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        BrushSettings(**wrong)
