"""What every way of completing depth takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UsageError
from medapp.progress import Progress


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Dense depth of one frame.

    Attributes:
        depth_mm: ``(H, W)`` float32 z-depth in millimetres, finite everywhere.
        sigma_mm: ``(H, W)`` float32, how far the network's own answers spread; None for fills, which do not know.
        points: Measured pixels that were used.
        working_size: ``(H, W)`` at which it was computed.
        notes: What a person should know, one sentence each.
    """

    depth_mm: NDArray[np.float32]
    sigma_mm: NDArray[np.float32] | None
    points: int
    working_size: tuple[int, int]
    notes: tuple[str, ...] = ()


class DepthCompleter(Protocol):
    """Frame + sparse depths -> dense depth, whatever computes it."""

    id: str
    name: str
    device: str

    def estimate(self, rgb: NDArray, sparse_mm: NDArray[np.float32], progress: Progress | None = None) -> DepthMap:
        """Complete one frame.

        Args:
            rgb: ``(H, W, 3)`` uint8, or uint16 of the full range.
            sparse_mm: ``(H, W)`` float32 z-depth in millimetres; NaN or 0 = unknown.
            progress: Notices Stop.

        Raises:
            UsageError: Shapes that do not fit, or too few points for the method.
            ComputeError: Out of memory, or numbers that are not finite.
            Cancelled: The user stopped it.
        """
        ...


def checked_points(rgb: NDArray, sparse_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sparse depths with 0 for everything unknown.

    Raises:
        UsageError: They are not of the frame's size, or the frame is no colour image.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise UsageError("Depth completion needs a colour frame.", "Choose an endoscopy image or a photograph.")
    if sparse_mm.shape != rgb.shape[:2]:
        (h, w), (H, W) = sparse_mm.shape, rgb.shape[:2]
        raise UsageError(
            f"The sparse depths are {w} × {h}, the frame is {W} × {H}.", "Both must come from the same picture."
        )
    known = np.isfinite(sparse_mm) & (sparse_mm > 0)
    return np.where(known, sparse_mm, 0).astype(np.float32)


def add_points(
    sparse_mm: NDArray[np.float32], points_xy_mm: tuple[tuple[float, float, float], ...]
) -> NDArray[np.float32]:
    """Sparse depths with points that a person placed; they win over what was there.

    Args:
        sparse_mm: ``(H, W)``, NaN or 0 = unknown; left as it is.
        points_xy_mm: ``(x, y, depth)``: pixel and millimetres.

    Raises:
        UsageError: A point lies outside, or its depth is not above 0.
    """
    out = sparse_mm.copy()
    H, W = out.shape
    for number, (x, y, depth) in enumerate(points_xy_mm, start=1):
        column, row = round(x), round(y)
        if not (0 <= column < W and 0 <= row < H):
            raise UsageError(f"Point {number} at ({x:g}, {y:g}) lies outside the frame of {W} × {H}.", "Move it.")
        if not (np.isfinite(depth) and depth > 0):
            raise UsageError(f"Point {number} has no depth above 0 mm.", "Give its distance in millimetres.")
        out[row, column] = depth
    return out
