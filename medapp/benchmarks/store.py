"""``medapp bench store``: how long a stroke takes to be durable, and a project to open; beside plain files."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import BrushSettings, StrokeBuilder
from medapp.annotation.edits import AddMatte, Edit
from medapp.benchmarks.timing import row, times_ms
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan
from medapp.store.journal import JournalWriter
from medapp.store.project import Project

SHAPE = (300, 512, 512)
STROKES = 100


def run() -> list[dict[str, Any]]:
    """Rows of wall milliseconds on a project with a 300-slice CT."""
    with tempfile.TemporaryDirectory(prefix="medapp-bench-") as name:
        folder = Path(name)
        project = Project.create(folder / "bench", reader="bench")
        voxels = np.zeros(SHAPE, np.int16)
        series_id = project.add_series(Scan(voxels, Geometry.from_spacing((1.0, 0.7, 0.7)), "CT", "HU"))
        annotation = project.annotation(series_id)
        first = AddMatte(annotation.new_matte())
        first.apply(annotation)
        project.journal(series_id, first)

        submit, durable = _journal(project, series_id, annotation)
        files = times_ms(lambda: _plain_file(folder, annotation), 30)
        rows = [
            row("stroke handed to the journal (window thread)", submit, "", []),
            row("stroke until durable", durable, "whole slice to a file, fsync, rename", files),
        ]
        _paint_everywhere(project, series_id, annotation)
        rows.append(row("save revision, 300 slices", times_ms(lambda: project.save_revision(series_id), 5), "", []))
        edit = _stroke(annotation, 150, 3)
        edit.apply(annotation)
        project.journal(series_id, edit)
        changed = times_ms(lambda: project.save_revision(series_id), 3)
        rows.append(row("save revision, one slice changed", changed, "", []))
        rows.append(row("load annotation, 300 slices", times_ms(lambda: project.annotation(series_id), 5), "", []))
        rows.append(row("restore undo history", times_ms(project.history, 5), "", []))
        project.close()
        rows.append(row("open and close the project", times_ms(lambda: Project.open(project.path).close(), 5), "", []))
        rows.append(row("copy a 300-slice series in, hashed", times_ms(lambda: _add(project.path, voxels), 2), "", []))
    return rows


def _stroke(annotation: Annotation, z: int, n: int) -> Edit:
    builder = StrokeBuilder(annotation.mattes[0], BrushSettings(radius_px=20, value=1 - n % 2 / 3), z)
    builder.add_point((100 + n % 50, 100))
    builder.add_point((300, 100 + n * 3 % 300))
    edit = builder.finish_edit()
    assert edit is not None
    return edit


def _journal(project: Project, series_id: str, annotation: Annotation) -> tuple[list[float], list[float]]:
    saved = threading.Event()
    writer = JournalWriter(project, lambda number, count: saved.set())
    submit, durable = [], []
    for n in range(STROKES):
        edit = _stroke(annotation, n, 1 + n % 2)
        edit.apply(annotation)
        saved.clear()
        since = time.perf_counter()
        writer.submit(series_id, edit, view_state={"slice": n})
        submit.append((time.perf_counter() - since) * 1000)
        saved.wait(10)
        durable.append((time.perf_counter() - since) * 1000)
    writer.close()
    return submit, durable


def _plain_file(folder: Path, annotation: Annotation) -> None:
    beside = folder / "slice.tmp"
    with beside.open("wb") as file:
        file.write(annotation.mattes[0].slice_stored(10).tobytes())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / "slice.raw")


def _paint_everywhere(project: Project, series_id: str, annotation: Annotation) -> None:
    yy, xx = np.mgrid[: SHAPE[1], : SHAPE[2]]
    disc = np.clip(0.5 + (120 - np.hypot(yy - 256, xx - 256)) / 8, 0, 1)
    matte = annotation.new_matte()
    for z in range(SHAPE[0]):
        patch = matte.make_patch("alpha", (z, 0, 0), np.roll(disc, z, axis=1)[None])
        if patch is not None:
            matte.paste(patch)
    edit = AddMatte(matte)
    edit.apply(annotation)
    project.journal(series_id, edit)


def _add(path: Path, voxels: np.ndarray) -> None:
    with Project.open(path) as project:
        project.add_series(Scan(voxels, None, "CT", "HU", kind="stack"))
