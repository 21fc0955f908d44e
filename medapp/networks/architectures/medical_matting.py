"""Medical Matting: from one slice several plausible masks, a map of where they disagree, and an alpha matte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medapp.networks.blocks.probabilistic_unet import Gaussian, ProbabilisticUNet, divergence, initialise

ENTROPY_EPS = 1e-6
TILE_MARGIN_PX = 32
"""More than the 20 px that the widest pass of the matting net looks to each side: tiles change nothing."""


@dataclass(frozen=True)
class Matting:
    """What the network makes of a batch of slices.

    Attributes:
        masks: ``(B, K, H, W)`` probabilities, one channel a draw of the latent code.
        uncertainty: ``(B, 1, H, W)`` bits: entropy of the mean mask, 1 where the draws are split evenly.
        alpha_logits: ``(B, 1, H, W)``; None for a network without a matting net.
        prior, posterior: Over latent codes; the posterior in training only.
        score_map: Logits ``(B, 1, H, W)`` of the one reparameterised draw, in training only.
        kl: KL(posterior || prior), a number, in training only.
    """

    masks: Tensor
    uncertainty: Tensor
    alpha_logits: Tensor | None
    prior: Gaussian
    posterior: Gaussian | None = None
    score_map: Tensor | None = None
    kl: Tensor | None = None

    @property
    def alpha(self) -> Tensor:
        """``(B, 1, H, W)`` in 0..1.

        Raises:
            ValueError: The network has no matting net.
        """
        if self.alpha_logits is None:
            raise ValueError("a network without a matting net gives no alpha")
        return self.alpha_logits.sigmoid()


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity, or beside a projection where ``is_first``."""

    def __init__(self, channels_in: int, channels_out: int, is_first: bool) -> None:
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
        )
        self.right = nn.Sequential()
        if is_first:
            self.right = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, in, H, W)`` in, ``(B, out, H, W)`` out."""
        return (self.left(features) + self.right(features)).relu()


class ChannelGate(nn.Module):
    """Scales each channel by what the whole image holds, from its mean and its maximum.

    Reference:
        Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018: its channel half only.
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; the gate ``(B, C, 1, 1)`` out."""
        gate = self.mlp(features.mean(dim=(2, 3))) + self.mlp(features.amax(dim=(2, 3)))
        return gate.sigmoid()[:, :, None, None]


class Attention(nn.Module):
    """The attention of the matting net: a channel gate, without the spatial half of CBAM."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)  # the published key

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` in; same shape out."""
        return features * self.ChannelGate(features)


class MattingNet(nn.Module):
    """Alpha from image, latent image and uncertainty, all at full size."""

    def __init__(
        self, latent_channels: int, input_channels: int, hidden_channel: int, use_uncertainty_map: bool
    ) -> None:
        super().__init__()
        extra, wide = int(use_uncertainty_map), 4 * hidden_channel
        self.use_uncertainty_map = use_uncertainty_map
        self.block1 = _layer(latent_channels + input_channels + extra, hidden_channel)
        self.cbam = Attention(hidden_channel)
        self.block2 = _layer(hidden_channel + extra, wide)
        self.block3 = _layer(wide + extra, wide)
        self.out_layer = nn.Sequential(
            nn.Conv2d(wide, hidden_channel, 3, padding=1),
            nn.BatchNorm2d(hidden_channel),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden_channel, 1, 3, padding=1),
        )
        for module in self.modules():
            initialise(module)

    def forward(
        self,
        latent: Tensor,
        image: Tensor,
        uncertainty: Tensor,
        tile_px: int = 0,
        check: Callable[[], None] | None = None,
    ) -> Tensor:
        """Alpha logits ``(B, 1, H, W)``.

        Args:
            latent: ``(B, F, H, W)``.
            image: ``(B, C, H, W)``.
            uncertainty: ``(B, 1, H, W)`` bits.
            tile_px: Side of the tiles it works in to save memory; 0 = whole. The gate pools over the whole image and
                neighbouring tiles share a margin wider than what a pixel looks at, so the result is the same.
            check: Called before each tile; raises to stop.
        """
        entering = torch.cat([latent, image, *self._extra(uncertainty)], dim=1)
        features = self.cbam(_in_tiles(self.block1, entering, tile_px, check))
        return _in_tiles(self._rest, torch.cat([features, uncertainty], dim=1), tile_px, check)

    def _extra(self, uncertainty: Tensor) -> tuple[Tensor, ...]:
        return (uncertainty,) if self.use_uncertainty_map else ()

    def _rest(self, features_and_uncertainty: Tensor) -> Tensor:
        features, uncertainty = features_and_uncertainty[:, :-1], features_and_uncertainty[:, -1:]
        features = self.block2(torch.cat([features, *self._extra(uncertainty)], dim=1))
        features = self.block3(torch.cat([features, *self._extra(uncertainty)], dim=1))
        return self.out_layer(features)


class MedicalMatting(nn.Module):
    """Several masks from a probabilistic U-Net, their disagreement, and an alpha matte from all of it.

    The image is scaled to 0..1 without mean or standard deviation; height and width are multiples of 8. Constructor
    names and keys are the published ones; ``use_posterior=False`` leaves out what only training needs.

    Reference:
        Wang et al., "Medical Matting: A New Perspective on Medical Segmentation with Uncertainty", MICCAI 2021,
        arXiv 2106.09887; journal version in Computers in Biology and Medicine 158 (2023) 106714.
    """

    def __init__(
        self,
        input_channels: int = 1,
        num_filters: Sequence[int] = (32, 64, 128, 192),
        latent_dim: int = 2,
        num_convs_fcomb: int = 4,
        batch_norm: bool = True,
        hidden_channel: int = 32,
        entropy_thresh: float = 0.1,
        num_sampling: int = 8,
        use_uncertainty_map: bool = True,
        use_matting: bool = True,
        use_posterior: bool = True,
    ) -> None:
        if not num_filters or min(*num_filters, latent_dim, hidden_channel, num_sampling, input_channels) < 1:
            raise ValueError(
                "num_filters, latent_dim, hidden_channel, num_sampling and input_channels must be positive"
            )
        if num_convs_fcomb < 2:
            raise ValueError("num_convs_fcomb must be at least 2")
        super().__init__()
        self.input_channels, self.latent_dim = input_channels, latent_dim
        self.num_sampling, self.entropy_thresh = num_sampling, entropy_thresh
        self.size_multiple = 2 ** (len(num_filters) - 1)
        self.prob_unet = ProbabilisticUNet(
            input_channels, num_filters, latent_dim, num_convs_fcomb, batch_norm, use_posterior
        )
        self.matting_net: MattingNet | None = None
        if use_matting:
            self.matting_net = MattingNet(num_filters[0], input_channels, hidden_channel, use_uncertainty_map)

    def forward(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        count: int | None = None,
        noise: Tensor | None = None,
        mean_first: bool = False,
        tile_px: int = 0,
        check: Callable[[], None] | None = None,
        matte_prior: bool = False,
    ) -> Matting:
        """Draw masks and matte them: from the prior in evaluation, from the posterior in training.

        Args:
            image: ``(B, C, H, W)`` in 0..1.
            mask: ``(B, 1, H, W)``, 0 or 1; training only.
            count: Draws K, 1 or more; ``num_sampling`` when None.
            noise: Standard normal ``(B, K, L)`` instead of torch's own, ``(B, K + 1, L)`` in training, where the first
                is the reparameterised draw.
            mean_first: The first draw is the mean of the prior: less variance of the alpha. Evaluation only.
            tile_px, check: Of the matting net, in evaluation; see ``MattingNet.forward``.
            matte_prior: In training the matting net sees draws of the prior, as it will in evaluation, instead of the
                published draws of the posterior, which has seen the label.

        Raises:
            ValueError: Shapes do not fit, or training without mask or posterior.
        """
        self._check(image)
        count = self.num_sampling if count is None else count
        if count < 1:
            raise ValueError(f"at least one mask must be drawn, not {count}")
        draws = count + 1 if self.training else count
        if noise is None:
            noise = torch.randn(image.shape[0], draws, self.latent_dim, device=image.device, dtype=image.dtype)
        if noise.shape != (image.shape[0], draws, self.latent_dim):
            raise ValueError(f"noise must be {(image.shape[0], draws, self.latent_dim)}, not {tuple(noise.shape)}")
        if self.training:
            return self._train_step(image, mask, noise, matte_prior)
        prior = self.prob_unet.prior(image)
        if mean_first:
            noise = torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], dim=1)
        features = self.prob_unet.unet(image)
        latent, masks = self._draw(features, [prior.code(noise[:, draw]) for draw in range(count)])
        uncertainty = binary_entropy(masks.mean(dim=1, keepdim=True))
        alpha = None
        if self.matting_net is not None:
            alpha = self.matting_net(latent, image, uncertainty, tile_px, check)
        return Matting(masks, uncertainty, alpha, prior)

    def _train_step(self, image: Tensor, mask: Tensor | None, noise: Tensor, matte_prior: bool) -> Matting:
        posterior_encoder = self.prob_unet.posterior
        if mask is None or posterior_encoder is None:
            raise ValueError("training needs a mask, and a network built with its posterior")
        if mask.shape != (image.shape[0], 1, *image.shape[2:]):
            raise ValueError(f"the mask must be (B, 1, H, W) like the image, not {tuple(mask.shape)}")
        prior = self.prob_unet.prior(image)
        posterior = posterior_encoder(torch.cat([image, mask.to(image.dtype)], dim=1))
        features = self.prob_unet.unet(image)
        latent, score_map = self.prob_unet.fcomb(features, posterior.code(noise[:, 0]))
        # No gradient through these codes: the matting loss trains features and combination only.
        drawn_from = prior if matte_prior else posterior
        codes = [drawn_from.code(noise[:, draw]).detach() for draw in range(1, noise.shape[1])]
        of_first, masks = self._draw(features, codes)
        latent = of_first if matte_prior else latent
        uncertainty = binary_entropy(masks.mean(dim=1, keepdim=True))
        alpha = None if self.matting_net is None else self.matting_net(latent, image, uncertainty)
        return Matting(masks, uncertainty, alpha, prior, posterior, score_map, divergence(posterior, prior))

    def _draw(self, features: Tensor, codes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Latent image of the first code, and the probabilities ``(B, K, H, W)`` of all."""
        latent, first = self.prob_unet.fcomb(features, codes[0])
        logits = [first, *(self.prob_unet.fcomb(features, code)[1] for code in codes[1:])]
        return latent, _at_least_float32(torch.cat(logits, dim=1)).sigmoid()

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != self.input_channels:
            raise ValueError(f"the image must be (B, {self.input_channels}, H, W), not {tuple(image.shape)}")
        if image.shape[2] % self.size_multiple or image.shape[3] % self.size_multiple:
            raise ValueError(
                f"height and width must be multiples of {self.size_multiple}, not {tuple(image.shape[2:])}"
            )


def binary_entropy(probability: Tensor) -> Tensor:
    """Bits: 1 at a half, 0 at 0 and 1 (-1.4e-6 exactly). At least float32: 1e-6 vanishes beside 1 in half precision."""
    p = _at_least_float32(probability)
    return -p * torch.log2(p + ENTROPY_EPS) - (1 - p) * torch.log2(1 - p + ENTROPY_EPS)


def published_matting(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring a published checkpoint to our keys: the saved object is the loss wrapper, ours the network."""
    return {key.removeprefix("model."): value for key, value in weights.items() if key != "log_vars"}


def with_a_silent_channel(network: MedicalMatting, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network that looks at one channel less, for this one: it begins as blind to its last channel.

    Args:
        network: Whose weights they are to become.
        weights: Ours by key; those that fit already stay as they are.

    Returns:
        All of them; in layers that look at the image, zeros for the channel after the image's others.
    """
    matting = network.matting_net
    behind = {  # how many channels of these layers come after the image
        "prob_unet.unet.contracting_path.0.layers.0.weight": 0,
        "prob_unet.prior.encoder.layers.0.weight": 0,
        "prob_unet.posterior.encoder.layers.0.weight": 1,
        "matting_net.block1.0.left.0.weight": int(matting is not None and matting.use_uncertainty_map),
        "matting_net.block1.0.right.0.weight": int(matting is not None and matting.use_uncertainty_map),
    }
    grown, wanted = dict(weights), network.state_dict()
    for key, last in behind.items():
        given = grown.get(key)
        if given is None or key not in wanted or wanted[key].shape[1] != given.shape[1] + 1:
            continue
        split = given.shape[1] - last
        grown[key] = torch.cat([given[:, :split], torch.zeros_like(given[:, :1]), given[:, split:]], dim=1)
    return grown


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _layer(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(channels_in, channels_out, is_first=True),
        ResidualBlock(channels_out, channels_out, is_first=False),
        ResidualBlock(channels_out, channels_out, is_first=False),
    )


def _in_tiles(run: Callable[[Tensor], Tensor], image: Tensor, tile_px: int, check: Callable[[], None] | None) -> Tensor:
    """Run convolutions on tiles with a margin; only the middles are kept."""
    height, width = image.shape[2:]
    if tile_px <= 0 or max(height, width) <= tile_px + TILE_MARGIN_PX:
        if check is not None:
            check()
        return run(image)
    whole: Tensor | None = None
    for top, bottom in _spans(height, tile_px):
        for left, right in _spans(width, tile_px):
            if check is not None:
                check()
            up, to_left = max(top - TILE_MARGIN_PX, 0), max(left - TILE_MARGIN_PX, 0)
            part = run(image[:, :, up : bottom + TILE_MARGIN_PX, to_left : right + TILE_MARGIN_PX])
            if whole is None:
                whole = part.new_empty(image.shape[0], part.shape[1], height, width)
            whole[:, :, top:bottom, left:right] = part[:, :, top - up : bottom - up, left - to_left : right - to_left]
    assert whole is not None
    return whole


def _spans(length: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, step):
        yield start, min(start + step, length)
