"""A rough mask, or a box, as the picture that a network sees."""

import numpy as np

from medapp.matting.rough import REACH_PX, box_picture, rough_picture


def test_the_picture_tells_each_pixel_of_the_band_how_far_the_border_is():
    mask = np.zeros((60, 60), dtype=bool)
    mask[20:50, 10:] = True
    seen = rough_picture(mask)
    down = seen[:, 40]  # across the upper border
    assert seen.dtype == np.float32
    assert np.array_equal(seen > 0.5, mask)
    np.testing.assert_allclose(np.diff(down[14:26]), 1 / (2 * REACH_PX), atol=1e-6)
    assert (down[35], down[5]) == (1.0, 0.0)


def test_a_mask_without_a_border_is_all_inside_or_all_outside():
    assert rough_picture(np.ones((9, 9), dtype=bool)).min() == 1
    assert rough_picture(np.zeros((9, 9), dtype=bool)).max() == 0


def test_of_a_box_nothing_is_known_but_that_the_rest_is_outside():
    box = box_picture((2.4, -5.0, 6.6, 3.0), (8, 10))
    assert set(np.unique(box)) == {0.0, 0.5}
    assert np.array_equal(np.flatnonzero(box.any(axis=0)), [2, 3, 4, 5, 6])
    assert np.array_equal(np.flatnonzero(box.any(axis=1)), [0, 1, 2])
