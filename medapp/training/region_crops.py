"""Crops with outlined things for a promptable segmenter: turned, scaled, shaded, with a first click and a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray
from torch import Tensor

from medapp.regions.clicks import middle_of
from medapp.training.region_data import CUT_OUTS, RegionPicture, parts_of

SHAPES = "shapes"
"""Made up: smooth patches of random grey and grain, so that not only what was outlined is a thing."""
LARGEST_PX = 320
_LEAST_PX = 24
_UPRIGHT = np.pi / 9
_GRID = 8  # crops lie on the canvas in whole steps of the embedding
_MIDDLE = 0.6  # of the first clicks that go into the middle; the others fall anywhere on the thing
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
PIXEL_MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1) / 255
PIXEL_STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1) / 255


@dataclass(frozen=True, eq=False)
class _Stored:
    """A picture ready to be cut.

    Attributes:
        image: ``(C, H, W)``: uint8 colours, or float32 grey where 0..1 is the display window.
        labels: ``(K, H, W)`` int32.
    """

    image: Tensor
    labels: Tensor


class RegionCrops:
    """Draws the batch of an iteration; the same iteration always gives the same batch, so a run resumes exactly.

    Args:
        pictures: Per source.
        shares: How often each source is drawn, ``SHAPES`` among them; the others are left out.
        canvas: Side of what the network sees at use; smaller crops lie somewhere on it.
        seed: Of everything drawn.
    """

    def __init__(
        self,
        pictures: Mapping[str, Sequence[RegionPicture]],
        shares: Mapping[str, float],
        canvas: int,
        seed: int = 0,
    ) -> None:
        self._stored = {s: [_stored(p) for p in each] for s, each in pictures.items() if each and shares.get(s, 0) > 0}
        self._sources = [*self._stored, *([SHAPES] if shares.get(SHAPES, 0) > 0 else [])]
        weights = np.array([shares[source] for source in self._sources])
        self._shares, self._canvas, self._seed = weights / weights.sum(), canvas, seed

    def batch(self, step: int, side: int, count: int, things: int) -> dict[str, Tensor]:
        """A batch of crops.

        Returns:
            ``pixels`` ``(N, 3, S, S)`` float32, normalised as SAM has it, 0 beyond the picture; ``masks``
            ``(N, T, S, S)`` bool; ``points`` ``(N, T, 2)`` and ``boxes`` ``(N, T, 4)`` in pixels of the crop;
            ``offset`` ``(N, 2)`` int64, ``x, y`` of the crop on the canvas.
        """
        random = np.random.default_rng([self._seed, step])
        rows: dict[str, list[Tensor]] = {"pixels": [], "masks": [], "points": [], "boxes": [], "offset": []}
        while len(rows["pixels"]) < count:
            image, labels, inside = self._crop(side, random)
            chosen = _chosen(labels, things, random)
            if not chosen:
                continue
            shaded = _shaded(image, random)
            rows["pixels"].append((shaded - PIXEL_MEAN) / PIXEL_STD * inside)
            rows["masks"].append(torch.from_numpy(np.stack(chosen)))
            rows["points"].append(torch.tensor([_first_point(mask, random) for mask in chosen], dtype=torch.float32))
            rows["boxes"].append(torch.tensor([_drawn_box(mask, random) for mask in chosen], dtype=torch.float32))
            free = (self._canvas - side) // _GRID + 1
            rows["offset"].append(torch.from_numpy(random.integers(free, size=2) * _GRID))
        return {name: torch.stack(parts) for name, parts in rows.items()}

    def _crop(self, side: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """``(3, S, S)`` 0..1, ``(K, S, S)`` labels, ``(1, S, S)`` what belongs to the picture."""
        source = self._sources[random.choice(len(self._sources), p=self._shares)]
        if source == SHAPES:
            image, labels = _shapes(side, random)
            return image, labels, torch.ones(1, side, side)
        if source == CUT_OUTS:
            image, labels = self._composed(side, random)
            return image, labels, torch.ones(1, side, side)
        stored = self._stored[source]
        return self._placed(stored[int(random.integers(len(stored)))], side, random)

    def _placed(self, stored: _Stored, side: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        turns, is_mirrored = int(random.integers(4)), bool(random.random() < 0.5)
        image, labels = (torch.rot90(part, turns, (1, 2)) for part in (stored.image, stored.labels))
        if is_mirrored:
            image, labels = image.flip(2), labels.flip(2)
        image = _windowed(image, random)
        height, width = image.shape[1:]
        scale = self._canvas / max(height, width)
        if side == self._canvas and random.random() < 0.5:  # just as at use
            angle, centre = 0.0, np.array([side / 2, side / 2]) / scale
        else:
            low = -0.35 if side == self._canvas else -0.9
            scale *= float(np.exp(random.uniform(low, 0.3)))
            angle = float(random.uniform(-_UPRIGHT, _UPRIGHT))
            of_map = labels[int(random.integers(len(labels)))]
            places = torch.nonzero(of_map)
            place = places[int(random.integers(len(places)))] if len(places) else torch.tensor([height / 2, width / 2])
            centre = place.numpy()[::-1] + random.uniform(-0.3, 0.3, 2) * side / scale
        is_reflected = bool(random.random() < 0.3)
        return _sampled(image, labels, side, scale, angle, centre, is_reflected)

    def _composed(self, side: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A few cut-outs over a crop of something else, or over made-up patches; the later ones lie on top."""
        others = [source for source in self._stored if source != CUT_OUTS]
        if others and random.random() < 0.7:
            stored = self._stored[others[int(random.integers(len(others)))]]
            picked = stored[int(random.integers(len(stored)))]
            scale = side / min(picked.image.shape[1:]) * float(np.exp(random.uniform(0.2, 0.7)))
            centre = np.array(picked.image.shape[:0:-1]) / 2
            image = _windowed(picked.image, random)
            behind, _, _ = _sampled(image, picked.labels, side, scale, 0.0, centre, is_reflected=True)
        else:
            behind, _ = _shapes(side, random)
        labels = torch.zeros(1, side, side, dtype=torch.int32)
        cut_outs = self._stored[CUT_OUTS]
        for number in range(1, int(random.integers(1, 4)) + 1):
            stored_one = cut_outs[int(random.integers(len(cut_outs)))]
            part, mask = stored_one.image, stored_one.labels
            if random.random() < 0.5:
                part, mask = part.flip(2), mask.flip(2)
            scale = side / max(part.shape[1:]) * float(random.uniform(0.25, 0.9))
            centre = np.array(part.shape[:0:-1]) / 2 + random.uniform(-0.35, 0.35, 2) * side / scale
            angle = float(random.uniform(-np.pi, np.pi))
            shown, cut, _ = _sampled(_windowed(part, random), mask, side, scale, angle, centre, is_reflected=False)
            alpha = F.avg_pool2d(F.pad((cut > 0).float()[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
            behind = alpha * shown + (1 - alpha) * behind
            labels = torch.where(cut > 0, number, labels)
        return behind, labels


def _stored(picture: RegionPicture) -> _Stored:
    labels = torch.from_numpy(np.stack(picture.label_maps))
    if picture.values.ndim == 3:
        image = torch.from_numpy(np.array(picture.values[..., :3])).permute(2, 0, 1).float()
    else:
        window = picture.window
        grey = np.nan_to_num(np.asarray(picture.values, dtype=np.float32))
        if window is not None:
            grey = (grey - np.float32(window.center - window.width / 2)) / np.float32(window.width)
        image = torch.from_numpy(np.clip(grey, -3, 4))[None]
    share = LARGEST_PX / max(image.shape[1:])
    if share < 1:
        size = tuple(max(1, round(n * share)) for n in image.shape[1:])
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        labels = F.interpolate(labels[None].float(), size, mode="nearest-exact")[0].to(torch.int32)
    if picture.values.ndim == 3:
        image = image.round().clamp(0, 255).to(torch.uint8)
    return _Stored(image.contiguous(), labels.contiguous())


def _windowed(image: Tensor, random: np.random.Generator) -> Tensor:
    """``(C, H, W)`` 0..1: grey through a window near the one it opens with, sometimes a much wider one."""
    if image.dtype == torch.uint8:
        return image.float() / 255
    spread = 1.0 if random.random() < 0.15 else 0.3
    width = float(np.exp(random.uniform(-0.4, spread)))
    shift = float(random.uniform(-0.15, 0.15))
    return ((image - 0.5 - shift) / width + 0.5).clamp(0, 1)


def _sampled(
    image: Tensor, labels: Tensor, side: int, scale: float, angle: float, centre: NDArray, is_reflected: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The square around ``centre`` (x, y) of the picture: image with three channels, labels, what is inside."""
    if scale < 0.6:
        image = F.avg_pool2d(image[None], 2)[0]
        labels = labels[:, ::2, ::2][:, : image.shape[1], : image.shape[2]]
        scale, centre = 2 * scale, centre / 2
    height, width = image.shape[1:]
    steps = (torch.arange(side, dtype=torch.float32) + 0.5 - side / 2) / scale
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    across, down = cos * x - sin * y + float(centre[0]), sin * x + cos * y + float(centre[1])
    grid = torch.stack([2 * across / width - 1, 2 * down / height - 1], dim=-1)[None]
    shown = F.grid_sample(
        image[None], grid, mode="bilinear", padding_mode="reflection" if is_reflected else "border", align_corners=False
    )[0]
    cut = F.grid_sample(labels[None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)[0]
    inside = (grid.abs().amax(dim=-1) <= 1).float()
    if is_reflected:
        inside = torch.ones_like(inside)
    return shown.expand(3, -1, -1), cut.to(torch.int32), inside


def _shapes(side: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Smooth patches, each with its own grey or colour and grain."""
    count, cells = int(random.integers(2, 7)), int(random.integers(3, 9))
    fields = _smooth_noise(count, cells, side, random)
    numbers = fields.argmax(dim=0)
    channels = 1 if random.random() < 0.6 else 3
    colours = torch.from_numpy(random.random((count, channels, 1, 1)).astype(np.float32))
    image = torch.zeros(channels, side, side)
    for number in range(count):
        grain = _smooth_noise(1, int(random.integers(8, side // 2)), side, random) * random.uniform(0, 0.15)
        image = torch.where(numbers == number, colours[number] + grain.float(), image)
    image = image + _smooth_noise(1, 3, side, random).float() * random.uniform(0, 0.1)
    labels = torch.from_numpy(parts_of(numbers.numpy().astype(np.int32) + 1, 2 * _LEAST_PX))
    return image.clamp(0, 1).expand(3, -1, -1), labels[None]


def _smooth_noise(count: int, cells: int, side: int, random: np.random.Generator) -> Tensor:
    coarse = torch.from_numpy(random.standard_normal((1, count, cells, cells)).astype(np.float32))
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)[0]


def _chosen(labels: Tensor, things: int, random: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Masks of some things that are large enough to be seen; a thing may come twice; empty without any."""
    seen: list[tuple[int, int]] = []
    for k, of_map in enumerate(labels.numpy()):
        sizes = np.bincount(of_map.ravel())
        seen += [(k, number) for number in range(1, len(sizes)) if sizes[number] >= _LEAST_PX]
    if not seen:
        return []
    picks = random.permutation(len(seen))[:things].tolist()
    picks += random.integers(len(seen), size=things - len(picks)).tolist()
    return [labels[seen[pick][0]].numpy() == seen[pick][1] for pick in picks]


def _first_point(mask: NDArray[np.bool_], random: np.random.Generator) -> tuple[float, float]:
    if random.random() < _MIDDLE:
        return middle_of(mask)
    rows, cols = np.nonzero(mask)
    pick = int(random.integers(len(rows)))
    return float(cols[pick]), float(rows[pick])


def _drawn_box(mask: NDArray[np.bool_], random: np.random.Generator) -> tuple[float, float, float, float]:
    """The box of a thing as a person draws it: off by 6 % of its side (one standard deviation), 20 px at most."""
    rows, cols = np.nonzero(mask)
    sides = np.array([np.ptp(cols), np.ptp(rows), np.ptp(cols), np.ptp(rows)], dtype=np.float64)
    off = np.clip(random.normal(0, 0.06 * sides + 0.5), -20, 20)
    x0, y0, x1, y1 = np.array([cols.min(), rows.min(), cols.max(), rows.max()]) + off
    return min(x0, x1 - 1), min(y0, y1 - 1), max(x1, x0 + 1), max(y1, y0 + 1)


def _shaded(image: Tensor, random: np.random.Generator) -> Tensor:
    """``(3, S, S)`` as some window, stain or lamp would show it."""
    is_grey = bool((image[0] == image[1]).all())
    if not is_grey and random.random() < 0.25:
        image, is_grey = (image * _LUMINANCE).sum(0, keepdim=True).expand(3, -1, -1), True
    image = image.clamp(0, 1) ** float(np.exp(random.uniform(-0.5, 0.5)))
    if random.random() < 0.15:
        image = 1 - image
    if not is_grey:
        gain = torch.from_numpy(np.exp(random.uniform(-0.25, 0.25, (3, 1, 1))).astype(np.float32))
        image = image**gain
        if random.random() < 0.1:
            image = image[torch.from_numpy(random.permutation(3))]
    bottom, top = float(random.uniform(0, 0.15)), float(random.uniform(0.75, 1))
    image = bottom + (top - bottom) * image
    if random.random() < 0.2:
        image = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="reflect"), 3, 1)[0]
    if random.random() < 0.5:
        noise = random.standard_normal((1 if is_grey else 3, *image.shape[1:])).astype(np.float32)
        image = image + float(random.uniform(0, 0.06)) * torch.from_numpy(noise)
    return image.clamp(0, 1)
