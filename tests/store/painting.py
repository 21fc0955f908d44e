"""A small project and a person who paints in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import BrushSettings, StrokeBuilder
from medapp.annotation.edits import AddMatte, Edit
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan, SourceInfo, Window
from medapp.store.project import Project

SHAPE = (4, 40, 50)


def make_scan(shape: tuple[int, ...] = SHAPE, **changes) -> Scan:
    voxels = (np.arange(int(np.prod(shape))) % 4093).astype(np.int16).reshape(shape)
    facts = {
        "stored": voxels,
        "geometry": Geometry.from_spacing((3.0, 1.0, 1.0)),
        "modality": "CT",
        "unit": "HU",
        "windows": (Window(40, 400, "soft tissue"),),
        "notes": ("made for a test",),
        "series_key": "key-1",
        "source": SourceInfo(
            path="/somewhere",
            format="dicom",
            patient_id="PID-4711",
            patient_name="Doe^Jane",
            headers=(b"header 0", b"header 1"),
            frames=(("1.2.3", 1), ("1.2.4", 1)),
        ),
    }
    return Scan(**{**facts, **changes})


def make_project(folder: Path, name: str = "work") -> tuple[Project, str]:
    project = Project.create(folder / name, reader="Ann")
    return project, project.add_series(make_scan(), title="Abdomen")


def add_matte(annotation: Annotation, name: str = "Liver") -> AddMatte:
    return AddMatte(annotation.new_matte(name, reader="Ann"))


def stroke(annotation: Annotation, matte_id: str, z: int, x: float = 10, y: float = 10, **brush) -> Edit:
    settings = {"radius_px": 4.0, "hardness": 0.3, "flow": 0.7, **brush}
    builder = StrokeBuilder(annotation.matte(matte_id), BrushSettings(**settings), z)
    builder.add_point((x, y))
    builder.add_point((x + 12, y + 5))
    edit = builder.finish_edit()
    assert edit is not None
    return edit


def crash(project: Project) -> None:
    """Let go of the files as a killed process does: nothing is marked, nothing is tidied."""
    project._database.close()
    assert project._lock is not None
    project._lock.release()
    project._is_closed = True
