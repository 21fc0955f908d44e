"""A matting model from a recipe, through the command line, to the card."""

import json

import pytest

from medapp.cli.main import main
from medapp.networks.library import ModelLibrary
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
