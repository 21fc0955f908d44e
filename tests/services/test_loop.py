"""The services of the loop, in the test's own process, on a small phantom series."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medapp.annotation.region_tree import RegionTree
from medapp.annotation.trimap import trimap_from_mask
from medapp.jobs.worker import run
from medapp.progress import Progress, ProgressEvent
from medapp.requests import (
    Done,
    ImportRequest,
    ModelsRequest,
    RefineRequest,
    Refused,
    RegionTreeRequest,
    RestoreRequest,
    SampleRequest,
    Stopped,
)
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import brain_mr, ct_torso
from medapp.services.workspace import Workspace
from medapp.store.project import Project


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def project(tmp_path):
    """A project with a small CT phantom in it."""
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    write_series(tmp_path / "ct", ct_torso((5, 64, 64), (20.0, 6.0, 6.0)), "P1")
    return path


def ask(workspace, request, events=None, stop_after=None):
    seen: list[ProgressEvent] = []

    def hear(event):
        seen.append(event)
        if events is not None:
            events.append(event)

    stopped = (lambda: sum("slice" in e.detail for e in seen) >= stop_after) if stop_after else None
    return run(request, workspace, Progress(hear, stopped))


def opened(workspace, project, name="ct"):
    outcome = ask(workspace, ImportRequest(str(project), (str(project.parent / name),)))
    assert isinstance(outcome, Done), outcome
    return outcome.result.series_ids[0]


def test_an_imported_series_is_in_the_project_with_its_values_and_a_picture(workspace, project):
    events = []
    outcome = ask(workspace, ImportRequest(str(project), (str(project.parent / "ct"),)), events)

    with Project.open(project, mode="read") as again:
        (info,) = again.series()
        scan = again.scan(info.series_id)
    assert outcome.result.series_ids == (info.series_id,)
    assert (info.modality, info.unit, info.shape) == ("CT", "HU", (5, 64, 64))
    assert info.thumbnail.startswith(b"\x89PNG")
    expected = np.rint(ct_torso((5, 64, 64), (20.0, 6.0, 6.0)).values)
    assert np.array_equal(scan.values(), expected)
    slices = [event.detail["slice"][1] for event in events if "slice" in event.detail]
    assert slices[0] == 2  # the middle one first
    assert sorted(slices) == [0, 1, 2, 3, 4]


def test_the_same_series_is_not_imported_twice_and_sources_may_vanish(workspace, project):
    first = opened(workspace, project)
    again = ask(workspace, ImportRequest(str(project), (str(project.parent / "ct"),)))
    for file in (project.parent / "ct").iterdir():
        file.unlink()

    assert again.result.series_ids == ()
    assert again.result.already_there == (first,)
    with Project.open(project, mode="read") as p:
        assert p.scan(first).values().min() < -900


def test_one_bad_file_does_not_stop_the_others_and_nothing_of_a_patient_is_said(workspace, project):
    bad = project.parent / "ct" / "0003.dcm"
    bad.write_bytes(bad.read_bytes()[:-3000])
    (project.parent / "ct" / "notes.txt").write_text("hello")
    outcome = ask(workspace, ImportRequest(str(project), (str(project.parent / "ct"),)))

    result = outcome.result
    assert result.series_ids
    assert {Path(path).name for path, _, _ in result.refused} >= {"0003.dcm"}
    assert "P1" not in json.dumps([message for _, message, _ in result.refused])


def test_restoring_gives_a_derived_series_slice_on_screen_first(workspace, project):
    series = opened(workspace, project)
    events = []
    outcome = ask(workspace, RestoreRequest(str(project), series, "filter-nlm", first_slice=1), events)

    order = [event.detail["slice"][1] for event in events if "slice" in event.detail]
    assert order == [1, 0, 2, 3, 4]
    with Project.open(project, mode="read") as p:
        info = p.series_info(outcome.result.series_id)
        original, filtered = p.scan(series).values(), p.scan(info.series_id).values()
    assert (info.kind, info.source_id, info.unit) == ("filtered", series, "HU")
    assert info.provenance["model"] == "non-local means"
    assert abs(outcome.result.report["mean_shift"] - (filtered - original).mean()) < 1e-3
    assert not np.array_equal(original, filtered)


def test_strength_zero_is_the_original_bit_for_bit_and_half_lies_between(workspace, project):
    series = opened(workspace, project)

    def restored(strength):
        request = RestoreRequest(str(project), series, "filter-nlm", 2, strength, only_first=True)
        return np.load(ask(workspace, request).result.preview_path)

    with Project.open(project, mode="read") as p:
        original = p.scan(series).slice_values(2)
    nothing, half, full = restored(0.0), restored(0.5), restored(1.0)
    assert np.array_equal(nothing, original)
    assert np.allclose(half, (original + full) / 2, atol=1e-3)


def test_a_cancelled_restoration_leaves_nothing(workspace, project):
    series = opened(workspace, project)
    outcome = ask(workspace, RestoreRequest(str(project), series, "filter-nlm"), stop_after=2)

    assert outcome == Stopped()
    with Project.open(project, mode="read") as p:
        assert [info.series_id for info in p.series()] == [series]
    assert not list((project / "voxels").glob("partial-*"))


def test_models_say_how_they_fit_and_why(workspace, project):
    write_series(project.parent / "mr", brain_mr((4, 64, 64), (30.0, 3.5, 3.5)), "P2")
    ct, mr = opened(workspace, project), opened(workspace, project, "mr")

    for series in (ct, mr):
        rows = ask(workspace, ModelsRequest(str(project), series)).result
        nlm = next(row for row in rows if row["id"] == "filter-nlm")
        assert nlm["fit"] == "green"
        assert all(row["fit"] in ("green", "amber", "blocked") and row["reason"] for row in rows if row["fit"])
    listed = ask(workspace, ModelsRequest(str(project), mr)).result
    networks = [row for row in listed if [intake["modality"] for intake in row["takes"]] == ["CT"]]
    assert all(row["fit"] == "blocked" and "CT" in row["reason"] for row in networks)


def test_a_model_that_does_not_exist_is_refused_in_one_line(workspace, project):
    series = opened(workspace, project)
    outcome = ask(workspace, RestoreRequest(str(project), series, "no-such-model"))

    assert isinstance(outcome, Refused)
    assert "no-such-model" in outcome.message
    assert "\n" not in outcome.message


def test_a_click_becomes_a_region_and_the_region_a_soft_matte(workspace, project):
    series = opened(workspace, project)
    tree_path = ask(workspace, RegionTreeRequest(str(project), series, 2, 0, 40.0, 400.0)).result
    again = ask(workspace, RegionTreeRequest(str(project), series, 2, 0, 40.0, 400.0)).result
    tree = RegionTree.from_bytes(Path(tree_path).read_bytes())
    mask = tree.region_at((22, 28))  # in the liver
    trimap = trimap_from_mask(mask, (6.0, 6.0))
    given = project / "cache" / "t.npz"
    np.savez(given, trimap=np.rint(trimap * 255).astype(np.uint8), keep=np.zeros(mask.shape, bool))
    result = ask(workspace, RefineRequest(str(project), series, 2, 0, 40.0, 400.0, str(given), ticket=7)).result
    alpha = np.load(result.path)

    assert tree_path == again
    assert result.ticket == 7
    assert alpha.dtype == np.uint16
    assert (alpha[trimap == 1] == 65535).all()
    assert (alpha[trimap == 0] == 0).all()
    assert ((alpha > 0) & (alpha < 65535)).any()
    assert not given.exists()


@pytest.mark.slow
def test_the_sample_has_three_modalities_and_real_pictures(workspace, project):
    outcome = ask(workspace, SampleRequest(str(project)))

    with Project.open(project, mode="read") as p:
        series = p.series()
    assert isinstance(outcome, Done)
    assert {info.modality for info in series} >= {"CT", "MR", "PT"}
    assert any(info.is_colour for info in series)
