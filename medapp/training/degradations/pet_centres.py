"""Simulated centres: the same patients as five places would have scanned them.

Nobody gave data of several scanners, so centres are made: each has its own voxel size, resolution, counts and
reconstruction. The full-dose image of a centre is the reference, blurred to the resolution of the centre and brought
onto its voxels; its low-dose image is that plus the noise of fewer counts as its reconstruction shows it; see
``degradations.pet``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.errors import TrainingError
from medapp.training.degradations.pet import FWHM_PER_SIGMA, PetScanner, count_noises

DOSE = 0.1
"""Of the counts: the headline of every table."""


@dataclass(frozen=True)
class PetCentre:
    """One simulated centre.

    Attributes:
        name: As tables show it.
        voxel_mm: Side of its pixels; None = as the reference has them.
        blur_mm: Width (FWHM) by which its resolution is worse than that of the reference.
        scanner: Its counts, background, iterations and smoothing: how strong its noise is and what grain it has.
        is_held_out: Never trained on.
    """

    name: str
    voxel_mm: float | None = None
    blur_mm: float = 0.0
    scanner: PetScanner = field(default_factory=PetScanner)
    is_held_out: bool = False

    def facts(self) -> dict[str, Any]:
        """Plain data for cards."""
        return asdict(self)


CENTRES = (
    PetCentre("A, as measured"),
    PetCentre("B, fine and grainy", 3.5, 0.0, PetScanner(counts_per_suv_ml=900.0, psf_mm=4.0, iterations=20)),
    PetCentre("C, coarse and smooth", 6.0, 7.0, PetScanner(counts_per_suv_ml=350.0, psf_mm=8.0, iterations=12)),
    PetCentre(
        "D, few counts", 4.0, 4.0, PetScanner(counts_per_suv_ml=300.0, background=1.0, psf_mm=5.0, iterations=28)
    ),
    PetCentre(
        "E, held out",
        3.8,
        5.0,
        PetScanner(counts_per_suv_ml=450.0, background=0.3, psf_mm=5.0, iterations=16, angles=64),
        is_held_out=True,
    ),
)
"""At the first, pixels and resolution are those of the reference."""


def centre_of(name: str) -> PetCentre:
    """A centre by the letter that its name begins with.

    Raises:
        TrainingError: There is no such centre.
    """
    found = next((centre for centre in CENTRES if centre.name[0] == name), None)
    if found is None:
        letters = ", ".join(centre.name[0] for centre in CENTRES)
        raise TrainingError(f"No simulated centre is called '{name[:20]}'", f"Known: {letters}")
    return found


def drifted(centre: PetCentre, drift: float, seed: int) -> PetCentre:
    """A scanner like that of a centre: no two of a make are alike, and none stays as it was.

    Where a centre shows the reference as it was measured, the blur stays: nothing can be sharper than the reference, so
    scanners like it could only be worse, and a network would learn that peaks there are lower than they are.

    Args:
        centre: The one it is like.
        drift: How much it differs, 1 = blur by -3 to +5 mm, smoothing by up to 1 mm, voxels by up to a tenth, counts
            and iterations by a factor of up to 1.8 and 1.5.
        seed: Of the draw.
    """
    random = np.random.default_rng(seed)
    blur, smoothing, voxel, counts, iterations = drift * random.uniform(
        (-3.0, -1.0, -0.1, -np.log(1.8), -np.log(1.5)), (5.0, 1.0, 0.1, np.log(1.8), np.log(1.5))
    )
    scanner = replace(
        centre.scanner,
        counts_per_suv_ml=float(centre.scanner.counts_per_suv_ml * np.exp(counts)),
        psf_mm=float(max(centre.scanner.psf_mm + smoothing, 1.0)),
        iterations=max(4, round(centre.scanner.iterations * float(np.exp(iterations)))),
    )
    voxel_mm = None if centre.voxel_mm is None else float(centre.voxel_mm * (1 + voxel))
    is_as_measured = centre.voxel_mm is None and not centre.blur_mm
    blur_mm = 0.0 if is_as_measured else float(max(centre.blur_mm + blur, 0.0))
    return replace(centre, name=f"{centre.name}, drifted", voxel_mm=voxel_mm, blur_mm=blur_mm, scanner=scanner)


def at_centre(suv: NDArray, spacing_mm: float, centre: PetCentre) -> NDArray[np.float32]:
    """A reference as the centre shows it at full dose, on the voxels of the centre.

    Args:
        suv: ``(Y, X)`` in SUV.
        spacing_mm: Its pixel size.
        centre: Where it is scanned.

    Returns:
        ``(Y', X')`` float32 in SUV; never beyond the values that went in.
    """
    values = np.asarray(suv, np.float32)
    if centre.blur_mm:
        values = ndimage.gaussian_filter(values, centre.blur_mm / spacing_mm / FWHM_PER_SIGMA, mode="nearest")
    shape = _shape_at(values.shape, spacing_mm, centre)
    if shape == values.shape:
        return values
    grown = ndimage.zoom(values, _zoom(values.shape, shape), order=3, mode="nearest", grid_mode=True)
    return np.clip(grown, values.min(), values.max()).astype(np.float32)


def mask_at_centre(mask: NDArray[np.bool_], spacing_mm: float, centre: PetCentre) -> NDArray[np.bool_]:
    """A mask ``(Y, X)`` on the voxels of the centre."""
    shape = _shape_at(mask.shape, spacing_mm, centre)
    if shape == mask.shape:
        return np.asarray(mask, bool)
    shares = ndimage.zoom(mask.astype(np.float32), _zoom(mask.shape, shape), order=1, mode="nearest", grid_mode=True)
    return np.asarray(shares >= 0.5)


def spacing_at(spacing_mm: float, centre: PetCentre) -> float:
    """Pixel size at the centre."""
    return centre.voxel_mm or spacing_mm


def low_doses(
    full: NDArray, spacing_mm: float, centre: PetCentre, fractions: Sequence[float], seed: int
) -> NDArray[np.float32]:
    """What the centre shows with a part of the counts.

    Args:
        full: ``(Y, X)`` in SUV, on the voxels of the centre.
        spacing_mm: Of these voxels.
        centre: Its scanner.
        fractions: Parts of the counts, one a draw.
        seed: Of the draws.

    Returns:
        ``(fractions, Y, X)`` float32 in SUV, never below 0.
    """
    return np.maximum(count_noises(full, spacing_mm, fractions, seed, centre.scanner) + full, 0.0)


def _shape_at(shape: tuple[int, ...], spacing_mm: float, centre: PetCentre) -> tuple[int, ...]:
    if centre.voxel_mm is None:
        return tuple(shape)
    return tuple(max(1, round(side * spacing_mm / centre.voxel_mm)) for side in shape)


def _zoom(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(b / a for a, b in zip(before, after, strict=True))
