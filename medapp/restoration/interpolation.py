"""Classical ways to a finer MR slice: what a network for super-resolution has to beat.

All start from the zero-filled image, which holds just what was measured: interpolation looks at it on the coarse grid
that it came from, filters take its ringing away. Each may have the measured frequencies put back afterwards.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medapp.restoration.blending import around_gaps
from medapp.restoration.kspace import keep_measured, measured_half_widths
from medapp.restoration.ranges import PERCENTILES
from medapp.scan.finer import FinerGrid

Filter = Callable[[NDArray[np.float32], float], NDArray]
"""Slice scaled to about 0..1 and the strength to tune; the same shape back."""


@dataclass(frozen=True)
class Settings:
    """A tuned filter.

    Attributes:
        strength: In shares of the slice's 0.5 to 99.5 percentiles; tuned for the best PSNR on training patients.
        rounds: Filter and measured frequencies take turns so many times; 1 where they are not put back.
    """

    strength: float
    rounds: int = 1


@dataclass(frozen=True)
class SuperResolver:
    """A classical method with its settings.

    Attributes:
        name: As tables show it.
        keeps_measured: The measured frequencies are put back.
    """

    name: str
    keeps_measured: bool
    run: Callable[[NDArray[np.float32], int], NDArray[np.float32]]


def resolvers(factor: int) -> list[SuperResolver]:
    """Every classical rival for a factor of 2 or 4, without and with the measured frequencies kept."""
    made = [
        SuperResolver("bicubic", False, lambda filled, by: interpolated(filled, by, bicubic_kernel)),
        SuperResolver("Lanczos", False, lambda filled, by: interpolated(filled, by, lanczos_kernel)),
    ]
    made += [SuperResolver(one.name, True, _kept(one.run)) for one in list(made)]
    for key, (name, run) in FILTERS.items():
        if key == "wavelet" and importlib.util.find_spec("pywt") is None:
            continue
        for keeps in (False, True):
            settings = TUNED[key, factor, keeps]
            made.append(SuperResolver(name, keeps, _filter(run, settings, keeps)))
    return made


def interpolated(filled: NDArray[np.float32], factor: int, kernel: Callable[[NDArray], NDArray]) -> NDArray[np.float32]:
    """The slice as seen on its coarse grid, interpolated back onto the fine one.

    Args:
        filled: ``(Y, X)``, zero-filled by ``factor``.
        factor: How much coarser its scan was.
        kernel: Weights by distance in coarse pixels.
    """
    half_height, half_width = measured_half_widths((filled.shape[0], filled.shape[1]), factor)
    coarse = (2 * half_height + 1, 2 * half_width + 1)
    spectrum = np.fft.rfft2(np.asarray(filled, np.float64))
    rows = np.r_[0 : half_height + 1, filled.shape[0] - half_height : filled.shape[0]]
    small = np.fft.irfft2(spectrum[rows, : half_width + 1], s=coarse) * (coarse[0] * coarse[1] / filled.size)
    down = _weights(coarse[0], filled.shape[0], kernel)
    across = _weights(coarse[1], filled.shape[1], kernel)
    return (down @ small @ across.T).astype(np.float32)


def bicubic_kernel(distance: NDArray) -> NDArray:
    """Cubic convolution with a = -0.5.

    Reference:
        Keys, "Cubic convolution interpolation for digital image processing", IEEE ASSP 1981.
    """
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def lanczos_kernel(distance: NDArray) -> NDArray:
    """Sinc under a sinc window of three pixels."""
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


def _weights(coarse: int, fine: int, kernel: Callable[[NDArray], NDArray]) -> NDArray[np.float64]:
    """``(fine, coarse)``; the slice goes on as its own repetition, as it does for its spectrum."""
    distance = np.arange(fine)[:, None] * (coarse / fine) - np.arange(coarse)[None, :]
    distance = (distance + coarse / 2) % coarse - coarse / 2
    weights = kernel(distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def _kept(
    run: Callable[[NDArray[np.float32], int], NDArray[np.float32]],
) -> Callable[[NDArray[np.float32], int], NDArray[np.float32]]:
    return lambda filled, factor: keep_measured(run(filled, factor), filled, factor)


def _filter(
    run: Filter, settings: Settings, keeps_measured: bool
) -> Callable[[NDArray[np.float32], int], NDArray[np.float32]]:
    def resolve(filled: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
        return filtered(filled, factor, run, settings, keeps_measured)

    return resolve


def filtered(
    filled: NDArray[np.float32], factor: int, run: Filter, settings: Settings, keeps_measured: bool
) -> NDArray[np.float32]:
    """A filter on the zero-filled slice; with ``keeps_measured`` in turns with the measured frequencies."""
    low, high = (float(value) for value in np.percentile(filled, PERCENTILES))
    width = high - low
    if width <= 0:
        return filled.copy()
    made = filled
    for _ in range(settings.rounds):
        scaled = ((made - np.float32(low)) / np.float32(width)).astype(np.float32)
        made = (np.asarray(run(scaled, settings.strength), np.float32) * np.float32(width) + np.float32(low)).astype(
            np.float32
        )
        if keeps_measured:
            made = keep_measured(made, filled, factor)
    return made


def first_filtered(filled: NDArray[np.float32], factor: int, key: str | None) -> NDArray[np.float32]:
    """What a network goes on with: the slice after a filter took turns with its measured frequencies.

    Args:
        filled: ``(Y, X)``, zero-filled by ``factor``; voxels that are not finite stay as they are.
        factor: 2 or 4.
        key: Of ``card.FIRST_FILTERS``; None or empty gives the slice itself.
    """
    if not key:
        return filled
    run, settings = FILTERS[key][1], TUNED[key, factor, True]
    return around_gaps(filled, lambda whole: filtered(whole, factor, run, settings, keeps_measured=True), FinerGrid())


def _nlm(image: NDArray[np.float32], strength: float) -> NDArray:
    from skimage.restoration import denoise_nl_means  # takes a second to load, which networks must not wait for

    return denoise_nl_means(image, patch_size=5, patch_distance=6, h=strength, fast_mode=True)


def _tv(image: NDArray[np.float32], strength: float) -> NDArray:
    from skimage.restoration import denoise_tv_chambolle  # takes a second to load, which networks must not wait for

    return denoise_tv_chambolle(image, weight=strength, max_num_iter=60)


def _wavelet(image: NDArray[np.float32], strength: float) -> NDArray:
    from skimage.restoration import denoise_wavelet  # takes a second to load, which networks must not wait for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyWavelets warns that small slices limit the number of levels
        return denoise_wavelet(image, sigma=strength, method="VisuShrink", mode="soft", wavelet="sym4")


FILTERS: dict[str, tuple[str, Filter]] = {
    "nlm": ("non-local means", _nlm),
    "tv": ("total variation", _tv),
    "wavelet": ("wavelet", _wavelet),
}
TUNED: Mapping[tuple[str, int, bool], Settings] = {
    ("nlm", 2, False): Settings(0.015),
    ("nlm", 2, True): Settings(0.05, 4),
    ("nlm", 4, False): Settings(0.03),
    ("nlm", 4, True): Settings(0.07, 4),
    ("tv", 2, False): Settings(0.005),
    ("tv", 2, True): Settings(0.01, 10),
    ("tv", 4, False): Settings(0.015),
    ("tv", 4, True): Settings(0.02, 10),
    ("wavelet", 2, False): Settings(0.002),
    ("wavelet", 2, True): Settings(0.002),
    ("wavelet", 4, False): Settings(0.005),
    ("wavelet", 4, True): Settings(0.002),
}
"""By filter, factor and whether the measured frequencies are kept; the best of a grid on six slices of four training
patients (brain T1, T2, FLAIR and a limb)."""
