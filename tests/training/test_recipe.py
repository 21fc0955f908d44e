"""Recipes: the ones in the repository work, stages follow each other, and a large machine makes the full size."""

import numpy as np
import pytest
import torch

from medapp.cli.main import main
from medapp.errors import TrainingError
from medapp.networks.registry import build_network
from medapp.paths import shipped_models_dir
from medapp.progress import Progress
from medapp.regions.small_sam import make_small_sam
from medapp.training.patches import Cropper, PatchSet
from medapp.training.recipe import RegionsRecipe, full_size, read_recipe, recipe_of, stages_of
from medapp.training.sources import find_references
from tests.training.making import RECIPE, make_data, make_recipe
from tests.training.places import mr_place

RECIPES = sorted(shipped_models_dir().rglob("*.recipe.json"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_of_the_repository_can_be_trained(path):
    recipe = read_recipe(path)

    assert recipe.name == path.name.removesuffix(".recipe.json")
    for stage in stages_of(recipe):
        if isinstance(stage, RegionsRecipe):
            make_small_sam(**stage.config)
        else:
            build_network(stage.architecture, stage.config)


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.parent == shipped_models_dir()], ids=lambda path: path.name
)
def test_every_shipped_model_names_a_larger_one_for_a_gpu(path):
    recipe = read_recipe(path)
    full = full_size(recipe)

    def size(of):
        with torch.device("meta"):  # nothing is allocated
            made = (
                make_small_sam(**of.config)
                if isinstance(of, RegionsRecipe)
                else build_network(of.architecture, of.config)
            )
        return sum(weight.numel() for weight in made.parameters())

    assert size(full) > 2 * size(stages_of(recipe)[0])
    assert full.iterations >= 10000


def test_the_full_size_is_another_model_in_one_stage():
    recipe = recipe_of(
        RECIPE | {"stages": [{"iterations": 2}, {"iterations": 3}], "full": {"iterations": 9, "config": {}}}
    )
    full = full_size(recipe)

    assert (full.name, full.iterations, full.config, len(stages_of(full))) == ("toy-full", 9, {}, 1)
    assert full.crops == recipe.crops


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"iterations": "many"}, "'iterations' is a text, not a number"),
        ({"crops": 5}, "'crops' is a number, not a list"),
        ({"tuning_patients": 3}, "'tuning_patients' is a number, not a list"),
        ({"stages": {}}, "'stages' is an object, not a list"),
    ],
)
def test_an_entry_of_the_wrong_kind_is_named(entry, told):
    with pytest.raises(TrainingError, match=told):
        recipe_of(RECIPE | entry)


def test_a_recipe_without_a_full_size_says_so():
    with pytest.raises(TrainingError, match="no full size"):
        full_size(recipe_of(RECIPE))


def test_a_broken_entry_of_the_full_size_is_named():
    with pytest.raises(TrainingError, match="learning_rates"):
        full_size(recipe_of(RECIPE | {"full": {"learning_rates": 1}}))


def test_the_second_stage_of_a_restorer_goes_on_from_the_first(tmp_path, capsys):
    data = make_data(tmp_path / "data")
    recipe = make_recipe(tmp_path / "r.json", stages=[{"iterations": 3}, {"iterations": 6, "learning_rate": 1e-9}])

    assert main(["train", "--recipe", str(recipe), "--out", str(tmp_path / "run"), "--data", str(data)]) == 0

    from safetensors.torch import load_file

    first, second = (load_file(tmp_path / "run" / f"stage-{n}" / "best.safetensors") for n in (1, 2))
    assert all(np.allclose(first[key], second[key], atol=1e-5) for key in first)
    assert any(bool(value.any()) for value in second.values())


def test_all_stages_hold_the_same_patients_out_whatever_they_draw_by():
    patients = [f"p{number}" for number in range(40)]
    alone = recipe_of(RECIPE | {"seed": 3, "tuning_patients": []})
    recipe = recipe_of(RECIPE | {"seed": 3, "tuning_patients": [], "stages": [{}, {"seed": 4}, {"seed": 5}]})

    stages = stages_of(recipe)

    assert [stage.seed for stage in stages] == [3, 4, 5]
    assert {stage.held_out(patients) for stage in stages} == {alone.held_out(patients)}
    assert recipe_of(RECIPE | {"seed": 4, "tuning_patients": []}).held_out(patients) != alone.held_out(patients)


def test_a_recipe_may_say_by_which_seed_patients_are_held_out():
    patients = [f"p{number}" for number in range(40)]
    entries = RECIPE | {"tuning_patients": [], "hold_out_seed": 3}
    recipe = recipe_of(entries | {"seed": 7, "stages": [{}, {"seed": 8}]})

    held_out = recipe_of(RECIPE | {"seed": 3, "tuning_patients": []}).held_out(patients)
    assert {stage.held_out(patients) for stage in stages_of(recipe)} == {held_out}


def test_patients_who_are_to_be_drawn_more_often_are(tmp_path):
    references = find_references(mr_place(tmp_path / "data"), "MR", "train")
    cropper = Cropper(PatchSet.build(references, tmp_path / "cache", Progress()), (), patient_shares={"b": 4})
    drawn = [cropper.crop(32, np.random.default_rng(i)).entry.patient for i in range(120)]

    assert 0.5 < drawn.count("b") / len(drawn) < 0.8  # 4 of 6, not 1 of 3


@pytest.mark.parametrize("shares", [{"b": 0}, {"b": 0.5}])
def test_shares_of_patients_are_counts(shares):
    with pytest.raises(TrainingError, match="patient_shares"):
        recipe_of(RECIPE | {"patient_shares": shares})


@pytest.mark.parametrize("entries", [{"factor": 3, "first_filter": "nlm"}, {"factor": 2, "first_filter": "magic"}])
def test_a_first_filter_is_one_that_is_tuned_for_the_factor(entries):
    with pytest.raises(TrainingError, match="first_filter is one of"):
        recipe_of(RECIPE | {"task": "mr-super-resolution", **entries})


@pytest.mark.parametrize("drift", [-0.1, 1.5])
def test_scanners_drift_by_a_share(drift):
    with pytest.raises(TrainingError, match="drift"):
        recipe_of({"name": "pet", "task": "pet-synthesis", "iterations": 2, "config": {"dims": 2}, "drift": drift})
