import numpy as np
import pytest

from medapp.annotation.annotation import Annotation
from medapp.annotation.fills import area_at, area_inside, combine, fill, invert, smooth
from medapp.annotation.labels import label_style
from medapp.annotation.matte import FULL, Matte, MatteProps, to_alpha, to_stored
from medapp.errors import UsageError

SHAPE = (5, 300, 140)


@pytest.fixture
def soft():
    """A matte and the plain array that it must equal."""
    random = np.random.default_rng(7)
    matte, plain = Matte("m", SHAPE), np.zeros(SHAPE, np.uint16)
    for _ in range(12):
        start = tuple(int(random.integers(0, n - 3)) for n in SHAPE)
        shape = tuple(int(random.integers(1, n - s + 1)) for n, s in zip(SHAPE, start, strict=True))
        values = random.integers(0, 65536, shape).astype(np.uint16)
        patch = matte.make_patch("alpha", start, values)
        matte.paste(patch)
        plain[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] = values
    return matte, plain


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_in_every_plane_equal_a_plain_array(soft, axis):
    matte, plain = soft
    for place in (0, SHAPE[axis] // 2, SHAPE[axis] - 1):
        assert np.array_equal(matte.slice_stored(place, axis), plain.take(place, axis))
        assert np.array_equal(matte.slice_alpha(place, axis), to_alpha(plain.take(place, axis)))
    others = tuple(a for a in range(3) if a != axis)
    assert matte.annotated_slices(axis) == tuple(np.flatnonzero(plain.any(axis=others)))


def test_volume_and_boxes_equal_a_plain_array(soft):
    matte, plain = soft
    assert np.array_equal(matte.volume(), plain)
    assert np.array_equal(matte.read((1, 100, 20), (3, 190, 115)), plain[1:4, 100:290, 20:135])


def test_a_patch_is_cropped_to_what_changes_and_turns_around(soft):
    matte, plain = soft
    after = plain[2:3, 50:200, 30:130].copy()
    after[0, 60:70, 5:9] ^= 1
    patch = matte.make_patch("alpha", (2, 50, 30), after)
    assert (patch.start_zyx, patch.shape) == ((2, 110, 35), (1, 10, 4))
    matte.paste(patch)
    assert np.array_equal(matte.read((2, 50, 30), (1, 150, 100)), after)
    matte.paste(patch.reversed())
    assert np.array_equal(matte.volume(), plain)
    assert matte.make_patch("alpha", (2, 50, 30), plain[2:3, 50:200, 30:130]) is None


def test_a_box_outside_is_refused(soft):
    with pytest.raises(ValueError, match="leaves the volume"):
        soft[0].read((0, 0, 100), (1, 1, 41))


def test_layers_do_not_touch_each_other():
    matte = Matte("m", SHAPE)
    matte.paste(matte.make_patch("unknown", (0, 0, 0), np.ones((1, 4, 4), np.uint8)))
    matte.paste(matte.make_patch("keep", (1, 0, 0), np.ones((1, 4, 4), np.uint8)))
    assert matte.slice_stored(0, layer="unknown").sum() == 16
    assert matte.slice_stored(1, layer="keep").sum() == 16
    assert matte.annotated_slices() == ()
    assert not matte.volume().any()


def test_a_copy_is_not_changed_by_later_strokes(soft):
    matte, plain = soft
    twin = matte.copy()
    matte.paste(matte.make_patch("alpha", (0, 0, 0), np.full((5, 20, 20), 7, np.uint16)))
    assert np.array_equal(twin.volume(), plain)
    assert not twin.equals(matte)


def test_three_mattes_over_a_large_ct_stay_small():
    annotation = Annotation("s", (300, 512, 512))
    yy, xx = np.mgrid[:512, :512]
    disc = np.clip(0.5 + (150 - np.hypot(yy - 256, xx - 256)) / 8, 0, 1)
    for _ in range(3):
        matte = annotation.new_matte()
        annotation.add(matte)
        for z in range(100, 160):
            matte.paste(matte.make_patch("alpha", (z, 0, 0), disc[None]))
    assert sum(m.nbytes for m in annotation) < 110 * 2**20  # dense: 450 MB
    assert np.array_equal(annotation.mattes[2].slice_stored(130), to_stored(disc))


def test_erasing_everything_frees_the_memory(soft):
    matte, _ = soft
    matte.paste(matte.make_patch("alpha", (0, 0, 0), np.zeros(SHAPE, np.uint16)))
    assert matte.nbytes == 0
    assert matte.annotated_slices() == ()


def test_alpha_survives_the_stored_form():
    stored = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_stored(to_alpha(stored)), stored)
    assert list(to_stored(np.array([-1.0, 2.0, np.nan, 0.5]))) == [0, FULL, 0, 32768]


def test_new_mattes_get_the_next_free_label_colour_and_letter():
    annotation = Annotation("s", SHAPE)
    for _ in range(3):
        annotation.add(annotation.new_matte(reader="Ann"))
    assert [(m.label, m.letter, m.colour) for m in annotation] == [
        (1, "A", "#e69f00"),
        (2, "B", "#56b4e9"),
        (3, "C", "#009e73"),
    ]
    annotation.remove(annotation.mattes[1].matte_id)
    assert annotation.new_matte().label == 2


def test_fourteen_labels_differ_in_colour_and_all_in_letter():
    styles = [label_style(n) for n in range(1, 60)]
    assert len({s.colour for s in styles[:14]}) == 14
    assert len({s.letter for s in styles}) == 59
    assert len({s.outline for s in styles[:7]}) == 7


def test_fill_combine_invert_and_smooth():
    matte = Matte("m", (2, 60, 60))
    mask = np.zeros((60, 60), bool)
    mask[10:30, 10:30] = True

    def do(patch):
        matte.paste(patch)
        return matte.slice_alpha(1)

    assert np.array_equal(do(fill(matte, 1, mask, 0.5)) > 0.4, mask)
    assert fill(matte, 1, mask, 0.5) is None
    proposal = np.zeros((60, 60), np.float32)
    proposal[20:40, 20:40] = 1
    added = do(combine(matte, 1, proposal, "add"))
    assert (added[25, 25], round(float(added[12, 12]), 2)) == (1, 0.5)
    assert do(combine(matte, 1, proposal, "subtract"))[25, 25] == 0
    assert np.array_equal(do(combine(matte, 1, proposal, "replace")), proposal)
    inverted = do(invert(matte, 1))
    assert np.array_equal(inverted, 1 - proposal)
    assert 0 < do(smooth(matte, 1))[20, 20] < 1
    assert matte.annotated_slices() == (1,)
    matte.props = MatteProps(is_locked=True)
    with pytest.raises(UsageError, match="locked"):
        invert(matte, 1)


def test_areas_of_a_click_and_a_lasso():
    image = np.zeros((20, 30))
    image[5:10, 5:10] = 100
    image[15:18, 5:10] = 100  # the same value, not connected
    area = area_at(image, (6.2, 6.9), 10)
    assert area.sum() == 25
    assert area[5:10, 5:10].all()
    assert not area_at(image, (-3, 5), 10).any()
    square = area_inside([(2, 3), (8, 3), (8, 9), (2, 9)], (20, 30))
    assert square[5, 5]
    assert not square[5, 9]
    assert 30 <= square.sum() <= 49
    assert not area_inside([(1, 1), (2, 2)], (20, 30)).any()
