"""PDDM-style depth completion: the verification plan of its specification, at toy size."""

import numpy as np
import pytest
import torch

from medapp.networks.architectures.pddm import PDDM
from medapp.networks.blocks.depth_fill import linear_fill, nearest_fill
from medapp.networks.blocks.depth_prior import local_prior

TOY = {"widths": (8, 12, 16, 24), "blocks": (1, 1, 1, 1), "embedding": 16, "heads": 2, "seed_bins": 4}


def _toy(**config):
    torch.manual_seed(0)
    return PDDM(**{**TOY, **config}).eval()


def _points(count, size=(48, 64), d_max=90.0, seed=0):
    random = np.random.default_rng(seed)
    sparse = np.zeros(size, dtype=np.float32)
    chosen = random.choice(sparse.size, count, replace=False)
    sparse.flat[chosen] = random.uniform(5, d_max, count)
    return torch.from_numpy(sparse)[None, None]


def _count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("local_prior", "expected"), [(False, 24_343_663), (True, 24_343_963)])
def test_default_size_is_that_of_the_specification(local_prior, expected):
    with torch.device("meta"):
        network = PDDM(local_prior=local_prior)

    assert _count(network) == expected
    assert _count(network.encoder) == 21_281_072 + 288 * local_prior
    assert (_count(network.initialiser), _count(network.laterals), _count(network.fusions)) == (
        64_528,
        123_392,
        885_504,
    )
    assert [_count(stage) for stage in network.stages] == [n + 3 * local_prior for n in (447_106, *3 * (464_003,))]
    assert (_count(network.up_weights), _count(network.full_size)) == (113_060, 36_992)


@pytest.mark.parametrize("size", [(228, 304), (240, 1216), (270, 338)])
def test_frames_of_any_size_keep_it_at_the_default_widths(size):
    with torch.device("meta"):
        network = PDDM().eval()
        prediction = network(torch.empty(1, 3, *size), torch.empty(1, 1, *size))

    assert prediction.depth.shape == prediction.sigma.shape == (1, 1, *size)
    H, W = (-(-side // 16) * 16 for side in size)
    assert [tuple(stage.shape[2:]) for stage in prediction.stages] == [(H // s, W // s) for s in (16, 8, 4, 2)]
    assert [bins.shape[1] for bins in prediction.centres] == [16, 16, 32, 64, 128]


@pytest.mark.parametrize("count", [0, 1, 5, 270 * 338])
def test_any_number_of_points_gives_finite_depth_inside_the_range(count):
    with torch.no_grad():
        prediction = _toy()(torch.rand(1, 3, 270, 338), _points(count, (270, 338)))

    assert prediction.depth.shape == (1, 1, 270, 338)
    for values in (prediction.depth, prediction.sigma, *prediction.stages, *prediction.centres):
        assert torch.isfinite(values).all()
    assert prediction.depth.min() >= 0
    assert prediction.depth.max() <= 100
    for centres in prediction.centres:
        assert (centres.diff(dim=1) > 0).all()


def test_images_of_a_batch_do_not_touch_each_other():
    network, image = _toy(), torch.rand(3, 3, 40, 56)
    sparse = torch.cat([_points(n, (40, 56), seed=n) for n in (0, 3, 40)])
    with torch.no_grad():
        together = network(image, sparse).depth
        alone = torch.cat([network(image[i : i + 1], sparse[i : i + 1]).depth for i in range(3)])

    assert torch.allclose(together, alone, atol=1e-3)


def test_the_order_of_the_measured_depths_does_not_move_the_seed_bins():
    network = _toy()
    sparse = _points(200)
    shuffled = sparse.flatten()[torch.randperm(sparse.numel())].view_as(sparse)
    widths, _ = network.initialiser(sparse, 0.0, 100.0)
    again, _ = network.initialiser(shuffled, 0.0, 100.0)

    assert torch.allclose(widths, again, atol=1e-6)


def test_untrained_seed_bins_are_the_quantile_bins():
    network, sparse = _toy(), _points(300)
    widths, _ = network.initialiser(sparse, 0.0, 100.0)
    depths = sparse[sparse > 0].numpy().astype(np.float64)
    q = np.quantile(depths, (np.arange(4) + 0.5) / 4)
    expected = np.diff(np.concatenate([[0], (q[1:] + q[:-1]) / 2, [100]])) / 100
    expected = (expected + 0.001) / (1 + 0.004)

    assert np.allclose(widths[0].detach().numpy(), expected, atol=1e-5)
    uniform, _ = network.initialiser(torch.zeros_like(sparse), 0.0, 100.0)
    assert torch.allclose(uniform, torch.full((1, 4), 0.25))


def test_probabilities_of_every_pixel_sum_to_one():
    network, seen = _toy(), []
    for stage in network.stages:
        stage.register_forward_hook(lambda _module, _given, result: seen.append(result))
    with torch.no_grad():
        network(torch.rand(1, 3, 48, 64), _points(20))

    assert [result.probabilities.shape[1] for result in seen] == [4, 8, 16, 32]
    for result in seen:
        assert torch.allclose(result.probabilities.sum(dim=1), torch.ones(()), atol=1e-5)
        assert torch.allclose(result.widths.sum(dim=1), torch.ones(()), atol=1e-5)


def test_every_weight_learns_but_the_one_that_has_nothing_to_carry():
    torch.manual_seed(0)
    network = _toy(local_prior=True).train()
    prediction = network(torch.rand(2, 3, 48, 64), _points(30).expand(2, -1, -1, -1))
    maps = (prediction.depth, prediction.sigma, *prediction.stages, *prediction.centres)
    sum(values.square().sum() for values in maps).backward()

    still = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    shifts = {
        name for name in still if name.endswith("shift.bias")
    }  # a softmax takes no notice of them, but for rounding
    assert still - shifts == {"stages.0.carry"}  # the first stage has no stage before it


def test_untrained_with_the_prior_it_is_close_to_a_nearest_fill():
    sparse = _points(60, (64, 64))
    with torch.no_grad():
        depth = _toy(seed_bins=16)(torch.rand(1, 3, 64, 64), sparse).depth[0, 0].numpy()
        far = _toy(seed_bins=16, local_prior=False)(torch.rand(1, 3, 64, 64), sparse).depth[0, 0].numpy()
    fill, _ = nearest_fill(sparse[0, 0].numpy())

    assert np.abs(depth - fill).mean() < 0.5 * np.abs(far - fill).mean()


def test_a_scene_of_another_size_only_scales_the_answer():
    network, image, sparse = _toy(scale_free=True, d_max=6.0), torch.rand(1, 3, 48, 64), _points(40)
    with torch.no_grad():
        near, far = network(image, sparse), network(image, 10 * sparse)

    assert torch.allclose(far.depth, 10 * near.depth, rtol=1e-3)
    assert torch.allclose(far.sigma, 10 * near.sigma, rtol=1e-2, atol=1e-3)


def test_depths_that_are_not_finite_or_not_positive_count_as_not_measured():
    network, image, sparse = _toy(), torch.rand(1, 3, 48, 64), _points(20)
    dirty = sparse.clone()
    where = torch.nonzero(dirty[0, 0] == 0)[:3]
    for (y, x), value in zip(where, (float("nan"), float("inf"), -3.0), strict=True):
        dirty[0, 0, y, x] = value
    with torch.no_grad():
        assert torch.equal(network(image, sparse).depth, network(image, dirty).depth)


def test_equal_after_save_and_load(tmp_path):
    network, image, sparse = _toy(), torch.rand(1, 3, 48, 64), _points(20)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(5)
    other = PDDM(**TOY).eval()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(network(image, sparse).depth, other(image, sparse).depth)


def test_resnet_names_fit_the_published_ones():
    with torch.device("meta"):
        names = set(PDDM().encoder.state_dict())
    assert {"layer1.0.conv1.weight", "layer3.5.bn2.running_var", "layer4.2.conv2.weight"} <= names


@pytest.mark.parametrize(
    ("image", "sparse", "says"),
    [
        ((1, 1, 32, 32), (1, 1, 32, 32), "image must be"),
        ((1, 3, 32, 32), (1, 1, 32, 31), "sparse depth must be"),
        ((2, 3, 32, 32), (1, 1, 32, 32), "sparse depth must be"),
    ],
)
def test_wrong_shapes_are_refused_in_a_line(image, sparse, says):
    with pytest.raises(ValueError, match=says):
        _toy()(torch.rand(image), torch.rand(sparse))


def test_impossible_configurations_are_refused():
    for config in ({"d_min": 5.0, "d_max": 5.0}, {"widths": (6, 8, 8, 8)}, {"prior_fill": "cubic"}):
        with pytest.raises(ValueError, match=r"."):
            PDDM(**{**TOY, **config})


def test_linear_fill_is_exact_on_a_plane_and_nearest_outside():
    y, x = np.indices((20, 30)).astype(np.float32)
    plane = 10 + 0.5 * x + 0.25 * y
    sparse = np.zeros_like(plane)
    for row, column in ((2, 2), (2, 27), (17, 2), (17, 27)):
        sparse[row, column] = plane[row, column]
    filled = linear_fill(sparse)

    assert np.abs(filled - plane)[2:18, 2:28].max() < 1e-4
    assert filled[0, 0] == plane[2, 2]
    on_a_line = np.where((y == 5) & (sparse == 0) & (x % 7 == 0), plane, 0).astype(np.float32)
    assert np.isfinite(linear_fill(on_a_line)).all()


def test_prior_of_an_image_without_points_is_flat():
    prior = local_prior(torch.zeros(1, 1, 8, 12), 50.0)
    assert prior[0, 0].unique().tolist() == [50.0]
    assert prior[0, 1].unique().tolist() == [1.0]


def test_half_precision_keeps_bins_in_float32():
    network, image, sparse = _toy(), torch.rand(1, 3, 48, 64), _points(20)
    with torch.no_grad():
        exact = network(image, sparse)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(image, sparse)
    assert half.depth.dtype == half.centres[-1].dtype == torch.float32
    assert (half.depth - exact.depth).abs().max() < 2.0
