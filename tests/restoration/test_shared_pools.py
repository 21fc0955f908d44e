"""Tiles that share what the network pools over the whole image lie far nearer to the whole."""

import numpy as np
import pytest
import torch

from medapp.networks.architectures.nafnet import NAFNet
from medapp.progress import Progress
from medapp.restoration.shared_pools import SharedPools
from medapp.restoration.tiling import Tiling, run_tiled


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = NAFNet(img_channel=1, width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("beta", "gamma")):
                parameter.normal_(0.0, 0.5)
    return made


def _runner(network, seen):
    def run(part, _maps):
        seen.append(part.shape)
        with torch.inference_mode():
            return network(torch.from_numpy(part)[None, None])[0, 0].numpy()

    return run


def test_tiles_with_shared_pools_are_nearly_the_whole(network):
    image = np.random.default_rng(0).normal(0, 0.1, (150, 136)).astype(np.float32)
    image[:, 70:] += 1.0  # tiles differ from each other
    seen, ready = [], []
    run = _runner(network, seen)
    cpu = torch.device("cpu")
    whole, _ = run_tiled(image, run, Tiling(0, 8, 1), cpu, Progress())
    alone, side = run_tiled(image, run, Tiling(64, 8, 1), cpu, Progress())
    shared = SharedPools(network, run, lambda *given: ready.append(given))
    seen.clear()
    together, _ = run_tiled(image, shared, Tiling(64, 8, 1), cpu, Progress(), survey=shared)

    assert side == 64
    assert np.abs(together - whole).mean() < 0.4 * np.abs(alone - whole).mean()
    assert len(ready) == 1
    assert len(seen) == 2 * 9  # each tile is looked at, then run
    assert not any(module._forward_hooks for module in network.modules())


def test_an_image_that_fits_is_run_once_as_it_is(network):
    image = np.random.default_rng(0).random((40, 48)).astype(np.float32)
    seen = []
    run = _runner(network, seen)
    shared = SharedPools(network, run, lambda *_: None)
    made, _ = run_tiled(image, shared, Tiling(0, 8, 1), torch.device("cpu"), Progress(), survey=shared)
    assert len(seen) == 1
    np.testing.assert_array_equal(made, run(image, {}))
