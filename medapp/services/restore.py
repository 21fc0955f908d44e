"""Restoring a series: the slice on screen first, then its neighbours outward; the result is a derived series."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from medapp import __version__
from medapp.errors import ComputeError, UnsuitableModelError
from medapp.progress import Progress
from medapp.requests import FoundSeries, PrepareModelRequest, RestoreRequest, RestoreResult
from medapp.restoration.classical import FilterRestorer, classical_restorer, content_noise
from medapp.restoration.fit import ScanFacts
from medapp.restoration.restorer import NetworkRestorer, RestoredSlice, Restorer
from medapp.scan.lazy import outward
from medapp.scan.scan import Scan
from medapp.services.workspace import Workspace


def restore(request: RestoreRequest, workspace: Workspace, progress: Progress) -> RestoreResult:
    """Restore every slice of a series, or only the one on screen as a preview.

    Raises:
        UnsuitableModelError: The model does not fit the series; says why.
        ComputeError: Out of memory at the smallest tile, or a result that is not finite.
        Cancelled: The user stopped it; the project is unchanged.
    """
    since = time.perf_counter()
    project = workspace.project(request.project)
    scan = project.scan(request.series_id)
    restorer = _restorer(request, scan, workspace)
    fit = restorer.fit(ScanFacts.of(scan))
    if fit.level == "blocked":
        raise UnsuitableModelError(
            f"{restorer.chip.split(' · ')[-1]} does not fit this series: {fit.reason}.", "Choose another model."
        )
    strength = min(max(request.strength, 0.0), 1.0)
    account = _Account(restorer)
    if request.only_first:
        progress.start(1, "slices", restorer.chip)
        values = account.slice(scan, request.first_slice, strength, progress)
        path = workspace.cache_folder(request.project) / f"preview-{uuid4().hex}.npy"
        np.save(path, values)
        progress.step()
        return RestoreResult("", str(path), account.report(scan, strength, since))

    writer = project.new_voxel_file(scan.shape, np.float32)
    try:
        path = str(writer.path)
        first = min(max(request.first_slice, 0), scan.shape[0] - 1)
        progress.start(scan.shape[0], "slices", restorer.chip)
        progress.tell(
            series=FoundSeries(path, scan.shape, "<f4", 1.0, 0.0, restorer.chip, scan.modality, scan.unit, first),
            device=account.device,
        )
        for z in outward(scan.shape[0], first):
            writer.array[z] = account.slice(scan, z, strength, progress)
            progress.step(slice=(path, z))
        report = account.report(scan, strength, since)
        made = Scan(
            stored=writer.array,
            geometry=scan.geometry,
            modality=scan.modality,
            unit=scan.unit,
            kind=scan.kind,
            pixel_spacing_mm=scan.pixel_spacing_mm,
            index_spacing_mm=scan.index_spacing_mm,
            windows=scan.windows,
            is_inverted=scan.is_inverted,
        )
        from medapp.scan.thumbnail import thumbnail_png  # pydicom comes with it; a first slice must not wait for that

        thumbnail = thumbnail_png(made)
        series_id = project.add_derived(
            request.series_id,
            writer,
            {**account.provenance(), **report, "medapp": __version__},
            kind="filtered" if isinstance(restorer, FilterRestorer) else "restored",
            title=restorer.chip,
            thumbnail=thumbnail,
        )
    except BaseException:
        writer.discard()
        raise
    return RestoreResult(series_id, "", report)


def prepare(request: PrepareModelRequest, workspace: Workspace, progress: Progress) -> None:
    """Load a network into this worker; filters need no loading.

    Raises:
        WeightsError: The model is missing, changed or damaged.
        ComputeError: The device is not there.
    """
    if not request.model_id.startswith("filter-"):
        workspace.library.load(request.model_id, request.device)


def _restorer(request: RestoreRequest, scan: Scan, workspace: Workspace) -> Restorer:
    if request.model_id.startswith("filter-"):
        return classical_restorer(request.model_id, scan.modality)
    return NetworkRestorer(workspace.library.load(request.model_id, request.device), request.tile_px)


@dataclass
class _Account:
    """Runs slices and keeps count of what changed."""

    restorer: Restorer
    shift_sum: float = 0.0
    voxels: int = 0
    outside: int = 0
    tile_px: int = 0
    noise: list[tuple[float, float]] = field(default_factory=list)

    @property
    def device(self) -> str:
        return str(self.restorer.model.device) if isinstance(self.restorer, NetworkRestorer) else "cpu"

    def slice(self, scan: Scan, z: int, strength: float, progress: Progress) -> NDArray[np.float32]:
        """One restored slice in native units; padding takes no part and keeps its value."""
        original = np.asarray(scan.slice_values(z), dtype=np.float32)
        padding = scan.padding[z] if scan.padding is not None else None
        given = original if padding is None else np.where(padding, np.float32(np.nan), original)
        restored: RestoredSlice = self.restorer.restore_slice(given, strength, progress)
        values = restored.values if padding is None else np.where(padding, original, restored.values)
        if not np.isfinite(values).all():
            raise ComputeError(
                "The restored slice holds numbers that are not finite; nothing was kept.", "Use the CPU."
            )
        padded = 0 if padding is None else int(padding.sum())
        self.shift_sum += float((values.astype(np.float64) - original).sum())
        self.voxels += values.size - padded
        self.outside += max(0, restored.outside_range - padded)
        self.tile_px = restored.tile_px
        self.noise.append((content_noise(original), content_noise(values)))
        return values

    def provenance(self) -> dict[str, Any]:
        """Which model made it; what export and the header chip read."""
        if isinstance(self.restorer, NetworkRestorer):
            card = self.restorer.model.card
            return {
                "task": card.task,
                "model_id": card.id,
                "model": card.name,
                "version": card.version,
                "sha256": card.sha256,
            }
        assert isinstance(self.restorer, FilterRestorer)
        return {"task": "filter", "model_id": self.restorer.id, "model": self.restorer.name, "version": ""}

    def report(self, scan: Scan, strength: float, since: float) -> dict[str, Any]:
        """What a person is told after the run, in plain numbers."""
        before, after = (sum(pair[side] for pair in self.noise) for side in (0, 1))
        return {
            "mean_shift": round(self.shift_sum / max(self.voxels, 1), 4),
            "noise_change_percent": round(100 * (after / before - 1), 1) if before > 0 else 0.0,
            "voxels_outside_range": self.outside,
            "seconds": round(time.perf_counter() - since, 2),
            "device": self.device,
            "tile_px": self.tile_px,
            "model": self.provenance()["model"],
            "unit": scan.unit,
            "strength": strength,
        }
