"""Volumes in overlapping windows: complete, without seams, stoppable."""

import numpy as np
import pytest
import torch

from medapp.errors import Cancelled, ComputeError
from medapp.progress import Progress
from medapp.restoration.windows import run_volume, run_windows, window_for

CPU = torch.device("cpu")


def _volume(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(16, 16, 16), (32, 24, 40), (33, 17, 50), (64, 16, 20), (7, 40, 9), (1, 5, 33), (70, 1, 1), (96, 16, 32)]
)
@pytest.mark.parametrize("multiple", [1, 8])
def test_a_network_that_changes_nothing_gives_back_every_voxel_bit_for_bit(shape, multiple):
    volume = _volume(*shape)
    seen = []

    def run(part):
        seen.append(part.shape)
        return part.copy()

    assert np.array_equal(run_windows(volume, run, (16, 16, 16), multiple, Progress()), volume)
    assert all(side % multiple == 0 for part in seen for side in part)


def test_windows_that_disagree_are_blended_without_steps():
    count = iter(range(1000))

    def run(part):
        return np.full_like(part, next(count) % 2)

    result = run_windows(np.zeros((40, 16, 16), np.float32), run, (16, 16, 16), 1, Progress())

    line = result[:, 8, 8]
    assert line.min() == 0
    assert line.max() == 1
    assert np.abs(np.diff(line)).max() < 0.5  # a hard seam would jump by 1


def test_constant_in_constant_out():
    volume = np.full((45, 37, 21), 0.7, np.float32)
    assert np.all(run_windows(volume, np.copy, (16, 16, 16), 4, Progress()) == np.float32(0.7))


def test_content_stays_in_its_place():
    """A network that looks at its own position in the window shows where each voxel was taken from."""
    z, y, x = np.meshgrid(np.arange(40), np.arange(24), np.arange(56), indexing="ij")
    volume = (z * 10000 + y * 100 + x).astype(np.float32)
    assert np.array_equal(run_windows(volume, np.copy, (16, 8, 16), 8, Progress()), volume)


def test_a_slab_equals_that_part_of_the_whole_and_runs_only_its_windows():
    volume = _volume(60, 20, 20)
    counts = []

    def run(part):
        counts.append(part)
        return np.tanh(part) * part.mean()  # a quantity of the whole window

    whole = run_windows(volume, run, (16, 16, 16), 1, Progress())
    all_windows = len(counts)
    counts.clear()

    for region in (slice(30, 31), slice(0, 3), slice(55, 60)):
        counts.clear()
        slab = run_windows(volume, run, (16, 16, 16), 1, Progress(), region)
        np.testing.assert_array_equal(slab, whole[region])
        assert 0 < len(counts) <= all_windows // 2


def test_stop_is_noticed_between_windows():
    runs = []

    def run(part):
        runs.append(1)
        return part

    progress = Progress(is_stopped=lambda: len(runs) >= 2)
    with pytest.raises(Cancelled):
        run_windows(_volume(40, 40, 40), run, (16, 16, 16), 1, progress)
    assert len(runs) == 2


def test_progress_counts_every_window():
    events = []
    run_windows(_volume(40, 20, 20), np.copy, (16, 16, 16), 1, Progress(report=events.append))
    assert events[-1].done == events[-1].total > 1
    assert events[-1].unit == "windows"


def test_a_slice_instead_of_a_volume_is_refused():
    with pytest.raises(ValueError, match="three axes"):
        run_windows(_volume(4, 4)[..., 0], np.copy, (16, 16, 16), 1, Progress())


@pytest.mark.parametrize("shape", [(200, 192, 400), (3, 500, 500), (64, 64, 64), (5, 6, 7)])
def test_windows_fit_the_memory_and_the_step(shape):
    for free in (1 << 28, 1 << 30, 1 << 36):
        window = window_for(shape, 4000, 8, free)
        assert all(side % 8 == 0 and side <= 64 for side in window)
        assert all(side < length + 8 for side, length in zip(window, shape, strict=True))
        assert np.prod(window) * 4000 <= free / 2 or max(window) <= 16
    assert window_for((200, 192, 400), 4000, 8, 1 << 36) == (64, 64, 64)


def test_smaller_windows_are_tried_when_memory_runs_out():
    volume = _volume(70, 66, 68)

    def run(part):
        if part.size > 32**3:
            raise MemoryError
        return part

    result, window = run_volume(volume, run, 1, 1, CPU, Progress())
    assert np.array_equal(result, volume)
    assert window == (32, 32, 32)


def test_when_even_small_windows_do_not_fit_it_says_so():
    def run(part):
        raise MemoryError

    with pytest.raises(ComputeError, match="not enough memory"):
        run_volume(_volume(40, 40, 40), run, 1, 1, CPU, Progress())
