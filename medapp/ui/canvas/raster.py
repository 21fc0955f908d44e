"""Voxels to pixels: a table look-up from stored integers to RGB32, and the scaled way for everything else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PySide6.QtGui import QImage

from medapp.scan.scan import Scan, Window
from medapp.ui.canvas.plane import Plane

_LARGE = 100_000  # voxels of a slice from which a second thread pays
OPAQUE = np.uint32(0xFF000000)

# Anchors of CET-D7 (linear-diverging blue, grey, yellow): lightness rises steadily, so the sign survives greyscale.
# Reference: P. Kovesi, "Good Colour Maps: How to Design Them", arXiv:1509.03700.
_DIVERGING = (
    (0.0, (20, 49, 193)),
    (0.125, (80, 72, 182)),
    (0.25, (108, 96, 170)),
    (0.375, (129, 120, 158)),
    (0.5, (144, 144, 144)),
    (0.625, (175, 164, 124)),
    (0.75, (202, 185, 101)),
    (0.875, (228, 206, 71)),
    (1.0, (253, 228, 9)),
)


@lru_cache(maxsize=4)
def grey_ramp(is_inverted: bool) -> NDArray[np.uint32]:
    """``(256,)`` RGB32 greys, black to white or the other way round."""
    grey = np.arange(256, dtype=np.uint32)
    if is_inverted:
        grey = grey[::-1]
    return (grey * np.uint32(0x010101)) | OPAQUE


@lru_cache(maxsize=1)
def diverging_ramp() -> NDArray[np.uint32]:
    """``(256,)`` RGB32: negative blue and dark, zero mid grey, positive yellow and light."""
    at = np.linspace(0.0, 1.0, 256)
    places = [place for place, _ in _DIVERGING]
    r, g, b = (np.rint(np.interp(at, places, [colour[c] for _, colour in _DIVERGING])) for c in range(3))
    packed = r * 0x10000 + g * 0x100 + b
    return packed.astype(np.uint32) | OPAQUE


@lru_cache(maxsize=16)
def lookup_table(
    dtype: str, slope: float, intercept: float, center: float, width: float, is_inverted: bool
) -> NDArray[np.uint32]:
    """RGB32 for every value that an 8- or 16-bit integer can store, indexed by its bits read as unsigned.

    Reference:
        DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT: it means the same for HU, SUV and arbitrary units.
    """
    kind = np.dtype(dtype)
    bits = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}")
    return grey_ramp(is_inverted)[_grey_levels(bits.view(kind), slope, intercept, center, width)]


def _grey_levels(stored: NDArray, slope: float, intercept: float, center: float, width: float) -> NDArray[np.uint8]:
    """Stored values to 0..255 through rescale and window at once."""
    scale = 255.0 / max(float(width), 1e-12)
    levels = np.multiply(stored, np.float32(slope * scale), dtype=np.float32)
    np.add(levels, np.float32((intercept - center) * scale + 128.0), out=levels)
    np.clip(levels, 0.0, 255.0, out=levels)
    with np.errstate(invalid="ignore"):  # NaN becomes some level; readers replace NaN, this only keeps the window quiet
        return levels.astype(np.uint8)


class SliceRaster:
    """One QImage that slices are rendered into, again and again, without new memory."""

    def __init__(self) -> None:
        self._pixels: NDArray[np.uint32] = np.zeros((1, 1), dtype=np.uint32)
        self._scratch: NDArray = np.empty((0, 0), dtype=np.uint16)
        self._helper: ThreadPoolExecutor | None = None
        self.image = QImage()
        self.key: object = None
        self._held: NDArray | None = None  # kept, so that no other array can get the id that is in the key

    def render(self, scan: Scan, plane: Plane, index: int, window: Window, is_inverted: bool) -> QImage:
        """A slice in display orientation, one image pixel a voxel; the same key twice costs nothing."""
        key = (id(scan.stored), scan.slope, scan.intercept, plane, index, window.center, window.width, is_inverted)
        if key == self.key:
            return self.image
        self._held = scan.stored
        raw = plane.raw(np.asarray(scan.stored), index)
        pixels = self._pixels_for(plane.height, plane.width)
        if scan.is_colour:
            self._put_colour(plane.shown(raw), pixels, is_inverted)
        elif raw.dtype.kind in "iub" and raw.dtype.itemsize <= 2:
            stored = raw.view(np.uint8) if raw.dtype.kind == "b" else raw
            table = lookup_table(stored.dtype.str, scan.slope, scan.intercept, window.center, window.width, is_inverted)
            bits = plane.shown(self._gathered(stored.view(f"u{stored.dtype.itemsize}")))
            np.take(table, bits, out=pixels, mode="wrap")
        else:
            levels = _grey_levels(plane.shown(raw), scan.slope, scan.intercept, window.center, window.width)
            np.take(grey_ramp(is_inverted), levels, out=pixels, mode="wrap")
        self.key = key
        return self.image

    def render_difference(self, difference: NDArray[np.float32], limit: float) -> QImage:
        """A difference image ``(H, W)`` in display orientation: zero is mid grey, ``±limit`` the ends."""
        pixels = self._pixels_for(*difference.shape)
        np.take(diverging_ramp(), _grey_levels(difference, 1.0, 0.0, 0.0, 2.0 * limit), out=pixels, mode="wrap")
        self.key = None
        return self.image

    def forget(self) -> None:
        """Render anew next time: the voxels behind the key have changed."""
        self.key, self._held = None, None

    def _gathered(self, raw: NDArray) -> NDArray:
        """The raw slice in one piece; across the volume each voxel misses the cache, and two threads halve the wait."""
        if raw.strides[-1] == raw.itemsize or raw.size < _LARGE:
            return raw
        if self._scratch.shape != raw.shape or self._scratch.dtype != raw.dtype:
            self._scratch = np.empty(raw.shape, raw.dtype)
        if self._helper is None:
            self._helper = ThreadPoolExecutor(1, thread_name_prefix="slice")
        middle = len(raw) // 2
        other = self._helper.submit(np.copyto, self._scratch[:middle], raw[:middle])
        np.copyto(self._scratch[middle:], raw[middle:])
        other.result()
        return self._scratch

    def _pixels_for(self, height: int, width: int) -> NDArray[np.uint32]:
        if self._pixels.shape != (height, width):
            self._pixels = np.zeros((height, width), dtype=np.uint32)
            # The QImage looks into the array; both live exactly as long as this object holds them together.
            self.image = QImage(self._pixels.data, width, height, 4 * width, QImage.Format.Format_RGB32)
        return self._pixels

    @staticmethod
    def _put_colour(rgb: NDArray, pixels: NDArray[np.uint32], is_inverted: bool) -> None:
        eight_bit = (rgb >> 8).astype(np.uint8) if rgb.dtype == np.uint16 else rgb.astype(np.uint8, copy=False)
        channels = pixels.view(np.uint8).reshape(*pixels.shape, 4)  # little-endian RGB32 is B, G, R, 255 in memory
        for c in range(3):
            np.copyto(channels[..., 2 - c], eight_bit[..., c])
        channels[..., 3] = 255
        if is_inverted:
            np.bitwise_xor(pixels, np.uint32(0x00FFFFFF), out=pixels)
