"""Random crops of specimens: the thing where a person's box would put it, turned, shaded, blurred, with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.training.matting_data import LUMINANCE, TISSUES, MattingData, Specimen
from medapp.training.rough_masks import RoughPlan, Span, drawn_picture

SOFT = ("cut-out", "vessels", *TISSUES)
"""Sources whose alpha is soft already; labels of all others are hard, and their border is blurred."""
NEVER_BOXED = ("grey matter",)
"""White matter has the same box: what a box alone means would be a toss-up."""
_EDGE, _INSIDE = 0.1, 0.5
_UPRIGHT = np.pi / 12
_MARGIN_PX = 3
_LEAST_LEFT = 0.2  # of a thing, whatever lace takes away


@dataclass(frozen=True)
class CropPlan:
    """How crops are drawn.

    Attributes:
        shares: How often each source is drawn; the rest of 1 is shared alike.
        crop_of_box: Crop side over the longer side of the thing, low and high.
        shift: Largest shift of the middle, in crop sides.
        softness: Blur of the border of things whose label is hard, low and high, in crop sides.
        inverted: How often a crop is shown inverted.
        greyed: How often a crop in colour is shown in grey.
        varied: How often a cut-out lies on a texture and both have their colours changed, or it is filled with another
            texture: a hundred cut-outs are few, and so are the pictures they lie on.
        laced: How often a cut-out gets holes, gaps and fringes, as fur, leaves and vessels have: most of the hundred
            have plain outlines.
        channels: 1 = grey, 3 = colours; a rough mask comes as one more after them.
        rough: How the rough mask that the network is shown is drawn; without shares it is shown none.
    """

    shares: Mapping[str, float]
    crop_of_box: tuple[float, float] = (1.3, 1.8)
    shift: float = 0.06
    softness: tuple[float, float] = (0.004, 0.012)
    inverted: float = 0.12
    greyed: float = 0.2
    varied: float = 0.0
    laced: float = 0.0
    channels: int = 1
    rough: RoughPlan = field(default_factory=RoughPlan)


class MattingCrops:
    """Draws the batch of an iteration; the same iteration always gives the same batch, so a run resumes exactly."""

    def __init__(self, data: MattingData, plan: CropPlan, seed: int = 0) -> None:
        self._data, self._plan, self._seed = data, plan, seed
        self._sources = [source for source, specimens in data.specimens.items() if specimens]
        shares = np.array([plan.shares.get(source, 0.0) for source in self._sources])
        self._shares = shares / shares.sum()
        self._outlines: dict[tuple[str, int], NDArray[np.float64]] = {}

    def batch(self, iteration: int, side: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Images ``(count, channels, side, side)`` and alphas ``(count, 1, side, side)``, float32, 0..1.

        Where the plan draws rough masks, their pictures are one more channel of the images.
        """
        random = np.random.default_rng([self._seed, iteration])
        pairs = [self._pair(side, random) for _ in range(count)]
        images, alphas = (np.stack(part) for part in zip(*pairs, strict=True))
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), alphas[:, None]

    def _pair(self, side: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        source = self._sources[random.choice(len(self._sources), p=self._shares)]
        specimens = self._data.specimens[source]
        index = int(random.integers(len(specimens)))
        specimen = specimens[index]
        place = self._place(specimen, (source, index), side, random)
        alpha = _cut(specimen.alpha, place, side, "constant" if source == "cut-out" else "nearest")
        image = self._in_channels(_cut(specimen.image, place, side, "nearest"))
        if source not in SOFT:
            alpha = ndimage.gaussian_filter(alpha, side * random.uniform(*self._plan.softness))
        elif source in TISSUES:  # posteriors are smoother than what tissue a pixel holds
            alpha = ndimage.gaussian_filter(alpha, side * random.uniform(0.0, self._plan.softness[1]))
        elif source == "cut-out":
            if random.random() < 0.3:
                alpha = ndimage.gaussian_filter(alpha, side * random.uniform(0.003, 0.02))
            if self._plan.laced and random.random() < self._plan.laced:
                image, alpha = _laced(image, alpha, random)
            image = self._composed(image, alpha, side, random)
        shown, alpha = _shaded(image, self._plan, random), np.clip(alpha, 0, 1).astype(np.float32)
        if self._plan.rough.shares:
            around = self._span(specimen, (source, index), place)
            plan = self._plan.rough.without_box() if source in NEVER_BOXED else self._plan.rough
            told = drawn_picture(plan, alpha >= _INSIDE, around, shown, random)
            shown = np.concatenate([shown, told[..., None]], axis=2)
        return shown, alpha

    def _place(
        self, specimen: Specimen, key: tuple[str, int], side: int, random: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix and offset: the box of the thing once turned lies in the middle of the crop."""
        turn = random.integers(4) * np.pi / 2 + random.uniform(-_UPRIGHT, _UPRIGHT)
        is_mirrored = bool(random.random() < 0.5)
        corners = self._outline(specimen, key) @ _turned(turn, is_mirrored)  # rows: the turned coordinates
        low, high = corners.min(axis=0), corners.max(axis=0)
        crop = random.uniform(*self._plan.crop_of_box) * max(float((high - low).max()), 8.0)
        middle = (low + high) / 2 + crop * random.uniform(-self._plan.shift, self._plan.shift, 2)
        matrix = crop / side * _turned(turn, is_mirrored)
        return matrix, _turned(turn, is_mirrored) @ middle - matrix @ np.full(2, (side - 1) / 2)

    def _span(
        self, specimen: Specimen, key: tuple[str, int], place: tuple[NDArray[np.float64], NDArray[np.float64]]
    ) -> Span:
        """The box of the thing in the crop, ``x0, y0, x1, y1``."""
        matrix, offset = place
        spots = (self._outline(specimen, key) - offset) @ np.linalg.inv(matrix).T  # rows and columns of the crop
        (top, left), (bottom, right) = spots.min(axis=0), spots.max(axis=0) + 1.0
        return float(left), float(top), float(right), float(bottom)

    def _outline(self, specimen: Specimen, key: tuple[str, int]) -> NDArray[np.float64]:
        """``(N, 2)`` rows and columns that span the thing, or what of it is meant."""
        known = self._outlines.get(key)
        if known is None:
            x0, y0, x1, y1 = specimen.box_xyxy
            inside = specimen.alpha[y0:y1, x0:x1] > _EDGE
            rows, last = np.flatnonzero(inside.any(axis=1)), inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
            ends = np.concatenate([inside.argmax(axis=1)[rows], last[rows]])
            known = np.stack([np.concatenate([rows, rows]) + y0, ends + x0], axis=1).astype(np.float64)
            self._outlines[key] = known
        return known

    def _in_channels(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(H, W, C)`` of a grey or colour picture."""
        if image.ndim == 2:
            return np.repeat(image[..., None], self._plan.channels, axis=2)
        return image if self._plan.channels == 3 else (image @ LUMINANCE)[..., None]

    def _composed(
        self, image: NDArray[np.float32], alpha: NDArray[np.float32], side: int, random: np.random.Generator
    ) -> NDArray[np.float32]:
        """Over a backdrop; sometimes with a smooth shade instead of its own picture, as organs have."""
        if self._plan.varied and self._data.textures and random.random() < self._plan.varied:
            return self._varied(image, alpha, side, random)
        behind = self._backdrop(self._data.backdrops, side, random)
        if random.random() < 0.3:
            shade = ndimage.gaussian_filter(random.standard_normal((side, side)), random.uniform(2, 12), mode="wrap")
            shade *= random.uniform(0.0, 0.12) / max(float(shade.std()), 1e-6)
            image = self._in_channels((random.uniform(0.1, 0.95) + shade).astype(np.float32))
            if random.random() < 0.5:
                behind = behind * random.uniform(0.2, 0.7) + random.uniform(0, 0.3)
        return _over(image, behind, alpha)

    def _varied(
        self, image: NDArray[np.float32], alpha: NDArray[np.float32], side: int, random: np.random.Generator
    ) -> NDArray[np.float32]:
        """Over a texture, in other colours, every second time filled with another texture."""
        behind = _recoloured(self._backdrop(self._data.textures, side, random), random)
        if random.random() < 0.5:
            image = self._backdrop(self._data.textures, side, random)
        return _over(_recoloured(image, random), behind, alpha)

    def _backdrop(
        self, pictures: Sequence[NDArray[np.float32]], side: int, random: np.random.Generator
    ) -> NDArray[np.float32]:
        """``(side, side, C)`` of one of the pictures, turned and at some scale."""
        picture = pictures[int(random.integers(len(pictures)))]
        turn = random.uniform(0, 2 * np.pi)
        scale = random.uniform(0.4, max(0.5, min(2.0, min(picture.shape[:2]) / side)))
        middle = np.array(picture.shape[:2]) * random.uniform(0.3, 0.7, 2)
        matrix = scale * _turned(turn, False)
        place = (matrix, middle - matrix @ np.full(2, (side - 1) / 2))
        return self._in_channels(_cut(picture, place, side, "reflect"))


def _laced(
    image: NDArray[np.float32], alpha: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Holes and gaps where a random field is high, every second time fringes around the border where it is low.

    A fringe has the colours of the nearest pixel of the thing. What would leave little of the thing stays as it was.
    """
    side = alpha.shape[0]
    field = _drawn_out_field(side, random)
    within = alpha >= _INSIDE
    reach = side * random.uniform(0.02, 0.12)
    lace = _ramp(field, random)
    if random.random() < 0.5:  # at the border only, so that the thing keeps its body
        lace = lace * np.clip(2 - ndimage.distance_transform_edt(within) / reach, 0, 1)
    laced = alpha * (1 - lace)
    if random.random() < 0.5 and within.any():
        outside, nearest = ndimage.distance_transform_edt(~within, return_indices=True)
        laced = np.maximum(laced, _ramp(-field, random) * np.clip(2 - outside / reach, 0, 1))
        image = np.where(alpha[..., None] > _EDGE, image, image[tuple(nearest)])
    if (laced >= _INSIDE).sum() < _LEAST_LEFT * within.sum():
        return image, alpha
    return image, laced.astype(np.float32)


def _drawn_out_field(side: int, random: np.random.Generator) -> NDArray[np.float64]:
    """``(side, side)`` of mean 0 and spread 1, grains of 1 to 5 percent of the side, longer along some direction."""
    grain = side * np.exp(random.uniform(np.log(0.01), np.log(0.05)))
    turn, long = random.uniform(0, np.pi), random.uniform(1, 5)
    round_ones = ndimage.gaussian_filter(random.standard_normal((side, side)), grain, mode="wrap")
    matrix = _turned(turn, False) @ np.diag([1.0, 1.0 / long]) @ _turned(-turn, False)
    middle = np.full(2, (side - 1) / 2)
    field = ndimage.affine_transform(round_ones, matrix, middle - matrix @ middle, order=1, mode="grid-wrap")
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6))


def _ramp(field: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """0..1: from some height of the field on, over some width."""
    return np.clip((field - random.uniform(-0.3, 1.2)) / random.uniform(0.15, 0.7), 0, 1)


def _over(image: NDArray[np.float32], behind: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    return (alpha[..., None] * image + (1 - alpha[..., None]) * behind).astype(np.float32)


def _recoloured(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """``(H, W, C)`` with its channels exchanged, its contrast and light changed, sometimes each channel on its own."""
    low = random.uniform(0, 0.4)
    high = random.uniform(low + 0.2, 1)
    count = image.shape[2]
    bent = np.clip(image[..., random.permutation(count)], 0, 1) ** np.exp(random.uniform(-0.6, 0.6, count))
    return (low + (high - low) * (1 - bent if random.random() < 0.2 else bent)).astype(np.float32)


def _turned(turn: float, is_mirrored: bool) -> NDArray[np.float64]:
    """From directions in the crop to directions in the source."""
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return matrix @ np.diag([1.0, -1.0]) if is_mirrored else matrix


def _cut(
    values: NDArray[np.float32], place: tuple[NDArray[np.float64], NDArray[np.float64]], side: int, mode: str
) -> NDArray[np.float32]:
    """``(side, side)`` or ``(side, side, C)``, smoothed before it is shrunk; only what is needed is looked at."""
    matrix, offset = place
    corners = offset + np.array([[0, 0], [0, side], [side, 0], [side, side]]) @ matrix.T
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - _MARGIN_PX, 0, np.array(values.shape[:2]) - 1)
    high = np.ceil(corners.max(axis=0)).astype(int) + _MARGIN_PX + 1
    if mode == "reflect":
        low, high = np.zeros(2, dtype=int), np.array(values.shape[:2])
    part = values[low[0] : max(high[0], low[0] + 1), low[1] : max(high[1], low[1] + 1)]
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    layers = [part] if part.ndim == 2 else [part[..., c] for c in range(part.shape[2])]
    cut = []
    for layer in layers:
        smooth = ndimage.gaussian_filter(layer, 0.4 * scale) if scale > 1.2 else layer
        cut.append(ndimage.affine_transform(smooth, matrix, offset - low, (side, side), order=1, mode=mode))
    return cut[0] if values.ndim == 2 else np.stack(cut, axis=-1)


def _shaded(image: NDArray[np.float32], plan: CropPlan, random: np.random.Generator) -> NDArray[np.float32]:
    """``(H, W, C)`` as some window or lamp would show it: other contrast, sometimes grey, inverted, blurred, noisy."""
    is_grey = image.shape[2] == 1 or bool((image == image[..., :1]).all())
    if not is_grey and random.random() < plan.greyed:
        image, is_grey = np.repeat((image @ LUMINANCE)[..., None], image.shape[2], axis=2), True
    low, high = np.percentile(image, (random.uniform(0, 4), random.uniform(96, 100)))
    shaded = np.clip((image - low) / max(high - low, 0.05), 0, 1) ** np.exp(random.uniform(-0.5, 0.5))
    if random.random() < plan.inverted:
        shaded = 1 - shaded
    if not is_grey and random.random() < 0.5:
        shaded = shaded ** np.exp(random.uniform(-0.25, 0.25, shaded.shape[2]))
    bottom, top = random.uniform(0, 0.2), random.uniform(0.75, 1)
    shaded = bottom + (top - bottom) * shaded
    if random.random() < 0.25:
        blur = random.uniform(0.3, 1.0)
        shaded = ndimage.gaussian_filter(shaded, (blur, blur, 0))
    if random.random() < 0.5:
        noise = random.standard_normal((*shaded.shape[:2], 1 if is_grey else shaded.shape[2]))
        if random.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, (0.7, 0.7, 0)) * 2
        shaded = shaded + random.uniform(0, 0.05) * noise
    return np.clip(shaded, 0, 1).astype(np.float32)
