"""An enlarged picture sends the light that the picture sends, around every place, whatever the network does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medapp.networks.card import Intake
from medapp.networks.library import LoadedModel
from medapp.restoration.light import keep_light, to_light
from medapp.restoration.restorer import NetworkRestorer
from medapp.restoration.trust import restore_with_trust
from tests.networks.test_card import CARD

SLIDE = (Intake("SM", "colour", (0.0, 255.0)),)


class _Tinted(nn.Module):
    """Enlarges linearly, and moves each colour: more of it towards the right."""

    def __init__(self, factor, by=(0.06, -0.04, 0.02)):
        super().__init__()
        self.factor, self.by = factor, by

    def forward(self, image):
        made = functional.interpolate(image, scale_factor=self.factor, mode="bilinear", align_corners=False)
        across = torch.linspace(0.5, 1, made.shape[-1])
        return made + torch.tensor(self.by)[:, None, None] * across


def _restorer(factor=2, tile_px=0, **changes):
    card = replace(CARD, takes=SLIDE, channels=3, scale=factor, config={"scale": factor}, size_multiple=8)
    return NetworkRestorer(LoadedModel(card, _Tinted(factor).eval(), torch.device("cpu")), tile_px, **changes)


def _picture(size=(64, 88)):
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [130 + 60 * np.sin(x / 23 + colour) * np.cos(y / 19) for colour in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def _means(picture, factor=1):
    """Mean light of blocks of 16 coarse pixels, as grey levels out of 255."""
    light = 255 * to_light(picture)
    side = 16 * factor
    height, width = (size // side for size in light.shape[:2])
    return light[: height * side, : width * side].reshape(height, side, width, side, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("tile_px", [0, 64])
def test_the_mean_light_around_a_place_is_that_of_the_picture(factor, tile_px):
    picture = _picture()
    tinted = _restorer(factor, tile_px, keeps_light=False).restore_slice(picture).values
    made = _restorer(factor, tile_px).restore_slice(picture).values
    assert made.dtype == np.uint8
    assert np.abs(_means(tinted, factor) - _means(picture)).max() > 5
    assert np.abs(_means(made, factor) - _means(picture)).max() < 1.5
    np.testing.assert_allclose(255 * to_light(made).mean((0, 1)), 255 * to_light(picture).mean((0, 1)), atol=1.0)


def test_pictures_of_sixteen_bits_and_a_part_of_the_change_keep_it_too():
    deep = (_picture().astype(np.uint16) * 257) + 40
    made = _restorer().restore_slice(deep).values
    assert made.dtype == np.uint16
    assert np.abs(_means(made / 257, 2) - _means(deep / 257)).max() < 1.5
    half = _restorer().restore_slice(deep, 0.5).values
    assert np.abs(_means(half / 257, 2) - _means(deep / 257)).max() < 1.5


def test_unknown_pixels_stay_and_change_nothing_around_them():
    picture = _picture().astype(np.float32)
    picture[20:30, 20:30] = np.nan
    picture[5, 5, 0] = 400.0  # out of the range of the model
    restored = _restorer().restore_slice(picture)
    made = restored.values
    assert np.isnan(made[40:60, 40:60]).all()
    np.testing.assert_array_equal(made[10:12, 10:12, 0], restored.before[10:12, 10:12, 0])
    assert np.isfinite(made).sum() == made.size - 20 * 20 * 3
    whole = _restorer().restore_slice(_picture().astype(np.float32)).values
    assert np.abs(made[62:] - whole[62:]).max() < 2


def test_texture_that_the_network_does_not_draw_is_counted_on():
    random = np.random.default_rng(0)
    coarse = (140 + random.normal(0, 12, (64, 64, 3))).astype(np.float32)
    flat = np.repeat(np.repeat(coarse, 2, 0), 2, 1)
    made = keep_light(flat, coarse, 2)
    assert -6 < (made - flat).mean() < -0.2  # darker: finer texture would add light of its own
    np.testing.assert_allclose(keep_light(flat, np.full_like(coarse, 140), 2).mean(), 140, atol=1.0)


def test_a_network_that_tints_everything_alike_is_trusted_alike():
    made = restore_with_trust(_restorer(), _picture())
    assert made.spread.shape == (128, 176)
    free = restore_with_trust(_restorer(keeps_light=False), _picture())
    assert made.spread.mean() < free.spread.mean()
