"""PDDM-style depth completion: bins that are refined stage by stage, and a probability over them for every pixel.

No official code or weights of PDDM exist. This is a reconstruction from the abstract; results of the paper do not
transfer to it, so that every text a person reads calls it "PDDM-style".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from medapp.networks.blocks.bin_attention import Attention, feed_forward, sine_position
from medapp.networks.blocks.depth_prior import local_prior as prior_of

_HISTOGRAM_CELLS = 64
_MAX_TOKENS = 400
_WIDTH_FLOOR = 0.001  # quantiles of few points coincide; no bin may vanish
_MULTIPLE = 16
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DepthPrediction(NamedTuple):
    """What PDDM returns, in training and evaluation alike; lengths in the unit of ``d_max``.

    Attributes:
        depth: ``(B, 1, H, W)``, inside ``[d_min, d_max]``.
        sigma: ``(B, 1, H, W)``, standard deviation of the last distribution: where bins disagree.
        stages: One depth map a stage, at strides 16, 8, 4, 2 of the padded size.
        centres: Bin centres ``(B, N)``, rising: the seed, then one a stage.
    """

    depth: Tensor
    sigma: Tensor
    stages: tuple[Tensor, ...]
    centres: tuple[Tensor, ...]


class StageResult(NamedTuple):
    """State that passes from a stage to the next: ``N`` bins over ``(h, w)`` pixels."""

    widths: Tensor  # (B, N), sum 1
    queries: Tensor  # (B, N, C)
    logits: Tensor  # (B, N, h, w)
    pixels: Tensor  # (B, C, h, w)
    probabilities: Tensor  # (B, N, h, w), float32
    centres: Tensor  # (B, N)
    depth: Tensor  # (B, 1, h, w)


def _conv_bn_relu(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class BasicBlock(nn.Module):
    """Residual block of ResNet-34; parameter names fit the published weights, but for ``projection``.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, figure 5 left.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.projection: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.projection = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, before, H, W)`` in; ``(B, after, H / stride, W / stride)`` out."""
        inner = self.bn2(self.conv2(self.bn1(self.conv1(features)).relu()))
        return (inner + self.projection(features)).relu()


class Encoder(nn.Module):
    """Early fusion of colour and depth, then four residual layers at strides 2, 4, 8, 16."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...], depth_channels: int) -> None:
        super().__init__()
        for_depth = widths[0] // 4
        self.rgb_stem = _conv_bn_relu(3, widths[0] - for_depth)
        self.depth_stem = _conv_bn_relu(depth_channels, for_depth)
        before = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            layer = [BasicBlock(before if i == 0 else width, width, 2 if i == 0 else 1) for i in range(count)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))
            before = width
        self.layer_names = tuple(f"layer{number}" for number in range(1, len(widths) + 1))

    def forward(self, colour: Tensor, depth: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``(B, 3, H, W)`` and ``(B, depth_channels, H, W)`` in; full-size features and f1..f4 out."""
        full = torch.cat([self.rgb_stem(colour), self.depth_stem(depth)], dim=1)
        features, pyramid = full, []
        for name in self.layer_names:
            features = self.get_submodule(name)(features)
            pyramid.append(features)
        return full, pyramid


class BinsInitialiser(nn.Module):
    """Seed bins of equal mass from the depths that were measured, whatever their number and order."""

    def __init__(self, bins: int, embedding: int) -> None:
        super().__init__()
        self.bins = bins
        self.summary = nn.Sequential(
            nn.Linear(_HISTOGRAM_CELLS + bins + 1, embedding), nn.GELU(), nn.Linear(embedding, embedding), nn.GELU()
        )
        self.shift = nn.Linear(embedding, bins)
        self.of_bin = nn.Sequential(nn.Linear(2, embedding), nn.GELU(), nn.Linear(embedding, embedding))
        self.of_summary = nn.Linear(embedding, embedding)
        self.index = nn.Parameter(torch.randn(bins, embedding) * 0.02)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def statistics(self, sparse_depth: Tensor, d_min: float, d_max: float) -> tuple[Tensor, Tensor, Tensor]:
        """Histogram ``(B, 64)``, quantiles ``(B, bins)`` and log-count ``(B, 1)``; no gradient passes through."""
        depths = sparse_depth.detach().float().flatten(1)  # (B, HW)
        valid = depths > 0
        count = valid.sum(dim=1, keepdim=True)
        any_depth, span = count > 0, d_max - d_min
        depths = depths.clamp(d_min, d_max)
        cells = ((depths - d_min) / span * _HISTOGRAM_CELLS).long().clamp(max=_HISTOGRAM_CELLS - 1)
        histogram = depths.new_zeros(len(depths), _HISTOGRAM_CELLS).scatter_add(1, cells, valid.float())
        histogram = torch.where(any_depth, histogram / count.clamp(min=1), 1 / _HISTOGRAM_CELLS)
        at = (torch.arange(self.bins, device=depths.device) + 0.5) / self.bins
        rising = depths.masked_fill(~valid, torch.inf).sort(dim=1).values
        place = at * (count - 1).clamp(min=0)
        below = rising.gather(1, place.floor().long())
        above = rising.gather(1, place.ceil().long())
        quantiles = torch.where(any_depth, below + (above - below) * (place - place.floor()), d_min + span * at)
        return histogram, quantiles, (1.0 + count).log() / 10

    def forward(self, sparse_depth: Tensor, d_min: float, d_max: float) -> tuple[Tensor, Tensor]:
        """``(B, 1, H, W)`` in; widths ``(B, bins)`` with sum 1 and bin embeddings ``(B, bins, C)`` out."""
        span = d_max - d_min
        histogram, quantiles, count = self.statistics(sparse_depth, d_min, d_max)
        low, high = torch.full_like(count, d_min), torch.full_like(count, d_max)
        edges = torch.cat([low, (quantiles[:, 1:] + quantiles[:, :-1]) / 2, high], dim=1)
        widths = (edges.diff(dim=1) / span + _WIDTH_FLOOR) / (1 + self.bins * _WIDTH_FLOOR)
        summary = self.summary(torch.cat([histogram, (quantiles - d_min) / span, count], dim=1))
        widths = (widths.log() + self.shift(summary).float()).softmax(dim=1)
        places = torch.stack([bin_centres(widths, 0.0, 1.0), self.bins * widths], dim=2)
        return widths, self.of_bin(places) + self.of_summary(summary)[:, None] + self.index


def bin_centres(widths: Tensor, d_min: float, d_max: float) -> Tensor:
    """Centres ``(B, N)`` of bins whose widths ``(B, N)`` sum to 1; float32."""
    widths = widths.float()
    return d_min + (d_max - d_min) * (widths.cumsum(dim=1) - widths / 2)


class Stage(nn.Module):
    """Splits the bins, lets them look at the pixels, then lets the pixels look at the bins."""

    def __init__(self, embedding: int, heads: int, splits: bool, local_prior: bool) -> None:
        super().__init__()
        C = embedding
        self.splits = splits
        if splits:
            self.ratio = nn.Linear(C, 1)
            self.inherit = nn.Linear(C, C)
            self.child = nn.Parameter(torch.randn(2, C) * 0.02)
        self.norm_self, self.norm_cross, self.norm_bins = nn.LayerNorm(C), nn.LayerNorm(C), nn.LayerNorm(C)
        self.self_attention, self.to_pixels = Attention(C, heads), Attention(C, heads)
        self.bin_ffn = feed_forward(C, 4 * C)
        self.shift = nn.Linear(C, 1)
        self.of_bin = nn.Sequential(nn.Linear(2, C), nn.GELU(), nn.Linear(C, C))
        self.norm_query, self.norm_pixels = nn.LayerNorm(C), nn.LayerNorm(C)
        self.to_bins = Attention(C, heads)
        self.pixel_ffn = feed_forward(C, 2 * C)
        self.pixel_key, self.bin_key = nn.Linear(C, C), nn.Linear(C, C)
        self.carry = nn.Parameter(torch.tensor(0.0 if local_prior else 1.0))
        self.prior = nn.Parameter(torch.tensor([1.0, 0.0, -2.0])) if local_prior else None  # b, p0, p1
        for layer in (self.ratio, self.shift) if splits else (self.shift,):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Tensor, before: StageResult, d_min: float, d_max: float, prior: Tensor | None, known: Tensor
    ) -> StageResult:
        """Refine bins and probabilities at one scale.

        Args:
            features: ``(B, C, h, w)``.
            before: State of the stage before, at half the size; of the seed, without logits, for the first.
            d_min: Nearest depth.
            d_max: Farthest depth.
            prior: ``(B, 2, h, w)`` fill and distance, or None.
            known: ``(B,)``, 0 for images without any measurement.
        """
        B, C, h, w = features.shape
        widths, queries, logits = before.widths, before.queries, before.logits
        if self.splits:
            share = self.ratio(queries)[..., 0].float().sigmoid()
            widths = torch.stack([widths * share, widths * (1 - share)], dim=2).flatten(1)
            queries = (self.inherit(queries)[:, :, None] + self.child).flatten(1, 2)
            logits = logits.repeat_interleave(2, dim=1)
        N = widths.shape[1]

        factor = math.ceil(math.sqrt(h * w / _MAX_TOKENS))
        pooled = functional.avg_pool2d(features, factor, ceil_mode=True, count_include_pad=False)
        tokens = pooled.flatten(2).transpose(1, 2)
        position = sine_position(pooled.shape[2], pooled.shape[3], C, features.device).to(tokens.dtype)
        normed = self.norm_self(queries)
        queries = queries + self.self_attention(normed, normed, normed)
        queries = queries + self.to_pixels(self.norm_cross(queries), tokens + position, tokens)
        queries = queries + self.bin_ffn(self.norm_bins(queries))
        widths = (widths.clamp(min=1e-6).log() + self.shift(queries)[..., 0].float()).softmax(dim=1)
        centres = bin_centres(widths, d_min, d_max)
        placed = queries + self.of_bin(torch.stack([bin_centres(widths, 0.0, 1.0), N * widths], dim=2))

        flat = features.flatten(2).transpose(1, 2)  # (B, hw, C)
        flat = flat + self.to_bins(self.norm_query(flat), placed, placed)
        flat = flat + self.pixel_ffn(self.norm_pixels(flat))
        scores = self.bin_key(placed) @ self.pixel_key(flat).transpose(1, 2) / math.sqrt(C)
        new = scores.float().view(B, N, h, w)
        if self.splits:
            new = new + self.carry * functional.interpolate(logits, (h, w), mode="bilinear", align_corners=False)
        if self.prior is not None and prior is not None:
            strength, near, far = self.prior
            spread = functional.softplus(near) / N + functional.softplus(far) * prior[:, 1:]
            off = (centres[:, :, None, None] - prior[:, :1]).abs() / ((d_max - d_min) * spread)
            new = new - strength * off * known[:, None, None, None]
        probabilities = new.softmax(dim=1)
        depth = (probabilities * centres[:, :, None, None]).sum(dim=1, keepdim=True)
        return StageResult(
            widths, queries, new, flat.transpose(1, 2).reshape(B, C, h, w), probabilities, centres, depth
        )


class PDDM(nn.Module):
    """Depth completion with progressively refined bins; any number of measured points, none included.

    Args:
        d_min: Nearest depth.
        d_max: Farthest depth, in the unit of the sparse depth; millimetres for endoscopy.
        widths: Channels of the encoder at strides 2, 4, 8, 16; the first also at stride 1.
        blocks: Residual blocks a layer.
        embedding: Channels of bins and pixels.
        heads: Attention heads.
        seed_bins: Bins of the seed and the first stage; doubled at each of the three others.
        local_prior: Start from a fill of the measured pixels.
        prior_fill: That fill: ``nearest`` pixel, or ``linear`` between the pixels around.
        scale_free: ``d_min`` and ``d_max`` count in mean measured depths, so that a scene may have any size.
        nominal_depth: The mean depth of a frame without any measurement, where ``scale_free``.

    Reference:
        Yang et al., "Progressive Depth Decoupling and Modulating for Flexible Depth Completion", arXiv 2405.09342:
        the abstract; everything it leaves open is our own design.
    """

    def __init__(
        self,
        d_min: float = 0.0,
        d_max: float = 100.0,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        embedding: int = 128,
        heads: int = 4,
        seed_bins: int = 16,
        local_prior: bool = True,
        prior_fill: str = "nearest",
        scale_free: bool = False,
        nominal_depth: float = 50.0,
    ) -> None:
        super().__init__()
        if prior_fill not in ("nearest", "linear"):
            raise ValueError("prior_fill is nearest or linear")
        if not 0 <= d_min < d_max:
            raise ValueError(f"the depth range must rise from 0 or more, not {d_min} to {d_max}")
        if len(widths) != 4 or len(blocks) != 4 or widths[0] % 4 or embedding % (4 * heads):
            raise ValueError("widths and blocks are four each; widths[0] divides by 4, embedding by 4 x heads")
        self.d_min, self.d_max, self.local_prior = float(d_min), float(d_max), local_prior
        self.prior_fill, self.scale_free, self.nominal_depth = prior_fill, scale_free, float(nominal_depth)
        self.encoder = Encoder(tuple(widths), tuple(blocks), 4 if local_prior else 2)
        self.initialiser = BinsInitialiser(seed_bins, embedding)
        self.laterals = nn.ModuleList(nn.Conv2d(width, embedding, 1) for width in reversed(tuple(widths)))
        self.fusions = nn.ModuleList(_conv_bn_relu(2 * embedding, embedding) for _ in range(3))
        self.stages = nn.ModuleList(Stage(embedding, heads, k > 0, local_prior) for k in range(4))
        self.full_size = _conv_bn_relu(widths[0], widths[0])
        self.up_weights = nn.Sequential(_conv_bn_relu(widths[0] + embedding, widths[0]), nn.Conv2d(widths[0], 36, 1))
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, sparse_depth: Tensor, prior: Tensor | None = None) -> DepthPrediction:
        """Dense depth of colour frames.

        Args:
            image: ``(B, 3, H, W)``, RGB in 0..1, any size.
            sparse_depth: ``(B, 1, H, W)`` z-depth in the unit of ``d_max``; 0 = no measurement.
            prior: ``(B, 2, H, W)`` of ``nearest_prior``, where a data loader has it already.

        Raises:
            ValueError: Channels or sizes do not fit.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"the image must be (B, 3, H, W), not {tuple(image.shape)}")
        if sparse_depth.shape != (len(image), 1, *image.shape[2:]):
            raise ValueError(f"the sparse depth must be (B, 1, H, W) of the image, not {tuple(sparse_depth.shape)}")
        H, W = image.shape[2:]
        sparse, valid = self._measured(sparse_depth)
        scale = self._scale(sparse, valid)
        sparse = torch.where(valid > 0, (sparse / scale).clamp(self.d_min, self.d_max), 0.0)
        image, depth_input = _pad(image), [sparse / self.d_max, valid]
        pooled: list[Tensor | None] = [None] * 4
        if self.local_prior:
            if prior is None:
                measured = self._measured(sparse_depth)[0][..., :H, :W]
                prior = prior_of(measured, 0.0, self.prior_fill)
            known = (valid.flatten(1).sum(dim=1) > 0).view(-1, 1, 1, 1)
            fill = torch.where(known, prior[:, :1] / scale, (self.d_min + self.d_max) / 2)
            prior = _pad(torch.cat([fill.clamp(self.d_min, self.d_max), prior[:, 1:]], dim=1).float())
            depth_input += [prior[:, :1] / self.d_max, prior[:, 1:]]
            pooled = [functional.avg_pool2d(prior, stride) for stride in (16, 8, 4, 2)]
        colour = (image - self.get_buffer("mean")) / self.get_buffer("std")
        full, pyramid = self.encoder(colour, torch.cat(depth_input, dim=1))

        widths, queries = self.initialiser(sparse, self.d_min, self.d_max)
        nothing = image.new_zeros(0)
        state = StageResult(widths, queries, nothing, nothing, nothing, self._centres(widths), nothing)
        has_points = (valid.flatten(1).sum(dim=1) > 0).float()
        stages, centres = [], [state.centres]
        for k, stage in enumerate(self.stages):
            features = self.laterals[k](pyramid[3 - k])
            if k:
                larger = functional.interpolate(state.pixels, features.shape[2:], mode="bilinear", align_corners=False)
                features = self.fusions[k - 1](torch.cat([features, larger], dim=1))
            state = stage(features, state, self.d_min, self.d_max, pooled[k], has_points)
            stages.append(state.depth)
            centres.append(state.centres)

        guide = torch.cat([functional.avg_pool2d(self.full_size(full), 2), state.pixels], dim=1)
        weights = self.up_weights(guide)
        variance = (state.probabilities * (state.centres[:, :, None, None] - state.depth).square()).sum(1, keepdim=True)
        depth, sigma = _convex_up(state.depth, variance, weights)
        return DepthPrediction(
            depth[..., :H, :W] * scale,
            sigma[..., :H, :W] * scale,
            tuple(one * scale for one in stages),
            tuple(one * scale[:, :, 0, 0] for one in centres),
        )

    def _measured(self, sparse_depth: Tensor) -> tuple[Tensor, Tensor]:
        """Padded depths, and where they are; what is not finite counts as not measured."""
        sparse = torch.nan_to_num(sparse_depth.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0)
        H, W = sparse.shape[2:]
        sparse = functional.pad(sparse, (0, -W % _MULTIPLE, 0, -H % _MULTIPLE))
        return sparse, (sparse > 0).float()

    def _scale(self, sparse: Tensor, valid: Tensor) -> Tensor:
        """What 1 inside the network means, ``(B, 1, 1, 1)`` in the unit of the input."""
        if not self.scale_free:
            return sparse.new_ones(len(sparse), 1, 1, 1)
        count = valid.sum(dim=(1, 2, 3), keepdim=True)
        return torch.where(count > 0, sparse.sum(dim=(1, 2, 3), keepdim=True) / count.clamp(min=1), self.nominal_depth)

    def _centres(self, widths: Tensor) -> Tensor:
        return bin_centres(widths, self.d_min, self.d_max)


def _pad(maps: Tensor) -> Tensor:
    """Replicate the right and bottom border up to a multiple of 16."""
    H, W = maps.shape[2:]
    return functional.pad(maps, (0, -W % _MULTIPLE, 0, -H % _MULTIPLE), mode="replicate")


def _convex_up(depth: Tensor, variance: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the size: each new pixel mixes the 3 x 3 distributions around it.

    Args:
        depth: ``(B, 1, h, w)`` means.
        variance: ``(B, 1, h, w)``.
        weights: ``(B, 36, h, w)`` scores, 9 neighbours x 2 x 2 new pixels.

    Returns:
        Mean and standard deviation of the mixtures, ``(B, 1, 2h, 2w)`` float32.
    """
    B, _, h, w = depth.shape
    share = weights.float().view(B, 9, 2, 2, h, w).softmax(dim=1)
    around = functional.pad(torch.cat([depth, variance], dim=1), (1, 1, 1, 1), mode="replicate")
    means, variances = functional.unfold(around, 3).view(B, 2, 9, 1, 1, h, w).unbind(dim=1)
    mean = (share * means).sum(dim=1)  # (B, 2, 2, h, w)
    spread = (share * (variances + (means - mean[:, None]).square())).sum(dim=1)
    both = torch.stack([mean, spread], dim=1).permute(0, 1, 4, 2, 5, 3).reshape(B, 2, 2 * h, 2 * w)
    return both[:, :1], (both[:, 1:] + 1e-12).sqrt()
