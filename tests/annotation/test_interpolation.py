from itertools import pairwise

import numpy as np
import pytest

from medapp.annotation.interpolation import interpolate, interpolate_between


def soft_disc(radius, centre=(60.0, 60.0), softness=6.0, side=120, peak=1.0):
    y, x = np.mgrid[:side, :side]
    distance = np.hypot(y - centre[0], x - centre[1])
    return (peak * np.clip((radius - distance) / softness + 0.5, 0, 1)).astype(np.float32)


def hard_disc(radius, centre=(60.0, 60.0), side=120):
    return (soft_disc(radius, centre, 1e-3, side) >= 0.5).astype(np.float32)


def test_key_slices_come_back_exactly():
    a, b = soft_disc(20), soft_disc(35)
    assert np.array_equal(interpolate(a, 4, b, 9, 4), a)
    assert np.array_equal(interpolate(a, 4, b, 9, 9), b)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_radius_grows_evenly(share):
    found = interpolate(hard_disc(20), 0, hard_disc(40), 1, share)
    radius = np.sqrt(found.sum() / np.pi)
    assert radius == pytest.approx(20 + 20 * share, abs=0.6)
    assert set(np.unique(found)) <= {0.0, 1.0}  # hard stays hard


def test_soft_edges_stay_soft():
    found = interpolate(soft_disc(25, softness=8), 0, soft_disc(35, softness=8), 1, 0.5)
    assert np.abs(found - soft_disc(30, softness=8)).max() < 0.06
    assert found.dtype == np.float32


def test_softness_itself_is_interpolated():
    found = interpolate(soft_disc(30, softness=2), 0, soft_disc(30, softness=14), 1, 0.5)
    assert np.abs(found - soft_disc(30, softness=8)).max() < 0.1


def test_equal_slices_stay_equal_between():
    a = soft_disc(30)
    assert np.array_equal(interpolate(a, 0, a, 5, 2), a)


def test_a_thing_that_runs_aslant_does_not_vanish_between():
    found = interpolate(hard_disc(12, (30, 30)), 0, hard_disc(12, (90, 80)), 1, 0.5)
    expected = hard_disc(12, (60, 55))
    assert 2 * np.minimum(found, expected).sum() / (found.sum() + expected.sum()) > 0.95


def test_two_things_that_stay_are_not_moved():
    left, right = hard_disc(12, (60, 25)), hard_disc(12, (60, 95))
    found = interpolate(np.maximum(left, right), 0, np.maximum(left, right * (hard_disc(8, (60, 95)))), 1, 0.5)
    assert found[60, 25] == 1
    assert found[60, 95] == 1
    assert found[60, 60] == 0


def test_towards_an_empty_slice_it_shrinks_to_nothing():
    empty, a = np.zeros((120, 120), dtype=np.float32), soft_disc(30)
    sizes = [interpolate(a, 0, empty, 4, z).sum() for z in range(5)]
    assert all(later < earlier for earlier, later in pairwise(sizes))
    assert sizes[-1] == 0
    assert not interpolate(empty, 0, empty, 4, 2).any()
    assert interpolate(empty, 0, a, 4, 1).sum() < interpolate(empty, 0, a, 4, 3).sum()


def test_a_faint_matte_keeps_its_strength():
    found = interpolate(soft_disc(30, peak=0.4), 0, soft_disc(30, peak=0.8), 1, 0.5)
    assert found.max() == pytest.approx(0.6, abs=0.02)


def test_distances_are_millimetres():
    a, b = hard_disc(15, (60, 50)), np.maximum(hard_disc(25, (60, 70)), hard_disc(15, (60, 50)))
    tall = interpolate(np.repeat(a, 2, axis=0), 0, np.repeat(b, 2, axis=0), 1, 0.5)[::2]  # pixels of half the height
    found = interpolate(a, 0, b, 1, 0.5, (2.0, 2.0))
    assert np.array_equal(found, interpolate(a, 0, b, 1, 0.5))
    aslant = interpolate(a, 0, b, 1, 0.5, (2.0, 1.0))
    flat = interpolate(np.repeat(a, 2, axis=0), 0, np.repeat(b, 2, axis=0), 1, 0.5, (1.0, 1.0))[::2]
    assert np.array_equal(flat, tall)
    assert 2 * np.minimum(aslant, flat).sum() / (aslant.sum() + flat.sum()) > 0.97


def test_only_slices_between_annotated_ones_are_made_in_order():
    keys = {9: soft_disc(40), 3: soft_disc(20), 5: soft_disc(30)}
    made = dict(interpolate_between(keys))
    assert list(made) == [4, 6, 7, 8]
    areas = [made[z].sum() for z in made]
    assert areas == sorted(areas)
    assert np.array_equal(made[4], interpolate(keys[3], 3, keys[5], 5, 4))
    assert list(interpolate_between({3: soft_disc(20)})) == []


def test_a_matte_up_to_the_edge_of_the_picture_reaches_the_edge():
    a = np.ones((40, 40), dtype=np.float32)
    b = a.copy()
    b[:, 20:] = 0
    found = interpolate(a, 0, b, 1, 0.5)
    assert found[:, 0].min() == 1
    assert np.array_equal(interpolate(a, 0, a, 2, 1), a)
