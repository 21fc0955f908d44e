"""``medapp models train-all``: the shelf in order, within a budget, going on after a stop."""

import json

import pytest

from medapp.cli.main import main
from medapp.networks.card import read_card
from medapp.networks.library import ModelLibrary
from medapp.training.recipe import read_recipe
from tests.training.making import make_data, make_recipe


@pytest.fixture
def shelf(tmp_path):
    """Two recipes, the first of which by name starts from the second."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    make_recipe(folder / "after.recipe.json", name="after", start_from="first", iterations=3)
    make_recipe(folder / "first.recipe.json", name="first", iterations=3)
    data = make_data(tmp_path / "data")
    parts = ["models", "train-all", "--recipes", folder, "--data", data, "--out", tmp_path / "out", "--device", "cpu"]
    return [str(part) for part in parts]


def _rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_shelf_is_trained_in_order_and_becomes_a_library(shelf, tmp_path, capsys):
    assert main(shelf) == 0
    assert [(row["id"], row["is_done"], row["iterations"]) for row in _rows(capsys)] == [
        ("first", True, 3),
        ("after", True, 3),
    ]
    models = tmp_path / "out" / "models"
    library = ModelLibrary(models, models)
    assert {library.load(name, "cpu").card.id for name in ("first", "after")} == {"first", "after"}
    # it went on from the weights that were made here
    assert read_recipe(tmp_path / "out" / "after" / "recipe.json").start_from == str(models / "first.safetensors")


def test_what_is_finished_is_not_trained_again(shelf, tmp_path, capsys):
    assert main(shelf) == 0
    first = _rows(capsys)
    weights = tmp_path / "out" / "models" / "first.safetensors"
    written = weights.stat().st_mtime_ns
    (tmp_path / "out" / "first" / "recipe.json").unlink()  # would be missed if the run were touched

    assert main(shelf) == 0
    assert _rows(capsys) == first
    assert weights.stat().st_mtime_ns == written


def test_a_budget_is_shared_out_and_shortens_the_schedules(shelf, tmp_path, capsys):
    assert main([*shelf, "--budget", "90", "--dry-run"]) == 0
    assert [(row["id"], row["minutes"]) for row in _rows(capsys)] == [("first", 45.0), ("after", 45.0)]
    assert not (tmp_path / "out").exists()

    assert main([*shelf, "--budget", "0.0001", "--only", "first"]) == 0
    (row,) = _rows(capsys)
    assert row["is_done"]
    assert row["iterations"] < 3
    assert read_card(tmp_path / "out" / "models" / "first.json").training["iterations"] == row["iterations"]


def test_one_that_cannot_be_trained_does_not_stop_the_others(shelf, tmp_path, capsys):
    make_recipe(tmp_path / "recipes" / "bad.recipe.json", name="bad", start_from="no-such-model")
    assert main(shelf) == 1
    rows = {row["id"]: row for row in _rows(capsys)}
    assert "no weights" in rows["bad"]["refused"]
    assert rows["bad"]["hint"]
    assert rows["first"]["is_done"] and rows["after"]["is_done"]  # noqa: PT018


def test_bad_wishes_get_a_line_and_a_hint(shelf, capsys):
    for wish, told in ((["--only", "nothing"], "no recipe nothing"), (["--budget", "0"], "above 0")):
        assert main([*shelf, *wish]) == 2
        assert told in capsys.readouterr().err
