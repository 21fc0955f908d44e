"""What a person does with the mouse in the demo: a click, and the matte of what was clicked, as edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import AddMatte, Stroke
from medapp.annotation.matte import Matte
from medapp.annotation.region_tree import RegionTree
from medapp.annotation.trimap import trimap_from_mask
from medapp.errors import MedappError
from medapp.requests import RefineRequest, RegionTreeRequest, Request
from medapp.scan.intensity import starting_window
from medapp.scan.scan import Scan

Ask = Callable[[Request], Any]
Do = Callable[[Any], None]


@dataclass(frozen=True)
class Place:
    """A slice of a series of a project."""

    project: Path
    series_id: str
    scan: Scan
    slice_index: int

    @classmethod
    def middle(cls, project: Path, series_id: str, scan: Scan) -> Place:
        """The middle slice."""
        return cls(project, series_id, scan, scan.shape[0] // 2)


def clicked_region(place: Place, ask: Ask) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """A point ``(x, y)`` worth clicking, and the region tree's region there, ``(H, W)``."""
    window = starting_window(place.scan)
    tree_path = ask(
        RegionTreeRequest(str(place.project), place.series_id, place.slice_index, 0, window.center, window.width)
    )
    return _notable_region(RegionTree.from_bytes(Path(tree_path).read_bytes()))


def accepted_matte(
    place: Place, mask: NDArray[np.bool_], annotation: Annotation, ask: Ask, do: Do
) -> tuple[Matte, int, float]:
    """Solve the region's alpha and accept it as a new matte.

    Args:
        do: Applies an edit to the annotation and journals it.

    Returns:
        The matte, how many of its pixels are soft, and the seconds of solving.

    Raises:
        MedappError: The matte came out empty.
    """
    cache = place.project / "cache"
    cache.mkdir(exist_ok=True)
    trimap = trimap_from_mask(mask, place.scan.in_plane_spacing_mm)
    path = cache / "demo-trimap.npz"
    np.savez(path, trimap=np.rint(trimap * 255).astype(np.uint8), keep=np.zeros(mask.shape, bool))
    window = starting_window(place.scan)
    where = (str(place.project), place.series_id, place.slice_index, 0, window.center, window.width)
    result = ask(RefineRequest(*where, str(path)))
    alpha = np.load(result.path)
    Path(result.path).unlink()
    matte = annotation.new_matte("Demo region", reader="demo", origin="region tree + closed form")
    patch = matte.make_patch("alpha", (place.slice_index, 0, 0), alpha[None])
    if patch is None:
        raise MedappError("The matte came out empty.", "Try another image.")
    do(AddMatte(matte))
    do(Stroke(matte.matte_id, (patch,), "Accept proposal"))
    return annotation.matte(matte.matte_id), int(((alpha > 0) & (alpha < 65535)).sum()), float(result.seconds)


def _notable_region(tree: RegionTree) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """A click that a person might make: of a grid of points, the one whose default region is large and compact."""
    height, width = tree.shape
    best: tuple[float, tuple[int, int], NDArray[np.bool_]] | None = None
    for y in range(height // 4, 3 * height // 4 + 1, max(1, height // 24)):
        for x in range(width // 4, 3 * width // 4 + 1, max(1, width // 24)):
            mask = tree.region_at((x, y))
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            fullness = mask.sum() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
            score = min(float(mask.mean()), 0.06) * float(fullness) ** 2 * (0.1 if mask.mean() > 0.15 else 1.0)
            if best is None or score > best[0]:
                best = (score, (x, y), mask)
    assert best is not None  # the grid has at least one point
    return best[1], best[2]
