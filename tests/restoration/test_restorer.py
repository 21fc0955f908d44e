"""What a user may rely on when a slice comes back: units, range, strength, size, and that nothing is lost."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medapp.errors import Cancelled, ComputeError, UnsuitableModelError
from medapp.networks.library import LoadedModel
from medapp.progress import Progress
from medapp.restoration.classical import classical_restorer
from medapp.restoration.restorer import NetworkRestorer
from tests.networks.test_card import CARD


class _Change(nn.Module):
    """A network that only adds a number in its own range."""

    def __init__(self, amount=0.0):
        super().__init__()
        self.amount = amount
        self.seen = []

    def forward(self, image):
        assert image.shape[-1] % 8 == 0
        assert image.shape[-2] % 8 == 0
        self.seen.append(tuple(image.shape[-2:]))
        return image + self.amount


def _restorer(network, tile_px=0, **changes):
    return NetworkRestorer(LoadedModel(replace(CARD, **changes), network, torch.device("cpu")), tile_px)


def _slice(shape=(50, 70), low=-1024.0, high=3072.0):
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("network_range", [(0.0, 1.0), (-8.0, 24.0), (-1.0, 1.0)])
def test_values_come_back_within_a_hundredth_of_a_hu(network_range):
    values = _slice()
    restored = _restorer(_Change(), network_range=network_range).restore_slice(values)
    assert np.abs(restored.values - values).max() <= 0.01
    assert restored.values.dtype == np.float32
    assert restored.outside_range == 0


@pytest.mark.parametrize("shape", [(8, 8), (33, 47), (64, 65), (5, 200)])
def test_any_size_comes_back_as_it_was(shape):
    assert _restorer(_Change(1.0)).restore_slice(_slice(shape, 0, 100)).values.shape == shape


def test_voxels_outside_of_the_range_keep_their_value_and_are_counted():
    values = _slice(low=0, high=100)
    values[0, :3] = (-2000.0, 5000.0, np.nan)
    restored = _restorer(_Change(1.0)).restore_slice(values)

    assert restored.outside_range == 3
    np.testing.assert_array_equal(restored.values[0, :3], values[0, :3])
    np.testing.assert_allclose(restored.values[1:], values[1:] + 128.0, atol=0.01)


def test_strength_zero_is_the_original_bit_for_bit_and_runs_nothing():
    network, values = _Change(1.0), _slice()
    values[3, 3] = np.nan
    restored = _restorer(network).restore_slice(values, strength=0.0)
    assert restored.values.tobytes() == values.tobytes()
    assert network.seen == []


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_strength_blends_in_native_units(strength):
    values = _slice(low=0, high=100)
    values[0, 0] = np.nan
    restored = _restorer(_Change(1.0)).restore_slice(values, strength=strength)
    np.testing.assert_allclose(restored.values[1:], values[1:] + 128.0 * strength, atol=0.01)
    assert np.isnan(restored.values[0, 0])


def test_the_result_stays_in_the_range_of_the_card():
    restored = _restorer(_Change(100.0)).restore_slice(_slice())
    assert restored.values.max() <= 3072.0


def test_a_result_that_is_not_finite_is_an_error_not_an_image():
    with pytest.raises(ComputeError, match="not finite"):
        _restorer(_Change(float("nan"))).restore_slice(_slice())


def test_colour_slices_are_refused():
    with pytest.raises(UnsuitableModelError):
        _restorer(_Change()).restore_slice(np.zeros((8, 8, 3)))


def test_stop_is_noticed_between_tiles():
    network = _Change()
    progress = Progress(is_stopped=lambda: len(network.seen) >= 3)
    with pytest.raises(Cancelled):
        _restorer(network, tile_px=64).restore_slice(_slice((300, 300)), progress=progress)
    assert len(network.seen) <= 5  # the probe that chooses the precision may count too


@pytest.mark.parametrize("name", ["nlm", "tv"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_filters_smooth_noise_and_keep_edges(name, modality):
    truth = np.zeros((96, 96), np.float32)
    truth[:, 48:] = 200.0
    truth[24:72, 24:72] += 60.0
    noisy = truth + np.random.default_rng(1).normal(0, 15, truth.shape).astype(np.float32)

    restored = classical_restorer(f"filter-{name}", modality).restore_slice(noisy).values

    assert np.sqrt(np.mean((restored - truth) ** 2)) < 0.6 * 15
    assert abs(float(np.mean(restored - truth))) < 2.0


def test_filters_leave_constant_and_unknown_voxels_alone():
    constant = np.full((40, 40), 7.0, np.float32)
    np.testing.assert_array_equal(classical_restorer("filter-nlm").restore_slice(constant).values, constant)
    holes = _slice((40, 40), 0, 100)
    holes[5:9, 5:9] = np.nan
    restored = classical_restorer("filter-nlm").restore_slice(holes).values
    assert np.isnan(restored[5:9, 5:9]).all()
    assert np.isfinite(restored[20:]).all()


def test_unknown_filters_are_refused():
    with pytest.raises(UnsuitableModelError):
        classical_restorer("filter-magic")
