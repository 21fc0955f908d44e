"""PDDM-style, formula by formula: each part against its definition written out, one number at a time."""

import math

import pytest
import torch
from torch.nn import functional

from medapp.networks.architectures.pddm import PDDM, BinsInitialiser, StageResult, _convex_up, bin_centres
from medapp.networks.blocks.bin_attention import Attention, sine_position

D_MIN, D_MAX = 10.0, 110.0
CONFIG = {"d_min": D_MIN, "d_max": D_MAX, "widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "embedding": 16, "heads": 2}
BINS = 4


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PDDM(**CONFIG, seed_bins=BINS).eval()


def _state(widths, logits=None, height=2, width=3):
    nothing = torch.zeros(0)
    logits = torch.zeros(1, len(widths), height, width) if logits is None else logits
    weights = torch.tensor([widths])
    return StageResult(weights, torch.randn(1, len(widths), 16), logits, nothing, nothing, nothing, nothing)


def _silence(stage):
    """What pixels and bins say to each other counts for nothing: the other terms stand alone."""
    with torch.no_grad():
        stage.bin_key.weight.zero_()
        stage.bin_key.bias.zero_()


@torch.no_grad()
def test_histogram_quantiles_and_count_are_those_of_the_clipped_depths():
    depths = [12.0, 20.0, 20.0, 35.0, 60.0, 500.0, 3.0]  # two lie outside and are clipped
    sparse = torch.zeros(1, 1, 4, 5)
    sparse.view(-1)[[1, 3, 4, 8, 11, 17, 19]] = torch.tensor(depths)
    histogram, quantiles, count = BinsInitialiser(BINS, 16).statistics(sparse, D_MIN, D_MAX)

    clipped = torch.tensor(depths, dtype=torch.float64).clamp(D_MIN, D_MAX)
    expected = torch.histc(clipped, 64, D_MIN, D_MAX) / len(depths)
    torch.testing.assert_close(histogram[0].double(), expected, rtol=0, atol=1e-6)
    at = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    torch.testing.assert_close(quantiles[0].double(), clipped.quantile(at), rtol=0, atol=1e-4)
    assert count.item() == pytest.approx(math.log(1 + 7) / 10)


@torch.no_grad()
def test_without_depths_the_statistics_are_even():
    histogram, quantiles, count = BinsInitialiser(BINS, 16).statistics(torch.zeros(1, 1, 4, 5), D_MIN, D_MAX)
    assert (histogram == 1 / 64).all()
    assert quantiles[0].tolist() == [22.5, 47.5, 72.5, 97.5]
    assert count.item() == 0


@torch.no_grad()
def test_bins_of_equal_depths_keep_the_least_width():
    sparse = torch.full((1, 1, 4, 4), 60.0)
    widths, _ = BinsInitialiser(BINS, 16)(sparse, D_MIN, D_MAX)
    raw = [0.5, 0.0, 0.0, 0.5]  # from the range's ends to the one depth, nothing between
    expected = torch.tensor([[(w + 0.001) / (1 + BINS * 0.001) for w in raw]])
    torch.testing.assert_close(widths, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_every_bin_is_split_in_two_by_its_share(network):
    stage = network.stages[1]
    _silence(stage)
    stage.ratio.bias.fill_(math.log(3))  # a share of three quarters
    stage.prior = None
    made = stage(torch.randn(1, 16, 4, 6), _state([0.1, 0.2, 0.3, 0.4]), D_MIN, D_MAX, None, torch.ones(1))

    expected = torch.tensor([[0.075, 0.025, 0.15, 0.05, 0.225, 0.075, 0.3, 0.1]])
    torch.testing.assert_close(made.widths, expected)
    torch.testing.assert_close(made.centres, D_MIN + 100 * (expected.cumsum(1) - expected / 2))
    assert made.centres.shape == (1, 8)


@torch.no_grad()
def test_scores_of_the_stage_before_are_repeated_enlarged_and_weighed(network):
    stage = network.stages[1]
    _silence(stage)
    stage.prior = None
    stage.carry.fill_(0.6)
    logits = torch.randn(1, BINS, 2, 3)
    made = stage(torch.randn(1, 16, 4, 6), _state([0.25] * 4, logits), D_MIN, D_MAX, None, torch.ones(1))

    larger = functional.interpolate(logits, (4, 6), mode="bilinear", align_corners=False)
    for old in range(BINS):
        for child in (2 * old, 2 * old + 1):
            torch.testing.assert_close(made.logits[0, child], 0.6 * larger[0, old])


@torch.no_grad()
def test_the_local_prior_is_its_formula_and_off_where_nothing_was_measured(network):
    stage = network.stages[0]
    _silence(stage)
    stage.prior.copy_(torch.tensor([0.7, 0.3, -1.0]))
    prior = torch.stack([torch.empty(1, 2, 3).uniform_(D_MIN, D_MAX), torch.rand(1, 2, 3)], dim=1)
    features, state = torch.randn(1, 16, 2, 3), _state([0.1, 0.2, 0.3, 0.4])
    made = stage(features, state, D_MIN, D_MAX, prior, torch.ones(1))

    near, far = math.log1p(math.exp(0.3)), math.log1p(math.exp(-1.0))
    for y in range(2):
        for x in range(3):
            fill, distance = prior[0, 0, y, x].item(), prior[0, 1, y, x].item()
            spread = near * 100 / BINS + far * 100 * distance
            scores = [-0.7 * abs(c - fill) / spread for c in made.centres[0].tolist()]
            assert made.logits[0, :, y, x].tolist() == pytest.approx(scores, abs=1e-5)
            weights = [math.exp(score) for score in scores]
            depth = sum(w * c for w, c in zip(weights, made.centres[0].tolist(), strict=True)) / sum(weights)
            assert made.depth[0, 0, y, x].item() == pytest.approx(depth, abs=1e-3)

    off = stage(features, state, D_MIN, D_MAX, prior, torch.zeros(1))
    assert not off.logits.any()
    assert off.depth[0, 0, 0, 0].item() == pytest.approx(off.centres.mean().item(), abs=1e-3)


def test_places_are_coded_by_sines_of_rising_octaves():
    code = sine_position(3, 5, 16, torch.device("cpu"))
    for row in range(3):
        for column in range(5):
            y, x = (row + 0.5) / 3, (column + 0.5) / 5
            octaves = [2 * math.pi * 2 ** (6 * i / 3) for i in range(4)]
            expected = [wave(octave * place) for place in (y, x) for wave in (math.sin, math.cos) for octave in octaves]
            assert code[row * 5 + column].tolist() == pytest.approx(expected, abs=2e-4)


@torch.no_grad()
def test_attention_is_scaled_by_the_width_of_a_head():
    torch.manual_seed(0)
    layer, queries, keys, values = Attention(8, 2), torch.randn(1, 3, 8), torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    q, k, v = layer.query(queries)[0], layer.key(keys)[0], layer.value(values)[0]
    parts = (slice(0, 4), slice(4, 8))
    heads = [(q[:, part] @ k[:, part].T / 4**0.5).softmax(1) @ v[:, part] for part in parts]
    torch.testing.assert_close(layer(queries, keys, values)[0], layer.out(torch.cat(heads, 1)))


@torch.no_grad()
def test_every_new_pixel_is_a_weighted_mean_of_the_nine_around_it():
    depth, weights = torch.rand(1, 1, 3, 4), torch.randn(1, 36, 3, 4)
    variance = torch.rand(1, 1, 3, 4)
    mean, sigma = _convex_up(depth, variance, weights)
    assert mean.shape == sigma.shape == (1, 1, 6, 8)
    scores = weights.view(9, 2, 2, 3, 4)
    for y in range(6):
        for x in range(8):
            share = scores[:, y % 2, x % 2, y // 2, x // 2].softmax(0).tolist()
            around = [
                (min(max(y // 2 + dy, 0), 2), min(max(x // 2 + dx, 0), 3)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            ]
            expected = sum(s * depth[0, 0, r, c].item() for s, (r, c) in zip(share, around, strict=True))
            second = sum(
                s * (variance[0, 0, r, c].item() + depth[0, 0, r, c].item() ** 2)
                for s, (r, c) in zip(share, around, strict=True)
            )
            assert mean[0, 0, y, x].item() == pytest.approx(expected, abs=1e-5)
            assert sigma[0, 0, y, x].item() == pytest.approx(math.sqrt(second - expected**2), abs=1e-3)


@torch.no_grad()
def test_the_network_sees_depth_where_it_is_valid_its_fill_and_its_distance(network):
    seen = []
    network.encoder.depth_stem.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    sparse = torch.zeros(2, 1, 20, 20)
    sparse[0, 0, 4, 5], sparse[0, 0, 19, 2] = 55.0, 400.0  # beyond the range: clipped, not dropped
    network(torch.rand(2, 3, 20, 20), sparse)

    (depth, valid, fill, distance), (no_depth, not_valid, middle, far) = seen[0]
    assert depth.shape == (32, 32)  # a multiple of 16
    assert depth[4, 5].item() == pytest.approx(0.5)
    assert depth[19, 2].item() == 1.0
    assert valid.sum() == 2
    assert fill[4, 9].item() == pytest.approx(0.5)
    assert distance[4, 9].item() == pytest.approx(4 / 20)
    assert fill[31, 31] == fill[19, 19]  # replicated, while the padding of the sparse map is unknown
    assert not no_depth.any()
    assert not not_valid.any()
    assert (middle == 60 / 110).all()
    assert (far == 1).all()


def test_centres_lie_in_the_middle_of_their_bins():
    assert bin_centres(torch.tensor([[0.5, 0.25, 0.25]]), D_MIN, D_MAX).tolist() == [[35.0, 72.5, 97.5]]
