"""The classical rivals: depth spread from the measured pixels alone, without looking at the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medapp.depth.depth_map import DepthMap, checked_points
from medapp.errors import UsageError
from medapp.networks.blocks.depth_fill import linear_fill, nearest_fill
from medapp.progress import Progress

FILLS = {"fill-nearest": "nearest fill", "fill-linear": "linear fill"}
"""Ids and names; they need no weights."""


class FillCompleter:
    """Nearest measured pixel, or planes over the triangles between them."""

    def __init__(self, model_id: str) -> None:
        if model_id not in FILLS:
            raise UsageError(f"There is no fill '{model_id[:40]}'.", f"Use one of: {', '.join(FILLS)}.")
        self.id, self.name, self.device = model_id, FILLS[model_id], "cpu"

    def estimate(self, rgb: NDArray, sparse_mm: NDArray[np.float32], progress: Progress | None = None) -> DepthMap:
        """See ``DepthCompleter.estimate``; at least one point is needed."""
        sparse = checked_points(rgb, sparse_mm)
        count = int((sparse > 0).sum())
        if count == 0:
            raise UsageError("A fill needs at least one measured point.", "Place a point, or choose a network.")
        if progress is not None:
            progress.check()
        notes: tuple[str, ...] = ()
        if self.id == "fill-linear":
            filled = linear_fill(sparse)
            if count < 3:
                notes = ("Fewer than three points: the nearest one was taken everywhere.",)
        else:
            filled = nearest_fill(sparse)[0]
        return DepthMap(filled, None, count, sparse.shape, notes)  # type: ignore[arg-type]
