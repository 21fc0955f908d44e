"""References out of a project: the series a person marked, with the newest region map of each slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.scan.scan import Scan
from medapp.store.project import Project
from medapp.store.series import SeriesInfo
from medapp.training.references import Reference, References, checked, no_reference, reference_of, values_of
from medapp.training.splits import hashed_patient


def project_references(project: Project, modality: str | None = None, progress: Progress | None = None) -> References:
    """The series of an open project that a person marked as reference.

    Raises:
        TrainingError: None is marked, or their units differ.
        Cancelled: The user stopped it.
    """
    return checked("project", *_of_project(project, modality, progress or Progress()), modality)


def references_in(place: Path, modality: str | None = None, progress: Progress | None = None) -> References:
    """As ``project_references``, of a project that is not open; it is only read.

    Raises:
        ProjectError: It cannot be opened.
        TrainingError: None is marked, or their units differ.
        Cancelled: The user stopped it.
    """
    with Project.open(place, mode="read") as project:
        return project_references(project, modality, progress)


def _of_project(project: Project, modality: str | None, progress: Progress) -> tuple[list[Reference], Counter[str]]:
    """Series marked as reference; their region maps are the newest of each slice."""
    everything = [info for info in project.series() if info.kind == "original"]
    marked = [info for info in everything if info.is_reference]
    if everything and not marked:
        raise TrainingError(
            "The project has images, but none is marked as reference",
            "Mark series at full dose or full resolution as Reference in the library",
        )
    notes: Counter[str] = Counter()
    entries: list[Reference] = []
    progress.start(len(marked), "series", "reading references")
    for info in marked:
        progress.step()
        if modality is not None and info.modality not in (None, modality):
            notes["are of another modality"] += 1
            continue
        scan = project.scan(info.series_id)
        values = values_of(scan)
        why = no_reference("", values)
        if why:
            notes[why] += 1
            continue
        load = _loader(project.path, info.series_id)
        reference = reference_of(scan, values, load, _group_of(info, scan), info.series_id)
        maps = frozenset(entry.slice_index for entry in project.region_maps(info.series_id) if entry.axis == 0)
        entries.append(
            replace(
                reference,
                modality=info.modality or modality,
                region_map=_region_loader(project.path, info.series_id, maps) if maps else None,
                collection="own project",
            )
        )
    return entries, notes


def _group_of(info: SeriesInfo, scan: Scan) -> str:
    return info.group or hashed_patient(scan.source.patient_id or info.series_key or info.series_id)


def _loader(place: Path, series_id: str) -> Callable[[], NDArray[np.float32]]:
    def load() -> NDArray[np.float32]:
        with Project.open(place, mode="read") as project:
            return values_of(project.scan(series_id))

    return load


def _region_loader(place: Path, series_id: str, known: frozenset[int]) -> Callable[[int], NDArray[np.int32] | None]:
    def load(z: int) -> NDArray[np.int32] | None:
        if z not in known:
            return None
        with Project.open(place, mode="read") as project:
            found = project.region_map(series_id, z)
        return None if found is None else found.labels

    return load
