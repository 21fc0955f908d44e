"""Projects with corrected cases: bright blobs on a textured ground whose mattes are known."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medapp.annotation.edits import AddMatte, Stroke
from medapp.annotation.matte import to_stored
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan, Window
from medapp.store.project import Project

SIDE = 48


def blob(seed: int, side: int = SIDE):
    """A picture ``(H, W)`` in HU and the alpha of the blob in it."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    middle, radius = side / 2 + random.uniform(-4, 4, 2), random.uniform(0.16, 0.24) * side
    distance = np.hypot(rows - middle[0], columns - middle[1])
    alpha = np.clip((radius - distance) / 3 + 0.5, 0, 1).astype(np.float32)
    ground = ndimage.gaussian_filter(random.standard_normal((side, side)), 2) * 60
    return (-50 + ground + 150 * alpha).astype(np.float32), alpha


def add_case(project: Project, seed: int, group: str, readers=("Ann",), unit="HU", state="done", slices=1, side=SIDE):
    """A series with one matte a reader; its id."""
    pairs = [blob(100 * seed + z, side) for z in range(slices)]
    scan = Scan(
        np.stack([np.rint(values) for values, _ in pairs]).astype(np.int16),
        Geometry.from_spacing((5.0, 1.0, 1.0)),
        "CT",
        unit,
        windows=(Window(40, 400, "soft tissue"),),
        series_key=f"key-{seed}",
    )
    series_id = project.add_series(scan, title=f"Blob {seed}", group=group)
    annotation = project.annotation(series_id)
    for number, reader in enumerate(readers):
        matte = annotation.new_matte("Blob", reader=reader)
        for edit in (AddMatte(matte),):
            edit.apply(annotation)
            project.journal(series_id, edit)
        for z, (_, alpha) in enumerate(pairs):
            stored = to_stored(np.roll(alpha, number, axis=1))
            patch = annotation.matte(matte.matte_id).make_patch("alpha", (z, 0, 0), stored[None])
            edit = Stroke(matte.matte_id, (patch,), "Accept α from Toy matting 1, seed 5" if z == 0 else "Brush stroke")
            edit.apply(annotation)
            project.journal(series_id, edit)
    project.set_series(series_id, state=state)
    return series_id


def add_reference(project: Project, seed: int, group: str, unit="HU", slices=2, side=64, modality="CT"):
    """A series marked as reference, without mattes; its id."""
    voxels = np.stack([np.rint(blob(100 * seed + z, side)[0]) for z in range(slices)]).astype(np.int16)
    scan = Scan(voxels, Geometry.from_spacing((5.0, 1.0, 1.0)), modality, unit, series_key=f"reference-{seed}")
    series_id = project.add_series(scan, title=f"Reference {seed}", group=group)
    project.set_reference(series_id, True)
    return series_id
