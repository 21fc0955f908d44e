"""Training of depth completion, at toy size: simulated measurements, a run that can be stopped, learning."""

import numpy as np
import pytest
import torch
from PIL import Image

from medapp.errors import TrainingError
from medapp.networks.blocks.depth_fill import nearest_fill
from medapp.progress import Progress
from medapp.scan.depth_scale import parse_scale
from medapp.training.completion_data import (
    PATTERNS,
    DepthFrame,
    augmented,
    batches,
    pick_points,
    read_frame,
    sparse_map,
)
from medapp.training.loop import Trainer
from medapp.training.recipe import CompletionRecipe
from medapp.training.run_folder import RunFolder
from medapp.training.tasks.completion import CompletionTask, score_at
from medapp.training.tasks.task import DataFacts

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


def _recipe(**changes):
    entries = {"name": "toy", "config": CONFIG, "crops": ((32, 2),), "iterations": 30, "check_every": 10}
    return CompletionRecipe(**{**entries, "average_decay": 0.9, **changes})


def test_training_lowers_the_error_on_frames_held_out(tmp_path):
    frames = [_frame(n) for n in range(6)]
    task = CompletionTask(_recipe(), frames, DataFacts("0" * 64))
    with torch.no_grad():
        before = task.judge(task.network.eval())
    done = Trainer(_recipe(), task, RunFolder(tmp_path / "run"), "cpu").train(5, Progress())

    assert done.best_score > before.score
    assert np.isfinite(before.figures["mae"])
    with Image.open(tmp_path / "run" / "samples" / "1.png") as picture:
        assert (picture.size, picture.mode) == ((3 * 48, 40), "RGB")  # frame, result and truth
    with pytest.raises(TrainingError, match="only one patient"):
        CompletionTask(_recipe(), frames[:1], DataFacts("0" * 64))


def test_the_frames_of_a_step_are_always_the_same(tmp_path):
    task = CompletionTask(_recipe(crops=((32, 3),)), [_frame(n) for n in range(4)], DataFacts("0" * 64))
    whole, again, other = task.batch(4, 0, 1, 0.0), task.batch(4, 0, 1, 0.0), task.batch(5, 0, 1, 0.0)
    parts = [task.batch(4, rank, 2, 0.0) for rank in range(2)]
    for key in ("image", "sparse_depth", "prior"):
        assert torch.equal(whole[key], again[key])
        assert torch.equal(torch.cat([part[key] for part in parts]), whole[key][[0, 2, 1]])
    assert not torch.equal(whole["image"], other["image"])


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
