"""Which model is offered first for a scan."""

from __future__ import annotations

import numpy as np
import pytest

from medapp.progress import Progress
from medapp.requests import ModelsRequest
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan
from medapp.services.models import list_models
from medapp.services.workspace import Workspace
from medapp.store.project import Project


@pytest.mark.parametrize(
    ("modality", "unit", "spacing_mm", "task"),
    [
        ("CT", "HU", 0.8, "ct-denoise"),
        ("MR", "arbitrary", 1.5, "mr-super-resolution"),
        ("PT", "SUV", 4.7, "pet-synthesis"),
    ],
)
def test_a_model_made_for_this_kind_of_scan_alone_is_offered_before_one_for_several(
    tmp_path, modality, unit, spacing_mm, task
):
    values = np.random.default_rng(0).gamma(2.0, 2.0, (2, 48, 56)).astype(np.float32)
    with Project.create(tmp_path / "p") as project:
        scan = Scan(values, Geometry.from_spacing((4.0, spacing_mm, spacing_mm)), modality, unit)
        series_id = project.add_series(scan)
    workspace = Workspace()
    try:
        request = ModelsRequest(str(tmp_path / "p.medapp"), series_id)
        rows = [row for row in list_models(request, workspace, Progress()) if row["fit"] != "blocked"]
    finally:
        workspace.close()

    networks = [row for row in rows if row["serves"] == "restoration" and row["kind"] != "filtered"]
    assert networks[0]["task"] == task
    assert {"all-in-one-amir", "all-in-one-rwkv"} <= {row["id"] for row in networks}
    assert all(row["fit"] for row in networks)
