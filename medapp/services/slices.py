"""One plane of a series in the scan's unit, with its spacing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UsageError
from medapp.scan.scan import Scan


def plane_values(scan: Scan, index: int, axis: int = 0) -> NDArray:
    """The plane perpendicular to ``axis``: 2-D float32 in the scan's unit, or ``(H, W, 3)`` colours.

    Raises:
        UsageError: There is no such plane.
    """
    if not 0 <= index < scan.shape[axis]:
        raise UsageError(f"The series has no slice {index + 1} in this direction.", "Choose another slice.")
    if axis == 0:
        return scan.slice_values(index)
    stored = np.take(scan.stored, index, axis=axis)
    if scan.is_colour:
        return stored
    return (stored.astype(np.float64) * scan.slope + scan.intercept).astype(np.float32)


def plane_spacing(scan: Scan, axis: int = 0) -> tuple[float, float] | None:
    """Row and column spacing of a plane in mm, or None where lengths are in pixels."""
    if axis == 0:
        return scan.in_plane_spacing_mm
    spacing = scan.spacing_mm
    if spacing is None:
        return None
    rows, columns = (spacing[a] for a in range(3) if a != axis)
    return rows, columns
