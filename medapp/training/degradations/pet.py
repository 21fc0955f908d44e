"""PET of fewer counts: coincidences are thinned in the projection domain and reconstructed by MLEM.

The slice is taken as the truth of its own counts. Its expected counts and their thinned draw are reconstructed with the
same few iterations and the same smoothing, and only the *difference* is added to the slice: it keeps its own sharpness,
and the noise gets the spread, the grain and the dependence on uptake that MLEM gives it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation."""


@dataclass(frozen=True)
class PetScanner:
    """A ring in 2-D.

    Attributes:
        counts_per_suv_ml: Coincidences that one millilitre at SUV 1 gives at full counts. Set so that the simulated
            full-count noise in quiet tissue is as high as in the shared FDG slices (``medapp bench degradations``).
        slice_mm: Thickness of a slice.
        background: Scattered and random coincidences, as a share of the true ones, spread evenly.
        psf_mm: Width (FWHM) of the smoothing after the reconstruction.
        iterations: Of MLEM.
        angles: Projections over half a turn.
    """

    counts_per_suv_ml: float = 570.0
    slice_mm: float = 3.27
    background: float = 0.5
    psf_mm: float = 6.0
    iterations: int = 24
    angles: int = 48


def low_counts(
    suv: NDArray, spacing_mm: float, fraction: float, seed: int, scanner: PetScanner = PetScanner()
) -> NDArray[np.float32]:
    """One slice as a scan with a part of its counts would have shown it.

    Args:
        suv: ``(Y, X)`` in SUV; activity outside of the slice gives no counts here, so a crop of a body gets less noise
            than the whole body would.
        spacing_mm: Pixel size.
        fraction: Part of the counts that is left, above 0 and up to 1; equal to the part of the dose or of the time.
        seed: Of the draw.
        scanner: Counts, background, reconstruction.

    Returns:
        ``(Y, X)`` float32 in SUV; never below 0 where the slice is not.

    Raises:
        ValueError: The fraction is not above 0 and up to 1.

    Reference:
        Shepp and Vardi, "Maximum likelihood reconstruction for emission tomography", TMI 1982; binomial thinning as in
        Schaefferkoetter et al., "Low dose positron emission tomography emulation from decimated high statistics", 2019.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and up to 1, not {fraction}")
    if fraction == 1:
        return np.asarray(suv, np.float32).copy()
    noise = count_noise(suv, spacing_mm, fraction, seed, scanner)
    slice_suv = np.asarray(suv, np.float32)
    return np.maximum(slice_suv + noise, np.minimum(slice_suv, 0.0)).astype(np.float32)


def count_noise(
    suv: NDArray,
    spacing_mm: float,
    fraction: float,
    seed: int,
    scanner: PetScanner = PetScanner(),
    is_new: bool = False,
) -> NDArray[np.float32]:
    """What thinning adds to a slice, ``(Y, X)`` float32 in SUV.

    Args:
        suv, spacing_mm, fraction, seed, scanner: As in ``low_counts``.
        is_new: True draws the noise of a whole new scan of that many counts (Poisson) instead of the part that thinning
            adds to the noise the slice has already (binomial): what a repeated scan would show.
    """
    return count_noises(suv, spacing_mm, (fraction,), seed, scanner, is_new)[0]


def count_noises(
    suv: NDArray,
    spacing_mm: float,
    fractions: Sequence[float],
    seed: int,
    scanner: PetScanner = PetScanner(),
    is_new: bool = False,
) -> NDArray[np.float32]:
    """Several draws at once, which costs much less than one after the other; see ``count_noise``.

    Returns:
        ``(fractions, Y, X)`` float32 in SUV.
    """
    activity = np.maximum(np.asarray(suv, np.float64), 0.0)
    system = _system(activity.shape[0], activity.shape[1], scanner.angles)
    to_counts = scanner.counts_per_suv_ml * spacing_mm**2 * scanner.slice_mm / 1000.0 / scanner.angles
    true = system @ activity.ravel() * to_counts
    spread = np.full_like(true, scanner.background * true.mean())
    expected = true + spread
    random = np.random.default_rng([seed, 0x706574])
    draws = [expected]
    for fraction in fractions:
        if is_new:
            drawn = random.poisson(expected * fraction) / fraction
        else:  # the counts that were measured, thinned; rounding them at random keeps their mean
            measured = np.floor(expected + random.random(expected.shape)).astype(np.int64)
            drawn = random.binomial(measured, fraction) / fraction + (expected - measured)
        draws.append(np.maximum(drawn, 0.0))
    steady, *thinned = _mlem(np.stack(draws, axis=1), spread, system, to_counts, activity.shape, scanner.iterations)
    sigma_px = scanner.psf_mm / spacing_mm / FWHM_PER_SIGMA
    smooth = [ndimage.gaussian_filter(one - steady, sigma_px, mode="nearest") for one in thinned]
    return np.stack(smooth).astype(np.float32)


def _mlem(
    counts: NDArray,
    spread: NDArray,
    system: sparse.csr_matrix,
    to_counts: float,
    shape: tuple[int, ...],
    iterations: int,
) -> NDArray[np.float64]:
    """Maximum-likelihood expectation maximisation from an even start; the spread of the background is known.

    Args:
        counts: ``(projections, draws)``.
        spread: ``(projections,)``.

    Returns:
        ``(draws, *shape)``.
    """
    spread = spread[:, None]
    sensitivity = np.asarray(system.sum(axis=0)).ravel() * to_counts
    seen = np.maximum(sensitivity, 1e-9)[:, None]
    back = system.T.tocsr()
    total = np.maximum(counts.sum(axis=0) - spread.sum(), 1e-6) / max(float(sensitivity.sum()), 1e-9)
    estimate = np.repeat(total[None], system.shape[1], axis=0)
    for _ in range(iterations):
        expected = system @ estimate * to_counts + spread
        estimate *= (back @ (counts / np.maximum(expected, 1e-9))) * to_counts / seen
    return np.asarray(estimate.T.reshape(counts.shape[1], *shape))


@lru_cache(maxsize=8)
def _system(height: int, width: int, angles: int) -> sparse.csr_matrix:
    """Which part of each pixel each detector pair sees: ``(angles * detectors, H * W)``, linear between detectors."""
    detectors = math.ceil(math.hypot(height, width)) + 2
    y, x = np.mgrid[:height, :width]
    y, x = y.ravel() - (height - 1) / 2, x.ravel() - (width - 1) / 2
    pixels = np.arange(height * width)
    rows, columns, shares = [], [], []
    for view in range(angles):
        angle = math.pi * view / angles
        place = x * math.cos(angle) + y * math.sin(angle) + (detectors - 1) / 2
        lower = np.floor(place).astype(np.int64)
        upper_share = place - lower
        rows += [view * detectors + lower, view * detectors + lower + 1]
        columns += [pixels, pixels]
        shares += [1 - upper_share, upper_share]
    entries = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(entries, shape=(angles * detectors, height * width))
