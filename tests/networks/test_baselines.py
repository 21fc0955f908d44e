"""The two baselines, NAFNet-style and Restormer-style: sizes as published, and what every network must keep."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from medapp.networks.registry import build_network

TOYS = {
    "nafnet": {"width": 4, "middle_blk_num": 1, "enc_blk_nums": (1, 1), "dec_blk_nums": (1, 1)},
    "restormer": {"dim": 8, "num_blocks": (1, 0, 1, 1), "num_refinement_blocks": 1},
}
names = pytest.mark.parametrize("name", sorted(TOYS))


def _toy(name):
    torch.manual_seed(0)
    network = build_network(name, TOYS[name]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_()  # step sizes that start at zero would hide what lies behind them
    return network


@pytest.mark.parametrize(
    ("name", "config", "millions"),
    [
        ("nafnet", {"img_channel": 3}, 29.16),
        ("nafnet", {"img_channel": 3, "width": 64}, 115.98),
        ("restormer", {"inp_channels": 3}, 26.13),
    ],
)
def test_default_sizes_are_the_published_ones(name, config, millions):
    with torch.device("meta"):
        network = build_network(name, config)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


@names
def test_a_batch_is_restored_like_its_images_one_by_one(name):
    network, images = _toy(name), torch.rand(3, 1, 16, 32)
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(image[None]) for image in images])
    assert together.shape == images.shape
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@names
def test_every_parameter_learns(name):
    network = _toy(name)
    network.train()(torch.rand(1, 1, 16, 16)).square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@names
def test_gives_the_same_after_saving(name, tmp_path):
    network, image = _toy(name), torch.rand(1, 1, 16, 16)
    save_file(network.state_dict(), tmp_path / "toy.safetensors")
    again = build_network(name, TOYS[name]).eval()
    again.load_state_dict(load_file(tmp_path / "toy.safetensors"))
    with torch.no_grad():
        assert torch.equal(network(image), again(image))


@names
def test_an_image_that_does_not_fit_gets_one_line(name):
    network, step = _toy(name), 4 if name == "nafnet" else 8
    with pytest.raises(ValueError, match=f"multiples of {step}"):
        network(torch.rand(1, 1, 16, 18))
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        network(torch.rand(1, 3, 16, 16))
