"""``medapp bench matting``: trimaps, closed form against PyMatting, re-solving, metrics, interpolation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.interpolation import interpolate_between
from medapp.annotation.trimap import TrimapBand, trimap_from_mask
from medapp.benchmarks.regions import WINDOW, torso_slice
from medapp.benchmarks.timing import row, times_ms
from medapp.matting.closed_form import resolve_around, solve_closed_form
from medapp.matting.matter import shown_image
from medapp.matting.metrics import compare_mattes
from medapp.regions.region_tree_builder import build_region_tree

BAND_SHARE = 0.03  # of the side on either side of the border: about a tenth of the pixels unknown


def run() -> list[dict[str, Any]]:
    """Everything between a mask and its matte, at 512 and 1024 px; peer PyMatting when it is installed."""
    return [*_rows(512), *_rows(1024)]


def _rows(side: int) -> list[dict[str, Any]]:
    values = torso_slice(side)
    image = shown_image(values, WINDOW)
    mask = wobbly_mask(side)
    band = TrimapBand(BAND_SHARE * side, BAND_SHARE * side)
    trimap = trimap_from_mask(mask, None, band)
    alpha = solve_closed_form(image, trimap)
    unknown = trimap == 0.5
    share = f"{100 * unknown.mean():.0f} % unknown"
    centre = np.argwhere(unknown)[unknown.sum() // 2]
    box = (int(centre[1]) - 60, int(centre[0]) - 60, int(centre[1]) + 60, int(centre[0]) + 60)
    tree = build_region_tree(values, WINDOW)

    def click_to_alpha() -> None:
        region = tree.region_at((side * 0.45, side * 0.45))
        solve_closed_form(image, trimap_from_mask(region, (0.7, 0.7)))

    rows = [
        row(f"trimap from mask, {side} px", times_ms(lambda: trimap_from_mask(mask, (0.7, 0.7)), 10)),
        row(
            f"closed form, {side} px, {share}",
            times_ms(lambda: solve_closed_form(image, trimap), 3),
            *_peer(image, trimap),
        ),
        row(f"click to alpha, {side} px, tree ready", times_ms(click_to_alpha, 5)),
        row(
            f"re-solve around a 120 px stroke, {side} px",
            times_ms(lambda: resolve_around(image, alpha, trimap, box, 20), 5),
        ),
        row(f"all metrics, {side} px", times_ms(lambda: compare_mattes(alpha, mask.astype(np.float32), unknown), 3)),
    ]
    if side == 512:
        keys = {0: alpha, 10: np.roll(alpha, 12, axis=1)}
        rows.append(row("interpolate 9 slices, 512 px", times_ms(lambda: list(interpolate_between(keys)), 3)))
    return rows


def wobbly_mask(side: int) -> NDArray[np.bool_]:
    """``(side, side)`` bool: a blob with a wavy border, a third of the side in radius."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    return np.asarray(np.hypot(y, x) < 0.28 * (1 + 0.1 * np.sin(5 * np.arctan2(y, x))))


def _peer(image: NDArray[np.float32], trimap: NDArray[np.float32]) -> tuple[str, list[float]]:
    """PyMatting on the same input, after its first, compiling import; nothing when it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pymatting import estimate_alpha_cf
        except ImportError:
            return "", []
        colours = np.repeat(image[..., None], 3, axis=2).astype(np.float64)
        return "PyMatting", times_ms(lambda: estimate_alpha_cf(colours, trimap.astype(np.float64)), 2)
