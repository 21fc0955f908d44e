"""Restoring a series: the slice on screen first, then its neighbours outward; the result is a derived series."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from medapp import __version__
from medapp.errors import ComputeError, UnsuitableModelError
from medapp.networks.routing import RouterChoice, averaged
from medapp.progress import Progress
from medapp.requests import FoundSeries, PrepareModelRequest, RestoreRequest, RestoreResult
from medapp.restoration.classical import FilterRestorer, classical_restorer, content_noise
from medapp.restoration.fit import ScanFacts
from medapp.restoration.restorer import NetworkRestorer, Restored, Restorer
from medapp.restoration.tiling import Maps
from medapp.scan.lazy import outward
from medapp.scan.scan import Scan, Window
from medapp.services.region_maps import engine_title, region_map_for
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
    regions = RegionSource(request, workspace) if "region_map" in restorer.inputs else None
    fit = restorer.fit(ScanFacts.of(scan), regions.engine if regions else None)
    if fit.level == "blocked":
        raise UnsuitableModelError(
            f"{restorer.chip.split(' · ')[-1]} does not fit this series: {fit.reason}.", "Choose another model."
        )
    strength = min(max(request.strength, 0.0), 1.0)
    account = Account(restorer, strength)
    first = min(max(request.first_slice, 0), scan.shape[0] - 1)
    if request.only_first:
        if restorer.dims == 2:
            progress.start(1, "slices", restorer.chip)
        ((_, values),) = _restored(account, scan, [first], regions, progress)
        path = workspace.cache_folder(request.project) / f"preview-{uuid4().hex}.npy"
        np.save(path, values)
        if restorer.dims == 2:
            progress.step()
        return RestoreResult("", str(path), account.report(scan, since))

    writer = project.new_voxel_file(scan.shape, scan.stored.dtype if scan.is_colour else np.float32)
    try:
        path = str(writer.path)
        if restorer.dims == 2:
            progress.start(scan.shape[0], "slices", restorer.chip)
        found = FoundSeries(
            path, scan.shape, writer.array.dtype.str, 1.0, 0.0, restorer.chip, scan.modality, scan.unit, first
        )
        progress.tell(series=found, device=account.device)
        for z, values in _restored(account, scan, outward(scan.shape[0], first), regions, progress):
            writer.array[z] = values
            if restorer.dims == 2:
                progress.step(slice=(path, z))
        report = account.report(scan, since)
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
            {**account.provenance(), **(regions.provenance() if regions else {}), **report, "medapp": __version__},
            kind="filtered" if isinstance(restorer, FilterRestorer) else "restored",
            title=restorer.chip,
            thumbnail=thumbnail,
        )
    except BaseException:
        writer.discard()
        raise
    return RestoreResult(series_id, "", report)


def _restored(
    account: Account, scan: Scan, order: Iterable[int], regions: RegionSource | None, progress: Progress
) -> Iterator[tuple[int, NDArray]]:
    """Slice numbers and restored slices in native units, in this order."""
    if account.restorer.dims == 2:
        for z in order:
            maps = {"region_map": regions.labels(z, progress)} if regions else {}
            yield z, account.slice_of(scan, z, maps, progress)
        return
    wanted = list(order)
    region = slice(wanted[0], wanted[0] + 1) if len(wanted) == 1 else None
    volume = account.volume_of(scan, region, progress)
    for z in wanted:
        yield z, volume[z - (region.start if region else 0)]


def prepare(request: PrepareModelRequest, workspace: Workspace, progress: Progress) -> None:
    """Load a network into this worker; filters need no loading.

    Raises:
        WeightsError: The model is missing, changed or damaged.
        ComputeError: The device is not there.
    """
    if not request.model_id.startswith("filter-"):
        library = workspace.library
        library.load(library.in_use(request.model_id), request.device)


def _restorer(request: RestoreRequest, scan: Scan, workspace: Workspace) -> Restorer:
    if request.model_id.startswith("filter-"):
        return classical_restorer(request.model_id, scan.modality)
    library = workspace.library
    model = library.load(library.in_use(request.model_id), request.device)
    if model.card.serves != "restoration":
        raise UnsuitableModelError(f"{model.card.name} restores no scans.", "Choose a model that restores.")
    return NetworkRestorer(model, request.tile_px, scan.modality)


@dataclass
class RegionSource:
    """Where the region maps of a run come from: stored ones, or made and stored on the way.

    Attributes:
        used: Number of the stored region map that each slice was restored with.
    """

    request: RestoreRequest
    workspace: Workspace
    used: dict[int, int] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        """Name of what finds the regions."""
        return engine_title(self.request.region_model_id, self.workspace)

    def labels(self, z: int, progress: Progress) -> NDArray[np.int32]:
        """The region map of a slice, accepted mattes painted in: ``(Y, X)`` int32."""
        request, workspace = self.request, self.workspace
        project, window = workspace.project(request.project), request.region_window
        found = region_map_for(
            workspace,
            project,
            request.series_id,
            z,
            request.region_model_id,
            Window(*window) if window else None,
            progress,
        )
        self.used[z] = found.region_map_id
        return found.labels

    def provenance(self) -> dict[str, Any]:
        """What found the regions, and which stored maps were used."""
        return {"region_engine": self.engine, "region_maps": {str(z): number for z, number in self.used.items()}}


@dataclass
class Account:
    """Runs slices or the volume, and keeps count of what changed.

    Attributes:
        routing: What each router of the network chose, by slice; a volume's stands under its first slice.
    """

    restorer: Restorer
    strength: float
    shift_sum: float = 0.0
    voxels: int = 0
    outside: int = 0
    tile_px: int = 0
    noise: list[tuple[float, float]] = field(default_factory=list)
    routing: dict[int, tuple[RouterChoice, ...]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Where it runs."""
        return str(self.restorer.model.device) if isinstance(self.restorer, NetworkRestorer) else "cpu"

    def slice_of(self, scan: Scan, z: int, maps: Maps, progress: Progress) -> NDArray:
        """One restored slice in native units; padding takes no part and keeps its value."""
        original = np.asarray(scan.slice_values(z))
        padding = scan.padding[z] if scan.padding is not None else None
        restored = self.restorer.restore_slice(_without_padding(original, padding), self.strength, progress, maps)
        self.routing[z] = restored.routing
        return self._count(original, restored, padding)

    def volume_of(self, scan: Scan, region: slice | None, progress: Progress) -> NDArray[np.float32]:
        """The restored slices of a region in native units, or of the whole volume."""
        assert isinstance(self.restorer, NetworkRestorer)
        original = np.stack([np.asarray(scan.slice_values(z), np.float32) for z in range(scan.shape[0])])
        given = _without_padding(original, scan.padding)
        restored = self.restorer.restore_volume(given, self.strength, progress, region)
        self.routing[region.start if region else 0] = restored.routing
        chosen = region or slice(None)
        padding = None if scan.padding is None else scan.padding[chosen]
        return self._count(original[chosen], restored, padding)

    def _count(self, original: NDArray, restored: Restored, padding: NDArray[np.bool_] | None) -> NDArray:
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
        pairs = zip(original, values, strict=True) if self.restorer.dims == 3 else [(original, values)]
        self.noise += [(content_noise(_grey(before)), content_noise(_grey(after))) for before, after in pairs]
        return values

    def provenance(self) -> dict[str, Any]:
        """Which model made it; what export and the header chip read."""
        if not isinstance(self.restorer, NetworkRestorer):
            assert isinstance(self.restorer, FilterRestorer)
            return {"task": "filter", "model_id": self.restorer.id, "model": self.restorer.name, "version": ""}
        card = self.restorer.model.card
        made_by = {
            "task": card.task,
            "model_id": card.id,
            "model": card.name,
            "version": card.version,
            "sha256": card.sha256,
        }
        chosen = {str(z): _plain(choices) for z, choices in sorted(self.routing.items()) if choices}
        return {**made_by, "routing_slices": chosen} if chosen else made_by

    def report(self, scan: Scan, since: float) -> dict[str, Any]:
        """What a person is told after the run, in plain numbers."""
        before, after = (sum(pair[side] for pair in self.noise) for side in (0, 1))
        told: dict[str, Any] = {
            "mean_shift": round(self.shift_sum / max(self.voxels, 1), 4),
            "noise_change_percent": round(100 * (after / before - 1), 1) if before > 0 else 0.0,
            "voxels_outside_range": self.outside,
            "seconds": round(time.perf_counter() - since, 2),
            "device": self.device,
            "tile_px": self.tile_px,
            "model": self.provenance()["model"],
            "unit": scan.unit,
            "strength": self.strength,
        }
        if isinstance(self.restorer, NetworkRestorer) and self.tile_px and self.restorer.per_tile:
            told["per_tile"] = list(self.restorer.per_tile)
        routing = averaged(choice for choices in self.routing.values() for choice in choices)
        return {**told, "routing": _plain(routing)} if routing else told


def _plain(choices: Iterable[RouterChoice]) -> list[dict[str, Any]]:
    return [
        {"name": choice.name, "kind": choice.kind, "shares": [round(share, 4) for share in choice.shares]}
        for choice in choices
    ]


def _without_padding(values: NDArray, padding: NDArray[np.bool_] | None) -> NDArray:
    return values if padding is None else np.where(padding, np.float32(np.nan), values)


def _grey(values: NDArray) -> NDArray:
    return values.mean(axis=2, dtype=np.float32) if values.ndim == 3 else values
