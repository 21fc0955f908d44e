"""How strong noise is and how it looks: standard deviation, power spectrum, grain, in flat pieces of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 24
BINS = 12


@dataclass(frozen=True, eq=False)
class Texture:
    """Noise of many flat pieces.

    Attributes:
        sigma: Standard deviation in native units, the median over pieces.
        spectrum: Radial power spectrum in ``BINS`` rings up to the highest frequency of the pixels, its sum is 1.
        mean_frequency: Of the power, in cycles per pixel; white noise has 0.38.
        grain_px: Distance at which neighbours are correlated by a half, in pixels.
        pieces: How many there were.
    """

    sigma: float
    spectrum: NDArray[np.float64]
    mean_frequency: float
    grain_px: float
    pieces: int

    def distance(self, other: Texture) -> float:
        """Share of the power that lies at other frequencies, 0..1."""
        return float(0.5 * np.abs(self.spectrum - other.spectrum).sum())


def flat_places(is_flat: NDArray[np.bool_], side: int = SIDE_PX, most: int = 40) -> list[tuple[slice, slice]]:
    """Windows that are flat all over, not overlapping, at most ``most`` of them evenly spread."""
    found, taken = [], np.zeros(is_flat.shape, bool)
    for y in range(0, is_flat.shape[0] - side + 1, side // 4):
        for x in range(0, is_flat.shape[1] - side + 1, side // 4):
            place = (slice(y, y + side), slice(x, x + side))
            if is_flat[place].mean() > 0.98 and not taken[place].any():
                taken[place] = True
                found.append(place)
    step = max(1, -(-len(found) // most))
    return found[::step]


def texture_of(pieces: Sequence[NDArray]) -> Texture:
    """Texture of flat pieces ``(S, S)``; a quadratic surface is taken off each, so anatomy and shading drop out.

    Raises:
        ValueError: There are none.

    Reference:
        ICRU Report 87, "Radiation dose and image-quality assessment in computed tomography", noise power spectrum.
    """
    if not pieces:
        raise ValueError("no flat piece")
    side = pieces[0].shape[0]
    y, x = np.mgrid[:side, :side] / side - 0.5
    basis = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1).reshape(-1, 6)
    projector = np.eye(side * side) - basis @ np.linalg.pinv(basis)
    residues = [(projector @ np.asarray(piece, np.float64).ravel()).reshape(side, side) for piece in pieces]
    window = np.hanning(side + 2)[1:-1]
    window2 = np.outer(window, window)
    power = np.zeros((side, side))
    for residue in residues:
        power += np.abs(np.fft.fft2(residue * window2)) ** 2 / max(residue.var(), 1e-12)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij"))
    ring = np.minimum((radius / 0.5 * BINS).astype(int), BINS)
    spectrum = np.bincount(ring.ravel(), power.ravel(), BINS + 1)[:BINS]
    inside = radius <= 0.5
    covariance = np.fft.ifft2(power).real
    along = 0.5 * (covariance[0, : side // 2] + covariance[: side // 2, 0]) / covariance[0, 0]
    below = np.flatnonzero(along < 0.5)
    place = float(below[0]) if below.size else float(side // 2)
    if below.size:  # between two pixels
        before, after = along[below[0] - 1], along[below[0]]
        place = below[0] - 1 + float((before - 0.5) / max(before - after, 1e-9))
    return Texture(
        sigma=float(np.median([residue.std() for residue in residues]) * np.sqrt(side**2 / (side**2 - 6))),
        spectrum=spectrum / spectrum.sum(),
        mean_frequency=float((radius * power)[inside].sum() / power[inside].sum()),
        grain_px=place,
        pieces=len(residues),
    )
