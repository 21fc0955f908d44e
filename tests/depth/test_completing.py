"""Completing depth: networks and fills, in memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from medapp.depth.depth_map import add_points
from medapp.depth.estimator import DepthEstimator
from medapp.depth.fill import FillCompleter
from medapp.errors import Cancelled, ComputeError, UnsuitableModelError, UsageError
from medapp.networks.architectures.pddm import PDDM
from medapp.networks.card import Card, Intake
from medapp.networks.library import LoadedModel
from medapp.progress import Progress

TOY = {"widths": (8, 8, 8, 16), "blocks": (1, 1, 1, 1), "embedding": 16, "heads": 2, "seed_bins": 4}


def toy_card(**changes):
    entries = {
        "id": "toy-depth",
        "name": "PDDM-style toy",
        "version": "1",
        "architecture": "pddm",
        "task": "depth-completion",
        "takes": (Intake("OT", "arbitrary", (0, 255)),),
        "sha256": "0" * 64,
        "config": TOY,
        "serves": "depth",
        "inputs": ("sparse_depth",),
        "channels": 3,
        "size_multiple": 1,
        "min_side_px": 16,
    }
    return Card(**{**entries, **changes})


def toy_model(**config):
    torch.manual_seed(1)
    return LoadedModel(toy_card(), PDDM(**{**TOY, **config}).eval(), torch.device("cpu"))


def _frame(size=(40, 56)):
    random = np.random.default_rng(0)
    rgb = random.integers(0, 255, (*size, 3)).astype(np.uint8)
    sparse = np.full(size, np.nan, dtype=np.float32)
    for _ in range(12):
        sparse[random.integers(size[0]), random.integers(size[1])] = random.uniform(20, 60)
    return rgb, sparse


def test_a_frame_and_some_points_give_depth_and_its_uncertainty_in_mm():
    rgb, sparse = _frame()
    made = DepthEstimator(toy_model()).estimate(rgb, sparse)

    assert made.depth_mm.shape == made.sigma_mm.shape == (40, 56)
    assert made.depth_mm.dtype == made.sigma_mm.dtype == np.float32
    assert np.isfinite(made.depth_mm).all()
    assert 0 <= made.depth_mm.min() <= made.depth_mm.max() <= 100
    assert (made.sigma_mm >= 0).all()
    assert made.points == int(np.isfinite(sparse).sum())


def test_the_order_in_which_points_are_placed_does_not_matter():
    rgb, _ = _frame()
    empty = np.full(rgb.shape[:2], np.nan, dtype=np.float32)
    points = ((3.0, 4.0, 30.0), (20.0, 8.0, 45.0), (40.0, 30.0, 52.0))
    estimator = DepthEstimator(toy_model())
    one = estimator.estimate(rgb, add_points(empty, points)).depth_mm
    other = estimator.estimate(rgb, add_points(empty, points[::-1])).depth_mm

    np.testing.assert_array_equal(one, other)


def test_measured_depths_are_kept_only_on_request():
    rgb, sparse = _frame()
    known = np.isfinite(sparse)
    kept = DepthEstimator(toy_model(), keep_points=True).estimate(rgb, sparse).depth_mm
    free = DepthEstimator(toy_model()).estimate(rgb, sparse).depth_mm

    np.testing.assert_array_equal(kept[known], sparse[known])
    np.testing.assert_array_equal(kept[~known], free[~known])
    assert (free[known] != sparse[known]).any()


def test_nothing_measured_is_finite_and_said():
    rgb, sparse = _frame()
    made = DepthEstimator(toy_model()).estimate(rgb, np.zeros_like(sparse))
    assert made.points == 0
    assert np.isfinite(made.depth_mm).all()
    assert any("Nothing was measured" in note for note in made.notes)
    with pytest.raises(UsageError, match="at least one"):
        FillCompleter("fill-linear").estimate(rgb, np.zeros_like(sparse))


def test_points_beyond_the_range_are_clipped_and_said():
    rgb, sparse = _frame()
    sparse[0, 0] = 500
    made = DepthEstimator(toy_model()).estimate(rgb, sparse)
    assert made.depth_mm.max() <= 100
    assert any("1 points lie outside" in note for note in made.notes)
    far = DepthEstimator(toy_model(scale_free=True, d_max=6.0)).estimate(rgb, sparse * 100)
    assert far.depth_mm.max() > 500


def test_large_frames_are_computed_smaller_and_keep_their_size():
    rgb, sparse = _frame((90, 130))
    made = DepthEstimator(toy_model(), most_side_px=64).estimate(rgb, sparse)
    assert made.depth_mm.shape == (90, 130)
    assert made.working_size == (30, 44)
    assert any("enlarged 3 times" in note for note in made.notes)


def test_sixteen_bit_colours_mean_the_same_as_eight_bit_ones():
    rgb, sparse = _frame()
    estimator = DepthEstimator(toy_model())
    eight = estimator.estimate(rgb, sparse).depth_mm
    sixteen = estimator.estimate(rgb.astype(np.uint16) * 257, sparse).depth_mm
    np.testing.assert_allclose(eight, sixteen, atol=1e-3)


def test_numbers_that_are_not_finite_are_caught():
    rgb, sparse = _frame()
    model = toy_model()
    with torch.no_grad():
        model.network.up_weights[-1].bias.fill_(float("nan"))
    with pytest.raises(ComputeError, match="not finite"):
        DepthEstimator(model).estimate(rgb, sparse)


def test_what_does_not_fit_is_refused_in_a_line():
    rgb, sparse = _frame()
    estimator = DepthEstimator(toy_model())
    with pytest.raises(UsageError, match="56 × 40"):
        estimator.estimate(rgb, sparse[:20])
    with pytest.raises(UsageError, match="colour"):
        estimator.estimate(rgb[..., 0], sparse)
    with pytest.raises(UnsuitableModelError, match="16 px"):
        estimator.estimate(rgb[:10], sparse[:10])
    with pytest.raises(UnsuitableModelError, match="does not complete"):
        DepthEstimator(LoadedModel(toy_card(serves="restoration"), None, torch.device("cpu")))
    with pytest.raises(Cancelled):
        estimator.estimate(rgb, sparse, Progress(is_stopped=lambda: True))


@pytest.mark.parametrize("point", [(56.0, 3.0, 10.0), (-1.0, 3.0, 10.0), (3.0, 3.0, 0.0), (3.0, 3.0, float("nan"))])
def test_points_that_cannot_be_are_refused(point):
    with pytest.raises(UsageError, match="Point 1"):
        add_points(np.zeros((40, 56), dtype=np.float32), (point,))


def test_fills_pass_through_their_points_and_stay_between_them():
    rgb, sparse = _frame()
    known = np.isfinite(sparse)
    for fill in ("fill-nearest", "fill-linear"):
        made = FillCompleter(fill).estimate(rgb, sparse)
        np.testing.assert_allclose(made.depth_mm[known], sparse[known], atol=1e-4)
        assert sparse[known].min() - 1e-4 <= made.depth_mm.min() <= made.depth_mm.max() <= sparse[known].max() + 1e-4
        assert made.sigma_mm is None
    single = np.zeros_like(sparse)
    single[3, 4] = 33
    assert (FillCompleter("fill-linear").estimate(rgb, single).depth_mm == 33).all()


def test_reading_depth_files_and_fills_need_no_torch():
    code = "import sys, medapp.services.depth; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
