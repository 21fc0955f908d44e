"""The spread of eight answers: nothing where a restorer does not mind how an image lies, something where it does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medapp.errors import Cancelled, UnsuitableModelError
from medapp.networks.library import LoadedModel
from medapp.progress import Progress
from medapp.restoration.classical import classical_restorer
from medapp.restoration.kspace import onto_finer_grid, zero_filled
from medapp.restoration.restorer import NetworkRestorer
from medapp.restoration.trust import ANSWERS, restore_volume_with_trust, restore_with_trust
from tests.networks.test_card import CARD
from tests.restoration.test_finer import MR_CARD


class _Add(nn.Module):
    """Adds what it is told; counts what it was given."""

    def __init__(self, change=lambda image: 1.0):
        super().__init__()
        self.change, self.seen = change, []

    def forward(self, image, region_map=None):
        if region_map is not None:
            self.seen.append((image[0, 0].numpy().copy(), region_map[0].numpy().copy()))
        else:
            self.seen.append(tuple(image.shape))
        return image + self.change(image)


def _down(image):
    """More from row to row: another answer for every turn."""
    return torch.linspace(0, 1, image.shape[-2])[:, None] / 128.0  # the card's range: 1 is 128 HU


def _restorer(network, card=CARD, tile_px=0, modality="CT", **changes):
    network.eval()
    return NetworkRestorer(LoadedModel(replace(card, **changes), network, torch.device("cpu")), tile_px, modality)


def _slice(shape=(24, 40)):
    return np.random.default_rng(0).uniform(-900, 900, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(24, 40), (33, 17), (8, 8)])
def test_a_restorer_that_does_not_mind_how_an_image_lies_has_no_spread(shape):
    values = _slice(shape)
    made = restore_with_trust(_restorer(_Add()), values)
    assert made.spread.shape == shape
    assert made.spread.max() < 1e-3
    np.testing.assert_allclose(made.mean, values + 128.0, atol=0.01)


def test_the_spread_is_the_standard_deviation_of_the_answers_in_native_units():
    values = _slice((24, 24))
    made = restore_with_trust(_restorer(_Add(_down)), values)
    ramp = np.linspace(0, 1, 24)
    down, right = np.broadcast_to(ramp[:, None], (24, 24)), np.broadcast_to(ramp[None, :], (24, 24))
    answers = np.stack([down, 1 - down, right, 1 - right] * 2)
    np.testing.assert_allclose(made.spread, answers.std(axis=0), atol=2e-3)
    np.testing.assert_allclose(made.mean - values, answers.mean(axis=0), atol=2e-3)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tile_px", [0, 64])
def test_the_restoration_is_the_one_without_a_trust_map_and_the_spread_is_blended_like_it(strength, tile_px):
    values = _slice((80, 72))
    restorer = _restorer(_Add(_down), tile_px=tile_px)
    made = restore_with_trust(restorer, values, strength)
    np.testing.assert_array_equal(made.restored.values, restorer.restore_slice(values, strength).values)
    full = restore_with_trust(restorer, values).spread
    np.testing.assert_allclose(made.spread, full * strength, atol=1e-5)
    assert full.max() > 0.1


def test_region_maps_are_turned_like_the_image():
    values = np.arange(16 * 24, dtype=np.float32).reshape(16, 24)
    network = _Add()
    labels = values.astype(np.int32)
    restore_with_trust(
        _restorer(network, inputs=("region_map",), precision="float32"), values, maps={"region_map": labels}
    )
    assert len(network.seen) == ANSWERS
    assert len({image.tobytes() for image, _ in network.seen}) == ANSWERS
    for image, regions in network.seen:
        np.testing.assert_allclose((image + 8) * 128 - 1024, regions, atol=0.01)


def test_a_region_map_of_another_size_is_refused():
    with pytest.raises(UnsuitableModelError, match="region map is"):
        restore_with_trust(
            _restorer(_Add(), inputs=("region_map",)), _slice(), maps={"region_map": np.zeros((40, 24), np.int32)}
        )


def test_voxels_that_pass_unchanged_have_no_spread():
    values = _slice()
    values[3, 4], values[5, 6] = np.nan, 9000.0
    made = restore_with_trust(_restorer(_Add(_down)), values)
    assert made.spread[3, 4] == made.spread[5, 6] == 0
    assert np.isfinite(made.spread).all()
    assert np.isnan(made.mean[3, 4])


@pytest.mark.parametrize("card_scale", [2, 4])
def test_a_finer_grid_does_not_count_as_a_turn(card_scale):
    values = np.random.default_rng(0).gamma(2.0, 150.0, (24, 32)).astype(np.float32)
    restorer = _restorer(_Add(), MR_CARD, modality="MR", scale=card_scale)
    restorer.keeps_measured = False
    made = restore_with_trust(restorer, values)
    assert made.spread.shape == (24 * card_scale, 32 * card_scale)
    assert made.spread.max() < 1e-4 * values.max()
    filled = restore_with_trust(restorer, onto_finer_grid(values, card_scale), is_filled=True)
    np.testing.assert_array_equal(filled.restored.values, made.restored.values)


@pytest.mark.parametrize("tile_px", [0, 64])
def test_a_network_that_enlarges_by_itself_is_turned_on_the_grid_of_its_source(tile_px):
    class Enlarging(nn.Module):
        def forward(self, image, region_map):
            assert region_map.shape[-2:] == (2 * image.shape[-2], 2 * image.shape[-1])
            return functional.interpolate(image, scale_factor=2, mode="nearest")

    values = _slice((72, 88))
    restorer = _restorer(Enlarging(), tile_px=tile_px, scale=2, config={"scale": 2}, inputs=("region_map",))
    made = restore_with_trust(restorer, values, 0.5, maps={"region_map": np.zeros((72, 88), np.int32)})
    assert made.spread.shape == (144, 176)
    assert made.spread.max() < 1e-3
    half = (np.kron(values, np.ones((2, 2))) + made.restored.before) / 2
    np.testing.assert_allclose(made.restored.values, half, atol=0.02)


def test_measured_frequencies_are_trusted():
    values = np.random.default_rng(0).gamma(2.0, 150.0, (24, 32)).astype(np.float32)
    made = restore_with_trust(
        _restorer(_Add(lambda image: torch.roll(image, 1, -1) * 0.3), MR_CARD, modality="MR"), values
    )
    kept = zero_filled(made.mean, 2)
    np.testing.assert_allclose(kept, zero_filled(onto_finer_grid(values, 2), 2), atol=1e-4 * values.max())
    assert made.spread.max() > 0


@pytest.mark.parametrize("name", ["nlm", "tv"])
def test_filters_have_a_trust_map_too(name):
    noisy = np.random.default_rng(1).normal(0, 15, (48, 40)).astype(np.float32)
    made = restore_with_trust(classical_restorer(f"filter-{name}", "CT"), noisy)
    assert made.spread.shape == noisy.shape
    assert made.spread.max() < 15  # the answers nearly agree
    np.testing.assert_array_equal(
        made.restored.values, classical_restorer(f"filter-{name}", "CT").restore_slice(noisy).values
    )


def test_colours_have_one_spread():
    colours = np.random.default_rng(2).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    card = {"channels": 3, "takes": (replace(CARD.takes[0], unit="colour", value_range=(0.0, 255.0)),)}
    made = restore_with_trust(_restorer(_Add(_down), **card), colours)
    assert made.spread.shape == (16, 24)
    assert made.spread.max() > 0
    assert made.restored.values.dtype == np.uint8


@pytest.mark.parametrize("answers", range(ANSWERS))
def test_stop_is_noticed_before_every_answer(answers):
    seen = []
    progress = Progress(is_stopped=lambda: len(seen) >= answers)
    network = _Add()
    with pytest.raises(Cancelled):
        restore_with_trust(
            _restorer(network, precision="float32"), _slice(), progress=progress, answered=lambda: seen.append(1)
        )
    assert len(network.seen) == answers


@pytest.mark.parametrize("region", [None, slice(1, 2)])
def test_volumes_are_mirrored_along_their_axes(region):
    class Down(nn.Module):
        def forward(self, volume):
            return volume + torch.linspace(0, 1, volume.shape[2])[:, None, None] / 128.0

    values = _slice((6, 16, 20))
    restorer = _restorer(Down(), dims=3, size_multiple=2)
    made = restore_volume_with_trust(restorer, values, 1.0, Progress(), region)
    ramp = np.linspace(0, 1, 6)
    wanted = np.abs(ramp - ramp[::-1]) / 2
    assert made.spread.shape == values[region or slice(None)].shape
    np.testing.assert_allclose(made.spread[:, 3, 3], wanted[region or slice(None)], atol=2e-3)
    np.testing.assert_array_equal(made.restored.values, restorer.restore_volume(values, 1.0, Progress(), region).values)
