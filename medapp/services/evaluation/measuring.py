"""One restored slice against its reference: the figures of the tables and of the scorecards of restorers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medapp.progress import Progress
from medapp.regions.region_map import region_map_from_tree
from medapp.regions.region_tree_builder import build_region_tree
from medapp.restoration import metrics
from medapp.restoration.metrics import Judging, judging_of
from medapp.restoration.restorer import Restorer
from medapp.restoration.tiling import Maps
from medapp.scan.scan import Window


def measure_restoration(
    restorer: Restorer,
    degraded: NDArray[np.float32],
    reference: NDArray[np.float32],
    modality: str | None,
    region_map: NDArray[np.int32] | None = None,
    is_filled: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Restore a degraded slice and compare it with its reference.

    Args:
        restorer: Network or filter.
        degraded: ``(Y, X)`` in native units.
        reference: The same shape.
        modality: DICOM code; it says where and in which limits errors count.
        region_map: ``(Y, X)`` for restorers that attend within regions; None = the region tree of the degraded slice.
        is_filled: The degraded slice lies on the finer grid already; see ``Restorer.restore_slice``.
        progress: Asked for Stop before every tile.

    Returns:
        ``psnr_db, psnr_inner_db, psnr_whole_db, ssim, rmse, bias, edge_width, noise_power, noise_frequency``; see
        ``METRICS``, and ``measure_restored``.

    Raises:
        UnsuitableModelError: The slice is not of the kind that the restorer takes.
        ComputeError: Out of memory, or a result that is not finite.
        Cancelled: The user stopped it.
    """
    judging = judging_of(reference, modality)
    maps = maps_for(restorer, degraded, judging, region_map)
    restored = restorer.restore_slice(degraded, progress=progress, maps=maps, is_filled=is_filled).values
    return measure_restored(restored, degraded, reference, judging)


def measure_restored(restored: NDArray, degraded: NDArray, reference: NDArray, judging: Judging) -> dict[str, float]:
    """The figures of a slice that is restored already; see ``measure_restoration``.

    ``rmse`` and ``bias`` are in ``judging.unit``; ``edge_width`` is the change against the reference as a share;
    ``noise_power`` and ``noise_frequency`` are ratios to the degraded slice.
    """
    per_native, flat, limits = judging.per_native, judging.flat, judging.limits
    own_width = metrics.edge_width_px(reference, reference, judging.edge_range)
    return {
        "psnr_db": metrics.psnr_db(restored, reference, limits, judging.body),
        "psnr_inner_db": metrics.psnr_db(restored, reference, limits, judging.inner),
        "psnr_whole_db": metrics.psnr_db(restored, reference, limits),
        "ssim": metrics.ssim(restored, reference, limits, judging.body),
        "rmse": per_native * metrics.rmse(restored, reference, limits, judging.body),
        "bias": per_native * metrics.flat_bias(restored, reference, flat),
        "edge_width": metrics.edge_width_px(restored, reference, judging.edge_range) / own_width - 1.0,
        "noise_power": _ratio(*(metrics.noise_power(v, flat) for v in (restored, degraded))),
        "noise_frequency": _ratio(*(metrics.noise_frequency(v, flat) for v in (restored, degraded))),
    }


def maps_for(
    restorer: Restorer, degraded: NDArray, judging: Judging, region_map: NDArray[np.int32] | None = None
) -> Maps:
    """What the restorer needs beside the slice."""
    if "region_map" not in restorer.inputs:
        return {}
    return {"region_map": regions_of(degraded, judging.limits) if region_map is None else region_map}


def regions_of(degraded: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.int32]:
    """The region map of a slice by the region tree, as a display window of these limits shows it."""
    low, high = limits
    return region_map_from_tree(build_region_tree(degraded, Window((low + high) / 2, high - low)))


def _ratio(value: float, rival: float) -> float:
    return value / rival if rival > 0 else float("nan")
