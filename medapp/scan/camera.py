"""From pixels with a depth to points in millimetres: the pinhole camera, and lengths along a surface."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UsageError

_EDGE_SHARE = 0.05
"""A surface seen at a steep angle changes its depth by less than so much from pixel to pixel; more is an edge."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in pixels of an image of a stated size.

    Attributes:
        fx, fy: Focal lengths in pixels.
        cx, cy: Where the axis meets the image; (0, 0) is the centre of the first pixel.
        width, height: Of the image in pixels.
        name: Where the numbers come from.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    name: str = ""

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy)
        if not all(math.isfinite(n) for n in numbers) or min(self.fx, self.fy, self.width, self.height) <= 0:
            raise UsageError("A focal length and an image size above 0 are needed.", "Give the focal length in pixels.")

    @classmethod
    def centred(cls, focal_px: float, width: int, height: int) -> Camera:
        """Square pixels, axis through the middle of the image."""
        return cls(focal_px, focal_px, (width - 1) / 2, (height - 1) / 2, width, height, "focal length given")

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Camera:
        """Read what ``as_dict`` wrote.

        Raises:
            UsageError: Something is missing or no number.
        """
        try:
            fx, fy, cx, cy = (float(entries[key]) for key in ("fx", "fy", "cx", "cy"))
            return cls(fx, fy, cx, cy, int(entries["width"]), int(entries["height"]), str(entries.get("name", "")))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                "The camera is not described in full.", "fx, fy, cx, cy, width and height are needed, in pixels."
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """Plain data for records and JSON."""
        return asdict(self)

    def scaled_to(self, width: int, height: int) -> Camera:
        """The same camera for the image at another size."""
        sx, sy = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        return Camera(self.fx * sx, self.fy * sy, cx, cy, width, height, self.name)

    def points_mm(self, points_xy: NDArray, z_mm: NDArray) -> NDArray[np.float64]:
        """``(N, 2)`` pixels and ``(N,)`` z-depths to ``(N, 3)`` points: right, down, away from the camera."""
        x = (points_xy[:, 0] - self.cx) / self.fx * z_mm
        y = (points_xy[:, 1] - self.cy) / self.fy * z_mm
        return np.stack([x, y, z_mm], axis=1).astype(np.float64)

    def ray_lengths(self) -> NDArray[np.float64]:
        """``(height, width)``: how much longer the ray is than the z-depth, at least 1."""
        v, u = np.indices((self.height, self.width))
        return np.sqrt(1 + ((u - self.cx) / self.fx) ** 2 + ((v - self.cy) / self.fy) ** 2)


@dataclass(frozen=True)
class SurfaceLength:
    """A length between two pixels.

    Attributes:
        along_mm: Along the surface under the straight pixel line; None without a camera.
        straight_mm: Through the air; None without a camera.
        depth_change_mm: Depth of the second minus depth of the first.
        crosses_edge: The line jumps from one surface to another, where only the straight length has a meaning.
    """

    along_mm: float | None
    straight_mm: float | None
    depth_change_mm: float
    crosses_edge: bool = False


def surface_length(
    depth_mm: NDArray[np.float32], start_xy: tuple[float, float], end_xy: tuple[float, float], camera: Camera | None
) -> SurfaceLength | None:
    """The length of a ruler laid on a surface.

    Args:
        depth_mm: ``(H, W)`` z-depth, NaN = unknown.
        start_xy: First pixel ``(x, y)``.
        end_xy: Second pixel.
        camera: Of an image of the size of the depth map; None = only the depth change is known.

    Returns:
        The length, or None where a pixel of the line has no depth or lies outside.
    """
    steps = max(math.ceil(math.dist(start_xy, end_xy)), 1)
    line = np.linspace(start_xy, end_xy, steps + 1)
    columns, rows = np.rint(line).astype(int).T
    H, W = depth_mm.shape
    if columns.min() < 0 or rows.min() < 0 or columns.max() >= W or rows.max() >= H:
        return None
    z = depth_mm[rows, columns].astype(np.float64)
    if not np.isfinite(z).all():
        return None
    if camera is None:
        return SurfaceLength(None, None, float(z[-1] - z[0]))
    crosses_edge = bool((np.abs(np.diff(z)) > _EDGE_SHARE * np.minimum(z[1:], z[:-1])).any())
    points = camera.scaled_to(W, H).points_mm(line, z)
    along = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    straight = np.linalg.norm(points[-1] - points[0])
    return SurfaceLength(float(along), float(straight), float(z[-1] - z[0]), crosses_edge)
