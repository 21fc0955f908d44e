"""Medical Matting: the published network in our words; golden values of its specification, section 8."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from medapp.networks.architectures.medical_matting import MedicalMatting, binary_entropy, published_matting
from medapp.networks.blocks.probabilistic_unet import divergence
from medapp.networks.registry import ARCHITECTURES, build_network
from tests.networks.filling import filled

TOY = {"num_filters": (4, 6, 6, 8), "hidden_channel": 4, "num_sampling": 3}

GOLDEN = {
    1: {
        "size": 128,
        "features": (0.190084, 0.261749, 0.235176, 0.841517, 0.723231, 0.028099),
        "prior": (0.408887, 0.372268, 0.998060, 1.667956),
        "posterior": (0.130232, -0.649150, 1.191215, 0.269130),
        "kl": 1.598998,
        "logit": (0.371206, 0.071301, 0.109954, 0.432024, 0.315136, 0.072433),
        "latent": (0.290967, 0.306291),
        "uncertainty": (0.575045, 0.982518, 0.995289, 0.978172, 0.990636, 0.998368),
        "alpha": (2.653414, 0.755370, 0.641923, 3.277056, 2.182783, 0.554934),
    },
    3: {
        "size": 64,
        "features": (0.102583, 0.148960, 0.000722, 0.254247, 0.594902, 0.0),
        "prior": (0.438002, 0.478653, 0.851129, 1.616585),
        "posterior": (0.082208, -0.397606, 1.000311, 0.286536),
        "kl": 1.509328,
        "logit": (0.273291, 0.083073, 0.034434, 0.248184, 0.376560, -0.010663),
        "latent": (0.182925, 0.191158),
        "uncertainty": (0.558538, 0.989273, 0.998486, 0.988000, 0.986304, 0.999416),
        "alpha": (2.242505, 0.796465, 0.480647, 2.201146, 1.470172, 0.626796),
    },
}


def _toy(**changes):
    torch.manual_seed(0)
    return MedicalMatting(**{**TOY, **changes})


def _image(channels, size, dtype):
    i, j = torch.meshgrid(torch.arange(size, dtype=dtype), torch.arange(size, dtype=dtype), indexing="ij")
    return torch.stack([0.5 + 0.5 * torch.sin(0.05 * i + 0.11 * j + 0.5 * c) for c in range(channels)])[None]


def _at(picture):
    size = picture.shape[-1]
    return [picture[p].item() for p in ((0, 0), (10, 20), (size // 2, size // 2), (size - 1, size - 1))]


def _told(picture, shown=None):
    picture = picture[0].double()
    return [picture.mean().item(), picture.std().item(), *_at(picture[0] if shown is None else shown)]


@pytest.mark.parametrize(("channels", "dtype"), [(1, torch.float32), (3, torch.float32), (3, torch.float64)])
@torch.no_grad()
def test_equals_the_published_network_on_deterministic_weights(channels, dtype):
    golden = GOLDEN[channels]
    size = golden["size"]
    network = MedicalMatting(input_channels=channels).to(dtype).eval()
    network.load_state_dict(filled(network.state_dict()))
    image = _image(channels, size, dtype)
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = ((i - size / 2) ** 2 + (j - size / 2) ** 2 < (size / 4) ** 2).to(dtype)[None, None]
    k = torch.arange(8, dtype=torch.float64)
    codes = 0.5 * torch.stack([k.cos(), k.sin()], dim=1)[None].to(dtype)  # (1, 8, 2)

    unet = network.prob_unet
    features = unet.unet(image)
    prior, posterior = unet.prior(image), unet.posterior(torch.cat([image, mask], dim=1))
    latent, logit = unet.fcomb(features, codes[:, 0])
    noise = (codes - prior.mean[:, None]) / prior.log_sigma.exp()[:, None]
    made = network(image, count=8, noise=noise)

    def equals(found, expected):
        assert found == pytest.approx(expected, abs=1e-5, rel=1e-5)  # processors round float32 differently

    equals(unet.prior.conv_layer.bias.tolist(), (-0.002979, -0.035194, -0.038268, -0.040451))
    equals(_told(features, features[0, 1]), golden["features"])
    equals([*prior.mean[0].tolist(), *prior.log_sigma[0].exp().tolist()], golden["prior"])
    equals([*posterior.mean[0].tolist(), *posterior.log_sigma[0].exp().tolist()], golden["posterior"])
    equals(divergence(posterior, prior).item(), golden["kl"])
    equals(_told(logit), golden["logit"])
    equals(_told(latent)[:2], golden["latent"])
    means = [made.masks.double().mean().item(), made.uncertainty.double().mean().item()]
    equals([*means, *_at(made.uncertainty[0, 0])], golden["uncertainty"])
    equals(_told(made.alpha_logits), golden["alpha"])


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 6_782_347),
        ({"input_channels": 3}, 6_784_715),
        ({"latent_dim": 6}, 6_785_563),
        ({"use_uncertainty_map": False}, 6_779_467),
    ],
)
def test_sizes_are_the_published_ones(config, count):
    with torch.device("meta"):
        network = MedicalMatting(**config)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_parts_have_the_published_sizes_and_the_published_number_of_keys():
    with torch.device("meta"):
        network = MedicalMatting()
    unet, matting = network.prob_unet, network.matting_net
    parts = (unet.unet, unet.prior, unet.posterior, unet.fcomb, matting)
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == [
        2_263_968,
        1_366_276,
        1_366_564,
        3_265,
        1_782_274,
    ]
    assert len(network.state_dict()) == 367
    assert sum(b.numel() for b in network.buffers()) == 7_979


def test_a_published_checkpoint_loads_without_its_wrapper():
    network = _toy()
    published = {f"model.{key}": value for key, value in network.state_dict().items()} | {"log_vars": torch.zeros(2)}
    other = build_network("medical_matting", TOY)
    other.load_state_dict(ARCHITECTURES["medical_matting"].adapt(published))
    assert published_matting(published).keys() == network.state_dict().keys()
    image, noise = torch.rand(1, 1, 16, 16), torch.randn(1, 3, 2)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(image, noise=noise).alpha, network.eval()(image, noise=noise).alpha)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_any_number_of_masks_comes_with_a_map_and_an_alpha(count, size):
    with torch.no_grad():
        made = _toy().eval()(torch.rand(2, 1, *size), count=count)
    assert made.masks.shape == (2, count, *size)
    assert made.uncertainty.shape == made.alpha.shape == (2, 1, *size)
    assert 0 <= made.alpha.min() <= made.alpha.max() <= 1
    assert made.kl is None


@torch.no_grad()
def test_the_same_noise_gives_the_same_alpha_and_other_noise_another():
    network, image = _toy().eval(), torch.rand(1, 1, 16, 16)
    noise = torch.randn(1, 3, 2)
    first = network(image, noise=noise)
    assert torch.equal(network(image, noise=noise).alpha, first.alpha)
    assert not torch.equal(network(image, noise=noise + 1).alpha, first.alpha)


@torch.no_grad()
def test_with_the_mean_first_the_first_mask_does_not_depend_on_the_draw():
    network, image = _toy().eval(), torch.rand(1, 1, 16, 16)
    first, second = (network(image, noise=torch.randn(1, 3, 2), mean_first=True).masks for _ in range(2))
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first[:, 1], second[:, 1])


@torch.no_grad()
def test_a_batch_gives_what_its_images_give_one_by_one():
    network, images, noise = _toy().eval(), torch.rand(3, 1, 16, 16), torch.randn(3, 3, 2)
    together = network(images, noise=noise)
    for n in range(3):
        alone = network(images[n : n + 1], noise=noise[n : n + 1])
        torch.testing.assert_close(alone.alpha[0], together.alpha[n], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.masks[0], together.masks[n], rtol=0, atol=1e-6)


@torch.no_grad()
def test_tiles_change_nothing():
    network, image, noise = _toy().eval(), torch.rand(1, 1, 96, 120), torch.randn(1, 3, 2)
    stops = []
    whole = network(image, noise=noise)
    tiled = network(image, noise=noise, tile_px=40, check=lambda: stops.append(1))
    torch.testing.assert_close(tiled.alpha_logits, whole.alpha_logits, rtol=0, atol=1e-6)
    assert len(stops) == 2 * 9


def test_every_weight_learns_but_for_the_biases_before_a_batch_norm():
    network = _toy().train()
    made = network(torch.rand(2, 1, 16, 16), torch.ones(2, 1, 16, 16))
    (made.alpha.sum() + made.score_map.sum() + made.kl).backward()
    still = [name for name, p in network.named_parameters() if p.grad is None]
    assert still == []
    unmoved = [n for n, p in network.named_parameters() if not p.grad.abs().sum() > 0 and not n.endswith(".bias")]
    assert unmoved == []


@torch.no_grad()
def test_in_training_the_first_draw_of_the_posterior_is_matted_and_the_others_are_the_masks():
    network, image = _toy().train(), torch.rand(2, 1, 16, 16)
    mask, noise = (torch.rand(2, 1, 16, 16) > 0.5).float(), torch.randn(2, 4, 2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # so that two passes see the same statistics
    made = network(image, mask, noise=noise)

    unet = network.prob_unet
    posterior, features = unet.posterior(torch.cat([image, mask], dim=1)), unet.unet(image)
    codes = [posterior.mean + posterior.log_sigma.exp() * noise[:, draw] for draw in range(4)]
    latent, score_map = unet.fcomb(features, codes[0])
    masks = torch.cat([unet.fcomb(features, code)[1].sigmoid() for code in codes[1:]], dim=1)
    p = masks.mean(dim=1, keepdim=True)
    bits = -p * (p + 1e-6).log2() - (1 - p) * (1 - p + 1e-6).log2()
    torch.testing.assert_close(made.score_map, score_map)
    torch.testing.assert_close(made.masks, masks)
    torch.testing.assert_close(made.uncertainty, bits)
    torch.testing.assert_close(made.alpha_logits, network.matting_net(latent, image, bits))
    q, prior = (torch.distributions.Normal(g.mean, g.log_sigma.exp()) for g in (posterior, unet.prior(image)))
    torch.testing.assert_close(made.kl, torch.distributions.kl_divergence(q, prior).sum(dim=1).mean())


def test_the_matting_loss_trains_the_features_but_not_the_posterior_through_the_masks():
    network = _toy().train()
    made = network(torch.rand(2, 1, 16, 16), torch.ones(2, 1, 16, 16))
    made.masks.sum().backward()
    assert network.prob_unet.posterior.conv_layer.weight.grad is None
    assert network.prob_unet.unet.contracting_path[0].layers[0].weight.grad.abs().sum() > 0


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    network, image, noise = _toy().eval(), torch.rand(1, 1, 16, 16), torch.randn(1, 3, 2)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = MedicalMatting(**TOY).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        assert torch.equal(other(image, noise=noise).alpha, network(image, noise=noise).alpha)


def test_without_its_posterior_it_matts_the_same_but_cannot_be_trained():
    network, image, noise = _toy().eval(), torch.rand(1, 1, 16, 16), torch.randn(1, 3, 2)
    light = MedicalMatting(**TOY, use_posterior=False).eval()
    light.load_state_dict({k: v for k, v in network.state_dict().items() if ".posterior." not in k})
    with torch.no_grad():
        assert torch.equal(light(image, noise=noise).alpha, network(image, noise=noise).alpha)
    with pytest.raises(ValueError, match="posterior"):
        light.train()(image, torch.ones_like(image))


def test_without_a_matting_net_it_is_a_probabilistic_unet():
    with torch.no_grad():
        made = _toy(use_matting=False).eval()(torch.rand(1, 1, 16, 16))
    assert made.alpha_logits is None
    with pytest.raises(ValueError, match="no alpha"):
        _ = made.alpha


def test_entropy_is_one_bit_at_a_half_also_in_half_precision():
    bits = binary_entropy(torch.tensor([0.5, 0.0, 1.0, 0.11], dtype=torch.bfloat16))
    assert bits.dtype is torch.float32
    assert bits.tolist() == pytest.approx([1.0, 0.0, 0.0, 0.5], abs=0.005)
    assert binary_entropy(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == pytest.approx(
        [-1.44e-6] * 2, rel=1e-2
    )


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        ((1, 3, 16, 16), {}, "must be"),
        ((1, 1, 20, 16), {}, "multiples of 8"),
        ((1, 1, 16, 16), {"count": 0}, "at least one"),
        ((1, 1, 16, 16), {"noise": torch.zeros(1, 2, 2)}, "noise"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(image, options, said):
    with pytest.raises(ValueError, match=said):
        _toy().eval()(torch.rand(*image), **options)


def test_training_without_a_mask_of_the_right_size_is_refused():
    network = _toy().train()
    with pytest.raises(ValueError, match="needs a mask"):
        network(torch.rand(1, 1, 16, 16))
    with pytest.raises(ValueError, match="like the image"):
        network(torch.rand(1, 1, 16, 16), torch.ones(1, 1, 8, 8))
