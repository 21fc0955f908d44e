"""A matting model from a recipe, through the command line, to the card."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medapp.cli.main import main
from medapp.errors import Cancelled
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.train import train
from tests.training.test_matting import data_dir as data_dir  # a fixture

RECIPE = {
    "name": "tiny-matting",
    "title": "Tiny matting",
    "check_every": 2,
    "version": "1",
    "task": "matting",
    "config": {"num_filters": [4, 4, 4, 4], "hidden_channel": 2, "num_sampling": 2},
    "crop_px": 16,
    "crop_of_box": 1.5,
    "stages": [
        {"iterations": 3, "crops": [[16, 2]]},
        {"iterations": 3, "crops": [[16, 2]], "strategy": "None", "matte_prior": True},
    ],
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPE))
    return path


def test_a_recipe_becomes_a_model_with_a_card(recipe, data_dir, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "--recipe", str(recipe), "--out", str(out), "--minutes", "2", "--data", str(data_dir)]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["stages"] == 2

    loaded = ModelLibrary(out, out).load("tiny-matting", "cpu")
    assert loaded.card.serves == "matting"
    assert loaded.card.training["crop_px"] == 16
    assert {entry["licence"] for entry in loaded.card.data} == {"GPL-2.0", "CC0"}
    assert loaded.network.prob_unet.posterior is None


def test_a_run_of_stages_goes_on_in_the_stage_where_it_was_stopped(recipe, data_dir, tmp_path):
    whole = train(recipe, tmp_path / "whole", math.inf, data_dir, Progress())
    runs, iterations = [], []

    def watch(event):
        runs.extend(event.detail[key] for key in ("run",) if key in event.detail)
        iterations.append(event.detail.get("iteration", 0) if len(runs) == 2 else 0)

    with pytest.raises(Cancelled):
        train(
            recipe,
            tmp_path / "broken",
            math.inf,
            data_dir,
            Progress(watch, lambda: bool(iterations) and iterations[-1] == 1),
        )
    assert [Path(run).name for run in runs] == ["stage-1", "stage-2"]
    assert (
        train(recipe, tmp_path / "broken", 0.0, data_dir, Progress())["is_done"] is False
    )  # no minute was left for it
    done = train(recipe, tmp_path / "broken", math.inf, data_dir, Progress())

    assert (done["is_done"], done["stages"], done["iteration"]) == (True, 2, 3)
    assert done["score"] == whole["score"]
    one, other = (load_file(tmp_path / name / "tiny-matting.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "change",
    [
        {"stages": []},
        {"stages": [{"iterations": 2, "crops": [[30, 2]]}]},
        {"stages": [{"minutes": 0}]},
        {"stages": [{"epoch": 3}]},
        {"crop_px": "large"},
        {"stages": 3},
    ],
)
def test_a_recipe_that_cannot_work_is_refused(recipe, change, tmp_path, capsys):
    recipe.write_text(json.dumps({**RECIPE, **change}))
    assert main(["train", "--recipe", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "recipe" in capsys.readouterr().err
