"""What a user may rely on when a slice comes back: units, range, strength, size, and that nothing is lost."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medapp.errors import Cancelled, ComputeError, UnsuitableModelError
from medapp.networks.card import Intake
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
@pytest.mark.parametrize("curve", ["linear", "log"])
def test_values_come_back_within_a_hundredth_of_a_hu(network_range, curve):
    values = _slice()
    takes = (Intake("CT", "HU", (-1024.0, 3072.0), network_range, curve),)
    restored = _restorer(_Change(), takes=takes).restore_slice(values)
    assert np.abs(restored.values - values).max() <= 0.01
    assert restored.values.dtype == np.float32
    assert restored.outside_range == 0


MR = (Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles"),)


def _mr(shape=(50, 70)):
    return np.random.default_rng(0).gamma(2.0, 150.0, shape).astype(np.float32)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 4e5])
def test_limits_of_the_slice_itself_invert_exactly_and_clip_nothing(gain):
    values = _mr() * np.float32(gain)
    values[4, 4] = np.nan
    restored = _restorer(_Change(), takes=MR).restore_slice(values)
    finite = np.isfinite(values)
    np.testing.assert_allclose(restored.values[finite], values[finite], rtol=2e-6, atol=1e-6 * values[finite].max())
    assert np.isnan(restored.values[4, 4])
    assert restored.outside_range == 1


def test_a_network_sees_the_percentiles_of_a_slice_at_the_ends_of_its_range():
    values = _mr()
    low, high = np.percentile(values, (0.5, 99.5))
    restored = _restorer(_Change(1.0), takes=MR).restore_slice(values)
    np.testing.assert_allclose(restored.values, values + (high - low) / 4.0, rtol=1e-4)
    assert restored.values.max() > high


@pytest.mark.parametrize("level", [0.0, -3.5, 1e6])
def test_a_slice_without_spread_passes_unchanged(level):
    values = np.full((16, 16), level, np.float32)
    values[0, 0] = np.nan
    network = _Change(1.0)
    restored = _restorer(network, takes=MR).restore_slice(values)
    np.testing.assert_array_equal(restored.values, values)
    assert network.seen == []


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


class _ByRegion(nn.Module):
    """Adds each pixel's region number, and what it was told about the whole image."""

    def context(self, image):
        return {"mean": image.mean()}

    def forward(self, image, region_map, mean=0.0):
        assert region_map.shape == (image.shape[0], *image.shape[2:])
        return image + region_map[:, None] + mean


def test_region_maps_and_what_is_known_of_the_whole_reach_every_tile():
    regions = np.arange(100 * 140).reshape(100, 140) % 7
    takes = (Intake("CT", "HU", (0.0, 100.0), (0.0, 100.0)),)
    values = _slice((100, 140), 10, 20)
    restorer = _restorer(_ByRegion(), tile_px=64, takes=takes, inputs=("region_map",))
    restored = restorer.restore_slice(values, maps={"region_map": regions})
    assert restored.tile_px == 64
    np.testing.assert_allclose(restored.values, values + regions + values.mean(), atol=0.01)


def test_a_missing_or_foreign_region_map_is_said():
    restorer = _restorer(_ByRegion(), inputs=("region_map",))
    with pytest.raises(UnsuitableModelError, match="needs a region map"):
        restorer.restore_slice(_slice())
    with pytest.raises(UnsuitableModelError, match="region map is 3 × 2, the slice is 70 × 50"):
        restorer.restore_slice(_slice(), maps={"region_map": np.zeros((2, 3), np.int32)})


def test_each_modality_enters_by_its_own_range():
    takes = (Intake("CT", "HU", (-1000.0, 1000.0)), Intake("PT", "SUV", (0.0, 20.0)))
    for modality, per_unit in (("CT", 2000.0), ("PT", 20.0)):
        restorer = _restorer(_Change(0.01), takes=takes)
        restorer.modality = modality
        values = np.full((16, 16), 5.0, np.float32)
        np.testing.assert_allclose(restorer.restore_slice(values).values, 5.0 + 0.01 * per_unit, rtol=1e-4)


class _PerChannel(nn.Module):
    def forward(self, image):
        return image + torch.tensor([0.0, 0.1, 0.2])[None, :, None, None]


def test_colours_come_back_as_colours():
    takes = (Intake("XC", "arbitrary", (0.0, 255.0)),)
    restorer = _restorer(_PerChannel(), takes=takes, channels=3)
    restored = restorer.restore_slice(np.full((20, 30, 3), 100, np.uint8)).values
    assert restored.dtype == np.uint8
    assert restored.shape == (20, 30, 3)
    np.testing.assert_array_equal(restored[5, 5], [100, 126, 151])
    deep = restorer.restore_slice(np.full((20, 30, 3), 100 * 257, np.uint16)).values
    np.testing.assert_array_equal(np.rint(deep[5, 5] / 257), [100, 126, 151])


def test_volumes_are_restored_as_volumes_and_one_slice_of_them_alone():
    takes = (Intake("PT", "SUV", (0.0, 20.0), (0.0, 20.0)),)
    restorer = _restorer(_Change(1.0), takes=takes, dims=3, size_multiple=8)
    values = np.random.default_rng(0).uniform(0, 10, (21, 33, 40)).astype(np.float32)
    values[3, 4, 5] = np.nan
    whole = restorer.restore_volume(values, 0.5, Progress())
    np.testing.assert_allclose(whole.values, np.where(np.isnan(values), values, values + 0.5), atol=1e-4)
    assert whole.outside_range == 1
    one = restorer.restore_volume(values, 1.0, Progress(), slice(7, 8))
    np.testing.assert_allclose(one.values, values[7:8] + 1.0, atol=1e-4)
    with pytest.raises(UnsuitableModelError, match="takes volumes only"):
        restorer.restore_slice(values[0])
