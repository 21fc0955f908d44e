"""One door to every degradation: parameters as they stand on a card, a slice, a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import TrainingError
from medapp.training.degradations import ct, mr, pathology, pet

Parameters = Mapping[str, Any]
"""Plain data: ``kind`` and what that kind takes."""

_HINT = "Compare it with docs/degradations.md"


def degrade(parameters: Parameters, values: NDArray, spacing_mm: float, seed: int) -> NDArray[np.float32]:
    """A slice made worse; the same parameters, values and seed give the same result.

    Ranges (``doses``, ``fractions``, ``cutoffs_per_mm``) are drawn from uniformly in their logarithm, ``ramp_shares``
    uniformly, and one of ``kernels`` at random.

    Args:
        parameters: ``kind`` and what it takes: ``ct-dose`` (``dose`` or ``doses``; ``kernel`` or ``kernels``, or
            ``ramp_share`` or ``ramp_shares`` to mix both; ``cutoff_per_mm`` or ``cutoffs_per_mm`` of the Hann kernel;
            ``views``), ``mr-kspace`` (``factor``, ``noise``), ``pet-counts`` (``fraction`` or ``fractions``;
            ``psf_mm``, ``counts_per_suv_ml``), ``pathology-optics`` (``factor``, ``cutoff``, ``photons``).
        values: ``(Y, X)`` in HU, SUV or arbitrary units; ``(Y, X, 3)`` 0..255 for pathology.
        spacing_mm: Pixel size.
        seed: Of this realisation.

    Returns:
        The shape of ``values``, float32, same unit.

    Raises:
        TrainingError: The parameters are of no known kind or cannot work, or the slice is too small for them.
    """
    check_parameters(parameters)
    try:
        made = _KINDS[parameters["kind"]](parameters, np.asarray(values), spacing_mm, seed)
    except ValueError as error:
        raise TrainingError(f"A slice cannot be degraded: {error}", "Use larger slices or a smaller factor") from error
    return made


def check_parameters(parameters: Parameters) -> None:
    """Refuse parameters that cannot work.

    Raises:
        TrainingError: The kind is unknown, or an entry is unknown or out of its range.
    """
    kind = str(parameters.get("kind"))
    if kind not in _KINDS:
        raise TrainingError(f"No degradation is called '{kind}'", f"Known: {', '.join(_KINDS)}")
    surplus = sorted(set(parameters) - _TAKES[kind] - {"kind"})
    if surplus:
        raise TrainingError(f"The degradation '{kind}' does not take {', '.join(surplus[:3])}", _HINT)
    for key in set(parameters) - {"kind"}:
        if not _is_usable(key, parameters[key]):
            raise TrainingError(f"The entry '{key}' of the degradation '{kind}' cannot be used", _HINT)


def _is_usable(key: str, value: Any) -> bool:
    if key in ("doses", "fractions", "cutoffs_per_mm"):
        is_range = isinstance(value, list | tuple) and len(value) == 2 and all(_is_number(v) for v in value)
        return is_range and 0 < value[0] <= value[1] <= (10 if key == "cutoffs_per_mm" else 1)
    if key == "ramp_shares":
        is_range = isinstance(value, list | tuple) and len(value) == 2 and all(_is_number(v) for v in value)
        return is_range and 0 <= value[0] <= value[1] <= 1
    if key == "ramp_share":
        return _is_number(value) and 0 <= value <= 1
    if key in ("dose", "fraction"):
        return _is_number(value) and 0 < value <= 1
    if key == "kernels":
        return isinstance(value, list | tuple) and len(value) > 0 and all(v in ("hann", "ramp") for v in value)
    if key == "kernel":
        return value in ("hann", "ramp")
    if key in ("factor", "views"):
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 4096
    if key == "noise" or key == "photons":
        return _is_number(value) and value >= 0
    return _is_number(value) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _drawn(parameters: Parameters, one: str, several: str, random: np.random.Generator, default: float) -> float:
    """The one value, or one out of the range."""
    if several in parameters and one not in parameters:
        low, high = parameters[several]
        return float(np.exp(random.uniform(np.log(low), np.log(high))))
    return float(parameters.get(one, default))


def _ct_dose(parameters: Parameters, values: NDArray, spacing_mm: float, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng([seed, 0x6374])
    dose = _drawn(parameters, "dose", "doses", random, 0.25)
    kernels = [parameters["kernel"]] if "kernel" in parameters else list(parameters.get("kernels", ["hann"]))
    kernel = kernels[int(random.integers(len(kernels)))]
    cutoff = None
    if "cutoff_per_mm" in parameters or "cutoffs_per_mm" in parameters:
        cutoff = _drawn(parameters, "cutoff_per_mm", "cutoffs_per_mm", random, 0.7)
    scanner = ct.Scanner(views=int(parameters.get("views", 720)), kernel=kernel, cutoff_per_mm=cutoff)
    if "ramp_share" in parameters or "ramp_shares" in parameters:
        low, high = parameters.get("ramp_shares", [parameters.get("ramp_share")] * 2)
        return ct.mixed_low_dose(values, spacing_mm, dose, float(random.uniform(low, high)), scanner, f"seed {seed}")
    return ct.low_dose(values, spacing_mm, dose, scanner, tag=f"seed {seed}")


def _mr_kspace(parameters: Parameters, values: NDArray, spacing_mm: float, seed: int) -> NDArray[np.float32]:
    return mr.low_resolution(values, int(parameters.get("factor", 4)), float(parameters.get("noise", 0.0)), seed)


def _pet_counts(parameters: Parameters, values: NDArray, spacing_mm: float, seed: int) -> NDArray[np.float32]:
    fraction = _drawn(parameters, "fraction", "fractions", np.random.default_rng([seed, 0x7074]), 0.25)
    default = pet.PetScanner()
    scanner = pet.PetScanner(
        counts_per_suv_ml=float(parameters.get("counts_per_suv_ml", default.counts_per_suv_ml)),
        psf_mm=float(parameters.get("psf_mm", default.psf_mm)),
    )
    return pet.low_counts(values, spacing_mm, fraction, seed, scanner)


def _pathology(parameters: Parameters, values: NDArray, spacing_mm: float, seed: int) -> NDArray[np.float32]:
    factor, cutoff = int(parameters.get("factor", 4)), float(parameters.get("cutoff", pathology.CUTOFF))
    return pathology.on_the_same_grid(values, factor, cutoff, float(parameters.get("photons", 0.0)), seed)


_KINDS: Mapping[str, Callable[[Parameters, NDArray, float, int], NDArray[np.float32]]] = {
    "ct-dose": _ct_dose,
    "mr-kspace": _mr_kspace,
    "pet-counts": _pet_counts,
    "pathology-optics": _pathology,
}
_TAKES = {
    "ct-dose": {
        "dose",
        "doses",
        "kernel",
        "kernels",
        "views",
        "cutoff_per_mm",
        "cutoffs_per_mm",
        "ramp_share",
        "ramp_shares",
    },
    "mr-kspace": {"factor", "noise"},
    "pet-counts": {"fraction", "fractions", "psf_mm", "counts_per_suv_ml"},
    "pathology-optics": {"factor", "cutoff", "photons"},
}
