"""``medapp bench degradations``: how far simulated noise, blur and borders agree with real ones in the shared data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from medapp import paths
from medapp.benchmarks.noise_texture import Texture, flat_places, texture_of
from medapp.benchmarks.real_noise import denoising_rows
from medapp.progress import Progress
from medapp.restoration.kspace import is_measured
from medapp.restoration.metrics import soft_tissue
from medapp.scan.reading import read_scan
from medapp.training.degradations.ct import Scanner, noise_fields
from medapp.training.degradations.mattes import disturbed_mask
from medapp.training.degradations.pet import PetScanner, count_noise
from medapp.training.references import Reference
from medapp.training.sources import find_references

FILTERS: Mapping[str, Scanner] = {
    "hann": Scanner(360, "hann"),
    "hann to 0.5/mm": Scanner(360, "hann", cutoff_per_mm=0.5),
    "ramp": Scanner(360, "ramp"),
}
"""Reconstruction filters that are held against each real kernel."""
DOSE = 0.25
_ANATOMY_RINGS = 3  # below, flat tissue itself has structure
_PIECES_A_SLICE = 10
_KERNEL = re.compile(r"kernel (?:[\d ]+\.)*([A-Z]+\d*[a-z]?\d*)")


def run(data: Path | None = None) -> list[dict[str, Any]]:
    """One row a comparison; needs the shared data."""
    data = data or paths.shared_data_dir()
    return [*ct_rows(data), *denoising_rows(data), *pet_rows(data), *mr_rows(data), *matte_rows(data)]


# -------------------------------------------------------------------------------------------------------------- CT


def ct_rows(data: Path, most_series: int = 4) -> Iterator[dict[str, Any]]:
    """Noise in flat soft tissue, one row a reconstruction kernel; for the noisy PET/CT series free of anatomy."""
    groups: dict[str, list[Reference]] = {}
    for reference in find_references(data, "CT", "train", Progress()):
        known = _KERNEL.search(reference.notes)
        name = "low-dose PET/CT" if "real noise" in reference.notes else known.group(1) if known else ""
        if name:
            groups.setdefault(name, []).append(reference)
    for name, references in sorted(groups.items()):
        yield from _ct_row(name, references[:most_series])


def _ct_row(name: str, references: Sequence[Reference]) -> Iterator[dict[str, Any]]:
    """At most one row; none where too little is flat."""
    is_noisy = name == "low-dose PET/CT"  # contiguous slices: their difference holds noise alone
    real: list[NDArray] = []
    made: dict[str, list[NDArray]] = {key: [] for key in FILTERS}
    spacings: list[float] = []
    for reference in references:
        values, spacing_mm = reference.load(), reference.mean_spacing_mm
        last = len(values) - 1 if is_noisy else len(values)
        for z in range(0, last, max(1, last // 3)):
            is_flat = soft_tissue(values[z])
            if is_noisy:
                is_flat = is_flat & soft_tissue(values[z + 1])
            places = flat_places(is_flat, most=_PIECES_A_SLICE)
            if not places:
                continue
            noise = (values[z] - values[z + 1]) / np.sqrt(2) if is_noisy else values[z]
            real += [noise[place] for place in places]
            spacings += [spacing_mm] * len(places)
            for key, scanner in FILTERS.items():
                field = noise_fields(values[z], spacing_mm, (DOSE,), scanner, "bench")[0]
                made[key] += [field[place] for place in places]
    if len(real) < 10:
        return
    measured = texture_of(real)
    textures = {key: texture_of(pieces) for key, pieces in made.items()}
    for share in (0.2, 0.4, 0.6, 0.8):  # training mixes the two
        mixed = [share * sharp + (1 - share) * soft for sharp, soft in zip(made["ramp"], made["hann"], strict=True)]
        textures[f"hann and {share:g} ramp"] = texture_of(mixed)
    elsewhere = {key: _above_anatomy(measured).distance(_above_anatomy(each)) for key, each in textures.items()}
    best = min(elsewhere, key=lambda key: elsewhere[key])
    spacing, chosen = float(np.mean(spacings)), textures[best]
    yield {
        "compared": f"CT noise, {name}",
        "pieces": measured.pieces,
        "pixel_mm": round(spacing, 2),
        "real_sigma_hu": round(measured.sigma, 1),
        "real_grain_mm": round(measured.grain_px * spacing, 2),
        "nearest_filter": best,
        "simulated_grain_mm": round(chosen.grain_px * spacing, 2),
        "power_elsewhere": {key: round(elsewhere[key], 2) for key in dict.fromkeys((*FILTERS, best))},
        "dose_of_equal_sigma": round(DOSE * (chosen.sigma / measured.sigma) ** 2, 2),
        # elsewhere anatomy in the pieces would decide it
        **({"where_correlation": round(_where_correlation(real, made["hann"]), 2)} if is_noisy else {}),
    }


def _above_anatomy(texture: Texture) -> Texture:
    """The texture without its lowest rings."""
    rings = texture.spectrum.copy()
    rings[:_ANATOMY_RINGS] = 0
    return replace(texture, spectrum=rings / rings.sum())


def _where_correlation(real: Sequence[NDArray], made: Sequence[NDArray]) -> float:
    """Rank correlation over pieces: is the noise strong where the simulation says so?"""
    sigmas = [[texture_of([piece]).sigma for piece in pieces] for pieces in (real, made)]
    return float(stats.spearmanr(*sigmas).statistic)


# ------------------------------------------------------------------------------------------------------------- PET


def pet_rows(data: Path, every: int = 8) -> Iterator[dict[str, Any]]:
    """Noise of full-count FDG slices in quiet tissue, against that of a simulated scan of as many counts."""
    real: list[NDArray] = []
    made: list[NDArray] = []
    uptake: list[float] = []
    spacings: list[float] = []
    for number, reference in enumerate(find_references(data, "PT", "train", Progress())):
        values, spacing_mm = reference.load(), reference.mean_spacing_mm
        smooth, slope = ndimage.gaussian_filter(values, 2.0), ndimage.gaussian_gradient_magnitude(values, 2.0)
        is_flat = (smooth > 0.2) & (smooth < 1.2) & (slope < 0.06)
        for z in range(1, len(values) - 1, every):
            places = flat_places(is_flat[z], side=10, most=4)
            if not places:
                continue
            field = count_noise(values[z], spacing_mm, 1.0, number * 1000 + z, PetScanner(), is_new=True)
            real += [values[z][place] for place in places]
            made += [field[place] for place in places]
            uptake += [float(values[z][place].mean()) for place in places]
            spacings += [spacing_mm] * len(places)
    if len(real) < 10:
        return
    measured, simulated, spacing = texture_of(real), texture_of(made), float(np.mean(spacings))
    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 1.2)):
        chosen = [i for i, level in enumerate(uptake) if low <= level < high]
        if len(chosen) < 10:
            continue
        variation = [
            float(np.median([texture_of([pieces[i]]).sigma / uptake[i] for i in chosen])) for pieces in (real, made)
        ]
        yield {
            "compared": f"PET noise over uptake, SUV {low} to {high}",
            "pieces": len(chosen),
            "real_variation": round(variation[0], 2),
            "simulated_variation": round(variation[1], 2),
        }
    yield {
        "compared": "PET grain",
        "pieces": measured.pieces,
        "pixel_mm": round(spacing, 2),
        "real_grain_mm": round(measured.grain_px * spacing, 2),
        "simulated_grain_mm": round(simulated.grain_px * spacing, 2),
        "power_elsewhere": {"mlem": round(measured.distance(simulated), 2)},
        "where_correlation": round(_where_correlation(real, made), 2),
    }


# -------------------------------------------------------------------------------------------------------------- MR


def mr_rows(data: Path) -> Iterator[dict[str, Any]]:
    """How much of their k-space the references fill: what a scanner left empty, nobody can learn to restore."""
    groups: dict[str, list[Reference]] = {}
    for reference in find_references(data, "MR", "train", Progress()):
        name = reference.source.split("/")[1]
        groups.setdefault(Path(reference.source).name.split(".")[0] if name == "misc" else name, []).append(reference)
    for name, references in sorted(groups.items()):
        lost: dict[int, list[float]] = {2: [], 4: []}
        ends: list[float] = []
        for reference in references[:6]:
            values = reference.load()
            for z in range(len(values) // 4, len(values), max(1, len(values) // 4)):
                if np.ptp(values[z]) == 0:
                    continue
                for factor, shares in lost.items():
                    shares.append(_lost_share(values[z], factor))
                ends.append(_end_of_k_space(values[z]))
        yield {
            "compared": f"MR k-space, {name}",
            "slices": len(ends),
            "lost_contrast_percent": {f"x{factor}": round(100 * float(np.median(s)), 1) for factor, s in lost.items()},
            "ends_at": round(float(np.median(ends)), 2),
        }


def _lost_share(values: NDArray, factor: int) -> float:
    """Standard deviation of what the crop of k-space takes away, over that of the slice."""
    spectrum = np.fft.rfft2(values - values.mean())
    weights = np.full(spectrum.shape, 2.0)
    weights[:, 0] = 1.0
    power = weights * np.abs(spectrum) ** 2
    return float(np.sqrt(power[~is_measured((values.shape[0], values.shape[1]), factor)].sum() / power.sum()))


def _end_of_k_space(values: NDArray) -> float:
    """Part of the highest frequency beyond which the emptier axis has less than 2 % of the power it has at a half.

    Anatomy alone still has about 10 % at the edge; noise has more. What ends earlier was interpolated.
    """
    window = np.outer(np.hanning(values.shape[0]), np.hanning(values.shape[1]))
    power = np.abs(np.fft.fft2((values - values.mean()) * window)) ** 2
    ends = []
    for axis in (0, 1):
        along = power.mean(axis=1 - axis)
        place = np.abs(np.fft.fftfreq(len(along))) / 0.5
        middle = along[(place >= 0.45) & (place < 0.55)].mean()
        steps = np.arange(0.5, 1.0, 0.05)
        levels = [along[(place >= step) & (place < step + 0.05)].mean() for step in steps]
        empty = [step for step, level in zip(steps, levels, strict=True) if level < 0.02 * middle]
        ends.append(float(empty[0]) if empty else 1.0)
    return min(ends)


# ----------------------------------------------------------------------------------------------------------- mattes


def matte_rows(data: Path, most: int = 8) -> Iterator[dict[str, Any]]:
    """Borders of two observers of the same retinal vessels, against disturbed masks of the first."""
    folder = data / "skin_or_endoscopy" / "fundus"
    found: dict[str, list[tuple[float, float, float]]] = {}
    for file in sorted(folder.glob("*_1stHO.png"))[:most]:
        first, second = (_mask_of(file.with_name(file.name.replace("1stHO", which))) for which in ("1stHO", "2ndHO"))
        found.setdefault("second observer", []).append(_apart(first, second))
        for px in (2.0, 4.0, 6.0):
            disturbed = disturbed_mask(first, px, len(found["second observer"]))
            found.setdefault(f"disturbed by {px:g} px", []).append(_apart(first, disturbed))
    for name, figures in found.items():
        dice, median, most_px = np.median(np.array(figures), axis=0)
        yield {
            "compared": f"border of retinal vessels, first observer and {name}",
            "pictures": len(figures),
            "dice": round(float(dice), 3),
            "distance_px": {"median": round(float(median), 1), "95 %": round(float(most_px), 1)},
        }


def _mask_of(file: Path) -> NDArray[np.bool_]:
    values = np.asarray(read_scan(file).slice_values(0))
    return np.asarray(values > 0) if values.ndim == 2 else np.asarray((values > 0).any(axis=-1))


def _apart(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Dice, and median and 95 % of the distance from the second border to the first, in pixels."""
    both, either = int(np.count_nonzero(first & second)), int(np.count_nonzero(first) + np.count_nonzero(second))
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    distance = ndimage.distance_transform_edt(~borders[0])[borders[1]]
    median, most_px = np.quantile(distance, (0.5, 0.95))
    return 2 * both / max(1, either), float(median), float(most_px)
