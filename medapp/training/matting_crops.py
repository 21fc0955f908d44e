"""Random crops of specimens: the thing where a person's box would put it, turned, shaded, blurred, with noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.training.matting_data import MattingData, Specimen


@dataclass(frozen=True)
class CropPlan:
    """How crops are drawn.

    Attributes:
        shares: How often each source is drawn; the rest of 1 is shared alike.
        crop_of_box: Crop side over the longer side of the thing, low and high.
        shift: Largest shift of the middle, in crop sides.
        softness_px: Blur of the border of things whose label is hard, low and high.
    """

    shares: Mapping[str, float]
    crop_of_box: tuple[float, float] = (1.2, 2.0)
    shift: float = 0.08
    softness_px: tuple[float, float] = (0.5, 1.5)


class MattingCrops:
    """Draws the batch of an iteration; the same iteration always gives the same batch, so a run resumes exactly."""

    def __init__(self, data: MattingData, plan: CropPlan, seed: int = 0) -> None:
        self._data, self._plan, self._seed = data, plan, seed
        self._sources = [source for source, specimens in data.specimens.items() if specimens]
        shares = np.array([plan.shares.get(source, 0.0) for source in self._sources])
        self._shares = shares / shares.sum()

    def batch(self, iteration: int, side: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Images and alphas, each ``(count, 1, side, side)`` float32, 0..1."""
        random = np.random.default_rng([self._seed, iteration])
        pairs = [self._pair(side, random) for _ in range(count)]
        images, alphas = (np.stack(part)[:, None] for part in zip(*pairs, strict=True))
        return images, alphas

    def _pair(self, side: int, random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        source = self._sources[random.choice(len(self._sources), p=self._shares)]
        specimens = self._data.specimens[source]
        specimen = specimens[int(random.integers(len(specimens)))]
        place = _place(specimen, side, self._plan, random)
        alpha = _cut(specimen.alpha, place, side, "constant" if source == "cut-out" else "nearest")
        image = _cut(specimen.image, place, side, "nearest")
        if source in ("skin", "tumour"):
            alpha = ndimage.gaussian_filter(alpha, random.uniform(*self._plan.softness_px))
        elif source == "cut-out":
            if random.random() < 0.5:
                alpha = ndimage.gaussian_filter(alpha, random.uniform(0.3, 2.0))
            image = self._composed(image, alpha, side, random)
        return _shaded(image, random), np.clip(alpha, 0, 1).astype(np.float32)

    def _composed(
        self, image: NDArray[np.float32], alpha: NDArray[np.float32], side: int, random: np.random.Generator
    ) -> NDArray[np.float32]:
        """Over a backdrop; half the time with a smooth shade instead of its own picture, as organs have."""
        backdrop = self._data.backdrops[int(random.integers(len(self._data.backdrops)))]
        turn = random.uniform(0, 2 * np.pi)
        scale = random.uniform(0.4, min(1.5, min(backdrop.shape) / side))
        middle = np.array(backdrop.shape) * random.uniform(0.3, 0.7, 2)
        behind = _cut(backdrop, _matrix(turn, scale, False, middle, side), side, "reflect")
        if random.random() < 0.5:
            shade = ndimage.gaussian_filter(random.standard_normal((side, side)), random.uniform(2, 12), mode="wrap")
            shade *= random.uniform(0.0, 0.12) / max(float(shade.std()), 1e-6)
            image = (random.uniform(0.1, 0.95) + shade).astype(np.float32)
            if random.random() < 0.5:
                behind = behind * random.uniform(0.2, 0.7) + random.uniform(0, 0.3)
        return (alpha * image + (1 - alpha) * behind).astype(np.float32)


def _place(
    specimen: Specimen, side: int, plan: CropPlan, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x0, y0, x1, y1 = specimen.box_xyxy
    crop = random.uniform(*plan.crop_of_box) * max(x1 - x0, y1 - y0, 8)
    middle = np.array([(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2]) + crop * random.uniform(-plan.shift, plan.shift, 2)
    return _matrix(random.uniform(0, 2 * np.pi), crop / side, random.random() < 0.5, middle, side)


def _matrix(
    turn: float, scale: float, is_mirrored: bool, middle: NDArray[np.float64], side: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset from crop to source pixels."""
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if is_mirrored:
        matrix = matrix @ np.diag([1.0, -1.0])
    return matrix, middle - matrix @ np.full(2, (side - 1) / 2)


def _cut(
    values: NDArray[np.float32], place: tuple[NDArray[np.float64], NDArray[np.float64]], side: int, mode: str
) -> NDArray[np.float32]:
    matrix, offset = place
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    smooth = ndimage.gaussian_filter(values, 0.4 * scale) if scale > 1.2 else values
    cut: NDArray[np.float32] = ndimage.affine_transform(smooth, matrix, offset, (side, side), order=1, mode=mode)
    return cut


def _shaded(image: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """As some window would show it: other contrast, sometimes inverted, blurred or noisy."""
    low, high = np.percentile(image, (random.uniform(0, 4), random.uniform(95, 100)))
    shaded = np.clip((image - low) / max(high - low, 0.05), 0, 1) ** np.exp(random.uniform(-0.5, 0.5))
    if random.random() < 0.3:
        shaded = 1 - shaded
    bottom, top = random.uniform(0, 0.25), random.uniform(0.75, 1)
    shaded = bottom + (top - bottom) * shaded
    if random.random() < 0.3:
        shaded = ndimage.gaussian_filter(shaded, random.uniform(0.3, 1.0))
    if random.random() < 0.6:
        noise = random.standard_normal(shaded.shape)
        if random.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, 0.7) * 2
        shaded = shaded + random.uniform(0, 0.06) * noise
    return np.clip(shaded, 0, 1).astype(np.float32)
