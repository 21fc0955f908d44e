"""A slice on a finer grid: what was measured stays, places stay, and what cannot work is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medapp.errors import UnsuitableModelError
from medapp.networks.card import MR_SUPER_RESOLUTION, Intake
from medapp.networks.library import LoadedModel
from medapp.restoration.fit import ScanFacts, fit_card
from medapp.restoration.interpolation import resolvers
from medapp.restoration.kspace import onto_finer_grid, zero_filled
from medapp.restoration.restorer import NetworkRestorer
from medapp.scan.finer import FinerGrid
from medapp.scan.geometry import Geometry
from tests.networks.test_card import CARD

MR_CARD = replace(
    CARD,
    task=MR_SUPER_RESOLUTION,
    takes=(Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles"),),
    scale=2,
    spacing_mm=None,
)


class _Wild(nn.Module):
    """Changes every frequency, also far out of the range."""

    def forward(self, image):
        return image * 1.7 + 0.3 + torch.roll(image, 3, dims=-1) ** 2


class _Enlarging(nn.Module):
    """As networks that enlarge do it: pixels are divided."""

    def forward(self, image):
        return functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)


def _restorer(network, card=MR_CARD, tile_px=0, **changes):
    return NetworkRestorer(LoadedModel(card, network, torch.device("cpu")), tile_px, "MR", **changes)


def _slice(shape=(40, 52), seed=0):
    return np.random.default_rng(seed).gamma(2.0, 150.0, shape).astype(np.float32)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("shape", [(40, 52), (33, 47)])
@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("tile_px", [0, 64])
def test_measured_frequencies_stay_whatever_the_network_does(factor, shape, strength, tile_px):
    values = _slice(shape)
    made = _restorer(_Wild(), replace(MR_CARD, scale=factor), tile_px).restore_slice(values, strength)

    wanted = onto_finer_grid(values, factor)
    assert made.values.shape == (shape[0] * factor, shape[1] * factor)
    np.testing.assert_allclose(
        zero_filled(made.values, factor), zero_filled(wanted, factor), atol=1e-5 * np.abs(wanted).max()
    )
    assert np.abs(made.values - wanted).max() > 0.1 * wanted.std()  # beyond them it did something
    np.testing.assert_array_equal(made.before, wanted)


def test_measured_frequencies_change_where_that_is_allowed():
    values = _slice()
    made = _restorer(_Wild(), keeps_measured=False).restore_slice(values).values
    wanted = onto_finer_grid(values, 2)
    assert np.abs(zero_filled(made, 2) - zero_filled(wanted, 2)).max() > 0.1 * wanted.std()


def test_a_slice_that_lies_on_the_finer_grid_already_is_restored_as_it_is():
    filled = onto_finer_grid(_slice(), 2)
    made = _restorer(_Wild()).restore_slice(filled, is_filled=True)
    assert made.values.shape == filled.shape
    assert made.before is None
    np.testing.assert_array_equal(made.values, _restorer(_Wild()).restore_slice(_slice()).values)


FIRST = replace(MR_CARD, takes=(replace(MR_CARD.takes[0], first_filter="nlm"),))


def test_a_network_with_a_first_filter_goes_on_from_what_the_filter_leaves():
    values = _slice()
    made = _restorer(nn.Identity(), FIRST).restore_slice(values)

    filled = onto_finer_grid(values, 2)
    rival = next(one for one in resolvers(2) if one.name == "non-local means" and one.keeps_measured)
    np.testing.assert_allclose(made.values, rival.run(filled, 2), atol=1e-3 * filled.max())
    np.testing.assert_array_equal(made.before, filled)  # beside it stands the original, not the filtered slice
    assert np.abs(made.values - filled).max() > 0.05 * filled.std()


def test_a_first_filter_does_not_spread_voxels_that_are_not_finite():
    values = _slice()
    values[10, 20:23] = np.nan
    assert np.isnan(_restorer(_Wild(), FIRST).restore_slice(values).values).sum() == 2 * 6


def test_strength_zero_is_the_interpolated_slice():
    values = _slice()
    made = _restorer(_Wild()).restore_slice(values, strength=0.0)
    np.testing.assert_array_equal(made.values, onto_finer_grid(values, 2))


def test_voxels_that_are_not_finite_stay_in_their_place_and_spread_nowhere():
    values = _slice()
    values[10, 20:23] = np.nan
    made = _restorer(_Wild()).restore_slice(values).values
    assert np.isnan(made[20, [40, 42, 44]]).all()
    assert np.isnan(made).sum() == 2 * 6


def test_a_slice_without_spread_is_interpolated_only():
    made = _restorer(_Wild()).restore_slice(np.full((16, 16), 7.0, np.float32)).values
    np.testing.assert_allclose(made, 7.0, rtol=1e-6)


def test_a_slice_that_is_too_small_for_its_frequencies_is_refused():
    with pytest.raises(UnsuitableModelError, match="too small"):
        _restorer(_Wild(), replace(MR_CARD, scale=4)).restore_slice(_slice((8, 8)), is_filled=True)


@pytest.mark.parametrize("tile_px", [0, 64])
def test_a_network_that_enlarges_gives_its_own_grid(tile_px):
    card = replace(CARD, scale=2, config={"scale": 2})
    values = (0.1 * np.add.outer(np.arange(72), np.arange(90))).astype(np.float32)
    values[5, 5] = 9000.0
    restorer = _restorer(_Enlarging(), card, tile_px)
    made = restorer.restore_slice(values)

    assert made.values.shape == (144, 180)
    inside = np.ones((144, 180), bool)
    inside[8:16, 8:16] = False
    np.testing.assert_allclose(made.values[inside], made.before[inside], atol=0.05)
    np.testing.assert_array_equal(made.values[10:12, 10:12], made.before[10:12, 10:12])  # out of its range
    assert made.outside_range == 4
    with pytest.raises(ValueError, match="by itself"):
        restorer.restore_slice(values, is_filled=True)


def test_finer_pixels_lie_where_they_belong():
    geometry = Geometry.from_spacing((3.0, 1.0, 0.8), (10.0, -20.0, 30.0))
    finer = FinerGrid(4).geometry(geometry)
    assert finer.spacing_mm == pytest.approx((3.0, 0.25, 0.2))
    for index in ((0, 0, 0), (2, 5, 7)):
        np.testing.assert_allclose(finer.to_mm(FinerGrid(4).index(index)), geometry.to_mm(index))

    divided = FinerGrid(2, keeps_centres=False).geometry(geometry)
    corner, far = np.array((0.0, -0.5, -0.5)), np.array((0.0, 9.5, 9.5))
    np.testing.assert_allclose(divided.to_mm(corner), geometry.to_mm(corner))
    np.testing.assert_allclose(divided.to_mm(np.array((0.0, 19.5, 19.5))), geometry.to_mm(far))


def test_values_at_the_old_centres_are_unchanged_by_any_way_of_interpolating():
    values = np.random.default_rng(2).normal(size=(31, 33)).astype(np.float32)
    for made in (onto_finer_grid(values, 4), FinerGrid(4).linear(values), FinerGrid(4).nearest(values)):
        np.testing.assert_allclose(made[::4, ::4], values, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "spacing", "level", "told"),
    [
        ((10, 256, 256), (1.0, 1.0), "green", "made for MR"),
        ((10, 256, 256), (0.4, 0.4), "amber", "its result here has 0.20 mm"),
        ((10, 12, 256), (1.0, 1.0), "blocked", "at least 16 px"),
        ((10, 5000, 256), (1.0, 1.0), "blocked", "10000 px wide"),
    ],
)
def test_a_finer_result_decides_about_the_fit(shape, spacing, level, told):
    fit = fit_card(ScanFacts("MR", "arbitrary", shape, spacing), replace(MR_CARD, spacing_mm=(0.4, 0.6)))
    assert fit.level == level
    assert told in fit.reason
