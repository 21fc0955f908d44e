"""RAT: the published network in our words, without its N x N mask."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from medapp.errors import WeightsError
from medapp.networks.architectures.rat import RAT, drop_loss_keys
from medapp.networks.blocks import pieces
from medapp.networks.blocks.region_attention import DensePlan, RegionAttention, RegionPlan
from medapp.networks.registry import architecture, build_network
from medapp.paths import shared_data_dir

TOY = {"width": 4, "middle_blk_num": 3, "enc_blk_nums": (1, 1), "dec_blk_nums": (1, 1)}


def _toy(**changes):
    """A network whose step sizes are not zero, as they are at the start: otherwise nothing would be exercised."""
    torch.manual_seed(0)
    network = RAT(**{**TOY, **changes}).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.rsplit(".")[-1] in ("beta", "gamma", "lambda_ra", "lambda_wa"):
                parameter.normal_()
    return network


def _patches(height, width, cell=16):
    """One region a cell of so many pixels, ``(1, H, W)``."""
    rows, columns = torch.arange(height) // cell, torch.arange(width) // cell
    return (rows[:, None] * (int(columns.max()) + 1) + columns)[None]


def _maps(height, width):
    """The label maps of the spec's acceptance checks, as far as they can be made here."""
    generator = torch.Generator().manual_seed(3)
    yield torch.ones(1, height, width)
    yield _patches(height, width) % 2
    yield _patches(height, width, cell=4)  # each token its own region
    yield torch.randint(0, 5, (1, height, width), generator=generator, dtype=torch.uint8)


def test_equals_the_published_network_on_the_golden_tensors():
    path = shared_data_dir().parent / "goldens" / "rat.safetensors"
    if not path.exists():
        pytest.skip("the golden tensors are not beside this checkout")
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    network = RAT(**config).eval()
    network.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})

    with torch.no_grad():
        output = network(tensors["input.image"], region_map=tensors["input.labels"])

    error = (output - tensors["output"]).norm() / tensors["output"].norm()
    assert error <= 1e-5


@pytest.mark.parametrize(
    ("config", "parameters"),
    [({}, 15_945_025), ({"img_channel": 3}, 15_947_331), ({"width": 48}, 8_988_145), ({"width": 32}, 4_011_681)],
)
def test_sizes_are_the_published_ones(config, parameters):
    with torch.device("meta"):
        network = RAT(**config)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert not config or len(network.state_dict()) == 474


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (80, 48)])
def test_equals_the_form_with_a_mask_for_every_kind_of_map(size):
    network, image = _toy(), torch.rand(1, 1, *size)
    for region_map in _maps(*size):
        with torch.no_grad():
            sorted_form = network(image, region_map=region_map)
            network.plan_regions = DensePlan.of
            masked_form = network(image, region_map=region_map)
            del network.plan_regions

        assert sorted_form.shape == image.shape
        torch.testing.assert_close(sorted_form, masked_form, rtol=0, atol=1e-5)


def test_names_of_regions_do_not_matter():
    network, image = _toy(), torch.rand(1, 1, 48, 64)
    region_map = _patches(48, 64)
    names = torch.randperm(12, generator=torch.Generator().manual_seed(1)) * 1000 + 7

    with torch.no_grad():
        renamed = network(image, region_map=names[region_map])

        torch.testing.assert_close(renamed, network(image, region_map=region_map), rtol=0, atol=1e-6)
        assert not torch.allclose(renamed, network(image, region_map=torch.zeros(1, 48, 64)), atol=1e-3)


def test_one_region_is_attention_among_all_pixels():
    torch.manual_seed(0)
    attention, tokens = RegionAttention(16, heads=8), torch.randn(40, 16)
    plan = RegionPlan.of(torch.ones(1, 40, dtype=torch.int64))

    with torch.no_grad():
        weight, bias = attention.qkv.weight[:, :, 0, 0], attention.qkv.bias
        query, key, value = (tokens @ weight.T + bias).view(40, 3, 8, 2).permute(1, 2, 0, 3)
        logits = query @ key.transpose(1, 2) / 8**0.5  # the published scale: by the heads
        mixed = (logits.softmax(dim=2) @ value).transpose(0, 1).reshape(40, 16)
        expected = functional.conv2d(
            mixed.T[None, :, :, None], attention.project_out.weight, attention.project_out.bias
        )
        found = plan.restore(attention(plan.sort(tokens), plan))

    torch.testing.assert_close(found, expected[0, :, :, 0].T, rtol=0, atol=1e-5)


def test_many_small_regions_are_few_attention_calls():
    labels = torch.arange(4096).repeat_interleave(4)[None]  # 4,096 regions of four tokens
    assert RegionPlan.of(labels).groups == ((4096, 4),)
    worst = torch.arange(180).repeat_interleave(torch.arange(1, 181))[None]  # every size once
    assert len(RegionPlan.of(worst).groups) == 180


def test_gradients_are_those_of_the_form_with_a_mask():
    region_map, image = _patches(32, 48), torch.rand(1, 1, 32, 48)
    gradients = []
    for plan in (RegionPlan.of, DensePlan.of):
        network = _toy()
        network.plan_regions = plan
        network(image, region_map=region_map).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])

    for fast, slow in zip(*gradients, strict=True):
        assert (fast - slow).norm() <= 1e-4 * slow.norm() + 1e-6


def test_every_weight_learns():
    network = _toy()
    network(torch.rand(1, 1, 32, 16), region_map=_patches(32, 16)).square().sum().backward()

    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_images_of_a_batch_do_not_see_each_other():
    network, images = _toy(), torch.rand(3, 1, 32, 32)
    maps = torch.cat([_patches(32, 32), torch.ones(1, 32, 32, dtype=torch.int64), _patches(32, 32, cell=4)])

    with torch.no_grad():
        together = network(images, region_map=maps)
        alone = [network(images[i : i + 1], region_map=maps[i : i + 1]) for i in range(3)]

    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.float32, torch.float64])
def test_labels_may_have_any_type(dtype):
    network, image = _toy(), torch.rand(1, 1, 16, 32)
    with torch.no_grad():
        expected = network(image, region_map=_patches(16, 32, cell=8))
        found = network(image, region_map=_patches(16, 32, cell=8).to(dtype))
    assert torch.equal(found, expected)


def test_an_enlarging_network_takes_the_map_of_the_enlarged_image():
    network, image = _toy(scale=4, img_channel=3), torch.rand(2, 3, 8, 12)
    region_map = _patches(32, 48).expand(2, -1, -1)
    with torch.no_grad():
        assert network(image, region_map=region_map).shape == (2, 3, 32, 48)
        network.ending.weight.zero_()
        network.ending.bias.zero_()
        enlarged = functional.interpolate(image, scale_factor=4, mode="bilinear", align_corners=False)
        assert torch.equal(network(image, region_map=region_map), enlarged)
    with pytest.raises(ValueError, match="shape"):
        network(image, region_map=region_map[:, ::4, ::4])


@pytest.mark.parametrize(
    ("region_map", "words"),
    [
        (None, "needs a region map"),
        (torch.zeros(1, 32, 16), r"shape \(1, 16, 32\)"),
        (torch.zeros(2, 16, 32), r"shape \(1, 16, 32\)"),
        (torch.full((1, 16, 32), -1), "negative"),
        (torch.full((1, 16, 32), 0.5), "whole numbers"),
        (torch.full((1, 16, 32), torch.nan), "whole numbers"),
    ],
)
def test_wrong_region_maps_are_refused_in_one_line(region_map, words):
    with pytest.raises(ValueError, match=words) as caught:
        _toy()(torch.rand(1, 1, 16, 32), region_map=region_map)
    assert "\n" not in str(caught.value)


def test_images_of_other_channels_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"must be \(B, 1, H, W\), not \(1, 3, 16, 16\)"):
        _toy()(torch.rand(1, 3, 16, 16), region_map=torch.zeros(1, 16, 16))


@pytest.mark.parametrize("size", [(60, 64), (64, 72)])
def test_sizes_that_are_no_multiple_of_sixteen_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 16"):
        _toy()(torch.rand(1, 1, *size), region_map=torch.zeros(1, *size))


@pytest.mark.parametrize(
    "config", [{"middle_blk_num": 4}, {"width": 3}, {"scale": 0}, {"enc_blk_nums": (1,)}, {"window": 4}]
)
def test_configurations_that_do_not_fit_are_refused(config):
    with pytest.raises(WeightsError, match="does not fit"):
        build_network("rat", {**TOY, **config})


def test_autocast_stays_close_to_float32():
    network, image, region_map = _toy(), torch.rand(1, 1, 32, 32), _patches(32, 32)
    with torch.no_grad():
        exact = network(image, region_map=region_map)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = network(image, region_map=region_map)
    assert (rounded.float() - exact).norm() <= 0.05 * exact.norm()


def test_saved_and_loaded_it_gives_the_same_image(tmp_path):
    network, image, region_map = _toy(), torch.rand(1, 1, 16, 16), _patches(16, 16, cell=8)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = RAT(**TOY).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))

    with torch.no_grad():
        assert torch.equal(other(image, region_map=region_map), network(image, region_map=region_map))


def test_training_checkpoints_lose_the_weights_of_their_loss():
    weights = _toy().state_dict()
    published = {**weights, "loss_fun.kernel": torch.zeros(3)}
    assert drop_loss_keys(published).keys() == weights.keys()
    assert architecture("rat").inputs == ("region_map",)


def test_pieces_of_a_large_slice_give_the_same_image(monkeypatch):
    network, image, region_map = _toy(), torch.rand(2, 1, 32, 48), _patches(32, 48).expand(2, -1, -1)
    with torch.no_grad():
        whole = network(image, region_map=region_map)
        monkeypatch.setattr(pieces, "PIECE_ELEMENTS", 1000)

        torch.testing.assert_close(network(image, region_map=region_map), whole, rtol=0, atol=1e-5)
