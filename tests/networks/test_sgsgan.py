"""SGSGAN-style: the generator, the critic and the segmenter of our reconstruction."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from medapp.networks.architectures.sgsgan import SGSGAN, Discriminator, Segmenter, StyleLayer
from medapp.networks.blocks.modulated_conv import ModulatedConv
from medapp.networks.card import Intake
from medapp.networks.registry import ARCHITECTURES
from medapp.progress import Progress
from medapp.restoration.ranges import from_network, to_network
from medapp.restoration.tiling import Tiling, run_tiled

TOY = {"channels": (4, 6, 8, 10), "style_width": 8}
BOTH = pytest.mark.parametrize("dims", [2, 3])


def _toy(dims=2, **options):
    torch.manual_seed(0)
    network = SGSGAN(dims, **TOY, **options)
    with torch.no_grad():  # as after some training: biases and noise take part
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def _image(dims, *sides, batch=2):
    torch.manual_seed(1)
    return torch.rand(batch, 1, *(sides or (16, 8, 24)[:dims]))


@pytest.mark.parametrize(
    ("dims", "counts"), [(2, (2_489_833, 2_761_921, 488_485)), (3, (6_379_561, 11_034_817, 1_461_061))]
)
def test_sizes_are_those_of_the_spec(dims, counts):
    with torch.device("meta"):
        networks = SGSGAN(dims), Discriminator(dims), Segmenter(5, dims)
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == counts


def test_volumes_are_the_default():
    with torch.device("meta"):
        assert ARCHITECTURES["sgsgan"].build().dims == 3


def test_keys_are_those_of_the_spec():
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in SGSGAN(3).state_dict().items()}
    assert len(shapes) == 70
    assert shapes["stem.0.weight"] == (32, 1, 3, 3, 3)
    assert shapes["style.1.2.weight"] == (256, 256)
    assert shapes["dec.2.0.conv.weight"] == (128, 384, 3, 3, 3)
    assert shapes["dec.0.1.conv.affine.weight"] == (32, 256)
    assert shapes["dec.0.1.noise_strength"] == ()
    assert shapes["to_img.2.weight"] == (1, 128, 1, 1, 1)
    assert shapes["to_img_bias.0"] == (1,)


@BOTH
def test_output_has_the_shape_of_the_input(dims):
    image = _image(dims)
    assert _toy(dims).eval()(image).shape == image.shape


@pytest.mark.parametrize(
    ("dims", "shape"),
    [(2, (1, 1, 20, 16)), (2, (1, 2, 16, 16)), (2, (1, 1, 8, 8, 8)), (3, (1, 1, 8, 8)), (3, (1, 1, 8, 8, 12))],
)
def test_other_sizes_channels_and_dimensions_are_refused(dims, shape):
    with pytest.raises(ValueError, match="must be"):
        _toy(dims)(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"dims": 4}, {"channels": (1, 2)}, {"noise": "loud"}])
def test_other_configurations_are_refused(options):
    with pytest.raises(ValueError):
        SGSGAN(**{"dims": 2, **TOY, **options})


def test_any_size_passes_through_the_padding_of_the_restorer():
    network = _toy().eval()

    def run(part, _maps):
        with torch.no_grad():
            return network(torch.from_numpy(part)[None, None])[0, 0].numpy()

    image = torch.rand(60, 64).numpy()
    restored, _ = run_tiled(image, run, Tiling(multiple=8), torch.device("cpu"), Progress())
    assert restored.shape == (60, 64)
    network(torch.rand(1, 1, 72, 80))  # needs none


def test_its_logarithmic_range_is_that_of_the_spec():
    intake = Intake("PT", "SUV", (0.0, 20.0), (0.0, 1.0), "log")
    suv = np.array([0.0, 0.5, 5.0, 20.0], np.float32)
    np.testing.assert_allclose(to_network(suv, intake), np.log1p(suv) / np.log(21), atol=1e-6)
    np.testing.assert_allclose(from_network(to_network(suv, intake), intake), suv, atol=1e-5)


@pytest.mark.parametrize("is_demodulated", [True, False])
@BOTH
def test_both_forms_of_the_modulated_convolution_agree_in_values_and_gradients(dims, is_demodulated):
    torch.manual_seed(0)
    layer = ModulatedConv(6, 5, 3, dims, 7, is_demodulated)
    features, code = _image(dims).expand(-1, 6, *[-1] * dims).clone() + torch.randn(6, *[1] * dims), torch.randn(2, 7)
    results = []
    for form in (layer.forward, layer.folded):
        layer.zero_grad()
        inputs = [value.clone().requires_grad_() for value in (features, code)]
        output = form(*inputs)
        output.square().mean().backward()
        results.append([output, *(value.grad for value in inputs), *(p.grad.clone() for p in layer.parameters())])

    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_style_times_a_positive_number_changes_nothing():
    layer, code = ModulatedConv(6, 5, 3, 2, 7), torch.randn(2, 7)
    features = torch.randn(2, 6, 8, 8)
    before = layer(features, code)
    with torch.no_grad():
        layer.affine.weight.mul_(3.7)
        layer.affine.bias.mul_(3.7)

    torch.testing.assert_close(layer(features, code), before, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_style_layer_is_its_formula_with_one_noise_for_all_channels():
    torch.manual_seed(0)
    layer, features, code, noise = (
        StyleLayer(3, 4, 2, 5),
        torch.randn(2, 3, 6, 7),
        torch.randn(2, 5),
        torch.randn(2, 1, 6, 7),
    )
    layer.noise_strength.fill_(0.3)
    layer.bias.normal_()
    for image in range(2):
        style = code[image] @ layer.conv.affine.weight.T + layer.conv.affine.bias
        weight = layer.conv.weight / 27**0.5 * style[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        mixed = functional.conv2d(features[image : image + 1], weight, padding=1)
        mixed = mixed + 0.3 * noise[image : image + 1] + layer.bias[:, None, None]
        expected = torch.where(mixed > 0, mixed, 0.2 * mixed) * 2**0.5
        torch.testing.assert_close(layer(features, code, noise)[image], expected[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_images_of_all_levels_are_added_up_from_the_coarsest():
    network, image = _toy().eval(), _image(2)
    heads = []
    for level, head in enumerate(network.to_img):
        head.register_forward_hook(lambda _m, _i, out, level=level: heads.append((level, out)))
    made = network(image)

    assert [level for level, _ in heads] == [2, 1, 0]
    change = heads[0][1] + network.to_img_bias[2]
    for level, out in heads[1:]:
        larger = functional.interpolate(change, scale_factor=2, mode="bilinear", align_corners=False)
        change = larger + out + network.to_img_bias[level]
    torch.testing.assert_close(made, image + change)


def test_the_style_of_an_image_does_not_reach_its_neighbours():
    layer, features = ModulatedConv(4, 3, 3, 2, 5), torch.randn(1, 4, 8, 8)
    codes = torch.randn(2, 5)
    together = layer(features.expand(2, -1, -1, -1), codes)

    for index in range(2):
        torch.testing.assert_close(together[index], layer(features, codes[index : index + 1])[0])
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@BOTH
def test_half_precision_stays_close_to_float32(dims):
    network, image = _toy(dims).eval(), _image(dims)
    with torch.no_grad():
        full = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(image)
    assert (half - full).norm() / (full - image).norm() < 0.03


def test_large_styles_do_not_overflow_in_half_precision():
    layer = ModulatedConv(8, 4, 3, 2, 5).half()
    features, code = torch.randn(1, 8, 8, 8).half(), torch.full((1, 5), 30_000.0)

    output = layer(features, code)

    assert output.dtype == torch.float16
    assert output.isfinite().all()


def test_without_image_heads_the_output_is_the_input():
    network, image = _toy().eval(), _image(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(("to_img.", "to_img_bias.")) and "affine" not in name:
                parameter.zero_()
        assert torch.equal(network(image), image)


def test_evaluation_is_repeatable_and_training_is_not():
    network, image = _toy(), _image(2)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), network(image))
        assert torch.equal(network.train()(image, noise="none"), network.eval()(image))
        assert not torch.equal(network.train()(image), network(image))


def test_constant_noise_is_noise_and_the_same_every_time():
    network, image = _toy(noise="const").eval(), _image(2)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        assert not torch.equal(network(image), network(image, noise="none"))
        torch.testing.assert_close(network(image)[:1], network(image[:1]), rtol=0, atol=1e-5)


def test_noise_of_no_strength_changes_nothing():
    torch.manual_seed(0)
    network, image = SGSGAN(2, **TOY), _image(2)  # strengths start at zero
    with torch.no_grad():
        assert torch.equal(network(image, noise="random"), network(image, noise="none"))


def test_a_batch_equals_its_images_one_by_one():
    network, image = _toy().eval(), _image(2)
    with torch.no_grad():
        torch.testing.assert_close(network(image)[1:], network(image[1:]), rtol=0, atol=1e-5)


@BOTH
def test_saved_and_loaded_it_gives_the_same_image(tmp_path, dims):
    network, image = _toy(dims).eval(), _image(dims)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = SGSGAN(dims, **TOY).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))

    with torch.no_grad():
        assert torch.equal(other(image), network(image))


@BOTH
def test_the_critic_scores_each_pair_and_learns(dims):
    critic = Discriminator(dims, channels=(4, 6, 8, 10))
    low_dose, candidate = torch.rand(2, 2, 1, *[32] * dims)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = critic(low_dose, candidate)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    scores.square().sum().backward()
    # a convolution's bias before an instance norm has no effect; all else learns
    still = {name for name, p in critic.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-7}
    assert still <= {"body.2.bias", "body.5.bias", "body.8.bias"}


def test_the_critic_refuses_small_and_unlike_images():
    critic = Discriminator(2, channels=(4, 6, 8, 10))
    with pytest.raises(ValueError, match="at least 32"):
        critic(torch.zeros(1, 1, 24, 64), torch.zeros(1, 1, 24, 64))
    with pytest.raises(ValueError, match="differ"):
        critic(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 40))


@BOTH
def test_the_segmenter_gives_a_score_for_each_class(dims):
    image = _image(dims)
    logits = Segmenter(5, dims, channels=(4, 6, 8, 10))(torch.rand(2, 1, *[16] * dims))
    assert logits.shape == (2, 5, *[16] * dims)
    with pytest.raises(ValueError, match="multiple of 8"):
        Segmenter(5, dims)(image[..., :4])
    with pytest.raises(ValueError, match="background"):
        Segmenter(1, dims)
