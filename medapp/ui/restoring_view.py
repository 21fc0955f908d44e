"""Restorations before they are in the project: one under way, slice by slice, and the preview of one slice."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.progress import ProgressEvent
from medapp.requests import FoundSeries, RestoreResult
from medapp.scan.finer import FinerGrid
from medapp.scan.scan import Scan, Window
from medapp.ui.document import Document
from medapp.ui.opening import map_partial


class Follower:
    """Shows a restoration under way on the other side of Compare."""

    def __init__(self, document: Document, series_id: str, original: Scan, model: dict[str, Any]) -> None:
        self._document, self._series_id = document, series_id
        self._original, self._model, self._grid = original, model, FinerGrid()
        self._processed: Scan | None = None
        self._path = ""
        self._slices: set[int] = set()

    @property
    def is_shown(self) -> bool:
        """It is what Compare shows."""
        return self._processed is not None and self._document.processed is self._processed

    def on_progress(self, event: ProgressEvent) -> None:
        """A slice has arrived, or the file into which they come is known."""
        found = event.detail.get("series")
        if isinstance(found, FoundSeries) and self._processed is None:
            self._grid = FinerGrid(*event.detail.get("grid", (1, True)))
            self._take(map_partial(found), found.voxel_path)
        arrived = event.detail.get("slice")
        if not arrived:
            return
        path, z = str(arrived[0]), int(arrived[1])
        if self._processed is None:
            self._take(_map_float(path, self._original), path)
        self._slices.add(z)
        document = self._document
        if self._processed is None or document.annotated_series_id != self._series_id:
            return
        if document.processed is not self._processed:
            document.show_processed(self._processed, under_way(self._model, self._grid), self._slices)
            if document.compare_mode == "single" and not document.is_derived:
                document.set_compare("swipe")
                uncover_colours(document)
        document.note_slice(self._path, z)

    def _take(self, scan: Scan | None, path: str) -> None:
        if scan is None:
            return
        self._path = path
        self._processed = self._grid.scan(self._original, scan.stored, scan.slope, scan.intercept)


def uncover_colours(document: Document) -> None:
    """Take the tints of regions off a colour picture that is about to be compared: its colours are what is judged."""
    if document.original is not None and document.original.is_colour:
        document.regions.set_visible(False)


def under_way(model: dict[str, Any] | None, grid: FinerGrid) -> Any:
    """Stands in for the row of a derived series that is not there yet; gives the chip its words."""
    model = model or {}
    kind = str(model.get("kind") or ("filtered" if str(model.get("id", "")).startswith("filter") else "restored"))
    return SimpleNamespace(
        series_id="",
        kind=kind,
        title=str(model.get("title", "")),
        provenance={"model": model.get("title", ""), "version": model.get("version", ""), "grid": asdict(grid)},
        source_id="",
    )


def _map_float(path: str, original: Scan) -> Scan | None:
    try:
        stored = np.memmap(path, dtype=np.float32, mode="r", shape=original.shape)
    except (OSError, ValueError):
        return None
    return FinerGrid().scan(original, stored)


def read_preview(result: RestoreResult, original: Scan, z: int) -> tuple[Scan, Scan | None, FinerGrid]:
    """The slice as a series in which only it is there, and its trust map likewise."""
    told = result.report.get("grid") or {}
    grid = FinerGrid(int(told.get("factor", 1)), bool(told.get("keeps_centres", True)))
    processed = grid.scan(original, _only_slice(result.preview_path, grid.shape(original.shape), z))
    if not result.trust_path:
        return processed, None, grid
    high = float((result.report.get("trust") or {}).get("high", 0.0))
    window = Window(high / 2, high) if high > 0 else Window(0.5, 1.0)
    stored = _only_slice(result.trust_path, processed.shape[:3], z)
    trust = replace(processed, stored=stored, windows=(window,), is_inverted=False, padding=None)
    return processed, trust, grid


def _only_slice(preview_path: str, shape: tuple[int, ...], z: int) -> NDArray:
    path = Path(preview_path)
    values = np.load(path)
    stored = np.zeros(shape, values.dtype)  # only the pages of one slice are ever touched
    stored[z] = values
    path.unlink(missing_ok=True)
    return stored
