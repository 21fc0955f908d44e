"""The regions of a slice as a person meets them: engine, accepted mattes over it, stored, reused, out of date."""

from __future__ import annotations

import numpy as np
import pytest

from medapp.annotation.edits import AddMatte, Stroke
from medapp.annotation.matte import Matte
from medapp.errors import Cancelled
from medapp.jobs.worker import run
from medapp.progress import Progress
from medapp.requests import Done, Refused, RegionMapRequest, Stopped
from medapp.scan.geometry import Geometry
from medapp.scan.phantoms import ct_torso
from medapp.scan.scan import Scan, Window
from medapp.services.region_maps import region_map_for
from medapp.services.workspace import Workspace
from medapp.store.project import Project

WINDOW = Window(40.0, 400.0)
SHAPE = (3, 72, 64)


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p") as made:
        phantom = ct_torso(SHAPE, (20.0, 6.0, 6.0))
        made.add_series(
            Scan(np.asarray(phantom.values, dtype=np.float32), Geometry.from_spacing(phantom.spacing_mm), "CT", "HU")
        )
        yield made


def series_of(project):
    return project.series()[0].series_id


def paint(project, z, rows, columns, alpha=1.0, name="m"):
    """A person accepts a matte; the window journals it."""
    series_id = series_of(project)
    annotation = project.annotation(series_id)
    matte = Matte(f"{name}-{len(annotation)}", SHAPE)
    project.journal(series_id, AddMatte(matte, len(annotation)))
    values = np.zeros((1, *SHAPE[1:]), dtype=np.float32)
    values[0, rows, columns] = alpha
    patch = matte.make_patch("alpha", (z, 0, 0), values)
    project.journal(series_id, Stroke(matte.matte_id, (patch,)))


def find(project, workspace, progress=None, **changes):
    asked = {"slice_index": 1, "axis": 0, "window_center": 40.0, "window_width": 400.0} | changes
    request = RegionMapRequest(str(project.path), series_of(project), **asked)
    return run(request, workspace, progress or Progress())


def done(outcome):
    assert isinstance(outcome, Done), outcome
    return outcome.result


def test_the_tree_s_regions_are_stored_with_accepted_mattes_over_them(project, workspace):
    paint(project, 1, slice(10, 40), slice(10, 40))
    paint(project, 1, slice(20, 30), slice(20, 30), alpha=0.6)
    paint(project, 1, slice(50, 60), slice(5, 9), alpha=0.4)  # below one half: not accepted
    paint(project, 2, slice(0, 9), slice(0, 9))  # of another slice
    result = done(find(project, workspace))

    stored = project.region_map(series_of(project), 1)
    assert (stored.region_map_id, stored.engine, stored.mattes) == (result.region_map_id, "region tree", 2)
    assert (result.mattes, result.regions) == (2, stored.regions)
    inner, outer = stored.labels[25, 25], stored.labels[12, 12]
    assert (stored.labels[20:30, 20:30] == inner).all()
    assert np.count_nonzero(stored.labels == inner) == 100
    assert np.count_nonzero(stored.labels == outer) == 800
    assert stored.settings["window"] == [40.0, 400.0]
    assert stored.journal_seq > 0
    assert len(np.unique(stored.labels)) > 5


@pytest.mark.parametrize(("axis", "shape"), [(1, (3, 64)), (2, (3, 72))])
def test_other_planes_have_maps_of_their_own(project, workspace, axis, shape):
    done(find(project, workspace, axis=axis))
    assert project.region_map(series_of(project), 1, axis).labels.shape == shape
    assert project.region_map(series_of(project), 1) is None


def test_restoring_takes_the_map_a_person_has_seen_until_the_mattes_change(project, workspace):
    worker = workspace.project(str(project.path))
    ask = (workspace, worker, series_of(project), 1, "", Window(0.0, 2000.0), Progress())
    seen = done(find(project, workspace))
    assert region_map_for(*ask).region_map_id == seen.region_map_id  # although the window is another one by now

    paint(project, 2, slice(0, 9), slice(0, 9))
    assert region_map_for(*ask).region_map_id == seen.region_map_id  # a stroke on another slice changes nothing

    paint(project, 1, slice(10, 40), slice(10, 40))
    fresh = region_map_for(*ask)
    assert fresh.region_map_id > seen.region_map_id
    assert fresh.mattes == 1
    assert len(set(fresh.labels[10:40, 10:40].ravel())) == 1
    assert region_map_for(*ask).region_map_id == fresh.region_map_id
    assert len(project.region_maps(series_of(project))) == 2  # both stay


def test_a_derived_series_gets_the_mattes_of_its_original(project, workspace):
    source = series_of(project)
    paint(project, 1, slice(10, 40), slice(10, 40))
    derived = project.add_derived(source, project.scan(source).stored * 0.5, {})
    worker = workspace.project(str(project.path))
    made = region_map_for(workspace, worker, derived, 1, "", WINDOW, Progress())
    assert (made.series_id, made.mattes) == (derived, 1)


def test_a_new_map_within_a_restoration_leaves_its_count_alone_and_notices_stop(project, workspace):
    events = []
    progress = Progress(events.append)
    progress.start(3, "slices")
    worker = workspace.project(str(project.path))
    region_map_for(workspace, worker, series_of(project), 0, "", WINDOW, progress)
    assert (progress.done, progress.total, progress.unit) == (0, 3, "slices")
    assert any("Regions of slice 1" in event.note for event in events)

    stopping = Progress(is_stopped=lambda: True)
    with pytest.raises(Cancelled):
        region_map_for(workspace, worker, series_of(project), 2, "", WINDOW, stopping)
    assert project.region_map(series_of(project), 2) is None


def test_cancelling_stores_nothing(project, workspace):
    asked = []

    def is_stopped():
        asked.append(1)
        return len(asked) > 2

    assert isinstance(find(project, workspace, Progress(is_stopped=is_stopped)), Stopped)
    assert project.region_maps(series_of(project)) == ()


@pytest.mark.parametrize("changes", [{"slice_index": 3}, {"model_id": "sam-none"}, {"axis": 2, "slice_index": 64}])
def test_what_is_not_there_is_one_line_and_a_hint(project, workspace, changes):
    outcome = find(project, workspace, **changes)
    assert isinstance(outcome, Refused)
    assert outcome.message
    assert outcome.hint
