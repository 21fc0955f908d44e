"""A small picture of a scan for lists and tables."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medapp.scan.intensity import starting_window
from medapp.scan.scan import Scan


def thumbnail_png(scan: Scan, side_px: int = 96) -> bytes:
    """The middle slice at its default window as PNG, longest side ``side_px``, in true aspect."""
    picture = grey_or_colour(scan, scan.shape[0] // 2)
    height, width = picture.shape[:2]
    dy, dx = scan.in_plane_spacing_mm or (1.0, 1.0)
    scale = side_px / max(height * dy, width * dx)
    size = (max(1, round(width * dx * scale)), max(1, round(height * dy * scale)))
    return _png(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def picture_png(picture: NDArray[np.uint8], side_px: int = 96) -> bytes:
    """A picture ``(H, W)`` or ``(H, W, 3)`` as PNG of at most ``side_px`` a side; 0 = as it is."""
    image = Image.fromarray(picture)
    if side_px:
        image.thumbnail((side_px, side_px))
    return _png(image)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def grey_or_colour(scan: Scan, z: int) -> NDArray[np.uint8]:
    """One slice as a person sees it: ``(Y, X)`` or ``(Y, X, 3)`` uint8 at the default window."""
    values = scan.slice_values(z)
    if scan.is_colour:
        return (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values.astype(np.uint8)
    window = starting_window(scan)
    grey = np.clip((values - (window.center - window.width / 2)) / max(window.width, 1e-6), 0, 1)
    if scan.is_inverted or scan.modality == "PT":
        grey = 1 - grey
    return (grey * 255).astype(np.uint8)
