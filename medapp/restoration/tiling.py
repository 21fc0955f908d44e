"""Runs a network over a slice: whole when it fits, in blended tiles otherwise, in smaller ones when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medapp.errors import ComputeError
from medapp.networks.device import free_bytes, free_device_memory, is_out_of_memory
from medapp.progress import Progress

_log = logging.getLogger(__name__)

SMALLEST_TILE_PX = 64
OVERLAP_SHARE = 0.25
"""Of a tile's side; neighbours fade into each other over it."""
MEMORY_SHARE = 0.5
"""Of the free memory that one tile may take."""

Maps = Mapping[str, NDArray]
"""What a network needs beside the image, by name, each ``(H, W)``, of the result where that is larger."""

RunTile = Callable[[NDArray[np.float32], Maps], NDArray[np.float32]]
"""``(..., H, W)`` and its maps in, the same or the enlarged shape out; H and W are multiples of the network's step."""


class Survey(Protocol):
    """Looks at every tile once, before any is restored."""

    def begin(self) -> None:
        """Forget what was seen: tiles of another size come."""
        ...

    def look(self, part: NDArray[np.float32], maps: Maps, weight: NDArray[np.float32]) -> None:
        """See a tile.

        Args:
            part, maps: As the network is given them.
            weight: How much each pixel of the result counts, ``(H, W)`` of it; over all tiles each pixel counts once.
        """
        ...


@dataclass(frozen=True)
class Tiling:
    """How to cut.

    Attributes:
        tile_px: Side of a tile; 0 = the whole slice when it fits, else the largest tile that does.
        multiple: Sides are padded to multiples of it.
        bytes_per_px: Memory the network takes for each pixel at its peak.
        enlarged: The result has so many pixels along each side of one that went in.
    """

    tile_px: int = 0
    multiple: int = 8
    bytes_per_px: int = 4000
    enlarged: int = 1


def run_tiled(
    image: NDArray[np.float32],
    run: RunTile,
    tiling: Tiling,
    device: torch.device,
    progress: Progress,
    maps: Maps | None = None,
    survey: Survey | None = None,
) -> tuple[NDArray[np.float32], int]:
    """Run ``run`` over an image of any size.

    Args:
        image: ``(H, W)`` or ``(C, H, W)`` in the network's range.
        run: The network.
        tiling: How to cut.
        device: For the memory at hand, and for giving it back after a failure.
        progress: Asked for Stop before every tile.
        maps: Cut, and padded by repeating the edge, along with the image.
        survey: Sees all tiles before the first is run; nothing where the image is run whole.

    Returns:
        The result, shaped like the image or enlarged, float32, and the tile side used (0 = whole).

    Raises:
        ComputeError: Not even the smallest tile fits in memory.
        Cancelled: The user stopped it.
    """
    maps = maps or {}
    size = image.shape[-2:]
    tile = _first_tile(size, tiling, device)
    while True:
        try:
            if tile == 0:
                progress.check()
                return _run_padded(image, maps, run, tiling), 0
            return _run_aligned(image, maps, run, tile, tiling, progress, survey), tile
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = (max(size) if tile == 0 else tile) // 2 // tiling.multiple * tiling.multiple
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
    affordable_px = MEMORY_SHARE * free_bytes(device) / tiling.bytes_per_px
    if shape[0] * shape[1] <= affordable_px:
        return 0
    return max(SMALLEST_TILE_PX, int(affordable_px**0.5) // tiling.multiple * tiling.multiple)


def _run_padded(image: NDArray[np.float32], maps: Maps, run: RunTile, tiling: Tiling) -> NDArray[np.float32]:
    """Reflect at the right and bottom edge up to the next multiple, run, cut back."""
    height, width = image.shape[-2:]
    below, right, larger = -height % tiling.multiple, -width % tiling.multiple, tiling.enlarged
    grown = {name: _padded(values, below * larger, right * larger, "edge") for name, values in maps.items()}
    mode: Literal["edge", "reflect"] = (
        "edge" if min(height, width) == 1 else "reflect"
    )  # one pixel has nothing to reflect
    return run(_padded(image, below, right, mode), grown)[..., : height * larger, : width * larger]


def _padded(values: NDArray, below: int, right: int, mode: Literal["edge", "reflect"]) -> NDArray:
    if not below and not right:
        return values
    return np.ascontiguousarray(np.pad(values, ((0, 0),) * (values.ndim - 2) + ((0, below), (0, right)), mode=mode))


def _run_aligned(
    image: NDArray[np.float32],
    maps: Maps,
    run: RunTile,
    tile: int,
    tiling: Tiling,
    progress: Progress,
    survey: Survey | None,
) -> NDArray[np.float32]:
    """Pad as for the whole, and cut tiles where the network's coarser grids and windows begin: they see the same."""

    def run_tiles(grown: NDArray[np.float32], there: Maps) -> NDArray[np.float32]:
        return _run_tiles(grown, there, run, tile, tiling, progress, survey)

    return _run_padded(image, maps, run_tiles, tiling)


def _run_tiles(
    image: NDArray[np.float32],
    maps: Maps,
    run: RunTile,
    tile: int,
    tiling: Tiling,
    progress: Progress,
    survey: Survey | None,
) -> NDArray[np.float32]:
    larger = tiling.enlarged
    height, width = (side * larger for side in image.shape[-2:])
    total = np.zeros((*image.shape[:-2], height, width), np.float64)
    weights = np.zeros((height, width), np.float64)
    rows, columns = (list(_spans(size, tile, tiling.multiple)) for size in image.shape[-2:])
    places = [(row, column) for row in rows for column in columns]

    def made_of(place: tuple[slice, slice]) -> tuple[slice, slice]:
        row, column = (slice(span.start * larger, span.stop * larger) for span in place)
        return row, column

    def weight_of(made: tuple[slice, slice]) -> NDArray[np.float64]:
        return np.outer(_ramp(made[0], height, tile * larger), _ramp(made[1], width, tile * larger))

    def cut(place: tuple[slice, slice]) -> tuple[NDArray[np.float32], Maps]:
        made, part = made_of(place), np.ascontiguousarray(image[..., place[0], place[1]])
        return part, {name: np.ascontiguousarray(values[made]) for name, values in maps.items()}

    for place in places:
        weights[made_of(place)] += weight_of(made_of(place))
    if survey is not None:
        survey.begin()
        for place in places:
            progress.check()
            made = made_of(place)
            survey.look(*cut(place), (weight_of(made) / weights[made]).astype(np.float32))
    for place in places:
        progress.check()
        made = made_of(place)
        total[..., made[0], made[1]] += weight_of(made) * run(*cut(place))
    return (total / weights).astype(np.float32)


def _spans(size: int, tile: int, multiple: int) -> Iterator[slice]:
    """Spans of at most ``tile`` that overlap by at least a quarter and begin at multiples; the last ends at the end.

    Args:
        size, tile: Multiples of ``multiple``.
    """
    if size <= tile:
        yield slice(0, size)
        return
    stride = max(multiple, (tile - int(tile * OVERLAP_SHARE)) // multiple * multiple)
    for start in (*range(0, size - tile, stride), size - tile):
        yield slice(start, start + tile)


def _ramp(span: slice, size: int, tile: int) -> NDArray[np.float64]:
    """Weights of a tile along one axis: fading towards its neighbours, full at the image's edges."""
    length = span.stop - span.start
    reach = max(1, int(tile * OVERLAP_SHARE))
    fade = (np.arange(length) + 0.5) / reach
    rise = np.ones(length) if span.start == 0 else np.minimum(1.0, fade)
    fall = np.ones(length) if span.stop == size else np.minimum(1.0, fade[::-1])
    return rise * fall
