"""A probabilistic U-Net: one image, many plausible masks, each from another draw of a small latent code."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

CONVS_PER_UNIT = 3


class Gaussian(NamedTuple):
    """A diagonal normal distribution over latent codes; each ``(B, L)``."""

    mean: Tensor
    log_sigma: Tensor

    def code(self, noise: Tensor) -> Tensor:
        """The code of a standard normal draw ``(B, L)``; gradients reach mean and sigma."""
        return self.mean + self.log_sigma.exp() * noise


def divergence(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(posterior || prior) in nats, summed over the code, mean over the batch: a number."""
    ratio = 2 * (posterior.log_sigma - prior.log_sigma)
    distance = ((posterior.mean - prior.mean) / prior.log_sigma.exp()).square()
    return 0.5 * (ratio.exp() + distance - 1 - ratio).sum(dim=1).mean()


class _Down(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, batch_norm: bool, is_pooled: bool) -> None:
        super().__init__()
        pool: list[nn.Module] = [_pool()] if is_pooled else []
        self.layers = nn.Sequential(*pool, *_unit(channels_in, channels_out, batch_norm))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class _Convolutions(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, batch_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_unit(channels_in, channels_out, batch_norm))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class _Up(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv_block = _Convolutions(channels_in, channels_out, batch_norm)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        grown = nn.functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
        return self.conv_block(torch.cat([grown, skip], dim=1))


class UNet(nn.Module):
    """The deterministic half: features of the image at full size. No output layer.

    Reference:
        Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
    """

    def __init__(self, input_channels: int, num_filters: Sequence[int], batch_norm: bool = True) -> None:
        super().__init__()
        widths = [input_channels, *num_filters]
        self.contracting_path = nn.ModuleList(
            _Down(before, after, batch_norm, is_pooled=level > 0)
            for level, (before, after) in enumerate(pairwise(widths))
        )
        below = list(num_filters)
        self.upsampling_path = nn.ModuleList(
            _Up(below[level + 1] + below[level], below[level], batch_norm) for level in reversed(range(len(below) - 1))
        )

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W)`` in, ``(B, num_filters[0], H, W)`` out."""
        skips: list[Tensor] = []
        features = image
        for down in self.contracting_path:
            features = down(features)
            skips.append(features)
        skips.pop()
        for up in self.upsampling_path:
            features = up(features, skips.pop())
        return features


class _Encoder(nn.Module):
    def __init__(self, input_channels: int, num_filters: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = input_channels
        for level, filters in enumerate(num_filters):
            if level:
                layers.append(_pool())
            layers.extend(_unit(width, filters, batch_norm=False))
            width = filters
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class GaussianEncoder(nn.Module):
    """What the whole image says about the latent code, as a distribution."""

    def __init__(self, input_channels: int, num_filters: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.encoder = _Encoder(input_channels, num_filters)
        self.conv_layer = nn.Conv2d(num_filters[-1], 2 * latent_dim, 1)

    def forward(self, image: Tensor) -> Gaussian:
        """``(B, C, H, W)`` in."""
        summary = self.encoder(image).mean(dim=(2, 3), keepdim=True)  # (B, filters, 1, 1)
        mean, log_sigma = self.conv_layer(summary)[:, :, 0, 0].chunk(2, dim=1)
        return Gaussian(mean, log_sigma)


class Fcomb(nn.Module):
    """Puts features and one latent code together, pixel by pixel."""

    def __init__(self, channels: int, latent_dim: int, num_convs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels + latent_dim
        for _ in range(num_convs - 1):
            layers += [nn.Conv2d(width, channels, 1), nn.ReLU(inplace=True)]
            width = channels
        self.layers = nn.Sequential(*layers)
        self.last_layer = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Latent image and mask logits.

        Args:
            features: ``(B, F, H, W)``.
            code: ``(B, L)``.

        Returns:
            ``(B, F, H, W)`` before the last convolution, and logits ``(B, 1, H, W)``.
        """
        tiled = code[:, :, None, None].expand(-1, -1, *features.shape[2:])
        latent = self.layers(torch.cat([features, tiled], dim=1))
        return latent, self.last_layer(latent)


class ProbabilisticUNet(nn.Module):
    """U-Net, prior and posterior over latent codes, and what combines features with a code.

    Reference:
        Kohl et al., "A Probabilistic U-Net for Segmentation of Ambiguous Images", NeurIPS 2018, arXiv 1806.05034.
    """

    def __init__(
        self,
        input_channels: int,
        num_filters: Sequence[int],
        latent_dim: int,
        num_convs_fcomb: int,
        batch_norm: bool,
        use_posterior: bool,
    ) -> None:
        super().__init__()
        self.unet = UNet(input_channels, num_filters, batch_norm)
        self.prior = GaussianEncoder(input_channels, num_filters, latent_dim)
        self.posterior = GaussianEncoder(input_channels + 1, num_filters, latent_dim) if use_posterior else None
        self.fcomb = Fcomb(num_filters[0], latent_dim, num_convs_fcomb)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            initialise(module)
        for module in self.fcomb.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
        for encoder in (self.prior, self.posterior):
            if encoder is not None and encoder.conv_layer.bias is not None:
                nn.init.normal_(encoder.conv_layer.bias)


def initialise(module: nn.Module) -> None:
    """Starting values of one layer, as published."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.trunc_normal_(module.bias, std=0.001, a=-0.002, b=0.002)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _pool() -> nn.Module:
    return nn.AvgPool2d(2, stride=2, ceil_mode=True)


def _unit(channels_in: int, channels_out: int, batch_norm: bool) -> list[nn.Module]:
    """Three times convolution, batch norm where wanted, ReLU."""
    layers: list[nn.Module] = []
    width = channels_in
    for _ in range(CONVS_PER_UNIT):
        layers.append(nn.Conv2d(width, channels_out, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(channels_out))
        layers.append(nn.ReLU(inplace=True))
        width = channels_out
    return layers
