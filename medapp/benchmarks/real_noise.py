"""Whether denoisers that learnt on simulated noise remove real noise: two noisy neighbours, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp import paths
from medapp.benchmarks.noise_texture import flat_places, texture_of
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration.classical import NLM_ID, classical_restorer
from medapp.restoration.metrics import soft_tissue
from medapp.restoration.restorer import NetworkRestorer, Restorer
from medapp.training.degradations.ct import Scanner, noise_fields
from medapp.training.sources import find_references

RAMP_SHARE = 0.4
"""Of the sharp filter in the mixture whose texture is that of the real noise."""
_SLICES_A_SERIES = 3


def denoising_rows(data: Path) -> Iterator[dict[str, Any]]:
    """One row a CT denoiser: noise left of real low-dose PET/CT slices and of simulated ones of the same strength.

    Neighbouring slices differ by their noise and hardly by anything else. The simulated pair is one smoothed slice with
    two draws of noise, mixed from both filters and scaled to the strength of the real one.
    """
    pairs = list(_pairs(data))
    if not pairs:
        return
    for name, restorer in _restorers():
        left = {}
        for kind in ("real", "simulated"):
            before: list[NDArray] = []
            after: list[NDArray] = []
            for pair in pairs:
                first, second = pair[kind]
                restored = [np.asarray(restorer.restore_slice(values).values) for values in (first, second)]
                places = pair["places"]
                before += [(first - second)[place] / np.sqrt(2) for place in places]
                after += [(restored[0] - restored[1])[place] / np.sqrt(2) for place in places]
            left[kind] = (texture_of(before), texture_of(after))
        yield {
            "compared": f"noise left by {name}",
            "pieces": left["real"][0].pieces,
            **{
                f"{kind}_sigma_hu": [round(before.sigma, 1), round(after.sigma, 1)]
                for kind, (before, after) in left.items()
            },
            **{f"{kind}_left": round(after.sigma / before.sigma, 2) for kind, (before, after) in left.items()},
        }


def _restorers() -> Iterator[tuple[str, Restorer]]:
    yield "non-local means", classical_restorer(NLM_ID, "CT")
    library = ModelLibrary(paths.shipped_models_dir(), paths.user_models_dir())
    for card in library.list():
        if card.task == "ct-denoise" and card.dims == 2 and not card.inputs:
            yield card.id, NetworkRestorer(library.load(card.id, "cpu"))


def _pairs(data: Path) -> Iterator[dict[str, Any]]:
    """Real neighbours, simulated twins, and the windows that are flat in both."""
    for reference in find_references(data, "CT", "train", Progress()):
        if "real noise" not in reference.notes:
            continue
        values = reference.load()
        for z in range(2, len(values) - 3, max(1, len(values) // _SLICES_A_SERIES)):
            first, second = values[z], values[z + 1]
            places = flat_places(soft_tissue(first) & soft_tissue(second), most=12)
            if not places:
                continue
            smooth = ndimage.median_filter(values[z - 1 : z + 3].mean(axis=0), 3)
            twins = _twins(smooth, reference.mean_spacing_mm, places, (first - second) / np.sqrt(2))
            yield {"real": (first, second), "simulated": twins, "places": places}


def _twins(
    smooth: NDArray, spacing_mm: float, places: Sequence[tuple[slice, slice]], noise: NDArray
) -> tuple[NDArray, NDArray]:
    """The smooth slice with two draws of noise as strong as the real one."""
    wanted = texture_of([noise[place] for place in places]).sigma
    fields = []
    for tag in ("first twin", "second twin"):
        sharp, soft = (
            noise_fields(smooth, spacing_mm, (0.25,), Scanner(360, kernel), tag)[0] for kernel in ("ramp", "hann")
        )
        fields.append(RAMP_SHARE * sharp + (1 - RAMP_SHARE) * soft)
    made = texture_of([((fields[0] - fields[1]) / np.sqrt(2))[place] for place in places]).sigma
    first, second = (np.asarray(smooth + field * (wanted / made), np.float32) for field in fields)
    return first, second
