from __future__ import annotations

import numpy as np
import pytest

from medapp.scan.scan import Window
from medapp.ui.canvas.plane import Plane
from medapp.ui.canvas.raster import SliceRaster, diverging_ramp
from tests.ui.canvas.conftest import make_scan

CT = Window(40, 400)


def greys(scan, window=CT, is_inverted=False, index=0):
    image = SliceRaster()
    picture = image.render(scan, Plane.of(scan, 0), index, window, is_inverted)
    return np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), picture.width(), 4)[..., 2::-1].copy()


def expected(values, window):
    return np.clip(np.floor((values - window.center) / window.width * 255 + 128), 0, 255)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "int8", "int32", "float32", "bool"])
def test_every_stored_type_shows_the_same_greys(dtype):
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 2 if dtype == "bool" else 120, (1, 9, 11)).astype(dtype)
    scan = make_scan(stored=stored, slope=2.0, intercept=-30.0, geometry=None)
    window = Window(40.0, 150.0)

    shown = greys(scan, window)

    values = stored[0].astype(np.float64) * 2 - 30
    assert np.abs(shown[..., 0] - expected(values, window)).max() <= 1
    assert (shown[..., 0] == shown[..., 2]).all()


def test_negative_values_and_negative_slopes_keep_their_order():
    stored = np.array([[[-1000, -1, 0, 1, 1000]]], dtype=np.int16)
    up = greys(make_scan(stored=stored, geometry=None), Window(0, 2500))[0, :, 0].astype(int)
    down = greys(make_scan(stored=stored, geometry=None, slope=-1.0), Window(0, 2500))[0, :, 0].astype(int)

    assert (np.diff(up) >= 0).all()
    assert (np.diff(down) <= 0).all()
    assert up[0] < up[2] < up[-1]


def test_inverted_display_swaps_black_and_white():
    scan = make_scan(geometry=None)
    plain, inverted = greys(scan), greys(scan, is_inverted=True)

    assert (plain.astype(int) + inverted == 255).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colours_are_shown_as_stored(dtype):
    rng = np.random.default_rng(2)
    eight = rng.integers(0, 256, (1, 5, 7, 3)).astype(np.uint8)
    stored = eight if dtype == "uint8" else eight.astype(np.uint16) * 257
    scan = make_scan(stored=stored, geometry=None, unit="arbitrary", modality=None)

    assert np.array_equal(greys(scan), eight[0])


def test_difference_colours_survive_greyscale():
    ramp = diverging_ramp()
    rgb = np.stack([(ramp >> shift) & 255 for shift in (16, 8, 0)], axis=1)
    lightness = rgb @ np.array([0.2126, 0.7152, 0.0722])

    assert (np.diff(lightness) > -0.6).all()
    assert lightness[-1] - lightness[128] > 50
    assert lightness[128] - lightness[0] > 50
    assert np.ptp(rgb[128].astype(int)) <= 4  # zero is grey
