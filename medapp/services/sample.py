"""The built-in sample: phantoms as DICOM series, and small real images that medapp's dependencies carry."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from medapp.progress import Progress
from medapp.requests import ImportResult, SampleRequest
from medapp.scan.phantom_files import write_sample
from medapp.services.import_files import import_paths
from medapp.services.workspace import Workspace

_CARRIED = (
    ("pydicom", "data/test_files/CT_small.dcm"),
    ("skimage", "data/ihc.png"),
    ("skimage", "data/retina.jpg"),
)


def add_sample(request: SampleRequest, workspace: Workspace, progress: Progress) -> ImportResult:
    """Make the sample and import it through the same door as any files."""
    project = workspace.project(request.project)
    with tempfile.TemporaryDirectory(prefix="medapp-sample-") as folder:
        refused = dict(request.refused)
        phantoms = import_paths(project, write_sample(Path(folder)), progress, refused)  # they open first
        carried = import_paths(project, carried_images(), progress, refused)
    return ImportResult(
        series_ids=phantoms.series_ids + carried.series_ids,
        refused=phantoms.refused + carried.refused,
        skipped=phantoms.skipped + carried.skipped,
        already_there=phantoms.already_there + carried.already_there,
    )


def carried_images() -> list[Path]:
    """Real small images inside the installed packages; those that are missing are left out."""
    found = []
    for package, name in _CARRIED:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin).parent / name
        if path.is_file():
            found.append(path)
    return found
