from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medapp.export.png import alpha_pixels, cutout_pixels, image_pixels, value_map, write_png
from medapp.scan.scan import Scan, Window
from tests.export.making import make_scan


def test_sixteen_bits_give_every_hu_back(tmp_path):
    scan = make_scan("CT")
    mapping = value_map(scan, 16)
    write_png(tmp_path / "a.png", image_pixels(scan, 2, mapping))

    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    assert pixels.dtype == np.uint16
    assert mapping.is_exact
    assert np.array_equal(pixels * mapping.slope + mapping.intercept, scan.slice_values(2))


def test_float_values_come_back_within_half_a_step(tmp_path):
    values = np.random.default_rng(0).normal(3, 11, (2, 8, 9)).astype(np.float32)
    scan = Scan(values)
    mapping = value_map(scan, 16)

    for z in range(2):
        again = image_pixels(scan, z, mapping) * mapping.slope + mapping.intercept
        assert np.abs(again - values[z]).max() <= mapping.slope * 0.5001
    assert mapping.slope == pytest.approx((values.max() - values.min()) / 65535)


def test_a_constant_image_survives():
    scan = Scan(np.full((1, 4, 4), 7.5, np.float32))

    mapping = value_map(scan, 16)
    assert (image_pixels(scan, 0, mapping) * mapping.slope + mapping.intercept == 7.5).all()


def test_alpha_in_sixteen_bits_is_exact_and_in_eight_within_1_in_510():
    alpha = np.arange(65536, dtype=np.uint16).reshape(256, 256)

    assert alpha_pixels(alpha, 16)[1] == 0.0
    pixels, error = alpha_pixels(alpha, 8)
    assert error <= 1 / 510
    assert np.abs(pixels / 255 - alpha / 65535).max() == error


def test_files_hold_nothing_but_pixels(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((3, 5), np.uint16))

    data = (tmp_path / "a.png").read_bytes()
    chunks, position = [], 8
    while position < len(data):
        chunks.append(data[position + 4 : position + 8])
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}


def test_cutouts_have_straight_alpha_over_the_display_window():
    scan = Scan(np.array([[[-200, 40, 240, 1000]]], np.int16), windows=(Window(40, 400),))
    alpha = np.array([[0, 65535, 32768, 65535]], np.uint16)

    pixels = cutout_pixels(scan, 0, value_map(scan, 8), alpha)
    assert pixels[0, :, 0].tolist() == [0, 128, 255, 255]
    assert pixels[0, :, 3].tolist() == [0, 255, 128, 255]
    assert np.array_equal(np.asarray(Image.fromarray(pixels)), pixels)


def test_colour_stays_as_it_is():
    rgb = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3), dtype=np.uint8)

    assert value_map(Scan(rgb), 16) is None
    assert np.array_equal(image_pixels(Scan(rgb), 0, None), rgb[0])
