"""Runs a 3-D network over a volume of any size in overlapping windows that fade into each other."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from medapp.errors import ComputeError
from medapp.networks.device import free_device_memory, free_memory_bytes, is_out_of_memory
from medapp.progress import Progress

_log = logging.getLogger(__name__)

LARGEST_WINDOW = 64
"""Voxels a side: what volume networks are trained on, and short enough that Stop is noticed soon."""
SMALLEST_WINDOW = 16
OVERLAP_SHARE = 0.25
"""Of a window's side; neighbours fade into each other over it."""
MEMORY_SHARE = 0.5
"""Of the free memory that one window may take."""

RunWindow = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""``(d, h, w)`` in, the same out; sides are multiples of the network's step."""
Window = tuple[int, int, int]


def run_volume(
    volume: NDArray[np.float32],
    run: RunWindow,
    bytes_per_voxel: int,
    multiple: int,
    device: torch.device,
    progress: Progress,
    region: slice | None = None,
) -> tuple[NDArray[np.float32], Window]:
    """Run ``run`` over a volume in the largest windows that fit, in smaller ones when memory runs out.

    Args:
        volume: ``(D, H, W)`` in the network's range.
        run: The network.
        bytes_per_voxel: Memory the network takes for each voxel at its peak.
        multiple: Window sides are padded to multiples of it.
        device: For the memory at hand, and for giving it back after a failure.
        progress: Counts windows; asked for Stop before each.
        region: Slices that are wanted; None = all.

    Returns:
        The wanted slices ``(d, H, W)`` float32, and the window that was used.

    Raises:
        ComputeError: Not even the smallest window fits in memory.
        Cancelled: The user stopped it.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()
    window = window_for(_shape(volume), bytes_per_voxel, multiple, free)
    while True:
        try:
            return run_windows(volume, run, window, multiple, progress, region), window
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if max(window) // 2 < SMALLEST_WINDOW:
                hint = "Close other programs" if device.type == "cpu" else "Choose CPU as the device in the settings"
                raise ComputeError("There is not enough memory even for small windows", hint) from error
            side = max(SMALLEST_WINDOW, max(window) // 2)
            _log.warning("out of memory with a window of %s voxels, trying %d a side", window, side)
            depth, height, width = (min(length, side) for length in window)
            window = (depth, height, width)
        free_device_memory(device)


def window_for(
    shape: tuple[int, int, int], bytes_per_voxel: int, multiple: int, free_bytes: int, largest: int = LARGEST_WINDOW
) -> Window:
    """The window for a volume, by the memory at hand.

    As near a cube as the volume allows: where one side is short (few slices), the others may not grow beyond
    ``largest`` either, because pooled quantities (gates) should see about what they saw in training.

    Args:
        shape: ``(D, H, W)`` of the volume.
        bytes_per_voxel: Memory the network takes for each voxel at its peak.
        multiple: The window's sides are multiples of it, also where the volume is smaller.
        free_bytes: Memory at hand; half of it is used.
        largest: Longest side.
    """
    affordable = MEMORY_SHARE * free_bytes / max(1, bytes_per_voxel)
    side = max(multiple, largest // multiple * multiple)
    while True:
        depth, height, width = (min(side, -(-length // multiple) * multiple) for length in shape)
        smaller = (side - 1) // multiple * multiple
        if depth * height * width <= affordable or smaller < min(SMALLEST_WINDOW, largest):
            return depth, height, width
        side = smaller


def run_windows(
    volume: NDArray[np.float32],
    run: RunWindow,
    window: Window,
    multiple: int,
    progress: Progress,
    region: slice | None = None,
) -> NDArray[np.float32]:
    """Run ``run`` over overlapping windows and blend them.

    Windows are spread evenly, overlap by at least a quarter, and the last one of each axis ends at the border. Where a
    window is cut short by a small volume it is reflected up to a multiple. Slices are blended in double precision, one
    band of windows at a time, so that a network that changes nothing gives back the same bits.

    Args:
        volume: ``(D, H, W)`` float32.
        run: The network, on one window.
        window: ``(d, h, w)`` in voxels.
        multiple: Window sides are padded to multiples of it.
        progress: Counts windows; asked for Stop before each.
        region: Slices that are wanted (step 1); only the windows that reach them are run, and the result is the same
            as these slices of a full run. None = all.

    Returns:
        ``(d, H, W)`` float32: the wanted slices.

    Raises:
        ValueError: The volume has not three axes, or is empty.
        Cancelled: The user stopped it.
    """
    if volume.ndim != 3 or not volume.size:
        raise ValueError(f"a volume has three axes of at least one voxel, not the shape {volume.shape}")
    depth, height, width = volume.shape
    first, last, _ = (region or slice(None)).indices(depth)
    result = np.empty((max(0, last - first), height, width), np.float32)
    layers, rows, columns = (_spans(size, side) for size, side in zip(volume.shape, window, strict=True))
    by_layer, by_row, by_column = (
        _shares(spans, size) for spans, size in zip((layers, rows, columns), volume.shape, strict=True)
    )
    needed = [i for i, span in enumerate(layers) if span.start < last and span.stop > first]
    progress.start(len(needed) * len(rows) * len(columns), "windows")

    band = np.zeros((layers[0].stop, height, width), np.float64)  # the slices from ``band_start`` on, half blended
    band_start = layers[needed[0]].start if needed else 0
    for order, i in enumerate(needed):
        layer = layers[i]
        for row, row_share in zip(rows, by_row, strict=True):
            for column, column_share in zip(columns, by_column, strict=True):
                progress.check()
                restored = _run_padded(volume[layer, row, column], run, multiple)
                share = by_layer[i][:, None, None] * row_share[:, None] * column_share
                band[:, row, column] += share * restored
                progress.step()
        done = layers[needed[order + 1]].start if order + 1 < len(needed) else layer.stop
        _hand_over(band, band_start, done, result, first, last)
        kept = band.shape[0] - (done - band_start)
        band[:kept] = band[done - band_start :].copy()
        band[kept:] = 0
        band_start = done
    return result


def _hand_over(
    band: NDArray[np.float64], start: int, stop: int, result: NDArray[np.float32], first: int, last: int
) -> None:
    """Copy the finished slices ``start..stop`` of the band that are wanted."""
    begin, end = max(start, first), min(stop, last)
    if begin < end:
        result[begin - first : end - first] = band[begin - start : end - start]


def _run_padded(part: NDArray[np.float32], run: RunWindow, multiple: int) -> NDArray[np.float32]:
    """Reflect at the far ends up to the next multiple, run, cut back."""
    depth, height, width = part.shape
    part = np.ascontiguousarray(part, np.float32)
    for axis, length in enumerate(part.shape):
        if length % multiple:
            ahead = [(0, -length % multiple if axis == other else 0) for other in range(3)]
            part = np.pad(part, ahead, mode="edge" if length == 1 else "reflect")
    return run(part)[:depth, :height, :width]


def _spans(size: int, side: int) -> list[slice]:
    """Evenly spread spans of ``side`` voxels that overlap by at least a quarter; one short span in a small volume."""
    if size <= side:
        return [slice(0, size)]
    stride = max(1, side - int(side * OVERLAP_SHARE))
    count = -(-(size - side) // stride) + 1
    starts = (round(i * (size - side) / (count - 1)) for i in range(count))
    return [slice(start, start + side) for start in starts]


def _shares(spans: list[slice], size: int) -> list[NDArray[np.float64]]:
    """How much each span has to say at each of its voxels; the shares of a voxel sum to 1.

    Because weights are products over the axes, making them sum to 1 on each axis makes them do so in the volume.
    """
    side = spans[0].stop
    reach = max(1, int(side * OVERLAP_SHARE))
    fade = np.sin(0.5 * np.pi * np.minimum(1.0, (np.arange(side) + 0.5) / reach)) ** 2  # a Hann window's flank
    flat = np.ones(side)
    weights = [(flat if span.start == 0 else fade) * (flat if span.stop == size else fade[::-1]) for span in spans]
    total = np.zeros(size)
    for span, weight in zip(spans, weights, strict=True):
        total[span] += weight
    return [weight / total[span] for span, weight in zip(spans, weights, strict=True)]


def _shape(volume: NDArray[np.float32]) -> tuple[int, int, int]:
    depth, height, width = volume.shape
    return depth, height, width
