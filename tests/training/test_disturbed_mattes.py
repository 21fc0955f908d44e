"""Disturbed masks are what a hurried person draws: near the truth, never lost, the same for the same seed."""

import numpy as np
import pytest
from scipy import ndimage

from medapp.training.degradations.mattes import (
    click_inside,
    click_outside,
    disturbed_box,
    disturbed_mask,
    disturbed_trimap,
)


def _disc(side=96, radius=24, centre=(48, 48)):
    y, x = np.mgrid[:side, :side]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def _farthest_px(mask, disturbed):
    """How far the changed pixels lie from the border of the mask."""
    depth = np.where(mask, ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask))
    return float(depth[mask != disturbed].max())


@pytest.mark.parametrize("px", [2, 4, 6])
def test_the_border_moves_as_far_as_was_asked_and_no_farther(px):
    mask = _disc()
    farthest = [_farthest_px(mask, disturbed_mask(mask, px, seed)) for seed in range(12)]
    assert max(farthest) <= px + 1
    assert min(farthest) >= px - 1.5


def test_masks_are_grown_and_shrunk_and_wavy_by_the_seed():
    mask = _disc()
    disturbed = [disturbed_mask(mask, 5, seed) for seed in range(12)]
    areas = [int(one.sum()) for one in disturbed]
    assert min(areas) < 0.9 * mask.sum() < 1.1 * mask.sum() < max(areas)
    np.testing.assert_array_equal(disturbed_mask(mask.copy(), 5, 3), disturbed[3])
    assert not np.array_equal(disturbed[3], disturbed[4])


def test_thin_parts_keep_their_middle():
    mask = np.zeros((64, 64), bool)
    mask[30:33, 4:60] = True  # a vessel of three pixels
    for seed in range(12):
        assert (disturbed_mask(mask, 6, seed) & mask).sum() > 0.3 * mask.sum()


def test_a_thing_cut_by_the_edge_of_the_picture_stays_cut_by_it():
    mask = np.zeros((64, 64), bool)
    mask[:, :30] = True
    for seed in range(6):
        disturbed = disturbed_mask(mask, 4, seed)
        assert disturbed[:, 0].all()  # the edge of the picture is no border of the thing
        assert not disturbed[:, 40:].any()


def test_nothing_stays_nothing_and_everything_stays_everything():
    nothing, everything = np.zeros((16, 16), bool), np.ones((16, 16), bool)
    assert not disturbed_mask(nothing, 4, 0).any()
    assert disturbed_mask(everything, 4, 0).all()
    np.testing.assert_array_equal(disturbed_mask(_disc(), 0, 0), _disc())
    with pytest.raises(ValueError, match="negative"):
        disturbed_mask(_disc(), -1, 0)


def test_the_true_border_lies_in_the_unknown_band_of_the_disturbed_trimap():
    mask = _disc()
    for seed in range(8):
        trimap = disturbed_trimap(mask, 4, seed)
        assert set(np.unique(trimap)) == {0.0, 0.5, 1.0}
        known = trimap != 0.5
        assert np.mean((trimap[known] == 1) == mask[known]) > 0.999


def test_clicks_land_well_inside_and_near_outside():
    mask = _disc()
    depth = ndimage.distance_transform_edt(mask)
    places = {click_inside(mask, seed) for seed in range(20)}
    assert len(places) > 10
    assert all(depth[y, x] >= 11 for x, y in places)
    x, y = click_outside(mask, 0)
    assert not mask[y, x]
    assert ndimage.distance_transform_edt(~mask)[y, x] <= 20
    assert click_outside(np.ones((8, 8), bool), 0) is None
    with pytest.raises(ValueError, match="empty"):
        click_inside(np.zeros((8, 8), bool), 0)


def test_boxes_are_a_little_off():
    mask = _disc()
    boxes = {disturbed_box(mask, seed) for seed in range(20)}
    assert len(boxes) > 10
    for x0, y0, x1, y1 in boxes:
        assert mask[y0:y1, x0:x1].sum() > 0.85 * mask.sum()
        assert max(x1 - x0, y1 - y0) <= 1.25 * 47
