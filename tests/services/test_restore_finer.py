"""A series restored onto a finer grid or with a trust map: what lands in the project, and what a person can check."""

from dataclasses import replace

import numpy as np
import pytest

from medapp import paths
from medapp.jobs.worker import run
from medapp.networks.card import MR_SUPER_RESOLUTION, Intake
from medapp.progress import Progress
from medapp.requests import Done, ExportRequest, ImportRequest, ModelsRequest, Refused, RestoreRequest, Stopped
from medapp.restoration.kspace import onto_finer_grid, zero_filled
from medapp.scan.finer import FinerGrid
from medapp.scan.geometry import Geometry
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import brain_mr
from medapp.scan.reading import read_scan
from medapp.scan.scan import Scan
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from tests.networks.toys import CT, TOYS, keep_toy

MR = Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles")
SHAPE = (3, 36, 44)


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def opened(workspace, tmp_path):
    """A project and a small MR series in it, a little of it padding."""
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    voxels = np.random.default_rng(0).gamma(2.0, 100.0, SHAPE).astype(np.float32)
    padding = np.zeros(SHAPE, bool)
    padding[0, :2] = True
    geometry = Geometry.from_spacing((4.0, 2.0, 1.5), (7.0, -3.0, 11.0))
    scan = Scan(voxels, geometry, "MR", padding=padding)
    return str(path), workspace.project(str(path)).add_series(scan)


def _toy(name="restore_rwkv", config=None, **entries):
    return keep_toy(paths.user_models_dir(), name, config, **entries).id


def _finer_toy(scale=2):
    return _toy(takes=(MR,), task=MR_SUPER_RESOLUTION, scale=scale)


def _ask(workspace, opened, model_id, events=None, **entries):
    project, series = opened
    progress = Progress(events.append if events is not None else None)
    return run(RestoreRequest(project, series, model_id, 1, device="cpu", **entries), workspace, progress)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_finer_series_lies_where_its_source_lies_and_keeps_what_was_measured(workspace, opened, scale):
    events = []
    outcome = _ask(workspace, opened, _finer_toy(scale), events)
    assert isinstance(outcome, Done), outcome
    store = workspace.project(opened[0])
    source, made = store.scan(opened[1]), store.scan(outcome.result.series_id)

    assert made.shape == (3, 36 * scale, 44 * scale)
    assert made.spacing_mm == pytest.approx((4.0, 2.0 / scale, 1.5 / scale))
    for index in ((0, 0, 0), (2, 20, 30)):
        there = FinerGrid(scale).index(index)
        np.testing.assert_allclose(made.geometry.to_mm(np.array(there)), source.geometry.to_mm(np.array(index)))
    assert made.padding.shape == made.shape
    before = onto_finer_grid(source.slice_values(1), scale)
    after = made.slice_values(1)
    np.testing.assert_allclose(zero_filled(after, scale), zero_filled(before, scale), atol=1e-5 * before.max())
    assert np.abs(after - before).max() > 1e-3 * before.std()
    (found,) = [event.detail for event in events if "series" in event.detail]
    assert found["series"].shape == made.shape
    assert found["grid"] == (scale, True)


def test_the_preview_is_the_slice_of_the_run(workspace, opened):
    model_id = _finer_toy()
    done = _ask(workspace, opened, model_id).result
    preview = _ask(workspace, opened, model_id, only_first=True).result
    made = workspace.project(opened[0]).scan(done.series_id).slice_values(1)
    np.testing.assert_allclose(np.load(preview.preview_path), made, rtol=1e-5)
    assert preview.report["grid"] == {"factor": 2, "keeps_centres": True}


@pytest.mark.parametrize("keeps", [True, False])
def test_report_and_provenance_say_whether_measured_frequencies_were_kept(workspace, opened, keeps):
    done = _ask(workspace, opened, _finer_toy(), keep_measured=keeps).result
    assert done.report["keeps_measured"] is keeps
    info = workspace.project(opened[0]).series_info(done.series_id)
    assert info.provenance["keeps_measured"] is keeps
    assert info.provenance["grid"]["factor"] == 2


def test_padding_stays_padding_on_the_finer_grid(workspace, opened):
    done = _ask(workspace, opened, _finer_toy()).result
    store = workspace.project(opened[0])
    source, made = store.scan(opened[1]), store.scan(done.series_id)
    where = made.padding[0]
    np.testing.assert_array_equal(where, FinerGrid(2).nearest(source.padding[0]))
    np.testing.assert_array_equal(made.slice_values(0)[where], FinerGrid(2).nearest(source.slice_values(0))[where])


def test_a_network_that_enlarges_restores_within_finer_regions(workspace, opened):
    config = {**TOYS["rat"], "scale": 2}
    done = _ask(workspace, opened, _toy("rat", config, takes=(MR,), scale=2))
    assert isinstance(done, Done), done
    made = workspace.project(opened[0]).scan(done.result.series_id)
    assert made.shape == (3, 72, 88)
    corner = np.array((0.0, -0.5, -0.5))
    source = workspace.project(opened[0]).scan(opened[1])
    np.testing.assert_allclose(made.geometry.to_mm(corner), source.geometry.to_mm(corner))
    assert "keeps_measured" not in done.result.report


def test_a_finer_series_is_exported_with_its_own_geometry(workspace, tmp_path):
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    write_series(tmp_path / "mr", brain_mr((3, 28, 32), (5.0, 8.0, 7.0)), "P1")
    series = run(ImportRequest(str(path), (str(tmp_path / "mr"),)), workspace, Progress()).result.series_ids[0]
    done = _ask(workspace, (str(path), series), _finer_toy(), trust=True).result
    made = workspace.project(str(path)).scan(done.series_id)

    out = tmp_path / "out"
    request = ExportRequest(str(path), (done.series_id, done.trust_series_id), str(out), formats=("derived",))
    outcome = run(request, workspace, Progress())
    assert isinstance(outcome, Done), outcome
    (folder,) = out.rglob("derived")  # of the restoration only
    again = read_scan(folder)
    assert again.shape == made.shape
    assert again.geometry.is_close(made.geometry)
    spread = float(np.ptp(made.stored))
    np.testing.assert_allclose(again.values(), made.values(), atol=spread / 65000)
    assert any("no image of the patient" in problem for problem in outcome.result.problems)
    assert not any("another grid" in problem for problem in outcome.result.problems)


@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_a_trust_map_lands_beside_its_restoration(workspace, opened, strength):
    events = []
    model_id = _finer_toy()
    outcome = _ask(workspace, opened, model_id, events, trust=True, strength=strength)
    assert isinstance(outcome, Done), outcome
    store, done = workspace.project(opened[0]), outcome.result
    made, trust = (store.series_info(one) for one in (done.series_id, done.trust_series_id))
    assert (made.kind, trust.kind) == ("restored", "trust")
    assert made.source_id == trust.source_id == opened[1]
    assert made.provenance["pair"] == trust.provenance["pair"]
    assert trust.shape == made.shape
    assert trust.geometry.is_close(made.geometry)
    spread = store.scan(trust.series_id).values()
    assert np.isfinite(spread).all()
    assert (spread.max() > 0) == (strength > 0)
    assert "not a guarantee" in trust.notes[0]
    assert done.report["trust"]["answers"] == 8
    counts = [event.done for event in events if event.unit == "answers"]
    assert counts == sorted(counts)
    assert counts[-1] == 24

    plain = _ask(workspace, opened, model_id, strength=strength).result
    np.testing.assert_array_equal(store.scan(plain.series_id).values(), store.scan(made.series_id).values())
    assert plain.trust_series_id == ""


def test_the_trust_map_of_a_preview_is_that_of_the_run(workspace, opened):
    done = _ask(workspace, opened, "filter-nlm", trust=True).result
    preview = _ask(workspace, opened, "filter-nlm", trust=True, only_first=True).result
    spread = workspace.project(opened[0]).scan(done.trust_series_id).slice_values(1)
    np.testing.assert_allclose(np.load(preview.trust_path), spread, rtol=1e-5)


def test_volumes_have_a_trust_map(workspace, opened):
    model_id = _toy("drmc", {"res_num": 1, "n_feats": 16, "dims": 3}, min_side_px=2, takes=(MR,))
    done = _ask(workspace, opened, model_id, trust=True)
    assert isinstance(done, Done), done
    store = workspace.project(opened[0])
    spread = store.scan(done.result.trust_series_id).values()
    assert spread.shape == SHAPE
    assert spread.max() > 0
    preview = _ask(workspace, opened, model_id, trust=True, only_first=True).result
    np.testing.assert_allclose(np.load(preview.trust_path), spread[1], atol=1e-3 * spread.max() + 1e-6)


@pytest.mark.parametrize("answers", [0, 3, 8, 20])
def test_a_run_that_is_stopped_leaves_nothing(workspace, opened, answers):
    project, series = opened
    seen = []
    progress = Progress(lambda event: seen.append(event.done), lambda: bool(seen) and seen[-1] >= answers)
    request = RestoreRequest(project, series, _finer_toy(), 1, device="cpu", trust=True)
    assert isinstance(run(request, workspace, progress), Stopped)
    assert len(workspace.project(project).series()) == 1
    assert not list(workspace.project(project).path.rglob("partial-*"))


def test_a_slice_that_is_too_small_is_refused_with_a_reason(workspace, tmp_path):
    path = tmp_path / "small.medapp"
    Project.create(path).close()
    scan = Scan(np.zeros((1, 10, 40), np.float32), None, "MR")
    series = workspace.project(str(path)).add_series(scan)
    outcome = _ask(workspace, (str(path), series), _finer_toy())
    assert isinstance(outcome, Refused)
    assert "at least 16 px" in outcome.message


def test_a_model_for_another_modality_stays_blocked(workspace, opened):
    outcome = _ask(workspace, opened, _toy(takes=(CT,)), trust=True)
    assert isinstance(outcome, Refused)


def test_a_model_of_several_kinds_makes_a_finer_series_of_the_kind_that_it_says(workspace, opened):
    model_id = _toy("amir", takes=(CT, replace(MR, scale=4)), task="all-in-one")
    project = workspace.project(opened[0])
    hounsfield = Scan(np.zeros(SHAPE, np.float32), Geometry.from_spacing((4.0, 2.0, 1.5)), "CT", "HU")
    ct = (opened[0], project.add_series(hounsfield))

    for series, factor in ((opened, 4), (ct, 1)):
        listed = run(ModelsRequest(*series), workspace, Progress()).result
        row = next(row for row in listed if row["id"] == model_id)
        assert (row["scale"], row["fills_kspace"]) == (factor, factor > 1)
        outcome = _ask(workspace, series, model_id)
        assert isinstance(outcome, Done), outcome
        made = project.scan(outcome.result.series_id)
        assert made.shape == (3, 36 * factor, 44 * factor)
        assert made.modality == project.scan(series[1]).modality
