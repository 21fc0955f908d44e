"""Depth completion as a service and a command: a frame in a project, a depth file, derived series, files."""

import json

import numpy as np
import pytest
from PIL import Image

from medapp import paths
from medapp.cli.main import main
from medapp.jobs.worker import run
from medapp.networks.architectures.pddm import PDDM
from medapp.networks.checkpoint import keep_weights
from medapp.progress import Progress
from medapp.requests import (
    DepthExportRequest,
    DepthFileRequest,
    DepthRequest,
    Done,
    ImportRequest,
    ModelsRequest,
    Refused,
)
from medapp.scan.depth import read_depth
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from tests.depth.test_completing import TOY, toy_card

SIZE = (36, 52)


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def frame(tmp_path):
    """A colour frame and its sparse depth file (0.02 mm a step) on disk."""
    random = np.random.default_rng(3)
    Image.fromarray(random.integers(0, 255, (*SIZE, 3)).astype(np.uint8)).save(tmp_path / "frame.png")
    sparse = np.zeros(SIZE, dtype=np.uint16)
    sparse[::9, ::11] = random.integers(1000, 3000, sparse[::9, ::11].shape)
    Image.fromarray(sparse).save(tmp_path / "sparse.png")
    return tmp_path / "frame.png", tmp_path / "sparse.png", sparse * 0.02


@pytest.fixture
def opened(workspace, tmp_path, frame):
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    result = run(ImportRequest(str(path), (str(frame[0]),)), workspace, Progress()).result
    return str(path), result.series_ids[0]


@pytest.fixture
def model():
    return keep_weights(PDDM(**TOY).state_dict(), toy_card(), paths.user_models_dir()).id


def test_file_and_points_become_two_derived_series_with_their_story(workspace, opened, frame, model):
    project, series = opened
    read = run(DepthFileRequest(project, str(frame[1]), "unit=mm,scale=0.02"), workspace, Progress()).result
    assert read.size == SIZE
    assert read.points == int((frame[2] > 0).sum())
    camera = {"fx": 40.0, "fy": 40.0, "cx": 25.5, "cy": 17.5, "width": 52, "height": 36, "name": "given"}
    points = ((5.0, 6.0, 31.5),)

    outcome = run(
        DepthRequest(project, series, 0, model, points, read.path, read.record, camera, keep_points=True),
        workspace,
        Progress(),
    )

    assert isinstance(outcome, Done), outcome
    made, store = outcome.result, workspace.project(project)
    depth, sigma = store.scan(made.series_id), store.scan(made.sigma_series_id)
    assert depth.shape == sigma.shape == (1, *SIZE)
    assert (depth.unit, sigma.unit) == ("mm", "mm")
    assert depth.values()[0, 6, 5] == np.float32(31.5)
    known = frame[2] > 0
    np.testing.assert_allclose(depth.values()[0][known], frame[2][known], rtol=1e-5)
    info = store.series_info(made.series_id)
    assert (info.kind, info.source_id) == ("depth", series)
    assert "PDDM-style" in info.title
    assert info.provenance["typed_points"] == [[5.0, 6.0, 31.5]]
    assert info.provenance["sparse_file"]["scale"] == 0.02
    assert info.provenance["camera"] == camera
    assert len(info.provenance["sha256"]) == 64
    assert any("no measurement for diagnosis" in note for note in info.notes)
    assert made.report["points"] == read.points + 1
    assert made.report["sigma_median_mm"] > 0


def test_depth_series_are_written_as_files_that_state_their_scale(workspace, opened, model, tmp_path):
    project, series = opened
    made = run(DepthRequest(project, series, 0, model, ((5.0, 6.0, 31.5),)), workspace, Progress()).result
    files = run(DepthExportRequest(project, made.series_id, str(tmp_path / "out")), workspace, Progress()).result

    assert len(files) == 8
    kept = workspace.project(project).scan(made.series_id).values()[0]
    np.testing.assert_array_equal(read_depth(tmp_path / "out" / "depth.tiff").depth_mm, kept)
    np.testing.assert_allclose(read_depth(tmp_path / "out" / "depth.png").depth_mm, kept, atol=1 / 256)
    said = (tmp_path / "out" / "depth.png.json").read_text()
    assert json.loads(said)["made_by"]["model"] == "PDDM-style toy"
    assert str(tmp_path) not in said


def test_fills_work_on_a_machine_without_weights(workspace, opened):
    project, series = opened
    made = run(DepthRequest(project, series, 0, "fill-nearest", ((5.0, 6.0, 31.5),)), workspace, Progress()).result
    assert made.sigma_series_id == ""
    assert (workspace.project(project).scan(made.series_id).values() == np.float32(31.5)).all()


def test_what_cannot_be_done_is_said_in_a_line_and_leaves_the_project_alone(workspace, opened, frame, model, tmp_path):
    project, series = opened
    before = len(workspace.project(project).series())
    np.save(tmp_path / "other.npy", np.ones((5, 5), dtype=np.float32))
    cases = (
        DepthFileRequest(project, str(frame[1])),
        DepthFileRequest(project, str(frame[1]), "endoslam"),
        DepthFileRequest(project, str(frame[1]), "unit=mm,scale=0.02", refused=((str(frame[1]), "it hung"),)),
        DepthRequest(project, series, 0, "fill-linear"),
        DepthRequest(project, series, 0, model, ((500.0, 6.0, 31.5),)),
        DepthRequest(project, series, 0, model, (), str(tmp_path / "other.npy")),
        DepthRequest(project, series, 0, "no-such-model"),
        DepthExportRequest(project, series, str(tmp_path / "out")),
    )
    for request in cases:
        outcome = run(request, workspace, Progress())
        assert isinstance(outcome, Refused), (request, outcome)
        assert outcome.message
        assert outcome.hint
    assert len(workspace.project(project).series()) == before


def test_nothing_measured_is_legal_for_a_network(workspace, opened, model):
    project, series = opened
    outcome = run(DepthRequest(project, series, 0, model), workspace, Progress())
    assert isinstance(outcome, Done), outcome
    assert any("Nothing was measured" in note for note in outcome.result.report["notes"])


def test_depth_models_are_listed_as_such(workspace, opened, model):
    project, series = opened
    rows = run(ModelsRequest(project, series), workspace, Progress()).result
    row = next(row for row in rows if row["id"] == model)
    assert (row["serves"], row["fit"]) == ("depth", "amber")  # a PNG does not say that it is of an endoscope
    assert "this picture does not say what it is" in row["reason"]


def test_the_command_writes_depth_uncertainty_and_a_picture(frame, model, tmp_path, capsys):
    out = tmp_path / "out"
    status = main(
        ["depth", str(frame[0]), "--sparse", str(frame[1]), "--preset", "unit=mm,scale=0.02", "--points", "5,6,31.5",
         "--model", model, "--focal", "40", "--out", str(out)]
    )  # fmt: skip

    assert status == 0
    told = json.loads(capsys.readouterr().out)
    assert told["points"] == int((frame[2] > 0).sum()) + 1
    assert set(told["files"]) <= {path.name for path in out.iterdir()}
    assert read_depth(out / "depth.png").scale.camera.fx == 40
    assert np.asarray(Image.open(out / "preview.png")).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sparse", "sparse.png"],
        ["--sparse", "sparse.png", "--preset", "c3v"],
        ["--points", "1,2"],
        ["--points", "1,2,0"],
        ["--model", "ct-denoise-rwkv", "--points", "1,2,30"],
        ["--sparse", "frame.png", "--preset", "mm"],
    ],
)
def test_the_command_refuses_in_a_line_with_a_hint(frame, tmp_path, capsys, arguments, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["depth", str(frame[0]), *arguments, "--out", "out"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if not line.startswith(("INFO", "WARNING"))]) == 2
    assert not (tmp_path / "out").exists()
