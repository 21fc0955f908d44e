"""From a recipe to a depth model and its table, on a tiny data folder."""

import json

import numpy as np
import pytest
from PIL import Image

from medapp.cli.main import main
from medapp.errors import TrainingError
from medapp.networks.card import read_card
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.evaluation.depth import UNKNOWN_SCENES, card_figures, evaluate_depth, scene_kind
from medapp.training.recipe import read_recipe

CONFIG = {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "embedding": 16, "heads": 2, "seed_bins": 4}
CONFIG |= {"scale_free": True, "d_max": 4.0, "prior_fill": "linear"}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "depth" / "ct_endoscopy"
    folder.mkdir(parents=True)
    lines = ["path,modality,kind,source repo,licence,notes,sha256,bytes"]
    random = np.random.default_rng(0)
    for name, kind in (("train_a", "train"), ("train_b", "train"), ("val_c", "val")):
        Image.fromarray(random.integers(0, 255, (48, 48, 3)).astype(np.uint8)).save(folder / f"{name}_rgb.jpg")
        y, x = np.indices((48, 48))
        Image.fromarray((1000 + 20 * x + 10 * y).astype(np.uint16)).save(folder / f"{name}_depth.png")
        path = f"depth/ct_endoscopy/{name}_depth.png"
        lines.append(f'{path},"depth (16-bit, 0.02 mm)",{kind},someone/somewhere,CC0-1.0,,0,0')
    (tmp_path / "data" / "MANIFEST.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


@pytest.fixture
def recipe(tmp_path):
    entries = {"task": "depth-completion", "name": "toy-depth", "config": CONFIG, "iterations": 2}
    path = tmp_path / "toy-depth.recipe.json"
    path.write_text(json.dumps({**entries, "crops": [[32, 2]]}))
    return path


def test_a_recipe_becomes_a_model_with_its_card_and_table(data, recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--recipe", str(recipe), "--out", str(out), "--data", str(data)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["iteration"], told["is_done"]) == (2, True)
    card = read_card(out / "toy-depth.json")
    assert card.serves == "depth"
    assert card.data[0]["frames"] == 2
    assert any("no measurement for diagnosis" in limit for limit in card.limits)

    library = ModelLibrary(out, out)
    result = evaluate_depth(library, data, Progress(), counts=(5, 20), patterns=("uniform", "half"), seeds=1)
    methods = {row["method"] for row in result["rows"]}
    assert methods == {"nearest fill", "linear fill", "toy-depth"}
    plane = [row for row in result["rows"] if row["method"] == "linear fill" and row["points"] == 20]
    nearest = [row for row in result["rows"] if row["method"] == "nearest fill" and row["points"] == 20]
    assert plane[0]["mae"] < nearest[0]["mae"]
    assert plane[0]["gain_percent"] == 0
    assert [row["is_finite"] for row in result["rows"] if row["points"] == 0] == [True]
    figures = card_figures(result, "toy-depth")
    assert set(figures["rendered endoscopy"]) == {"5 points", "20 points"}


def test_recipes_and_folders_that_cannot_be_used_are_refused(data, recipe, tmp_path):
    entries = json.loads(recipe.read_text())
    for changes in ({"crops": [[32, 0]]}, {"surplus": 1}, {"average_decay": 2}, {"points": [9, 3]}):
        bad = tmp_path / "bad.recipe.json"
        bad.write_text(json.dumps({**entries, **changes}))
        with pytest.raises(TrainingError):
            read_recipe(bad)
    assert main(["train", "--recipe", str(recipe), "--out", str(tmp_path / "o"), "--data", str(tmp_path)]) == 2


def test_photographs_of_another_source_are_told_apart_as_scenes_not_trained_on():
    def kind(path, source):
        return scene_kind({"path": path, "source repo": source}, {"a/rooms"})

    assert kind("depth/ct_endoscopy/val_c000_depth.png", "z/ct") == "rendered endoscopy"
    assert kind("depth/rgbd/room_depth.png", "a/rooms") == "RGB-D rooms"
    assert kind("depth/rgbd/desk_depth.png", "b/desk") == UNKNOWN_SCENES
