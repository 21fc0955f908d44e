"""Writing PNG: images with their map back to values, alpha, and cut-outs.

No text chunks, no time, no EXIF. Pixel (0, 0) is the first stored row and column.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medapp.errors import ExportError
from medapp.export.files import write_bytes
from medapp.scan.scan import Scan, Window

FULL = 65535


@dataclass(frozen=True)
class ValueMap:
    """How a grey PNG becomes values again: ``value = pixel * slope + intercept``.

    Attributes:
        bits: 8 or 16.
        slope, intercept: In ``unit``.
        unit: The scan's.
        window: Name and limits of the display window of an 8-bit image; None for 16 bit.
        is_exact: True when every value of the scan comes back exactly (up to float32).
    """

    bits: int
    slope: float
    intercept: float
    unit: str
    window: Window | None = None
    is_exact: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        window = self.window
        shown = {"center": window.center, "width": window.width, "name": window.name} if window else None
        return {
            "bits": self.bits,
            "slope": self.slope,
            "intercept": self.intercept,
            "unit": self.unit,
            "window": shown,
            "exact": self.is_exact,
        }

    def pixels(self, values: NDArray) -> NDArray:
        """``(Y, X)`` values to uint8 or uint16; only a window clips."""
        top = (1 << self.bits) - 1
        scaled = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        return np.clip(scaled, 0, top).astype(np.uint8 if self.bits == 8 else np.uint16)


def value_map(scan: Scan, bits: int) -> ValueMap | None:
    """The map for all slices of a grey scan; None for colour, which is written as it is.

    Sixteen bits keep the stored steps of an integer scan, so nothing is lost; a float scan gets 65 536 steps from its
    lowest to its highest value. Eight bits use the first display window, or the 0.5 to 99.5 % range.
    """
    if scan.is_colour:
        return None
    if bits == 8:
        window = next((w for w in scan.windows if w.width > 0), None) or _window_of(scan)
        return ValueMap(8, window.width / 255, window.center - window.width / 2, scan.unit, window)
    low, high = _limits(scan.stored)
    if np.issubdtype(scan.stored.dtype, np.integer) and high - low <= FULL and scan.slope != 0:
        return ValueMap(16, scan.slope, scan.slope * low + scan.intercept, scan.unit, is_exact=True)
    ends = sorted((low * scan.slope + scan.intercept, high * scan.slope + scan.intercept))
    return ValueMap(16, (ends[1] - ends[0]) / FULL or 1.0, ends[0], scan.unit)


def image_pixels(scan: Scan, z: int, mapping: ValueMap | None) -> NDArray:
    """One slice as it goes into a PNG: ``(Y, X)`` uint8/uint16, or ``(Y, X, 3)`` uint8 for colour."""
    if mapping is None:
        stored = scan.stored[z]
        return stored if stored.dtype == np.uint8 else (stored >> 8).astype(np.uint8)
    if mapping.is_exact:
        low = round((mapping.intercept - scan.intercept) / scan.slope)
        return (scan.stored[z].astype(np.int64) - low).astype(np.uint16)
    return mapping.pixels(scan.slice_values(z))


def alpha_pixels(stored: NDArray[np.uint16], bits: int) -> tuple[NDArray, float]:
    """Stored alpha as PNG pixels, and the largest error of that: none for 16 bits, at most 1/510 for 8."""
    if bits == 16:
        return stored, 0.0
    pixels = np.rint(stored.astype(np.float64) * (255 / FULL)).astype(np.uint8)
    return pixels, float(np.abs(pixels / 255 - stored / FULL).max(initial=0.0))


def cutout_pixels(scan: Scan, z: int, window_map: ValueMap | None, alpha: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """One slice at its display window with straight alpha: ``(Y, X, 4)`` uint8."""
    grey = image_pixels(scan, z, window_map)
    colour = grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2)
    return np.dstack([colour, alpha_pixels(alpha, 8)[0]]).astype(np.uint8)


def write_png(path: Path, pixels: NDArray) -> tuple[int, str]:
    """Write pixels and read them back.

    Args:
        path: Ends in ``.png``.
        pixels: ``(H, W)`` uint8 or uint16, ``(H, W, 3)`` or ``(H, W, 4)`` uint8.

    Returns:
        Size and SHA-256.

    Raises:
        ExportError: The file reads back differently.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=4)
    data = buffer.getvalue()
    with Image.open(io.BytesIO(data)) as again:
        if not np.array_equal(np.asarray(again), pixels):
            raise ExportError(f"{path.name} would read back differently; nothing was exported.", "")
    return write_bytes(path, data)


def _limits(stored: NDArray) -> tuple[float, float]:
    """Lowest and highest stored number, slice by slice.

    Raises:
        ExportError: A voxel is not finite.
    """
    low, high = np.inf, -np.inf
    for plane in stored:
        low, high = min(low, float(plane.min())), max(high, float(plane.max()))
    if not np.isfinite([low, high]).all():
        raise ExportError("A voxel is not a finite number; nothing was exported.", "Restore the series again.")
    return low, high


def _window_of(scan: Scan) -> Window:
    sample = scan.stored[:: max(1, len(scan.stored) // 16), ::4, ::4].astype(np.float64) * scan.slope + scan.intercept
    low, high = np.percentile(sample, (0.5, 99.5))
    width = float(high - low) or 1.0
    return Window(float(low + high) / 2, width, "0.5 to 99.5 %")
