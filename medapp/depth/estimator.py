"""Depth completion by a network: any frame, any number of points, millimetres in and out."""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medapp.depth.depth_map import DepthMap, checked_points
from medapp.errors import ComputeError, UnsuitableModelError
from medapp.networks.device import is_out_of_memory
from medapp.networks.library import LoadedModel
from medapp.progress import Progress

_log = logging.getLogger(__name__)

MOST_SIDE_PX = 640
"""Larger frames are computed smaller and enlarged again: networks are trained on small ones, and memory is finite."""


class DepthEstimator:
    """Runs a loaded network; the range of depths is the one of its card.

    Args:
        model: A model that serves depth.
        keep_points: Put the measured depths back into the result; off, since measurements carry noise.
        most_side_px: Longest side at which to compute.
    """

    def __init__(self, model: LoadedModel, keep_points: bool = False, most_side_px: int = MOST_SIDE_PX) -> None:
        if model.card.serves != "depth":
            raise UnsuitableModelError(f"{model.card.name} does not complete depth.", "Choose a depth model.")
        self.id, self.name, self.device = model.card.id, model.card.name, str(model.device)
        self._model, self._keep_points, self._most_side_px = model, keep_points, most_side_px
        self._d_min, self._d_max = float(model.network.d_min), float(model.network.d_max)  # type: ignore[arg-type]
        self._is_scale_free = bool(getattr(model.network, "scale_free", False))

    def estimate(self, rgb: NDArray, sparse_mm: NDArray[np.float32], progress: Progress | None = None) -> DepthMap:
        """See ``DepthCompleter.estimate``."""
        sparse = checked_points(rgb, sparse_mm)
        H, W = sparse.shape
        if min(H, W) < self._model.card.min_side_px:
            raise UnsuitableModelError(
                f"{self.name} needs at least {self._model.card.min_side_px} px a side; this frame is {W} × {H}.",
                "Use a fill.",
            )
        factor = max(1, math.ceil(max(H, W) / self._most_side_px))
        image, small = _image(rgb, factor), _gathered(sparse, factor)
        if progress is not None:
            progress.check()
        prediction = self._run(image, torch.from_numpy(small)[None, None])
        depth, sigma = (_enlarged(values, factor, (H, W)) for values in prediction)
        if not (np.isfinite(depth).all() and np.isfinite(sigma).all()):
            raise ComputeError("The depth map holds numbers that are not finite; nothing was kept.", "Use the CPU.")
        known = sparse > 0
        if self._keep_points:
            depth = np.where(known, sparse, depth)
        return DepthMap(depth, sigma, int(known.sum()), small.shape, self._notes(sparse, small, factor))  # type: ignore[arg-type]

    def _run(self, image: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        device = self._model.device
        try:
            with torch.inference_mode():
                prediction = self._model.network(image.to(device), sparse.to(device))
                return prediction.depth.float().cpu(), prediction.sigma.float().cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ComputeError(
                "There is not enough memory for a frame of this size; your image is unchanged.", "Use a smaller frame."
            ) from error

    def _notes(self, sparse: NDArray[np.float32], small: NDArray[np.float32], factor: int) -> tuple[str, ...]:
        notes = []
        measured = sparse[sparse > 0]
        if not len(measured):
            what = "only relative" if self._is_scale_free else "a guess from the picture alone"
            notes.append(f"Nothing was measured: the depths are {what}.")
        unit = float(small[small > 0].mean()) if self._is_scale_free and len(measured) else 1.0
        beyond = int(((measured > self._d_max * unit) | (measured < self._d_min * unit)).sum())
        if beyond:
            span = f"{self._d_min * unit:.0f} to {self._d_max * unit:.0f} mm"
            notes.append(f"{beyond} points lie outside the model's range of {span} and were clipped.")
        if factor > 1:
            notes.append(f"Computed at {small.shape[1]} × {small.shape[0]} px and enlarged {factor} times.")
        return tuple(notes)


def _image(rgb: NDArray, factor: int) -> Tensor:
    """``(1, 3, h, w)`` float32 0..1, made smaller by a whole factor by averaging."""
    most = float(np.iinfo(rgb.dtype).max) if np.issubdtype(rgb.dtype, np.integer) else 1.0
    image = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)).astype(np.float32) / most)[None]
    return image if factor == 1 else functional.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False)


def _gathered(sparse: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Measured depths on a coarser grid: the mean of those that fall into a cell, never mixed with unknown ones."""
    if factor == 1:
        return sparse
    H, W = sparse.shape
    rows, columns = np.nonzero(sparse)
    shape = (-(-H // factor), -(-W // factor))
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (rows // factor, columns // factor), sparse[rows, columns])
    np.add.at(count, (rows // factor, columns // factor), 1)
    return np.divide(total, count, out=np.zeros(shape), where=count > 0).astype(np.float32)


def _enlarged(values: Tensor, factor: int, size: tuple[int, int]) -> NDArray[np.float32]:
    if factor > 1:
        values = functional.interpolate(values, scale_factor=factor, mode="bilinear", align_corners=False)
    return values[0, 0, : size[0], : size[1]].numpy()
