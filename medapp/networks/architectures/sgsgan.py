"""SGSGAN-style: a generator steered by its own features, with the critic and the segmenter that train it.

The paper's code and weights are not published; this is a reconstruction of its idea, and its results are not the
paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.modulated_conv import ModulatedConv

Noise = Literal["random", "const", "none"]
LEVELS = 3
SLOPE = 0.2
CRITIC_CHANNELS = (64, 128, 256, 512)
CRITIC_MIN_SIDE = 32
"""Below it the deepest instance norm sees one voxel only."""
SEGMENTER_CHANNELS = (16, 32, 64, 128)


class StyleLayer(nn.Module):
    """A modulated convolution, noise of a learnt strength, and a leaky ReLU that keeps the variance.

    Reference:
        Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, section 2.1.
    """

    def __init__(self, channels: int, out_channels: int, dims: int, style_width: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(channels, out_channels, 3, dims, style_width)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor, code: Tensor, noise: Tensor | None) -> Tensor:
        """``(B, C, ...)`` features, ``(B, style width)`` codes and ``(B, 1, ...)`` noise in; ``(B, out, ...)`` out."""
        mixed = self.conv(features, code)
        if noise is not None:
            mixed = mixed + self.noise_strength * noise
        mixed = mixed + self.bias.view(-1, *([1] * (mixed.ndim - 2)))
        return functional.leaky_relu(mixed, SLOPE) * 2**0.5


class SGSGAN(nn.Module):
    """Turns low-dose PET into full-dose PET; each level's features are weighed by a code drawn from the input's own.

    Sides must be multiples of 8. Values come in as SUV 0..20 divided by 20; the input is added to the output, which is
    not clamped.

    Args:
        dims: 2 for slices, 3 for volumes.
        channels: Of the four levels, finest first.
        style_width: Length of the style codes.
        noise: In evaluation: ``none``; ``const``, the same for every call; or ``random``. Training is always random
            unless a call says otherwise.

    Reference:
        After Zhou, Yang et al., "3D Segmentation Guided Style-based Generative Adversarial Networks for PET
        Synthesis", IEEE TMI 41(8), 2022: style modulation of the features and coupling with a segmenter. Sizes, losses
        and keys are ours.
    """

    def __init__(
        self,
        dims: int = 3,
        channels: Sequence[int] = (32, 64, 128, 256),
        style_width: int = 256,
        noise: Noise = "none",
    ) -> None:
        _check_dims(dims)
        if len(channels) != LEVELS + 1:
            raise ValueError("channels needs four levels")
        _check_noise(noise)
        super().__init__()
        self.dims, self.noise = dims, noise
        levels = list(pairwise(channels))  # (own width, width of the next coarser), finest first
        self.stem = _convolution(dims, 1, channels[0])
        self.enc = nn.ModuleList(_convolution(dims, own, own) for own, _ in levels)
        self.style = nn.ModuleList(_code_maker(own, style_width) for own, _ in levels)
        self.down = nn.ModuleList(_convolution(dims, own, coarser, stride=2) for own, coarser in levels)
        self.mid = _convolution(dims, channels[-1], channels[-1])
        self.dec = nn.ModuleList(
            nn.ModuleList(StyleLayer(entering, own, dims, style_width) for entering in (coarser + own, own))
            for own, coarser in levels
        )
        self.to_img = nn.ModuleList(
            ModulatedConv(own, 1, 1, dims, style_width, is_demodulated=False) for own, _ in levels
        )
        self.to_img_bias = nn.ParameterList(torch.zeros(1) for _ in range(LEVELS))

    def forward(self, image: Tensor, noise: Noise | None = None) -> Tensor:
        """``(B, 1, H, W)`` or ``(B, 1, D, H, W)`` in; same shape out, not clamped.

        Args:
            image: In the network's range.
            noise: None = random in training, as the constructor was told in evaluation.

        Raises:
            ValueError: Another number of dimensions or channels, or a side that is not a multiple of 8.
        """
        _check_image(image, self.dims, 1)
        if any(side % 8 for side in image.shape[2:]):
            raise ValueError(f"every side must be a multiple of 8, not {_by(image.shape[2:])}")
        mode: Noise = noise or ("random" if self.training else self.noise)
        _check_noise(mode)
        features, skips, codes = self.stem(image), [], []
        for encode, make_code, halve in zip(self.enc, self.style, self.down, strict=True):
            features = encode(features)
            skips.append(features)
            codes.append(make_code(features.flatten(2).mean(2)))  # (B, style width)
            features = halve(features)
        features, changes = self.mid(features), []
        for level in reversed(range(LEVELS)):
            features = torch.cat([_doubled(features), skips[level]], dim=1)
            for index, layer in enumerate(cast(nn.ModuleList, self.dec[level])):
                features = layer(features, codes[level], _noise(mode, skips[level], seed=2 * level + index))
            changes.append(self.to_img[level](features, codes[level]) + self.to_img_bias[level])
        change = changes[0]
        for finer in changes[1:]:
            change = _doubled(change) + finer
        return image + change


class Discriminator(nn.Module):
    """Scores a candidate beside the low-dose image it came from: high for measured, low for made.

    Computes in float32 also under autocast, and can be differentiated twice. Every side must be at least 32.

    Reference:
        Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017 (patch scores).
    """

    def __init__(self, dims: int = 3, channels: Sequence[int] = CRITIC_CHANNELS) -> None:
        _check_dims(dims)
        super().__init__()
        self.dims = dims
        conv = _conv_type(dims)
        layers: list[nn.Module] = [conv(2, channels[0], 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for narrow, wide in pairwise(channels):
            layers += [conv(narrow, wide, 4, stride=2, padding=1), _instance_norm(dims, wide), nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers, conv(channels[-1], 1, 3, padding=1))

    def forward(self, low_dose: Tensor, candidate: Tensor) -> Tensor:
        """Two images ``(B, 1, ...)`` in; ``(B,)`` float32 scores out.

        Raises:
            ValueError: The images differ in shape, or a side is below 32.
        """
        _check_image(low_dose, self.dims, 1)
        if low_dose.shape != candidate.shape:
            raise ValueError(f"the images differ: {_by(low_dose.shape)} and {_by(candidate.shape)}")
        if min(low_dose.shape[2:]) < CRITIC_MIN_SIDE:
            raise ValueError(f"every side must be at least {CRITIC_MIN_SIDE}, not {_by(low_dose.shape[2:])}")
        with torch.autocast(low_dose.device.type, enabled=False):
            scores = self.body(torch.cat([low_dose, candidate], dim=1).float())  # (B, 1, sides / 16)
        return scores.flatten(1).mean(1)


class Segmenter(nn.Module):
    """A U-Net that finds organs in a full-dose image; guides the generator in training, and is optional afterwards.

    Any network with the same call may stand in for it.

    Reference:
        Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
    """

    def __init__(self, classes: int, dims: int = 3, channels: Sequence[int] = SEGMENTER_CHANNELS) -> None:
        _check_dims(dims)
        if classes < 2:
            raise ValueError("a segmenter needs a background and at least one region")
        super().__init__()
        self.dims = dims
        ins = (1, *channels[:-1])
        self.encode = nn.ModuleList(_double(dims, a, b) for a, b in zip(ins, channels, strict=True))
        self.decode = nn.ModuleList(_double(dims, wide + narrow, narrow) for narrow, wide in pairwise(channels))
        self.head = _conv_type(dims)(channels[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 1, ...)`` in; ``(B, classes, ...)`` logits out, class 0 is the background.

        Raises:
            ValueError: Another number of dimensions or channels, or a side that is not a multiple of 8.
        """
        _check_image(image, self.dims, 1)
        if any(side % 2 ** (len(self.encode) - 1) for side in image.shape[2:]):
            raise ValueError(f"every side must be a multiple of 8, not {_by(image.shape[2:])}")
        pool = functional.max_pool3d if self.dims == 3 else functional.max_pool2d
        features, skips = self.encode[0](image), []
        for layer in list(self.encode)[1:]:
            skips.append(features)
            features = layer(pool(features, 2))
        for layer, skip in zip(reversed(self.decode), reversed(skips), strict=True):
            features = layer(torch.cat([_doubled(features), skip], dim=1))
        return self.head(features)


def _convolution(dims: int, channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    conv = _conv_type(dims)(channels, out_channels, 3, stride=stride, padding=1)
    return nn.Sequential(conv, nn.LeakyReLU(SLOPE))


def _double(dims: int, channels: int, out_channels: int) -> nn.Sequential:
    """Two convolutions of a segmenter's level."""
    layers: list[nn.Module] = []
    for entering in (channels, out_channels):
        conv = _conv_type(dims)(entering, out_channels, 3, padding=1)
        layers += [conv, _instance_norm(dims, out_channels), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


def _code_maker(channels: int, style_width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, style_width),
        nn.LeakyReLU(SLOPE),
        nn.Linear(style_width, style_width),
        nn.LeakyReLU(SLOPE),
    )


def _conv_type(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return nn.Conv3d if dims == 3 else nn.Conv2d


def _instance_norm(dims: int, channels: int) -> nn.Module:
    return (nn.InstanceNorm3d if dims == 3 else nn.InstanceNorm2d)(channels, affine=True)


def _doubled(features: Tensor) -> Tensor:
    """Linear interpolation to twice the size, about pixel centres."""
    mode = "trilinear" if features.ndim == 5 else "bilinear"
    return functional.interpolate(features, scale_factor=2, mode=mode, align_corners=False)


def _noise(mode: Noise, like: Tensor, seed: int) -> Tensor | None:
    """``(B, 1, ...)`` normal noise; ``const`` depends on the layer and the size alone."""
    if mode == "none":
        return None
    shape = (1, *like.shape[2:])
    if mode == "random":
        return torch.randn(like.shape[0], *shape, device=like.device, dtype=like.dtype)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(like)


def _check_dims(dims: int) -> None:
    if dims not in (2, 3):
        raise ValueError("dims must be 2 or 3")


def _check_noise(noise: str) -> None:
    if noise not in get_args(Noise):
        raise ValueError(f"noise must be one of {', '.join(get_args(Noise))}")


def _check_image(image: Tensor, dims: int, channels: int) -> None:
    if image.ndim != dims + 2 or image.shape[1] != channels:
        raise ValueError(f"the image must be (batch, {channels}, {dims} sides), not {_by(image.shape)}")


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
