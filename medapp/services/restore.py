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
from medapp.errors import UnsuitableModelError
from medapp.progress import Progress
from medapp.requests import FoundSeries, PrepareModelRequest, RestoreRequest, RestoreResult
from medapp.restoration.classical import classical_restorer
from medapp.restoration.fit import ScanFacts
from medapp.restoration.restorer import NetworkRestorer, Restorer
from medapp.restoration.tiling import Maps
from medapp.restoration.trust import ANSWERS
from medapp.scan.lazy import outward
from medapp.scan.scan import Scan, Window
from medapp.services.region_maps import engine_title, region_map_for
from medapp.services.restoration_account import Account, Made, trust_scan
from medapp.services.workspace import Workspace
from medapp.store.voxels import VoxelWriter

TRUST_NOTE = "Spread of 8 answers; not a guarantee: where they agree they may still be wrong."


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
    restorer = restorer_for(request, scan.modality, workspace)
    regions = RegionSource(request, workspace) if "region_map" in restorer.inputs else None
    fit = restorer.fit(ScanFacts.of(scan), regions.engine if regions else None)
    if fit.level == "blocked":
        raise UnsuitableModelError(
            f"{restorer.chip.split(' · ')[-1]} does not fit this series: {fit.reason}.", "Choose another model."
        )
    strength = min(max(request.strength, 0.0), 1.0)
    account = Account(restorer, strength, request.trust)
    first = min(max(request.first_slice, 0), scan.shape[0] - 1)
    if restorer.dims == 2:
        slices = 1 if request.only_first else scan.shape[0]
        progress.start(
            slices * (ANSWERS if request.trust else 1), "answers" if request.trust else "slices", restorer.chip
        )
    if request.only_first:
        ((_, made),) = _restored(account, scan, [first], regions, progress)
        path = _kept_preview(made.values, request, workspace)
        trust_path = _kept_preview(made.spread, request, workspace) if made.spread is not None else ""
        if restorer.dims == 2:
            progress.step()
        return RestoreResult("", path, account.report(scan, since), trust_path=trust_path)
    shape = restorer.grid.shape(scan.shape)
    writers = [project.new_voxel_file(shape, scan.stored.dtype if scan.is_colour else np.float32)]
    try:
        if request.trust:
            writers.append(project.new_voxel_file(shape[:3], np.float32))
        writer = writers[0]
        path, dtype = str(writer.path), writer.array.dtype.str
        found = FoundSeries(path, shape, dtype, 1.0, 0.0, restorer.chip, scan.modality, scan.unit, first)
        grid = (restorer.grid.factor, restorer.grid.keeps_centres)
        progress.tell(series=found, device=account.device, grid=grid)
        for z, made in _restored(account, scan, outward(scan.shape[0], first), regions, progress):
            writer.array[z] = made.values
            if made.spread is not None:
                writers[1].array[z] = made.spread
            if restorer.dims == 2:
                progress.step(slice=(path, z))
        report = account.report(scan, since)
        provenance = {**account.provenance(), **(regions.provenance() if regions else {}), **report}
        return _added(request, workspace, scan, restorer, writers, provenance, report)
    except BaseException:
        for writer in writers:
            writer.discard()
        raise


def _added(
    request: RestoreRequest,
    workspace: Workspace,
    scan: Scan,
    restorer: Restorer,
    writers: list[VoxelWriter],
    provenance: dict[str, Any],
    report: dict[str, Any],
) -> RestoreResult:
    """Add what was written to the project: the restoration, then its trust map."""
    from medapp.scan.thumbnail import thumbnail_png  # pydicom comes with it; a first slice must not wait for that

    project = workspace.project(request.project)
    made = restorer.grid.scan(scan, writers[0].array)
    made_with: dict[str, Any] = {**provenance, "medapp": __version__}
    if request.trust:
        made_with["pair"] = uuid4().hex
    series_id = project.add_derived(
        request.series_id,
        writers[0],
        made_with,
        kind=restorer.makes,
        title=restorer.chip,
        thumbnail=thumbnail_png(made),
        like=made if restorer.grid.factor > 1 else None,
    )
    if not request.trust:
        return RestoreResult(series_id, "", report)
    spread = trust_scan(made, writers[1].array, float(report["trust"]["high"]))
    trust_id = project.add_derived(
        request.series_id,
        writers[1],
        {**made_with, "role": "trust"},
        kind="trust",
        title=f"Trust map · {restorer.chip.partition(' · ')[2]}",
        thumbnail=thumbnail_png(spread),
        notes=(TRUST_NOTE,),
        like=spread,
    )
    return RestoreResult(series_id, "", report, trust_id)


def _kept_preview(values: NDArray, request: RestoreRequest, workspace: Workspace) -> str:
    path = workspace.cache_folder(request.project) / f"preview-{uuid4().hex}.npy"
    np.save(path, values)
    return str(path)


def _restored(
    account: Account, scan: Scan, order: Iterable[int], regions: RegionSource | None, progress: Progress
) -> Iterator[tuple[int, Made]]:
    """Slice numbers and restored slices in native units, in this order."""
    if account.restorer.dims == 2:
        for z in order:
            maps = {"region_map": regions.labels(z, progress)} if regions else {}
            yield z, _slice_of(account, scan, z, maps, progress)
        return
    wanted = list(order)
    region = slice(wanted[0], wanted[0] + 1) if len(wanted) == 1 else None
    volume = account.volume_of(scan, region, progress)
    for z in wanted:
        at = z - (region.start if region else 0)
        yield z, Made(volume.values[at], None if volume.spread is None else volume.spread[at])


def _slice_of(account: Account, scan: Scan, z: int, maps: Maps, progress: Progress) -> Made:
    """One slice; of eight answers seven are counted, the eighth by the one who keeps the slice."""
    counted = 0

    def answered() -> None:
        nonlocal counted
        if counted < ANSWERS - 1:
            counted += 1
            progress.step()

    made = account.slice_of(scan, z, maps, progress, answered)
    if account.wants_trust and counted < ANSWERS - 1:
        progress.step(ANSWERS - 1 - counted)
    return made


def prepare(request: PrepareModelRequest, workspace: Workspace, progress: Progress) -> None:
    """Load a network into this worker; filters need no loading.

    Raises:
        WeightsError: The model is missing, changed or damaged.
        ComputeError: The device is not there.
    """
    if not request.model_id.startswith("filter-"):
        library = workspace.library
        library.load(library.in_use(request.model_id), request.device)


def restorer_for(request: RestoreRequest, modality: str | None, workspace: Workspace) -> Restorer:
    """The filter, or the model that serves for the one that was asked for.

    Raises:
        UnsuitableModelError: There is no such filter, or the model does something else.
        WeightsError: The model is missing, changed or damaged.
        ComputeError: The device is not there.
    """
    if request.model_id.startswith("filter-"):
        return classical_restorer(request.model_id, modality)
    library = workspace.library
    model = library.load(library.in_use(request.model_id), request.device)
    if model.card.serves != "restoration":
        raise UnsuitableModelError(f"{model.card.name} restores no scans.", "Choose a model that restores.")
    return NetworkRestorer(model, request.tile_px, modality, request.keep_measured)


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
