"""Tiles must not show, and memory that runs out must not stop the work."""

import numpy as np
import pytest
import torch
from scipy import ndimage as ndi

from medapp.errors import ComputeError
from medapp.progress import Progress
from medapp.restoration.tiling import Tiling, run_tiled

CPU = torch.device("cpu")


def _image(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(200, 300), (64, 500), (129, 131)])
@pytest.mark.parametrize("tile", [64, 96, 200])
def test_tiles_of_a_local_filter_equal_the_whole_image(shape, tile):
    image = _image(shape)
    local = lambda part, _maps: ndi.uniform_filter(part, 3)  # noqa: E731
    whole, _ = run_tiled(image, local, Tiling(), CPU, Progress())
    tiled, used = run_tiled(image, local, Tiling(tile_px=tile), CPU, Progress())

    assert used == (0 if tile >= max(shape) else tile // 8 * 8)
    inside = (tiled - whole)[8:-8, 8:-8]  # at the image's edge the padding differs
    assert np.abs(inside).max() < 0.5  # borders of tiles fade out where they are wrong
    assert np.sqrt(np.mean(inside**2)) < 0.02


def test_tiles_of_different_brightness_fade_into_each_other():
    calls = iter(range(100))
    tiled, _ = run_tiled(
        np.zeros((128, 400), np.float32), lambda part, _maps: part + next(calls), Tiling(tile_px=128), CPU, Progress()
    )
    assert np.abs(np.diff(tiled, axis=1)).max() < 0.1


def test_memory_that_runs_out_halves_the_tile():
    sides = []

    def hungry(part, _maps):
        sides.append(max(part.shape))
        if max(part.shape) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return part

    image = _image((256, 256))
    result, used = run_tiled(image, hungry, Tiling(), CPU, Progress())

    assert used == 64
    assert sides[:2] == [256, 128]
    np.testing.assert_allclose(result, image, atol=1e-6)


def test_memory_that_is_never_enough_is_said_in_one_line():
    def starved(part, _maps):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(ComputeError, match="not enough memory") as caught:
        run_tiled(_image((300, 300)), starved, Tiling(), CPU, Progress())
    assert caught.value.hint


def test_our_own_errors_are_not_mistaken_for_memory():
    def broken(part, _maps):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_tiled(_image((64, 64)), broken, Tiling(), CPU, Progress())


def test_a_slice_too_large_for_memory_is_cut_from_the_start():
    sides = []

    def run(part, _maps):
        sides.append(max(part.shape))
        return part

    _, used = run_tiled(_image((256, 256)), run, Tiling(bytes_per_px=10**9), CPU, Progress())
    assert 64 <= used < 256
    assert max(sides) == used
