"""Everything SAM sees on a slice without being asked: a grid of points, good masks kept, duplicates left out.

The steps and settings are those of ``SamAutomaticMaskGenerator`` of segment-anything with its defaults (no crops, no
clean-up of small regions), in another order where that saves time and memory and changes nothing: masks of a low
predicted IoU are never drawn, full-size masks exist a few at a time, and what is kept is packed bits.

Reference:
    Kirillov et al., "Segment Anything", ICCV 2023, appendix B ("Automatic mask generation").
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medapp.errors import ComputeError
from medapp.progress import Progress
from medapp.regions.embedding import embedding_key, make_room
from medapp.regions.sam import SamEngine
from medapp.scan.scan import Window

log = logging.getLogger(__name__)

_TOGETHER = 4  # points decoded at once: larger batches leave the cache and are no faster
_FULL_PIXELS = 2**23  # of full-size logits at a time, 32 MB
_MOST_BYTES = 1 << 28
_FIELDS = ("boxes", "areas", "scores", "stability", "points_xy", "starts")


@dataclass(frozen=True)
class AutomaticSettings:
    """The published defaults.

    Attributes:
        points_per_side: Of the grid of points.
        points_per_batch: Between two reports of progress; changes no result.
        pred_iou_thresh: A mask's predicted IoU must be above it.
        stability_score_thresh: A mask must change no more than this when its threshold moves by the offset.
        stability_score_offset: In logits.
        box_nms_thresh: Of two masks whose boxes overlap more, the one with the lower predicted IoU goes.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7


@dataclass(frozen=True, eq=False)
class AutomaticMasks(Sequence[NDArray[np.bool_]]):
    """The masks of one slice, best first, as packed bits of their boxes; each is unpacked when it is asked for.

    Attributes:
        shape: ``(H, W)`` of the slice.
        boxes: ``(K, 4)`` int32, ``x0, y0, x1, y1`` of the outermost pixels, the upper ends inclusive as published.
        areas: ``(K,)`` int64, pixels.
        scores: ``(K,)`` float32, predicted IoU.
        stability: ``(K,)`` float32.
        points_xy: ``(K, 2)`` float32, the point that each mask answers, in pixels of the slice.
        packed: One for each mask.
    """

    shape: tuple[int, int]
    boxes: NDArray[np.int32]
    areas: NDArray[np.int64]
    scores: NDArray[np.float32]
    stability: NDArray[np.float32]
    points_xy: NDArray[np.float32]
    packed: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, place: int) -> NDArray[np.bool_]: ...
    @overload
    def __getitem__(self, place: slice) -> list[NDArray[np.bool_]]: ...
    def __getitem__(self, place: int | slice) -> NDArray[np.bool_] | list[NDArray[np.bool_]]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        x0, y0, x1, y1 = (int(n) for n in self.boxes[place])
        height, width = y1 - y0 + 1, x1 - x0 + 1
        bits = np.frombuffer(zlib.decompress(self.packed[place]), dtype=np.uint8)
        mask = np.zeros(self.shape, dtype=bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = np.unpackbits(bits, count=height * width).reshape(height, width)
        return mask

    def chosen(self, places: NDArray[np.intp]) -> AutomaticMasks:
        """Only some of the masks, in this order."""
        return replace(
            self,
            boxes=self.boxes[places],
            areas=self.areas[places],
            scores=self.scores[places],
            stability=self.stability[places],
            points_xy=self.points_xy[places],
            packed=tuple(self.packed[int(place)] for place in places),
        )


def automatic_masks(
    engine: SamEngine,
    values: NDArray,
    window: Window | None,
    progress: Progress | None = None,
    settings: AutomaticSettings = AutomaticSettings(),
    cache_folder: Path | None = None,
) -> AutomaticMasks:
    """Everything SAM sees on a slice, from the cache where it has been made before.

    Args:
        engine: A loaded SAM.
        values: ``(H, W)`` in the scan's unit, or ``(H, W, 3)`` colours as stored.
        window: The display window; None = the range of the values. Ignored for colours.
        progress: Counts batches of points and notices Stop between and within them.
        cache_folder: Where results are kept, named by pixels, window, settings and weights; None = not kept.

    Raises:
        ComputeError: The network gave no finite answer.
        Cancelled: The user stopped it.
    """
    progress = progress or Progress()
    shape = (int(values.shape[0]), int(values.shape[1]))
    file = cache_folder / f"{_cache_key(engine, values, window, settings)}.npz" if cache_folder is not None else None
    known = _read(file, shape) if file is not None else None
    if known is not None:
        return known

    grid = point_grid(settings.points_per_side) * np.array([shape[1], shape[0]])
    batches = -(-len(grid) // settings.points_per_batch)
    progress.start(batches, "batches", "Looking at the slice")
    decoder = engine.point_decoder(values, window, progress.within())
    scaled = engine.scaled_points(grid, shape)
    found = _Collected(engine, shape, settings)
    for batch in range(batches):
        start = batch * settings.points_per_batch
        stop = min(start + settings.points_per_batch, len(grid))
        for first in range(start, stop, _TOGETHER):
            progress.check()
            last = min(first + _TOGETHER, stop)
            answer = decoder.decode(scaled[first:last], settings.pred_iou_thresh)
            found.add(answer.logits, answer.scores, grid[first + answer.points.cpu().numpy()])
        progress.step(note="Finding regions")
    masks = found.masks()
    kept = masks.chosen(suppressed(masks.boxes, masks.scores, settings.box_nms_thresh))
    if file is not None:
        _write(file, kept)
    return kept


def point_grid(per_side: int) -> NDArray[np.float64]:
    """``(n * n, 2)`` points ``x, y`` in the middle of equal cells of the unit square, row by row."""
    middle = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(middle, middle)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def suppressed(boxes: NDArray[np.int32], scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: the places of the boxes that stay, best first.

    Args:
        boxes: ``(K, 4)`` ``x0, y0, x1, y1``; areas are differences of the corners, as published.
        scores: ``(K,)``; equal ones keep their order.
        threshold: Of two boxes whose IoU is above it the lower one goes.
    """
    corners = boxes.astype(np.float64)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[order, :2])
        high = np.minimum(corners[best, 2:], corners[order, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        order = order[shared <= threshold * (areas[best] + areas[order] - shared)]
    return np.array(kept, dtype=np.intp)


class _Collected:
    """Masks that passed so far, as packed bits."""

    def __init__(self, engine: SamEngine, shape: tuple[int, int], settings: AutomaticSettings) -> None:
        self._engine, self._shape, self._settings = engine, shape, settings
        self._rows: list[tuple[NDArray[np.int32], int, float, float, NDArray[np.float64], bytes]] = []
        side = max(shape)
        self._together = max(1, _FULL_PIXELS // (side * side))

    @torch.inference_mode()
    def add(self, logits: Tensor, scores: Tensor, points_xy: NDArray[np.float64]) -> None:
        """Draw some masks at full size, keep the stable ones."""
        if not torch.isfinite(scores).all():
            raise ComputeError("SAM gave no usable answer; nothing was changed.", "Import the checkpoint again.")
        threshold, offset = self._engine.mask_threshold, self._settings.stability_score_offset
        for first in range(0, len(logits), self._together):
            full = self._engine.full_logits(logits[first : first + self._together], self._shape)
            inner, outer = _count(full > threshold + offset), _count(full > threshold - offset)
            stability = inner / outer  # not a number where there is nothing
            for place in torch.nonzero(stability >= self._settings.stability_score_thresh)[:, 0].tolist():
                mask = (full[place] > threshold).cpu().numpy()
                number = first + place
                self._keep(mask, float(scores[number]), float(stability[place]), points_xy[number])

    def _keep(self, mask: NDArray[np.bool_], score: float, stability: float, point_xy: NDArray[np.float64]) -> None:
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return
        box = np.array([cols[0], rows[0], cols[-1], rows[-1]], dtype=np.int32)
        inside = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        packed = zlib.compress(np.packbits(inside).tobytes(), 1)
        self._rows.append((box, int(np.count_nonzero(inside)), score, stability, point_xy, packed))

    def masks(self) -> AutomaticMasks:
        """Everything that was kept, in the order of the points."""
        rows = self._rows
        return AutomaticMasks(
            self._shape,
            np.array([row[0] for row in rows], dtype=np.int32).reshape(-1, 4),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows], dtype=np.float32),
            np.array([row[3] for row in rows], dtype=np.float32),
            np.array([row[4] for row in rows], dtype=np.float32).reshape(-1, 2),
            tuple(row[5] for row in rows),
        )


def _count(masks: Tensor) -> Tensor:
    """``(K, H, W)`` bool to the ``(K,)`` number of pixels; torch itself would widen every pixel first."""
    if masks.device.type == "cpu":
        return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()])
    return masks.sum(dim=(1, 2))


# ------------------------------------------------------------------------------------------------------------- cache


def _cache_key(engine: SamEngine, values: NDArray, window: Window | None, settings: AutomaticSettings) -> str:
    how = repr(astuple(replace(settings, points_per_batch=0)))
    return embedding_key(values, window, f"{engine.weights_key}-{hashlib.sha256(how.encode()).hexdigest()}")


def _read(file: Path, shape: tuple[int, int]) -> AutomaticMasks | None:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            boxes, areas, scores, stability, points_xy, starts = (arrays[name] for name in _FIELDS)
            data = arrays["data"].tobytes()
        os.utime(file)
        packed = tuple(data[a:b] for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
        masks = AutomaticMasks(shape, boxes, areas, scores, stability, points_xy, packed)
        if any(int(np.count_nonzero(mask)) != area for mask, area in zip(masks, areas.tolist(), strict=True)):
            raise ValueError("a mask has another area than was noted")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("stored automatic masks cannot be read and are made again: %s", type(error).__name__)
        file.unlink(missing_ok=True)
        return None
    return masks


def _write(file: Path, masks: AutomaticMasks) -> None:
    """Keep a result; a full disk is no reason to fail."""
    part = file.with_name(f".{file.stem}.{os.getpid()}.part")
    starts = np.cumsum([0, *(len(one) for one in masks.packed)]).astype(np.int64)
    facts: tuple[NDArray, ...] = (masks.boxes, masks.areas, masks.scores, masks.stability, masks.points_xy, starts)
    arrays = dict(zip(_FIELDS, facts, strict=True))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as opened:
            np.savez(opened, data=np.frombuffer(b"".join(masks.packed), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
        part.replace(file)
        make_room(file.parent, "*.npz", _MOST_BYTES)
    except OSError as error:
        log.warning("automatic masks were not kept: %s", error.strerror)
        part.unlink(missing_ok=True)
