import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medapp.annotation.trimap import TrimapBand, box_of, trimap_from_alpha, trimap_from_mask, widened


def square(side=120, half=40):
    mask = np.zeros((side, side), dtype=bool)
    mask[side // 2 - half : side // 2 + half + 1, side // 2 - half : side // 2 + half + 1] = True
    return mask


def band_widths(trimap, mask, row):
    """Unknown pixels inside and outside of the left border on one row."""
    border = int(np.flatnonzero(mask[row])[0])
    unknown = trimap[row] == 0.5
    inside = int(np.argmin(unknown[border:]))
    outside = int(np.argmin(unknown[:border][::-1]))
    return inside, outside


@given(hnp.arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30))), st.floats(0.2, 4), st.floats(0.2, 4))
@settings(max_examples=60, deadline=None)
def test_values_are_exactly_three_and_known_pixels_follow_the_mask(mask, y, x):
    trimap = trimap_from_mask(mask, (y, x))
    assert trimap.dtype == np.float32
    assert set(np.unique(trimap)) <= {0.0, 0.5, 1.0}
    assert not ((trimap == 1) & ~mask).any()
    assert not ((trimap == 0) & mask).any()


def test_widths_are_millimetres_inside_and_outside_apart():
    mask = square()
    trimap = trimap_from_mask(mask, (0.25, 0.25), TrimapBand(1.0, 1.5))
    assert band_widths(trimap, mask, 60) == (4, 6)


def test_pixels_that_are_not_square_give_an_even_band():
    mask = np.zeros((80, 80), dtype=bool)
    mask[20:60, 20:60] = True
    trimap = trimap_from_mask(mask, (1.0, 0.5), TrimapBand(3.0, 3.0, most_of_box=0.5))
    assert (trimap[40, 20:60] == 0.5).sum() == 12  # 3 mm of 0.5 mm pixels on either side
    assert (trimap[20:60, 40] == 0.5).sum() == 6  # 3 mm of 1 mm pixels
    assert (trimap[:20, 40] == 0.5).sum() == 3


def test_without_spacing_widths_are_pixels():
    mask = square()
    assert band_widths(trimap_from_mask(mask, None, TrimapBand(3, 5)), mask, 60) == (3, 5)


def test_at_least_two_pixels_and_at_most_a_share_of_the_box():
    mask = square(120, 40)
    assert band_widths(trimap_from_mask(mask, (3.0, 3.0)), mask, 60) == (2, 2)
    widest = trimap_from_mask(mask, (0.05, 0.05))  # 20 and 30 px wanted, 12 % of 81 px allowed
    inside, outside = band_widths(widest, mask, 60)
    assert inside == outside == 9


def test_thin_things_keep_a_sure_middle():
    mask = np.zeros((60, 60), dtype=bool)
    mask[10:50, 30:33] = True
    mask[5, 5] = True
    trimap = trimap_from_mask(mask)
    assert (trimap[10:50, 31] == 1).sum() > 20
    assert trimap[5, 5] == 1
    assert (trimap == 0.5).any()


def test_locked_pixels_are_never_unknown():
    mask = square()
    locked = np.zeros(mask.shape, dtype=bool)
    locked[:60] = True
    trimap = trimap_from_mask(mask, None, locked=locked)
    assert not (trimap[:60] == 0.5).any()
    assert np.array_equal(trimap[60:], trimap_from_mask(mask)[60:])
    other = np.zeros(mask.shape, dtype=np.float32)  # what the locked layer holds wins over the mask
    assert not trimap_from_mask(mask, None, locked=locked, alpha=other)[:60].any()


def test_a_mask_that_fills_the_picture_has_no_border():
    assert (trimap_from_mask(np.ones((20, 20), dtype=bool)) == 1).all()
    assert not trimap_from_mask(np.zeros((20, 20), dtype=bool)).any()
    half = np.zeros((20, 40), dtype=bool)
    half[:, :20] = True
    assert (trimap_from_mask(half)[:, 0] == 1).all()


def test_soft_pixels_of_a_matte_are_its_unknown_band():
    alpha = np.array([[0.0, 0.01, 0.3, 0.99, 1.0]], dtype=np.float32)
    assert trimap_from_alpha(alpha).tolist() == [[0, 0, 0.5, 1, 1]]


def test_the_band_grows_where_readers_disagree_but_not_on_locked_pixels():
    trimap = np.array([[0.0, 0.0, 1.0, 1.0]], dtype=np.float32)
    disagree, locked = np.array([[False, True, True, False]]), np.array([[False, False, True, False]])
    assert widened(trimap, disagree, locked).tolist() == [[0, 0.5, 1, 1]]
    assert trimap.tolist() == [[0, 0, 1, 1]]


def test_the_box_holds_every_pixel():
    mask = np.zeros((10, 12), dtype=bool)
    assert box_of(mask) is None
    mask[3, 4] = mask[7, 2] = True
    assert box_of(mask) == (2, 3, 5, 8)


@pytest.mark.parametrize("spacing", [None, (0.7, 0.7), (5.0, 0.5)])
def test_the_same_mask_elsewhere_has_the_same_band(spacing):
    mask = np.zeros((90, 90), dtype=bool)
    mask[20:40, 20:50] = True
    moved = np.roll(mask, (17, 23), axis=(0, 1))
    assert np.array_equal(
        np.roll(trimap_from_mask(mask, spacing), (17, 23), axis=(0, 1)), trimap_from_mask(moved, spacing)
    )
