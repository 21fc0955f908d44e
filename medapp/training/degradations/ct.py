"""Low-dose CT made from full-dose slices: photon and electronic noise in the projection domain.

Filtered back-projection is linear, so only the *noise* is reconstructed and added to the slice: the slice itself keeps
its sharpness, and the noise gets its true streaks, texture and spread.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

WATER_PER_MM = 0.0195
"""Attenuation of water; HU 0."""
FULL_DOSE_PHOTONS = 2e5
"""Photons a ray starts with at full dose (I0)."""
ELECTRONIC_SIGMA = 3.0
"""Electronic noise of a detector reading, in photons."""
FINER = 4
"""Back-projection looks up the nearest of so many interpolated readings per detector."""

Kernel = Literal["ramp", "hann"]


@dataclass(frozen=True)
class Scanner:
    """A parallel-beam scanner whose detector spacing equals the slice's own pixel size.

    Attributes:
        views: Projections over half a turn.
        kernel: Reconstruction filter: ``ramp`` is sharp, ``hann`` (ramp with a Hann window) is a soft-tissue kernel.
        cutoff_per_mm: Where the Hann window of ``hann`` reaches zero, in cycles per mm; None = at the highest frequency
            of the detectors, whatever they measure. Real soft-tissue kernels end at 0.5 to 0.8 per mm.
    """

    views: int = 720
    kernel: Kernel = "hann"
    cutoff_per_mm: float | None = None


def pixel_seed(slice_hu: NDArray, tag: str = "") -> int:
    """A seed that depends on the pixels only, so that the same slice always gets the same noise."""
    content = np.ascontiguousarray(slice_hu, dtype=np.float32).tobytes()
    return int.from_bytes(hashlib.sha256(content + tag.encode()).digest()[:8], "big")


def low_dose(
    slice_hu: NDArray, spacing_mm: float, dose: float, scanner: Scanner = Scanner(), tag: str = ""
) -> NDArray[np.float32]:
    """One slice as a scan at a fraction of the dose would have shown it.

    Args:
        slice_hu: ``(Y, X)`` in HU.
        spacing_mm: Pixel size; it sets the path lengths and with them the noise.
        dose: Fraction of the full dose, such as 0.25.
        scanner: Views and kernel.
        tag: Sets this realisation apart from others of the same slice and dose.

    Returns:
        ``(Y, X)`` float32 in HU.
    """
    noise = noise_fields(slice_hu, spacing_mm, (dose,), scanner, tag)
    return (slice_hu.astype(np.float32) + noise[0]).astype(np.float32)


def mixed_low_dose(
    slice_hu: NDArray, spacing_mm: float, dose: float, ramp_share: float, scanner: Scanner = Scanner(), tag: str = ""
) -> NDArray[np.float32]:
    """As ``low_dose``, with the same photons reconstructed by both kernels and mixed: the texture of most real kernels.

    Args:
        slice_hu, spacing_mm, dose, tag: As in ``low_dose``.
        ramp_share: Part of the sharp kernel, 0..1.
        scanner: Views, and the cutoff of the soft kernel; its kernel does not matter.
    """
    sharp, soft = (
        noise_fields(slice_hu, spacing_mm, (dose,), replace(scanner, kernel=kernel), tag)[0]
        for kernel in ("ramp", "hann")
    )
    return (slice_hu.astype(np.float32) + ramp_share * sharp + (1 - ramp_share) * soft).astype(np.float32)


def noise_fields(
    slice_hu: NDArray, spacing_mm: float, doses: tuple[float, ...], scanner: Scanner = Scanner(), tag: str = ""
) -> NDArray[np.float32]:
    """The noise of several doses at once, ``(len(doses), Y, X)`` float32 in HU; much cheaper than one by one."""
    paths = forward_project(slice_hu, spacing_mm, scanner.views)
    readings = np.stack(
        [
            _noise_of_paths(paths, dose, np.random.default_rng(pixel_seed(slice_hu, f"{tag}/{dose:.6g}")))
            for dose in doses
        ]
    )
    attenuation = back_project(readings, slice_hu.shape, spacing_mm, scanner.kernel, scanner.cutoff_per_mm)
    return (attenuation * np.float32(1000.0 / WATER_PER_MM)).astype(np.float32)


def _noise_of_paths(paths: NDArray, dose: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Error of the measured line integrals: Poisson photons plus Gaussian electronics, then the logarithm."""
    start = FULL_DOSE_PHOTONS * dose
    counts = random.poisson(start * np.exp(-paths)).astype(np.float64)
    counts += random.normal(0.0, ELECTRONIC_SIGMA, paths.shape)
    measured = np.log(start / np.maximum(counts, 1.0))  # a starved ray reads one photon
    return (measured - paths).astype(np.float32)


def forward_project(slice_hu: NDArray, spacing_mm: float, views: int) -> NDArray[np.float64]:
    """Line integrals ``(views, detectors)`` without unit.

    Sampled on every second pixel and interpolated: they only set the photon statistics, which are smooth.
    """
    attenuation = torch.from_numpy(np.clip(slice_hu, -1000.0, 3072.0).astype(np.float32) / 1000.0 + 1.0)
    attenuation = attenuation[None, None] * WATER_PER_MM
    attenuation = functional.avg_pool2d(attenuation, 2, ceil_mode=True, count_include_pad=False)
    height, width = attenuation.shape[-2:]
    detectors = _detector_count(slice_hu.shape)
    coarse = (detectors + 1) // 2
    along = torch.arange(coarse, dtype=torch.float32) - (coarse - 1) / 2
    rows = []
    for angles in _angles(views).split(32):
        cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
        offset, depth = along[None, :, None], along[None, None, :]
        x = (offset * cos - depth * sin) / (width / 2)
        y = (offset * sin + depth * cos) / (height / 2)
        grid = torch.stack([x, y], dim=-1)  # (a, offset, depth, 2)
        sampled = functional.grid_sample(attenuation.expand(len(angles), -1, -1, -1), grid, align_corners=False)
        rows.append(sampled.sum(dim=-1)[:, 0] * (2.0 * spacing_mm))
    paths = functional.interpolate(torch.cat(rows)[:, None], size=detectors, mode="linear", align_corners=False)
    return paths[:, 0].double().numpy()


def back_project(
    readings: NDArray,
    shape: tuple[int, ...],
    spacing_mm: float,
    kernel: Kernel = "hann",
    cutoff_per_mm: float | None = None,
) -> NDArray[np.float32]:
    """Filtered back-projection of ``(K, views, detectors)`` into ``(K, Y, X)`` float32, in 1/mm."""
    count, views, detectors = readings.shape
    filtered = _filtered(torch.from_numpy(np.asarray(readings, dtype=np.float32)), spacing_mm, kernel, cutoff_per_mm)
    fine = (detectors - 1) * FINER + 1
    filtered = functional.interpolate(filtered.flatten(0, 1)[:, None], size=fine, mode="linear", align_corners=True)
    filtered = filtered.view(count, views, fine)
    height, width = shape
    y = (torch.arange(height, dtype=torch.float32) - (height - 1) / 2)[:, None] * FINER
    x = (torch.arange(width, dtype=torch.float32) - (width - 1) / 2)[None, :] * FINER
    centre = (fine - 1) / 2 + 0.5  # the half rounds to nearest when truncated
    image = torch.zeros(count, height * width)
    for view, angle in enumerate(_angles(views).tolist()):
        where = (x * math.cos(angle) + (y * math.sin(angle) + centre)).int().flatten()
        for k in range(count):
            image[k] += filtered[k, view].index_select(0, where)
    return (image.view(count, height, width) * (math.pi / views)).numpy()


def _filtered(readings: Tensor, spacing_mm: float, kernel: Kernel, cutoff_per_mm: float | None) -> Tensor:
    """Convolve with the band-limited ramp (Kak and Slaney, chapter 3), optionally under a Hann window."""
    detectors = readings.shape[-1]
    length = 2 ** math.ceil(math.log2(2 * detectors))
    n = torch.fft.fftfreq(length, d=1.0 / length)
    taps = torch.where(n % 2 != 0, -1.0 / (math.pi * n.clamp(min=-length) * spacing_mm).square(), torch.zeros_like(n))
    taps[0] = 1.0 / (4.0 * spacing_mm**2)
    response = torch.fft.rfft(taps).real * spacing_mm
    if kernel == "hann":
        highest = 0.5 / spacing_mm
        share = highest / min(cutoff_per_mm or highest, highest)
        phase = torch.linspace(0.0, math.pi * share, len(response)).clamp(max=math.pi)
        response = response * (0.5 + 0.5 * torch.cos(phase))
    return torch.fft.irfft(torch.fft.rfft(readings, n=length) * response, n=length)[..., :detectors]


def _angles(views: int) -> Tensor:
    return torch.arange(views, dtype=torch.float32) * (math.pi / views)


def _detector_count(shape: tuple[int, ...]) -> int:
    return math.ceil(math.hypot(*shape)) + 4
