"""Runs a network over a slice: whole when it fits, in blended tiles otherwise, in smaller ones when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medapp.errors import ComputeError
from medapp.networks.checkpoint import free_memory_bytes
from medapp.networks.device import free_device_memory, is_out_of_memory
from medapp.progress import Progress

_log = logging.getLogger(__name__)

SMALLEST_TILE_PX = 64
OVERLAP_SHARE = 0.25
"""Of a tile's side; neighbours fade into each other over it."""
MEMORY_SHARE = 0.5
"""Of the free memory that one tile may take."""

RunTile = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""``(H, W)`` in, the same out; H and W are multiples of the network's step."""


@dataclass(frozen=True)
class Tiling:
    """How to cut.

    Attributes:
        tile_px: Side of a tile; 0 = the whole slice when it fits, else the largest tile that does.
        multiple: Sides are padded to multiples of it.
        bytes_per_px: Memory the network takes for each pixel at its peak.
    """

    tile_px: int = 0
    multiple: int = 8
    bytes_per_px: int = 4000


def run_tiled(
    image: NDArray[np.float32], run: RunTile, tiling: Tiling, device: torch.device, progress: Progress
) -> tuple[NDArray[np.float32], int]:
    """Run ``run`` over an image of any size.

    Args:
        image: ``(H, W)`` in the network's range.
        run: The network.
        tiling: How to cut.
        device: For the memory at hand, and for giving it back after a failure.
        progress: Asked for Stop before every tile.

    Returns:
        The result ``(H, W)`` float32, and the tile side used (0 = whole).

    Raises:
        ComputeError: Not even the smallest tile fits in memory.
        Cancelled: The user stopped it.
    """
    tile = _first_tile(image.shape, tiling, device)
    while True:
        try:
            if tile == 0:
                progress.check()
                return _run_padded(image, run, tiling.multiple), 0
            return _run_tiles(image, run, tile, tiling.multiple, progress), tile
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = (max(image.shape) if tile == 0 else tile) // 2 // tiling.multiple * tiling.multiple
            if smaller < SMALLEST_TILE_PX:
                hint = "Close other programs" if device.type == "cpu" else "Choose CPU as the device in the settings"
                raise ComputeError("There is not enough memory even for small tiles", hint) from error
            _log.warning("out of memory with tiles of %d px, trying %d", tile, smaller)
            tile = smaller
        free_device_memory(device)


def _first_tile(shape: tuple[int, ...], tiling: Tiling, device: torch.device) -> int:
    if tiling.tile_px > 0:
        wished = max(SMALLEST_TILE_PX, tiling.tile_px // tiling.multiple * tiling.multiple)
        return 0 if wished >= max(shape) else wished
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()
    affordable_px = MEMORY_SHARE * free / tiling.bytes_per_px
    if shape[0] * shape[1] <= affordable_px:
        return 0
    return max(SMALLEST_TILE_PX, int(affordable_px**0.5) // tiling.multiple * tiling.multiple)


def _run_padded(image: NDArray[np.float32], run: RunTile, multiple: int) -> NDArray[np.float32]:
    """Reflect at the right and bottom edge up to the next multiple, run, cut back."""
    height, width = image.shape
    padded = _reflect(image, -height % multiple, -width % multiple)
    return run(padded)[:height, :width]


def _reflect(image: NDArray[np.float32], below: int, right: int) -> NDArray[np.float32]:
    if not below and not right:
        return image
    if min(image.shape) == 1:  # nothing to reflect
        return np.ascontiguousarray(np.pad(image, ((0, below), (0, right)), mode="edge"))
    return np.ascontiguousarray(np.pad(image, ((0, below), (0, right)), mode="reflect"))


def _run_tiles(
    image: NDArray[np.float32], run: RunTile, tile: int, multiple: int, progress: Progress
) -> NDArray[np.float32]:
    total = np.zeros(image.shape, np.float64)
    weights = np.zeros(image.shape, np.float64)
    for rows in _spans(image.shape[0], tile):
        for columns in _spans(image.shape[1], tile):
            progress.check()
            restored = _run_padded(np.ascontiguousarray(image[rows, columns]), run, multiple)
            weight = np.outer(_ramp(rows, image.shape[0], tile), _ramp(columns, image.shape[1], tile))
            total[rows, columns] += weight * restored
            weights[rows, columns] += weight
    return (total / weights).astype(np.float32)


def _spans(size: int, tile: int) -> Iterator[slice]:
    """Evenly spread spans of at most ``tile`` that overlap by at least a quarter."""
    if size <= tile:
        yield slice(0, size)
        return
    stride = tile - int(tile * OVERLAP_SHARE)
    count = -(-(size - tile) // stride) + 1
    for i in range(count):
        start = round(i * (size - tile) / (count - 1))
        yield slice(start, start + tile)


def _ramp(span: slice, size: int, tile: int) -> NDArray[np.float64]:
    """Weights of a tile along one axis: fading towards its neighbours, full at the image's edges."""
    length = span.stop - span.start
    reach = max(1, int(tile * OVERLAP_SHARE))
    fade = (np.arange(length) + 0.5) / reach
    rise = np.ones(length) if span.start == 0 else np.minimum(1.0, fade)
    fall = np.ones(length) if span.stop == size else np.minimum(1.0, fade[::-1])
    return rise * fall
