"""Classical filters of scikit-image as restorers: what a network has to beat, and what serves where no network fits."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.errors import UnsuitableModelError
from medapp.progress import Progress
from medapp.restoration.fit import Fit, ScanFacts, fit_filter
from medapp.restoration.metrics import slice_noise
from medapp.restoration.restorer import Kind, Restored, Restorer
from medapp.restoration.tiling import Maps

NLM_ID = "filter-nlm"

Filter = Callable[[NDArray[np.float32], float, float], NDArray]
"""Image scaled to about 0..1, its noise on that scale, the strength to tune; the same shape back."""


@dataclass(frozen=True)
class FilterSettings:
    """A tuned filter.

    Attributes:
        strength: Times the noise of the slice; tuned for the best PSNR on training patients.
        step: Pixel distance at which the noise is measured; see ``slice_noise``. 0 = the filter does not ask for it.
        value_range: Values ``(low, high)`` the filter looks at; None = the slice's own 0.5 to 99.5 percentiles.
    """

    strength: float
    value_range: tuple[float, float] | None = None
    step: int = 1


@dataclass
class FilterRestorer(Restorer):
    """A filter with its settings; measures the noise of each slice by itself."""

    id: str
    chip: str
    name: str
    run: Filter
    settings: FilterSettings
    makes: Kind = "filtered"

    def fit(self, facts: ScanFacts, region_engine: str | None = None) -> Fit:
        """Any grey image."""
        return fit_filter(facts)

    def restore(self, values: NDArray[np.float32], maps: Maps, progress: Progress) -> Restored:
        """Filter one slice; voxels beyond the range the filter looks at keep what they stand out by."""
        if values.ndim != 2:
            raise UnsuitableModelError("This filter takes grey slices only.", "Choose a model for colour images.")
        is_finite = np.isfinite(values)
        if not is_finite.any():
            return Restored(values.copy(), int(values.size))
        low, high = self.settings.value_range or _own_range(values[is_finite])
        filled = np.where(is_finite, values, low).astype(np.float32)
        clipped = np.clip(filled, low, high)
        scaled = (clipped - np.float32(low)) / np.float32(high - low)
        sigma = content_noise(filled, self.settings.step) / (high - low) if self.settings.step else 1.0
        if sigma <= 0.0:
            return Restored(values.copy(), int(np.count_nonzero(~is_finite)))
        change = (np.asarray(self.run(scaled, sigma, self.settings.strength), np.float32) - scaled) * np.float32(
            high - low
        )
        # outside the range there is nothing to see and nothing to change
        is_outside = ~is_finite | (values < low) | (values > high)
        restored = np.where(is_outside, values, filled + change)
        return Restored(restored.astype(np.float32), int(np.count_nonzero(~is_finite)))


def content_noise(values: NDArray, step: int = 1) -> float:
    """Noise of a slice where there is something to see: outside of the flat background."""
    background = np.quantile(values, 0.02)
    spread = float(np.quantile(values, 0.98)) - float(background)
    where = values > background + 0.1 * spread
    noise = slice_noise(values, where, step=step) if spread > 0 else 0.0
    return noise or slice_noise(values, step=step)


def _own_range(values: NDArray) -> tuple[float, float]:
    low, high = (float(q) for q in np.quantile(values, (0.005, 0.995)))
    return (low, high) if high > low else (low, low + 1.0)


def _nlm(image: NDArray[np.float32], sigma: float, strength: float) -> NDArray:
    from skimage.restoration import denoise_nl_means  # takes a second to load, which networks must not wait for

    return denoise_nl_means(image, patch_size=7, patch_distance=6, h=strength * sigma, sigma=sigma, fast_mode=True)


def _tv(image: NDArray[np.float32], sigma: float, strength: float) -> NDArray:
    from skimage.restoration import denoise_tv_chambolle  # takes a second to load, which networks must not wait for

    return denoise_tv_chambolle(image, weight=strength * sigma, max_num_iter=100)


def _wavelet(image: NDArray[np.float32], sigma: float, strength: float) -> NDArray:
    from skimage.restoration import denoise_wavelet  # takes a second to load, which networks must not wait for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyWavelets warns that small slices limit the number of levels
        return denoise_wavelet(image, sigma=strength * sigma, method="VisuShrink", mode="soft", wavelet="sym4")


def _gaussian(image: NDArray[np.float32], sigma: float, strength: float) -> NDArray:
    """Post-filter of scanners: the strength is its standard deviation in pixels, whatever the noise."""
    return ndimage.gaussian_filter(image, strength, mode="nearest")


FILTERS: dict[str, tuple[str, Filter]] = {
    "nlm": ("non-local means", _nlm),
    "tv": ("total variation", _tv),
    "wavelet": ("wavelet", _wavelet),
    "gaussian": ("Gaussian", _gaussian),
}
CT_RANGE = (-260.0, 340.0)
"""HU the filters look at: the display window with a margin, where they are judged."""
TUNED_CT: dict[tuple[str, str], FilterSettings] = {
    ("nlm", "hann"): FilterSettings(4.5, CT_RANGE, 1),
    ("tv", "hann"): FilterSettings(4.0, CT_RANGE, 1),
    ("wavelet", "hann"): FilterSettings(0.3, CT_RANGE, 2),
    ("nlm", "ramp"): FilterSettings(0.9, CT_RANGE, 2),
    ("tv", "ramp"): FilterSettings(1.3, CT_RANGE, 2),
    ("wavelet", "ramp"): FilterSettings(0.6, CT_RANGE, 2),
}
"""By filter and reconstruction kernel, for quarter dose on training patients; ``docs/models.md`` says how."""
DEFAULT_CT = {
    "gaussian": FilterSettings(0.8, CT_RANGE, 0),
    "nlm": FilterSettings(1.0, CT_RANGE, 2),
    "tv": FilterSettings(1.1, CT_RANGE, 2),
    "wavelet": FilterSettings(0.4, CT_RANGE, 2),
}
"""For CT whose kernel is not known: a little below the best of either kernel, and safe for both."""
TUNED_OTHER = {
    "gaussian": FilterSettings(0.8, None, 0),
    "nlm": FilterSettings(0.8, None, 2),
    "tv": FilterSettings(1.0, None, 2),
    "wavelet": FilterSettings(0.4, None, 2),
}
"""For every other modality."""


PET_RANGE = (0.0, 80.0)
"""SUV the filters look at: all there is, hot lesions too."""


def _pet_filters(
    gaussian_px: float, nlm: tuple[float, int], tv: tuple[float, int], wavelet: tuple[float, int]
) -> dict[str, FilterSettings]:
    others = {
        key: FilterSettings(strength, PET_RANGE, step)
        for key, (strength, step) in (("nlm", nlm), ("tv", tv), ("wavelet", wavelet))
    }
    return {"gaussian": FilterSettings(gaussian_px, PET_RANGE, 0), **others}


TUNED_PET: dict[str, dict[str, FilterSettings]] = {
    "A": _pet_filters(1.2, (1.3, 2), (2.7, 2), (1.5, 3)),
    "B": _pet_filters(1.3, (1.6, 3), (6.0, 1), (3.5, 3)),
    "C": _pet_filters(0.8, (1.6, 2), (6.0, 1), (1.1, 2)),
    "D": _pet_filters(1.6, (1.6, 3), (6.0, 1), (3.5, 3)),
    "E": _pet_filters(1.3, (2.4, 2), (2.5, 3), (3.5, 3)),
}
"""By simulated centre and filter, for a tenth of the counts on training patients; A is the scanner of the reference."""


def classical_restorer(model_id: str, modality: str | None = None) -> FilterRestorer:
    """A filter by its id: ``filter-nlm``, ``filter-tv`` or ``filter-wavelet``.

    Raises:
        UnsuitableModelError: There is no such filter.
    """
    key = model_id.removeprefix("filter-")
    if key not in FILTERS or key == model_id:
        raise UnsuitableModelError(f"There is no filter '{model_id[:40]}'", f"Use {NLM_ID}")
    name, run = FILTERS[key]
    settings = DEFAULT_CT[key] if modality == "CT" else TUNED_OTHER[key]
    return FilterRestorer(model_id, f"FILTERED · {name}", name, run, settings)


def evaluation_filter(key: str, kernel: str) -> FilterRestorer | None:
    """A filter as tuned for low-dose CT of a reconstruction kernel; None when its library is not installed."""
    return tuned_filter(key, TUNED_CT[key, kernel])


def tuned_filter(key: str, settings: FilterSettings) -> FilterRestorer | None:
    """A filter with settings of its own; None when its library is not installed."""
    if key == "wavelet" and importlib.util.find_spec("pywt") is None:
        return None
    restorer = classical_restorer(f"filter-{key}")
    restorer.settings = settings
    return restorer
