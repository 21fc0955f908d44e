from __future__ import annotations

import numpy as np

from medapp.scan.geometry import Geometry
from medapp.ui.canvas.compare import align, difference, difference_limit
from medapp.ui.canvas.plane import Plane
from tests.ui.canvas.conftest import make_scan


def finer(scan):
    """The same field of view with pixels of half the size."""
    stored = scan.stored.repeat(2, axis=1).repeat(2, axis=2)
    z, y, x = scan.spacing_mm
    origin = scan.geometry.to_mm(np.array([0.0, -0.25, -0.25]))
    return make_scan(stored=stored, geometry=Geometry.from_spacing((z, y / 2, x / 2), tuple(origin)))


def test_finer_pixels_lie_over_the_same_millimetres():
    coarse = make_scan((4, 6, 8))
    fine = finer(coarse)
    for axis in range(3):
        plane = Plane.of(coarse, axis)
        at = align(coarse, plane, 2, fine)
        other = Plane.of(fine, axis)
        low, high = at.to_frame.map(0.0, 0.0), at.to_frame.map(float(other.width), float(other.height))
        assert np.allclose(low, (0, 0), atol=1e-6)
        assert np.allclose(high, (plane.width, plane.height), atol=1e-6)
        assert at.index in ((2,) if axis == 0 else (4, 5))


def test_a_slice_that_the_other_series_does_not_have_is_left_out():
    scan = make_scan((6, 6, 8))
    short = make_scan((3, 6, 8))

    assert align(scan, Plane.of(scan, 0), 1, short).index == 1
    assert align(scan, Plane.of(scan, 0), 5, short).index is None


def test_difference_is_in_native_units_whatever_the_storage():
    before = make_scan((3, 6, 8), slope=2.0, intercept=-100.0)
    after = make_scan(stored=(before.values() + 7.0).astype(np.float32), geometry=before.geometry)
    plane = Plane.of(before, 0)

    values = difference(before, align(before, plane, 1, before), after, align(before, plane, 1, after))

    assert np.allclose(values, 7.0)


def test_difference_to_finer_pixels_compares_the_same_places():
    coarse = make_scan(stored=np.tile(np.arange(40, dtype=np.int16), (2, 30, 1)))
    fine = make_scan(
        stored=np.tile((np.arange(80) - 0.5) / 2, (2, 60, 1)).astype(np.float32),
        geometry=finer(coarse).geometry,
    )
    plane = Plane.of(coarse, 0)

    values = difference(coarse, align(coarse, plane, 0, coarse), fine, align(coarse, plane, 0, fine))

    assert values.shape == (60, 80)
    assert np.abs(values[2:-2, 2:-2]).max() < 1e-3


def test_the_difference_of_colours_is_that_of_their_mean_and_there_is_none_to_grey():
    colour = make_scan(stored=np.full((1, 4, 4, 3), (10, 20, 30), np.uint8), geometry=None)
    finer = make_scan(stored=np.full((1, 8, 8, 3), (13, 20, 36), np.uint8), geometry=None)
    grey = make_scan(stored=np.zeros((1, 8, 8), np.uint8), geometry=None)
    at = {id(one): align(colour, Plane.of(colour, 0), 0, one) for one in (colour, finer, grey)}

    np.testing.assert_allclose(difference(colour, at[id(colour)], finer, at[id(finer)]), np.full((8, 8), 3.0))
    assert difference(colour, at[id(colour)], grey, at[id(grey)]) is None


def test_difference_range_is_round_and_holds_nearly_everything():
    rng = np.random.default_rng(0)
    limit = difference_limit(rng.normal(0, 11.0, (64, 64)).astype(np.float32))

    assert limit == 50.0
    assert difference_limit(np.zeros((8, 8), np.float32)) == 1.0
