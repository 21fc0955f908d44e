"""A matting model from a recipe, through the command line, to the card and its figures."""

import json

import numpy as np
import pytest
from PIL import Image

from medapp.cli.main import main
from medapp.networks.library import ModelLibrary
from medapp.services.evaluate_mattes import rough_mask
from tests.training.test_matting import data_dir as data_dir  # a fixture

RECIPE = {
    "name": "tiny-matting",
    "title": "Tiny matting",
    "version": "1",
    "task": "matting",
    "config": {"num_filters": [4, 4, 4, 4], "hidden_channel": 2, "num_sampling": 2},
    "crop_px": 16,
    "crop_of_box": 1.5,
    "stages": [
        {"minutes": 1, "updates": 3, "crops": [[16, 2]]},
        {"minutes": 1, "updates": 3, "crops": [[16, 2]], "strategy": "None", "matte_prior": True},
    ],
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(RECIPE))
    return path


def test_a_recipe_becomes_a_model_with_a_card_and_measured_figures(recipe, data_dir, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "--recipe", str(recipe), "--out", str(out), "--minutes", "2", "--data", str(data_dir)]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["stages"] == 2

    loaded = ModelLibrary(out, out).load("tiny-matting", "cpu")
    assert loaded.card.serves == "matting"
    assert loaded.card.training["crop_px"] == 16
    assert {entry["licence"] for entry in loaded.card.data} == {"GPL-2.0", "CC0"}
    assert loaded.network.prob_unet.posterior is None

    row, column = np.mgrid[:60, :50]
    disc = np.clip((16 - np.hypot(row - 30, column - 25)) / 6 + 0.5, 0, 1)
    (data_dir / "matting" / "composite").mkdir()
    for name, picture in (("image", np.dstack([40 + 160 * disc] * 3)), ("alpha", 255 * disc)):
        Image.fromarray(picture.astype(np.uint8)).save(data_dir / "matting" / "composite" / f"disc_{name}.png")
    (data_dir / "matting" / "background" / "stone.jpg").rename(data_dir / "matting" / "background" / "other.jpg")
    table = (data_dir / "MANIFEST.csv").read_text().replace("stone.jpg,x,train", "other.jpg,x,val")
    (data_dir / "MANIFEST.csv").write_text(table)
    command = ["evaluate", "--task", "matting", "--model", "tiny-matting", "--models-dir", str(out), "--update-card"]
    assert main([*command, "--data", str(data_dir)]) == 0
    told = json.loads(capsys.readouterr().out)["sources"]["cut-out"]
    assert told["cases"] == 1
    assert 0 < told["closed form 0.06"]["sad"] < told["rough mask 0.15"]["sad"] + told["alpha"]["sad"]
    assert ModelLibrary(out, out).card("tiny-matting").figures["cut-out"] == told


def test_a_rough_mask_differs_more_the_rougher_it_is():
    row, column = np.mgrid[:64, :64]
    mask = np.hypot(row - 32, column - 32) < 20
    wrong = [(rough_mask(mask, share, np.random.default_rng(3)) ^ mask).sum() for share in (0.05, 0.25)]
    assert 0 < wrong[0] < wrong[1]


@pytest.mark.parametrize(
    "change",
    [{"stages": []}, {"stages": [{"minutes": 0}]}, {"stages": [{"epoch": 3}]}, {"crop_px": "large"}, {"stages": 3}],
)
def test_a_recipe_that_cannot_work_is_refused(recipe, change, tmp_path, capsys):
    recipe.write_text(json.dumps({**RECIPE, **change}))
    assert main(["train", "--recipe", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "recipe" in capsys.readouterr().err
