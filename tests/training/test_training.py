"""A run trains, survives a kill exactly, and leaves a model that the library loads."""

import json

import numpy as np
import pytest
import torch

from medapp.errors import Cancelled, TrainingError
from medapp.networks.card import Intake
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.train import train
from medapp.training.data import CropSampler, load_slices, manifest_ct, patient_of, with_noise
from medapp.training.losses.pixel import log_error
from medapp.training.recipe import RestorationRecipe, read_recipe, recipe_of
from medapp.training.run_folder import RunFolder
from tests.networks.toys import TOYS
from tests.training.making import RECIPE, make_data, make_recipe


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


def _weights(folder):
    return RunFolder(folder).load_state()["averaged"]


def test_a_run_leaves_a_model_that_loads_with_its_card(tmp_path, data):
    result = train(make_recipe(tmp_path / "r.json"), tmp_path / "run", 5, data, Progress())

    assert result["iteration"] == 6
    library = ModelLibrary(tmp_path / "run", tmp_path / "none")
    card = library.card("toy")
    assert card.takes == (Intake("CT", "HU", (-1024.0, 3072.0), (-8.0, 24.0)),)
    assert card.data == ({"name": "phantom", "licence": "CC0", "patients": 1},)
    assert library.load("toy", "cpu").network is not None
    curves = [json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in curves if "psnr_db" in line] == [3, 6]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, data):
    recipe = make_recipe(tmp_path / "r.json")
    train(recipe, tmp_path / "whole", 5, data, Progress())
    calls = []

    def stopped():
        calls.append(1)
        return len(calls) > 5  # in the middle of training

    with pytest.raises(Cancelled):
        train(recipe, tmp_path / "broken", 5, data, Progress(is_stopped=stopped))
    assert 0 < RunFolder(tmp_path / "broken").load_state()["iteration"] < 6
    train(recipe, tmp_path / "broken", 5, data, Progress())

    curves = [json.loads(line)["iteration"] for line in (tmp_path / "broken" / "curves.jsonl").read_text().splitlines()]
    assert curves == sorted(set(curves))
    whole, broken = _weights(tmp_path / "whole"), _weights(tmp_path / "broken")
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_a_run_does_not_go_on_with_another_recipe_or_other_data(tmp_path, data):
    train(make_recipe(tmp_path / "r.json", iterations=1), tmp_path / "run", 5, data, Progress())
    with pytest.raises(TrainingError, match="another crops"):
        train(make_recipe(tmp_path / "r.json", crops=[[40, 1]]), tmp_path / "run", 5, data, Progress())
    other = make_data(tmp_path / "other", (("a", "train"), ("b", "train"), ("d", "train")))
    with pytest.raises(TrainingError, match="other data"):
        train(make_recipe(tmp_path / "r.json"), tmp_path / "run", 5, other, Progress())


def test_validation_patients_are_never_trained_on(data):
    assert [row["path"] for row in manifest_ct(data, "train")] == ["ct/a.nii.gz", "ct/b.nii.gz"]
    assert [row["path"] for row in manifest_ct(data, "val")] == ["ct/c.nii.gz"]


def test_slices_of_one_patient_stay_together():
    assert patient_of("ct/tcga_luad/TCGA-17-Z059_1.nii.gz") == patient_of("x/TCGA-17-Z059_0.nii.gz") == "TCGA-17-Z059"
    assert patient_of("ct/series/lidc0001_sparse.nii.gz") == patient_of("ct/series/lidc0001.nii.gz")
    assert patient_of("ct/sts/STS_012_ct.nii.gz") == "STS_012"


def test_batches_repeat_and_cover_light_and_heavy_noise(tmp_path, data):
    recipe = recipe_of({**RECIPE, "noise_fields": 2, "crops": [[32, 4]]})
    slices, _ = load_slices(data, ["ct/a.nii.gz", "ct/b.nii.gz"])
    sampler = CropSampler(with_noise(slices, recipe, tmp_path / "cache", Progress()), recipe)

    first, again = sampler.batch(3), sampler.batch(3)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0].shape == first[1].shape == (4, 1, 32, 32)
    levels = [float((d - r).std()) for i in range(40) for d, r in zip(*sampler.batch(i), strict=True)]
    assert max(levels) > 2.5 * min(levels)


def test_slices_that_are_noisy_themselves_are_no_reference(tmp_path, data):
    slices, _ = load_slices(data, ["ct/a.nii.gz"])
    noisy = [type(s)(s.patient, s.values + np.random.default_rng(0).normal(0, 40, s.values.shape), 1.0) for s in slices]
    with pytest.raises(TrainingError, match="clean enough"):
        with_noise(noisy, RestorationRecipe("toy"), tmp_path, Progress())


def test_the_loss_counts_light_and_heavy_noise_alike():
    reference = torch.zeros(1, 1, 8, 8)
    light, heavy = torch.full_like(reference, 10.0), torch.full_like(reference, 100.0)
    gain_light = log_error(light, reference, (-200, 280), 0.1) - log_error(light / 2, reference, (-200, 280), 0.1)
    gain_heavy = log_error(heavy, reference, (-200, 280), 0.1) - log_error(heavy / 2, reference, (-200, 280), 0.1)
    assert gain_light == pytest.approx(float(gain_heavy), rel=0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"nam": "x"},
        {"iterations": 0},
        {"crops": [[30, 1]]},
        {"crops": "big"},
        {"value_range": [5, 1]},
        {"learning_rate": -1},
        {"name": 3},
    ],
)
def test_recipes_that_cannot_work_are_refused(tmp_path, change):
    with pytest.raises(TrainingError):
        read_recipe(make_recipe(tmp_path / "r.json", **change))


def test_a_missing_recipe_or_manifest_is_said(tmp_path, data):
    with pytest.raises(TrainingError, match="no recipe"):
        read_recipe(tmp_path / "none.json")
    with pytest.raises(TrainingError, match=r"MANIFEST\.csv"):
        train(make_recipe(tmp_path / "r.json"), tmp_path / "run", 5, tmp_path, Progress())


def test_a_loss_that_is_not_finite_stops_the_run_with_a_hint(tmp_path, data):
    recipe = make_recipe(tmp_path / "r.json", learning_rate=1e30, warm_up=1, iterations=60, cool_down=1)
    with pytest.raises(TrainingError, match="not finite") as caught:
        train(recipe, tmp_path / "run", 5, data, Progress())
    assert "learning_rate" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("amir", {}),
        ("drmc", {}),
        ("rat", {"loss": "focal_region", "crops": [[32, 2]]}),
        ("rat", {"crops": [[32, 2]]}),
        ("sgsgan", {}),
    ],
)
def test_every_restoring_network_trains_with_the_same_loop(tmp_path, data, name, changes):
    recipe = make_recipe(tmp_path / "r.json", architecture=name, config=TOYS[name], iterations=3, **changes)
    result = train(recipe, tmp_path / "run", 5, data, Progress())
    assert result["iteration"] == 3
    card = ModelLibrary(tmp_path / "run", tmp_path / "none").card("toy")
    assert card.inputs == (("region_map",) if name == "rat" else ())
    assert card.region_engine == ("region tree" if name == "rat" else "")
    curves = [json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()]
    assert any(np.isfinite(line["psnr_db"]) for line in curves if "psnr_db" in line)


def test_a_network_that_needs_what_images_do_not_have_is_refused(tmp_path, data):
    recipe = make_recipe(tmp_path / "r.json", architecture="pddm", config={})
    with pytest.raises(TrainingError, match="needs a sparse depth"):
        train(recipe, tmp_path / "run", 5, data, Progress())
