"""Stained tissue at a lower magnification: the blur of a smaller aperture, coarser pixels, photon noise.

Light adds up before the camera's curve, so the blur works on linear light and not on stored colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.restoration.light import to_light, to_stored

CUTOFF = 1.0
"""Where the aperture's transfer reaches zero, in cycles per coarse pixel: 0.5 is what the coarse pixels can hold, and
objectives are made to pass somewhat more than the camera can hold."""


def low_magnification(
    colours: NDArray, factor: int, cutoff: float = CUTOFF, photons: float = 0.0, seed: int = 0
) -> NDArray[np.float32]:
    """A picture as an objective of ``factor`` times less magnification shows it, on its own coarse grid.

    Blur by the incoherent transfer function of a round aperture, mean over the area of each coarse pixel, then photon
    noise. Not modelled: focus, colour errors of the lens, the scanner's sharpening, JPEG.

    Args:
        colours: ``(H, W, 3)`` or ``(H, W)``, 0..255, stored with the sRGB curve.
        factor: 2 or 4.
        cutoff: Where the transfer reaches zero, in cycles per coarse pixel.
        photons: Of a white pixel; 0 = no noise. A slide scanner has ten thousand or so.
        seed: Of the noise.

    Returns:
        ``(H // factor, W // factor[, 3])`` float32, 0..255; rows and columns beyond the last whole pixel are cut off.

    Raises:
        ValueError: The factor is below 1, or the picture is smaller than four coarse pixels.
    """
    colours = np.asarray(colours, np.float32)
    height, width = (side // factor * factor if factor >= 1 else 0 for side in colours.shape[:2])
    if factor < 1 or min(height, width) < 4 * factor:
        raise ValueError(
            f"a picture of {colours.shape[1]} x {colours.shape[0]} px is too small for a factor of {factor}"
        )
    light = to_light(colours[:height, :width])
    light = blurred(light, factor, cutoff)
    grid = (height // factor, factor, width // factor, factor, *light.shape[2:])
    coarse = light.reshape(grid).mean(axis=(1, 3))
    if photons > 0:
        random = np.random.default_rng([seed, 0x68656C])
        coarse = random.poisson(np.clip(coarse, 0, 1) * photons) / photons
    return to_stored(coarse)


def low_picture(
    colours: NDArray, factor: int, cutoff: float = CUTOFF, photons: float = 0.0, seed: int = 0
) -> NDArray[np.uint8]:
    """``low_magnification`` in whole grey levels, as a camera stores it: what a network that enlarges is given."""
    return np.rint(low_magnification(colours, factor, cutoff, photons, seed)).astype(np.uint8)


def on_the_same_grid(
    colours: NDArray, factor: int, cutoff: float = CUTOFF, photons: float = 0.0, seed: int = 0
) -> NDArray[np.float32]:
    """``low_magnification`` brought back onto the picture's own pixels by cubic splines: what a network is given.

    Returns:
        The shape of ``colours``, float32, 0..255.
    """
    coarse = low_magnification(colours, factor, cutoff, photons, seed)
    return enlarged(coarse, factor, (colours.shape[0], colours.shape[1]))


def enlarged(coarse: NDArray, factor: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A coarse picture on ``factor`` times finer pixels by cubic splines, ``shape`` large, 0..255.

    Args:
        coarse: ``(h, w[, 3])``; each of its pixels covers ``factor`` times ``factor`` fine ones.
        factor: Of ``low_magnification``.
        shape: ``(H, W)``, up to ``factor - 1`` more than the coarse pixels cover.
    """
    y, x = ((np.arange(side) + 0.5) / factor - 0.5 for side in shape)
    planes = coarse[..., None] if coarse.ndim == 2 else coarse
    made = [
        ndimage.map_coordinates(plane, np.meshgrid(y, x, indexing="ij"), order=3, mode="nearest")
        for plane in np.moveaxis(planes, -1, 0)
    ]
    stacked = np.clip(np.stack(made, axis=-1), 0, 255).astype(np.float32)
    return stacked[..., 0] if coarse.ndim == 2 else stacked


def blurred(light: NDArray, factor: int, cutoff: float = CUTOFF) -> NDArray[np.float32]:
    """Linear light after the round aperture; mirrored at the edges.

    Reference:
        Goodman, "Introduction to Fourier Optics", section 6.3: transfer function of a diffraction-limited incoherent
        system.
    """
    margin = 8 * factor
    pads = [(margin, margin), (margin, margin), *[(0, 0)] * (light.ndim - 2)]
    padded = np.pad(light, pads, mode="reflect" if min(light.shape[:2]) > margin else "edge")
    fy, fx = np.fft.fftfreq(padded.shape[0]), np.fft.rfftfreq(padded.shape[1])
    share = np.minimum(np.hypot(fy[:, None], fx[None, :]) * factor / cutoff, 1.0)
    transfer = 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))
    spectrum = np.fft.rfft2(padded, axes=(0, 1))
    spectrum *= transfer.reshape(*transfer.shape, *[1] * (light.ndim - 2))
    made = np.fft.irfft2(spectrum, s=padded.shape[:2], axes=(0, 1))
    return made[margin:-margin, margin:-margin].astype(np.float32)
