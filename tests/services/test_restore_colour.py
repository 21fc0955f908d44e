"""A colour picture restored onto finer pixels in a project: what lands there, and what comes out."""

import numpy as np
import pytest
from PIL import Image

from medapp import paths
from medapp.jobs.worker import run
from medapp.networks.card import Intake
from medapp.progress import Progress
from medapp.requests import Done, ExportRequest, ImportRequest, ModelsRequest, RestoreRequest
from medapp.scan.finer import FinerGrid
from medapp.scan.reading import read_scan
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from medapp.ui.panels.restore import report_text
from tests.networks.toys import TOYS, keep_toy

SLIDE = Intake("SM", "colour", (0.0, 255.0))


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def opened(workspace, tmp_path):
    """A project and a small picture in it, half of it transparent."""
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 36, 4), np.uint8)
    pixels[..., 3] = np.where(np.arange(36) < 18, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "slide7.png")
    result = run(ImportRequest(str(path), (str(tmp_path / "slide7.png"),)), workspace, Progress()).result
    return str(path), result.series_ids[0]


def _model(scale=2):
    config = {**TOYS["rat"], "img_channel": 3, "scale": scale}
    return keep_toy(paths.user_models_dir(), "rat", config, takes=(SLIDE,), channels=3, scale=scale).id


def _ask(workspace, opened, **entries):
    outcome = run(RestoreRequest(*opened, _model(), device="cpu", **entries), workspace, Progress())
    assert isinstance(outcome, Done), outcome
    return outcome.result


def test_a_picture_smaller_than_a_tile_becomes_a_finer_derived_series_in_its_own_colours(workspace, opened):
    done = _ask(workspace, opened)
    store = workspace.project(opened[0])
    made, info = store.scan(done.series_id), store.series_info(done.series_id)

    assert made.shape == (1, 40, 72, 3)
    assert made.stored.dtype == np.uint8
    assert info.title == "RESTORED · Toy RAT 1"
    assert info.provenance["grid"] == {"factor": 2, "keeps_centres": False}
    before = FinerGrid(2, keeps_centres=False).linear(store.scan(opened[1]).slice_values(0))
    change = np.abs(made.slice_values(0) - before)
    assert 0.5 < change.mean() < 60  # random weights change it, and what came out is still the picture


def test_transparency_stays_a_matte_of_the_source_and_colours_behind_it_are_restored_like_others(workspace, opened):
    done = _ask(workspace, opened)
    store = workspace.project(opened[0])
    assert store.scan(opened[1]).alpha is not None
    assert store.scan(done.series_id).alpha is None
    made = store.scan(done.series_id).slice_values(0)
    assert made[:, 40:].std() > 10
    assert "Transparency took no part" in report_text(done.report)
    assert "grey levels" in report_text(done.report)
    assert "light of the picture kept" in report_text(done.report)


def test_the_preview_is_the_run_and_a_trust_map_comes_with_it(workspace, opened):
    done = _ask(workspace, opened, trust=True)
    store = workspace.project(opened[0])
    spread = store.scan(done.trust_series_id)
    assert spread.shape == (1, 40, 72)
    assert float(spread.stored.max()) > 0
    preview = _ask(workspace, opened, only_first=True)
    np.testing.assert_array_equal(np.load(preview.preview_path), store.scan(done.series_id).slice_values(0))


def test_tiles_are_told_from_the_whole_and_lie_near_it(workspace, tmp_path):
    path = tmp_path / "large.medapp"
    Project.create(path).close()
    y, x = np.mgrid[:80, :150]
    waves = np.stack([128 + 90 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)], axis=-1)
    Image.fromarray(waves.astype(np.uint8)).save(tmp_path / "wide.png")
    result = run(ImportRequest(str(path), (str(tmp_path / "wide.png"),)), workspace, Progress()).result
    opened = str(path), result.series_ids[0]
    whole, tiled = _ask(workspace, opened), _ask(workspace, opened, tile_px=64)

    assert tiled.report["tile_px"] == 64
    assert tiled.report["per_tile"] == ["region map"]
    assert "per_tile" not in whole.report
    store = workspace.project(str(path))
    one, other = (store.scan(each.series_id).slice_values(0).astype(int) for each in (whole, tiled))
    assert one.shape == other.shape
    assert np.abs(one - other).mean() < 15  # of random weights; a tile in the wrong place would be 60 off


def test_a_restored_picture_is_exported_as_what_it_is(workspace, opened, tmp_path):
    done = _ask(workspace, opened)
    request = ExportRequest(opened[0], (done.series_id,), str(tmp_path / "out"), formats=("png",))
    outcome = run(request, workspace, Progress())
    assert isinstance(outcome, Done), outcome
    made = workspace.project(opened[0]).scan(done.series_id).slice_values(0)
    again = [read_scan(file).slice_values(0) for file in (tmp_path / "out").rglob("*.png")]
    assert any(np.array_equal(one, made) for one in again)
    assert "restored" in (tmp_path / "out" / "manifest.json").read_text()


def test_models_for_slides_say_that_a_picture_does_not_tell_what_it_is(workspace, opened):
    _model()
    found = run(ModelsRequest(*opened), workspace, Progress()).result
    (slides,) = [one for one in found if one["id"] == "toy-rat"]
    assert (slides["fit"], slides["reason"]) == ("amber", "made for slides (SM); this picture does not say what it is")
