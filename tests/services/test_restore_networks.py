"""Every network that restores serves the same request: slices or volumes, with regions where it needs them."""

from dataclasses import replace

import numpy as np
import pytest

from medapp import paths
from medapp.annotation.edits import AddMatte, Stroke
from medapp.annotation.matte import FULL, Matte
from medapp.jobs.worker import run
from medapp.networks.card import Intake
from medapp.progress import Progress
from medapp.requests import Done, ImportRequest, ModelsRequest, PrepareModelRequest, Refused, RestoreRequest
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import ct_torso
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from tests.networks.toys import CT, TOYS, keep_toy


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def opened(workspace, tmp_path):
    """A project and the series of a small CT phantom in it."""
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    write_series(tmp_path / "ct", ct_torso((3, 50, 66), (20.0, 6.0, 6.0)), "P1")
    result = run(ImportRequest(str(path), (str(tmp_path / "ct"),)), workspace, Progress()).result
    return str(path), result.series_ids[0]


def _toy(name, config=None, **entries):
    return keep_toy(paths.user_models_dir(), name, config, **entries).id


@pytest.mark.parametrize("name", TOYS)
def test_every_network_restores_a_series_and_says_who_made_it(workspace, opened, name):
    project, series = opened
    outcome = run(RestoreRequest(project, series, _toy(name), 1, device="cpu"), workspace, Progress())

    assert isinstance(outcome, Done), outcome
    store = workspace.project(project)
    original, restored = (store.scan(one).values() for one in (series, outcome.result.series_id))
    assert restored.shape == original.shape
    assert np.isfinite(restored).all()
    assert np.abs(restored - original).max() > 0.01
    info = store.series_info(outcome.result.series_id)
    assert info.source_id == series
    assert info.kind == "restored"
    assert info.provenance["model_id"] == f"toy-{name.replace('_', '-')}"
    preview = run(RestoreRequest(project, series, _toy(name), 1, only_first=True, device="cpu"), workspace, Progress())
    np.testing.assert_allclose(np.load(preview.result.preview_path), restored[1], atol=0.02)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("drmc", {"res_num": 1, "n_feats": 16, "dims": 3}),
        ("sgsgan", {"dims": 3, "channels": [4, 8, 8, 8], "style_width": 8}),
    ],
)
def test_volumes_are_restored_as_volumes_and_the_preview_is_the_same(workspace, opened, name, config):
    project, series = opened
    model_id = _toy(name, config, min_side_px=2)
    outcome = run(RestoreRequest(project, series, model_id, 1, device="cpu"), workspace, Progress())
    assert isinstance(outcome, Done), outcome
    restored = workspace.project(project).scan(outcome.result.series_id).values()
    assert restored.shape == (3, 50, 66)
    preview = run(RestoreRequest(project, series, model_id, 1, only_first=True, device="cpu"), workspace, Progress())
    np.testing.assert_allclose(np.load(preview.result.preview_path), restored[1], atol=0.02)


def test_a_volume_model_refuses_a_series_with_too_few_slices(workspace, opened):
    project, series = opened
    model_id = _toy("drmc", {"res_num": 1, "n_feats": 16, "dims": 3})
    outcome = run(RestoreRequest(project, series, model_id, device="cpu"), workspace, Progress())
    assert isinstance(outcome, Refused)
    assert "needs at least 8 px and slices a side; this has 3" in outcome.message


def test_tiles_are_told_with_what_they_see_differently(workspace, opened):
    project, series = opened
    request = RestoreRequest(project, series, _toy("restore_rwkv"), device="cpu", tile_px=64, only_first=True)
    report = run(request, workspace, Progress()).result.report
    assert report["tile_px"] == 64
    assert report["per_tile"] == ["WKV decay"]
    whole = run(replace(request, tile_px=0), workspace, Progress()).result.report
    assert "per_tile" not in whole


def test_rat_uses_stored_regions_with_the_accepted_mattes_painted_in(workspace, opened):
    project, series = opened
    request = RestoreRequest(project, series, _toy("rat"), 1, only_first=True, device="cpu")
    before = run(request, workspace, Progress()).result
    with Project.open(paths.Path(project)) as store:
        first = store.region_maps(series)
        assert [(one.slice_index, one.engine, one.mattes) for one in first] == [(1, "region tree", 0)]
        matte = Matte("liver", (3, 50, 66), "Liver")
        store.journal(series, AddMatte(matte))
        disc = np.zeros((1, 50, 66), np.uint16)
        disc[0, 10:30, 20:40] = FULL
        store.journal(series, Stroke(matte.matte_id, (matte.make_patch("alpha", (1, 0, 0), disc),), "Paint"))
    after = run(request, workspace, Progress()).result
    newest = workspace.project(project).region_map(series, 1)
    assert newest.mattes == 1
    assert len(np.unique(newest.labels[10:30, 20:40])) == 1  # the accepted region is one region
    assert np.abs(np.load(before.preview_path) - np.load(after.preview_path)).max() > 1e-3

    whole = run(replace(request, only_first=False), workspace, Progress()).result
    made = workspace.project(project).series_info(whole.series_id).provenance
    assert made["region_engine"] == "region tree"
    assert made["region_maps"]["1"] == newest.region_map_id
    assert set(made["region_maps"]) == {"0", "1", "2"}


def test_whole_body_pet_is_blocked_for_a_model_trained_on_crops_with_the_reason(workspace, opened):
    project, series = opened
    model_id = _toy("drmc", takes=(CT,), extent_mm=100.0)
    rows = run(ModelsRequest(project, series), workspace, Progress()).result
    row = next(row for row in rows if row["id"] == model_id)
    assert row["fit"] == "blocked"
    assert "trained on crops of 100 mm; this scan is 396 mm wide" in row["reason"]


def test_one_model_for_three_modalities_takes_each_in_its_own_range(workspace, opened):
    project, series = opened
    takes = (CT, Intake("MR", "arbitrary", (0.0, 4095.0)), Intake("PT", "SUV", (0.0, 20.0)))
    outcome = run(RestoreRequest(project, series, _toy("amir", takes=takes), device="cpu"), workspace, Progress())
    assert isinstance(outcome, Done)
    assert outcome.result.report["unit"] == "HU"


def test_a_model_that_does_not_restore_is_refused(workspace, opened):
    project, series = opened
    config = {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "embedding": 16, "seed_bins": 4}
    model_id = _toy("pddm", config, serves="depth", channels=3)
    outcome = run(RestoreRequest(project, series, model_id, device="cpu"), workspace, Progress())
    assert isinstance(outcome, Refused)
    assert "restores no scans" in outcome.message
    assert run(PrepareModelRequest(model_id, "cpu"), workspace, Progress()) == Done(None)


def test_what_the_routers_chose_is_told_and_kept_for_each_slice(workspace, opened):
    project, series = opened
    outcome = run(RestoreRequest(project, series, _toy("amir"), device="cpu"), workspace, Progress())
    told = outcome.result.report["routing"]
    assert [choice["kind"] for choice in told] == ["pixels"] * 3 + ["channels"] * 4
    assert all(sum(choice["shares"]) == pytest.approx(1.0, abs=1e-3) for choice in told[:3])
    kept = workspace.project(project).series_info(outcome.result.series_id).provenance["routing_slices"]
    assert set(kept) == {"0", "1", "2"}

    outcome = run(RestoreRequest(project, series, _toy("drmc"), device="cpu"), workspace, Progress())
    kept = workspace.project(project).series_info(outcome.result.series_id).provenance["routing_slices"]
    assert all(choice["kind"] == "gates" and len(choice["shares"]) == 3 for choice in kept["1"])
    assert kept["0"] != kept["1"]  # gates are per image
