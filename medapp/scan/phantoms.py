"""Anatomy made of formulas: a CT torso, a brain MR and a PET torso, for the sample, tests and benchmarks.

Shapes are warped ellipsoids with soft borders; intensities, noise texture and spacing are of the order met in practice.
Nothing here was measured on a person, and the series say so in their description.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Phantom:
    """Voxels of a made-up series.

    Attributes:
        values: ``(Z, Y, X)`` float32: HU for CT, arbitrary for MR, Bq/ml for PET.
        spacing_mm: ``(z, y, x)``.
        modality: ``CT``, ``MR`` or ``PT``.
        name: Series description.
    """

    values: Field
    spacing_mm: tuple[float, float, float]
    modality: str
    name: str


class _Canvas:
    """A slab in mm, its coordinates warped a little so that nothing is a perfect ellipse."""

    def __init__(
        self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], seed: int, warp_mm: float
    ) -> None:
        self._axes = [
            ((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(shape, spacing_mm, strict=True)
        ]
        self.z, self.y, self.x = self._axes[0][:, None, None], self._axes[1][None, :, None], self._axes[2][None, None]
        self.shape, self._warp_mm = shape, warp_mm
        self._edge_mm = 0.7 * max(spacing_mm[1], spacing_mm[2])
        rng = np.random.default_rng(seed)
        self.wz, self.wy, self.wx = (
            axis + warp_mm / 2 * self._waves(rng.normal(0, 1 / 28, (3, 3)), rng.uniform(0, 2 * np.pi, 3))
            for axis in (self.z, self.y, self.x)
        )

    def _waves(self, k_zyx: NDArray[np.float64], phases: NDArray[np.float64]) -> Field:
        """Sum of plane waves; each is an outer product of three complex lines, which is far cheaper than a sine."""
        out = np.zeros(self.shape, np.float32)
        for k, phase in zip(k_zyx, phases, strict=True):
            z, y, x = (np.exp(1j * kk * axis).astype(np.complex64) for kk, axis in zip(k, self._axes, strict=True))
            plane = y[:, None] * x[None] * np.complex64(np.exp(1j * phase))
            for i, turn in enumerate(z):
                out[i] += turn.real * plane.imag + turn.imag * plane.real
        return out

    def ripple(self, wavelength_mm: float, seed: int) -> Field:
        """Smooth texture, about -1..1."""
        rng = np.random.default_rng(seed)
        k = rng.normal(size=(6, 3))
        k *= 2 * np.pi / wavelength_mm / np.linalg.norm(k, axis=1, keepdims=True)
        return (self._waves(k, rng.uniform(0, 2 * np.pi, 6)) / 3).astype(np.float32)

    def box(self, centre_zyx: tuple[float, float, float], radii_zyx: tuple[float, float, float]) -> tuple[slice, ...]:
        """Index box that holds a warped ellipsoid given in mm."""
        margin = 3 * self._warp_mm / 2 + 2 * self._edge_mm
        return tuple(
            slice(int(np.searchsorted(axis, c - r - margin)), int(np.searchsorted(axis, c + r + margin)))
            for axis, c, r in zip(self._axes, centre_zyx, radii_zyx, strict=True)
        )

    def ellipsoid(self, centre_zyx: tuple[float, float, float], radii_zyx: tuple[float, float, float]) -> Field:
        """Coverage 0..1 of a warped ellipsoid within its box."""
        at = self.box(centre_zyx, radii_zyx)
        (cz, cy, cx), (rz, ry, rx) = centre_zyx, radii_zyx
        r = np.sqrt(((self.wz[at] - cz) / rz) ** 2 + ((self.wy[at] - cy) / ry) ** 2 + ((self.wx[at] - cx) / rx) ** 2)
        return np.clip((1 - r) * (min(ry, rx) / self._edge_mm) + 0.5, 0, 1).astype(np.float32)

    def paint(
        self,
        volume: Field,
        centre_zyx: tuple[float, float, float],
        radii_zyx: tuple[float, float, float],
        value: float | Field,
        amount: float = 1.0,
    ) -> None:
        """Blend an ellipsoid of ``value`` into the volume."""
        at = self.box(centre_zyx, radii_zyx)
        inside = value if isinstance(value, float) else value[at]
        volume[at] += amount * self.ellipsoid(centre_zyx, radii_zyx) * (inside - volume[at])


def ct_torso(
    shape: tuple[int, int, int] = (28, 512, 512),
    spacing_mm: tuple[float, float, float] = (4.0, 0.75, 0.75),
    seed: int = 7,
) -> Phantom:
    """Upper abdomen and lung bases with contrast, in HU; noise as a filtered back-projection leaves it."""
    c = _Canvas(shape, spacing_mm, seed, warp_mm=5.0)
    hu = np.full(shape, -1000, np.float32)
    c.paint(hu, (0, 0, 0), (900, 118, 165), -105.0)
    body = (hu > -500).astype(np.float32)
    c.paint(hu, (0, 0, 0), (900, 104, 149), 55.0 + 6 * c.ripple(17, seed + 1))
    c.paint(hu, (0, -4, 0), (900, 90, 134), -92.0)
    for side in (-1, 1):
        c.paint(hu, (62, 5, side * 76), (75, 80, 52), -860.0 + 45 * c.ripple(9, seed + 2))
    for angle in np.linspace(0.25, 2 * np.pi - 0.25, 16):
        centre, radii = (0.0, 95 * np.sin(angle) - 3, 140 * np.cos(angle)), (900.0, 5.0, 7.5)
        at = c.box(centre, radii)
        rib = c.ellipsoid(centre, radii) * (np.sin(c.wz[at] / 9 + 5 * angle) > 0.35)
        hu[at] += rib * (420.0 - hu[at])
    c.paint(hu, (-14, -14, -62), (62, 62, 66), 112.0 + 5 * c.ripple(6, seed + 3))  # liver, patient right
    c.paint(hu, (-6, -34, -52), (9, 9.5, 10.5), 62.0)  # lesion with a soft rim
    c.paint(hu, (-22, 6, -88), (6, 5, 5.5), 18.0)  # cyst
    c.paint(hu, (-2, 30, 92), (38, 30, 22), 118.0 + 5 * c.ripple(7, seed + 4))  # spleen
    c.paint(hu, (-6, -44, 54), (40, 28, 42), 24.0)  # stomach
    c.paint(hu, (-6, -58, 54), (30, 13, 26), -840.0)  # its gas
    for side in (-1, 1):
        c.paint(hu, (-32, 44, side * 62), (46, 25, 21), 165.0)
        c.paint(hu, (-32, 44, side * 55), (24, 12, 10), -60.0)
    c.paint(hu, (0, 58, 0), (900, 22, 24), 165.0 + 55 * c.ripple(3.2, seed + 5))  # vertebra
    c.paint(hu, (0, 58, 0), (900, 18, 20), 120.0 + 45 * c.ripple(3.2, seed + 6), amount=0.75)
    c.paint(hu, (0, 88, 0), (900, 10, 12), 260.0)
    c.paint(hu, (0, 79, 0), (900, 7.5, 8.5), 28.0)  # canal
    c.paint(hu, (0, 26, 12), (900, 11.5, 11.5), 188.0)  # aorta
    c.paint(hu, (0, 20, -18), (900, 10, 14), 140.0)  # cava
    table = (np.abs(np.sqrt((c.y - 20) ** 2 + 0.15 * c.x**2) - 128) < 2.2) & (c.y > 90)
    hu = np.maximum(hu, np.where(np.broadcast_to(table, shape), -120.0, -1000.0).astype(np.float32))
    return Phantom(hu + _ct_noise(shape, body, seed, 13.0), spacing_mm, "CT", "Phantom CT torso (not a patient)")


def _ct_noise(shape: tuple[int, int, int], body: Field, seed: int, sigma_hu: float) -> Field:
    """Noise with the ramp-shaped spectrum of filtered back-projection, stronger in the middle of the body."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])[None, :]
    f = np.hypot(fy, fx)
    transfer = np.sqrt(f) * np.exp(-((f / 0.32) ** 2))
    transfer /= np.sqrt((transfer**2).mean())
    out = np.empty(shape, np.float32)
    for z in range(shape[0]):
        white = rng.standard_normal(shape[1:], dtype=np.float32)
        out[z] = np.fft.irfft2(np.fft.rfft2(white) * transfer, s=shape[1:])
    return out * sigma_hu * (0.35 + 0.65 * body)


def brain_mr(
    shape: tuple[int, int, int] = (60, 256, 256),
    spacing_mm: tuple[float, float, float] = (2.0, 0.9, 0.9),
    seed: int = 11,
) -> Phantom:
    """A T1-weighted head with folded cortex, a bias field and Rician noise; arbitrary unit, 0 to about 1000."""
    c = _Canvas(shape, spacing_mm, seed, warp_mm=3.0)
    mr = np.zeros(shape, np.float32)
    c.paint(mr, (0, 0, 0), (96, 96, 78), 720.0)  # scalp
    c.paint(mr, (0, 0, 0), (89, 89, 71), 90.0)  # skull
    c.paint(mr, (0, 0, 0), (83, 83, 65), 170.0)  # fluid
    folds = 4.5 * c.ripple(13, seed + 1)
    r = np.sqrt((c.wz / 79) ** 2 + (c.wy / 79) ** 2 + (c.wx / 61) ** 2) * 66
    fissure = np.clip((np.abs(c.wx) - 1.2) / 1.2, 0, 1)
    grey = np.clip((66 + folds - r) / 1.0 + 0.5, 0, 1) * fissure
    white = np.clip((60 + 1.8 * folds - r) / 1.2 + 0.5, 0, 1) * np.clip((np.abs(c.wx) - 3.5) / 1.5, 0, 1)
    mr += grey * (470.0 - mr)
    mr += white * (700.0 + 12 * c.ripple(9, seed + 2) - mr)
    for side in (-1, 1):
        c.paint(mr, (6, -4, side * 12), (17, 34, 7), 165.0)  # lateral ventricles
        c.paint(mr, (-4, 2, side * 21), (12, 15, 8), 520.0)  # deep grey
    c.paint(mr, (14, -30, 33), (8, 9, 8), 380.0, amount=0.8)  # lesion
    mr *= 1 + 0.16 * (c.x / 110) + 0.12 * (c.y / 110)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, *shape), dtype=np.float32) * 17
    return Phantom(np.hypot(mr + noise[0], noise[1]), spacing_mm, "MR", "Phantom brain T1 (not a patient)")


def pet_torso(
    shape: tuple[int, int, int] = (40, 144, 144),
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 4.0),
    seed: int = 13,
) -> Phantom:
    """FDG-like activity in Bq/ml (about 5000 per unit of SUV in the header that goes with it), blurred and noisy."""
    c = _Canvas(shape, spacing_mm, seed, warp_mm=6.0)
    suv = np.zeros(shape, np.float32)
    c.paint(suv, (0, 0, 0), (900, 118, 165), 0.5)
    c.paint(suv, (0, 0, 0), (900, 104, 149), 0.9)
    for side in (-1, 1):
        c.paint(suv, (62, 5, side * 76), (75, 80, 52), 0.35)
        c.paint(suv, (-45, 44, side * 62), (40, 24, 20), 3.4)
    c.paint(suv, (-14, -14, -62), (62, 62, 66), 2.3)
    c.paint(suv, (-2, 30, 92), (38, 30, 22), 1.9)
    c.paint(suv, (48, -30, 24), (34, 34, 38), 5.5)  # heart muscle
    c.paint(suv, (48, -30, 24), (20, 20, 24), 1.6)
    c.paint(suv, (36, 8, -78), (10, 10, 10), 8.5)  # nodule
    c.paint(suv, (-6, -34, -52), (12, 12, 12), 6.0)  # liver lesion
    rng = np.random.default_rng(seed)
    transfer = _gaussian_transfer(shape, spacing_mm, fwhm_mm=7.0)
    suv = np.fft.irfftn(np.fft.rfftn(suv) * transfer, s=shape, axes=(0, 1, 2)).astype(np.float32)
    noise = rng.standard_normal(shape, dtype=np.float32) * np.sqrt(np.maximum(suv, 0) + 0.05)
    noise = np.fft.irfftn(
        np.fft.rfftn(noise) * _gaussian_transfer(shape, spacing_mm, fwhm_mm=5.0), s=shape, axes=(0, 1, 2)
    )
    values = np.maximum(suv + 0.5 * noise, 0).astype(np.float32)
    return Phantom(values * 3619.0, spacing_mm, "PT", "Phantom PET torso (not a patient)")


def _gaussian_transfer(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], fwhm_mm: float
) -> NDArray[np.float64]:
    sigma = fwhm_mm / 2.3548
    f = [np.fft.fftfreq(n, s) for n, s in zip(shape[:2], spacing_mm[:2], strict=True)]
    f.append(np.fft.rfftfreq(shape[2], spacing_mm[2]))
    squared = f[0][:, None, None] ** 2 + f[1][None, :, None] ** 2 + f[2][None, None, :] ** 2
    return np.exp(-2 * (np.pi * sigma) ** 2 * squared)
