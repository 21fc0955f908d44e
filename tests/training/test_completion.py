"""Training of depth completion, at toy size: simulated measurements, a run that can be stopped, learning."""

import numpy as np
import pytest
import torch
from PIL import Image

from medapp.depth.metrics import mean_scores
from medapp.errors import Cancelled, TrainingError
from medapp.networks.blocks.depth_fill import nearest_fill
from medapp.progress import Progress
from medapp.scan.depth_scale import parse_scale
from medapp.training.completion import CompletionRecipe, predict, score_at, train_completion
from medapp.training.completion_data import (
    PATTERNS,
    DepthFrame,
    augmented,
    batches,
    pick_points,
    read_frame,
    sparse_map,
)

CONFIG = {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "embedding": 16, "heads": 2, "seed_bins": 4}
CONFIG |= {"scale_free": True, "d_max": 4.0, "prior_fill": "linear"}


def _frame(seed=0, size=(40, 48)):
    random = np.random.default_rng(seed)
    y, x = np.indices(size)
    depth = (30 + random.uniform(-0.5, 0.5) * x + random.uniform(-0.5, 0.5) * y).astype(np.float32)
    near = (x - 24) ** 2 + (y - 20) ** 2 < 100
    depth[near] = 12
    depth[0, :5] = np.nan
    rgb = np.repeat((np.where(near, 200, 60) + 2 * y)[..., None], 3, axis=2).astype(np.uint8)
    return DepthFrame(f"frame{seed}", rgb, depth)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_measurements_lie_on_known_pixels_and_say_the_truth(pattern):
    frame, random = _frame(), np.random.default_rng(1)
    sparse = sparse_map(frame, 60, pattern, random)
    known = sparse > 0

    assert 0 < known.sum() <= 60
    np.testing.assert_array_equal(sparse[known], frame.depth_mm[known])
    rows, columns = pick_points(frame, 60, pattern, random)
    if pattern == "half":
        assert rows.max() < 20 or columns.max() < 24
    if pattern == "lines":
        assert len(np.unique(rows)) <= 8


def test_noise_and_outliers_are_what_was_asked_for():
    frame, random = _frame(), np.random.default_rng(2)
    sparse = sparse_map(frame, 1000, "uniform", random, noise=0.02)
    known = sparse > 0
    ratio = sparse[known] / frame.depth_mm[known]
    assert 0.015 < ratio.std() < 0.025
    wrong = sparse_map(frame, 1000, "uniform", random, outliers=0.1)
    known = wrong > 0
    assert 0 < (wrong[known] != frame.depth_mm[known]).mean() <= 0.15


def test_augmentation_keeps_depths_and_their_place():
    frame = _frame()
    shown = augmented(frame, 32, np.random.default_rng(3))
    assert shown.rgb.shape == (32, 32, 3)
    known = np.isfinite(shown.depth_mm)
    assert set(np.unique(shown.depth_mm[known])) <= set(np.unique(frame.depth_mm[np.isfinite(frame.depth_mm)]))
    is_near = shown.depth_mm == 12
    assert shown.rgb[is_near].mean() > shown.rgb[~is_near].mean()  # the ball is still the bright one


def test_large_frames_are_read_smaller_without_mixing_depths(tmp_path):
    Image.fromarray(np.zeros((64, 96, 3), dtype=np.uint8)).save(tmp_path / "a_rgb.png")
    depth = np.full((64, 96), 1000, dtype=np.uint16)
    depth[:, 48:] = 3000
    Image.fromarray(depth).save(tmp_path / "a_depth.png")
    frame = read_frame(tmp_path / "a_rgb.png", tmp_path / "a_depth.png", parse_scale("unit=mm,scale=0.02"), 32)

    assert frame.name == "a"
    assert frame.rgb.shape == (21, 32, 3)
    assert set(np.unique(frame.depth_mm)) == {20.0, 60.0}
    Image.fromarray(depth[:10]).save(tmp_path / "b_depth.png")
    with pytest.raises(TrainingError, match="differ in size"):
        read_frame(tmp_path / "a_rgb.png", tmp_path / "b_depth.png", parse_scale("mm"))


def test_batches_hold_what_the_network_takes():
    batch = next(batches([_frame(n) for n in range(3)], 4, 32, "linear", 50.0, seed=0))
    assert batch.image.shape == (4, 3, 32, 32)
    assert batch.prior.shape == (4, 2, 32, 32)
    has = batch.sparse_depth > 0
    assert torch.isfinite(batch.reference[has]).all()
    with pytest.raises(TrainingError, match="No frame"):
        next(batches([_frame()], 4, 64, "linear", 50.0, seed=0))


def test_training_lowers_the_error_goes_on_and_can_be_stopped(tmp_path):
    frames = [_frame(n) for n in range(6)]
    torch.manual_seed(0)
    recipe = CompletionRecipe(config=CONFIG, updates=30, batch=2, crop_px=32, average=0.9)
    first = train_completion(
        CompletionRecipe(config=CONFIG, updates=1, batch=2, crop_px=32, average=0.9),
        frames,
        tmp_path / "none",
        Progress(),
    )
    network = train_completion(recipe, frames, tmp_path / "run", Progress())

    before, after = (
        mean_scores(score_at(lambda rgb, sparse, n=net: predict(n, rgb, sparse), frames, 12, seeds=1)).mae
        for net in (first, network)
    )
    assert after < before
    done = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert done["iteration"] == 30
    again = train_completion(recipe, frames, tmp_path / "run", Progress())  # the budget is spent: nothing changes
    kept = {k.removeprefix("module."): v for k, v in done["kept"].items() if k.startswith("module.")}
    assert all(torch.equal(value, kept[name]) for name, value in again.state_dict().items())
    with pytest.raises(Cancelled):
        train_completion(recipe, frames, tmp_path / "stopped", Progress(is_stopped=lambda: True))


def test_every_method_is_scored_on_the_same_points():
    frames, seen = [_frame(0)], []

    def method(rgb, sparse):
        seen.append(sparse)
        return nearest_fill(sparse)[0]

    one = score_at(method, frames, 20, seeds=2)
    two = score_at(method, frames, 20, seeds=2)
    assert [row.mae for row in one] == [row.mae for row in two]
    np.testing.assert_array_equal(seen[0], seen[2])
    assert (seen[0] != seen[1]).any()
