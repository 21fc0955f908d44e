"""A matting request from the window's side, and the same without a window."""

import json

import numpy as np
import pytest
from PIL import Image

from medapp import paths
from medapp.cli.main import main
from medapp.cli.matte import _first
from medapp.jobs.worker import run
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.requests import Done, ImportRequest, MattingRequest, ModelsRequest, Refused, Stopped
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import ct_torso
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from tests.matting.toy_matting import keep_toy_matting


@pytest.fixture
def workspace():
    keep_toy_matting(paths.user_models_dir())
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def scene(workspace, tmp_path):
    """A project with one CT: ``(project, series_id)``."""
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    write_series(tmp_path / "ct", ct_torso((3, 64, 48), (20.0, 6.0, 6.0)), "P1")
    outcome = run(ImportRequest(str(path), (str(tmp_path / "ct"),)), workspace, Progress())
    assert isinstance(outcome, Done), outcome
    return str(path), outcome.result.series_ids[0]


def ask(scene, workspace, progress=None, **changes):
    asked = {"slice_index": 1, "axis": 0, "window_center": 40.0, "window_width": 400.0, "model_id": "toy-matting"}
    asked |= {"box_xyxy": (10.0, 20.0, 30.0, 40.0), "ticket": 7} | changes
    return run(MattingRequest(*scene, **asked), workspace, progress or Progress())


@pytest.mark.parametrize(("axis", "shape"), [(0, (64, 48)), (1, (3, 48)), (2, (3, 64))])
def test_a_box_on_any_plane_gives_masks_uncertainty_and_alpha(scene, workspace, axis, shape):
    outcome = ask(scene, workspace, axis=axis, box_xyxy=(10.0, 0.0, 30.0, 3.0), count=4)
    assert isinstance(outcome, Done), outcome
    result = outcome.result
    left, top, right, bottom = result.box_xyxy
    assert 0 <= left < right <= shape[1]
    assert 0 <= top < bottom <= shape[0]
    with np.load(result.path) as arrays:
        assert arrays["masks"].shape == (4, bottom - top, right - left)
        assert arrays["uncertainty"].shape == arrays["alpha"].shape == (bottom - top, right - left)
    assert (result.ticket, result.model) == (7, "Toy matting 1")


def test_the_result_says_the_seed_that_gives_it_again(scene, workspace):
    first = ask(scene, workspace).result
    second = ask(scene, workspace, seed=first.seed).result
    with np.load(first.path) as one, np.load(second.path) as two:
        assert np.array_equal(one["alpha"], two["alpha"])


def test_what_cannot_be_done_is_said_in_a_line(scene, workspace):
    assert isinstance(ask(scene, workspace, box_xyxy=None), Refused)
    outcome = ask(scene, workspace, model_id="ct-denoise-rwkv")
    assert isinstance(outcome, Refused)
    assert "makes no mattes" in outcome.message
    assert isinstance(ask(scene, workspace, Progress(is_stopped=lambda: True)), Stopped)


def test_the_model_is_listed_for_what_it_serves(scene, workspace):
    rows = run(ModelsRequest(*scene), workspace, Progress()).result
    assert [row["id"] for row in rows if row["serves"] == "matting" and row["fit"] != "blocked"].count(
        "toy-matting"
    ) == 1


def test_without_a_window_the_pictures_lie_in_a_folder(workspace, tmp_path, capsys):
    row, column = np.mgrid[:60, :50]
    Image.fromarray((8 * np.clip(20 - np.hypot(row - 30, column - 25), 0, 20)).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    command = ["matte", str(tmp_path / "a.png"), "--model", "toy-matting", "--box", "10,15,40,45", "--count", "3"]

    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main([*command, "--seed", str(told["seed"]), "--out", str(tmp_path / "two")]) == 0

    for name in (*told["masks"], "uncertainty.png", "alpha.png"):
        pictures = [np.asarray(Image.open(tmp_path / folder / name)) for folder in ("one", "two")]
        assert pictures[0].shape == (60, 50)
        assert np.array_equal(*pictures)
    assert len(told["masks"]) == 3
    left, top, right, bottom = told["crop_xyxy"]
    alpha = np.asarray(Image.open(tmp_path / "one" / "alpha.png")).copy()
    alpha[top:bottom, left:right] = 0
    assert not alpha.any()


def test_without_a_window_wrong_words_are_refused(workspace, tmp_path, capsys):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    command = ["matte", str(tmp_path / "a.png"), "--model", "toy-matting", "--out", str(tmp_path)]
    assert main([*command, "--box", "1,2,3"]) == 2
    assert main([*command, "--point", "99,99"]) == 2
    assert "outside the slice" in capsys.readouterr().err


@pytest.fixture
def guided(workspace):
    keep_toy_matting(paths.user_models_dir(), "toy-guided", config={"input_channels": 2}, inputs=("rough_mask",))


def test_a_rough_mask_comes_as_a_file_that_is_taken_away(scene, workspace, guided, tmp_path):
    rough = np.zeros((64, 48), dtype=bool)
    rough[22:36, 12:28] = True
    files = [tmp_path / f"{name}.npy" for name in ("for-guided", "for-other")]
    for file in files:
        np.save(file, rough)
    boxed = ask(scene, workspace, model_id="toy-guided", seed=1).result
    told = ask(scene, workspace, model_id="toy-guided", seed=1, rough_path=str(files[0])).result
    other = ask(scene, workspace, rough_path=str(files[1])).result
    assert [result.is_guided for result in (boxed, told, other)] == [False, True, False]
    assert not any(file.exists() for file in files)
    with np.load(boxed.path) as one, np.load(told.path) as two:
        assert not np.array_equal(one["alpha"], two["alpha"])
    gone = ask(scene, workspace, model_id="toy-guided", rough_path=str(files[0]))
    assert isinstance(gone, Refused)
    assert "went missing" in gone.message


def test_without_a_window_a_mask_file_is_enough(workspace, guided, tmp_path, capsys):
    row, column = np.mgrid[:60, :50]
    disc = np.hypot(row - 30, column - 25)
    Image.fromarray((8 * np.clip(20 - disc, 0, 20)).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray((200 * (disc < 14)).astype(np.uint8)).save(tmp_path / "rough.png")
    command = ["matte", str(tmp_path / "a.png"), "--model", "toy-guided", "--out", str(tmp_path / "out")]
    assert main([*command, "--mask", str(tmp_path / "rough.png")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rough_mask"] is True
    assert told["crop_xyxy"] == pytest.approx([5, 10, 46, 51], abs=1)  # one and a half times 27 pixels
    assert main(command) == 2
    assert "rough mask is needed" in capsys.readouterr().err
    Image.fromarray(np.zeros((60, 50), np.uint8)).save(tmp_path / "dark.png")
    assert main([*command, "--mask", str(tmp_path / "dark.png")]) == 2
    assert "same everywhere" in capsys.readouterr().err
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / "small.png")
    assert main([*command, "--mask", str(tmp_path / "small.png")]) == 2
    assert "another size" in capsys.readouterr().err


def test_without_a_name_the_model_is_one_that_starts_from_what_is_given(tmp_path):
    keep_toy_matting(tmp_path, "a-guided", config={"input_channels": 2}, inputs=("rough_mask",))
    assert _first(ModelLibrary(tmp_path, tmp_path), False) == "a-guided"  # better than none
    keep_toy_matting(tmp_path, "b-plain")
    assert _first(ModelLibrary(tmp_path, tmp_path), False) == "b-plain"
    assert _first(ModelLibrary(tmp_path, tmp_path), True) == "a-guided"
