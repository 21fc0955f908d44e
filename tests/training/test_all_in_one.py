"""One network for CT, MR and PET: mixed batches, each modality in its own unit, and a card that says so."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medapp.cli.main import main
from medapp.errors import TrainingError
from medapp.networks.library import ModelLibrary
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.training.recipe import full_size, recipe_of
from medapp.training.tasks import task_of
from medapp.training.tasks.starting import starting_network
from tests.training.places import three_modalities

RECIPE = {
    "name": "toy-all",
    "task": "all-in-one",
    "architecture": "amir",
    "config": {"dim": 8, "num_blocks": [0, 0, 0, 1], "num_refinement_blocks": 0},
    "parts": {"CT": {"noise_fields": 1}, "MR": {}, "PT": {}},
    "shares": {"CT": 1, "MR": 2, "PT": 1},
    "crops": [[32, 4]],
    "iterations": 3,
    "check_every": 3,
    "warm_up": 1,
    "tuning_patients": ["b"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return three_modalities(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "r.json").write_text(json.dumps(RECIPE))
    out = folder / "models"
    assert main(["train", "--recipe", str(folder / "r.json"), "--out", str(out), "--data", str(place)]) == 0
    return out


def test_every_batch_holds_each_modality_in_its_own_unit(place, tmp_path):
    task = task_of(recipe_of(RECIPE), place, tmp_path, Progress())
    batch = task.batch(0, 0, 1, 0.0)
    assert batch["part"].tolist() == [0, 1, 1, 2]
    ct, mr, pet = (batch["reference"][batch["part"] == number] for number in range(3))
    assert ct.min() < -900
    assert 300 < mr.max() < 2000  # thousandths of the slice's spread
    assert 0 < pet.max() < 5
    shared = [task.batch(0, rank, 2, 0.0)["part"].tolist() for rank in range(2)]
    assert sorted(shared[0] + shared[1]) == [0, 1, 1, 2]  # two processes draw the same batch together


def test_a_later_stage_goes_on_with_other_crops(place, tmp_path):
    first, later = (task_of(recipe_of({**RECIPE, "first_step": n}), place, tmp_path, Progress()) for n in (0, 2))
    torch.testing.assert_close(first.batch(2, 0, 1, 0.0)["degraded"], later.batch(0, 0, 1, 0.0)["degraded"])
    assert not torch.equal(first.batch(0, 0, 1, 0.0)["degraded"], later.batch(0, 0, 1, 0.0)["degraded"])


def test_a_loss_of_one_modality_does_not_drown_the_others(place, tmp_path):
    task = task_of(recipe_of(RECIPE), place, tmp_path, Progress())
    _, figures = task.loss(task.batch(0, 0, 1, 0.0), 0.0)
    assert set(figures) == {"loss_ct", "loss_mr", "loss_pt"}
    assert max(figures.values()) < 5 * min(figures.values())  # logarithms, whatever the unit


def test_the_card_says_what_each_modality_needs(run):
    card = ModelLibrary(run, run / "none").card("toy-all")
    assert card.modalities == ("CT", "MR", "PT")
    assert [card.narrowed(modality).scale for modality in card.modalities] == [1, 4, 1]
    assert card.narrowed("PT").extent_mm == pytest.approx(4 * 48)
    assert card.narrowed("CT").extent_mm is None
    assert card.narrowed("CT").spacing_mm == (2.0, 2.0)
    assert {entry["modality"] for entry in card.data} == {"CT", "MR", "PT"}
    assert set(card.degradation) == {"CT", "MR", "PT"}
    assert card.training["patients"] == 2  # each of them three times


@pytest.mark.parametrize(
    ("file", "modality", "factor"), [("ct/d.nii.gz", "CT", 1), ("mri/d_t1.nii.gz", "MR", 4)], ids=["CT", "MR"]
)
def test_the_app_restores_what_the_card_takes(run, place, tmp_path, monkeypatch, capsys, file, modality, factor):
    monkeypatch.setattr("medapp.paths.user_models_dir", lambda: run)
    out = tmp_path / "restored.nii.gz"
    asked = ["restore", str(place / file), "--model", "toy-all", "--modality", modality, "--out", str(out)]
    assert main([*asked, "--device", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    before, after = nib.load(place / file).shape, nib.load(out).shape
    assert after[:2] == (before[0] * factor, before[1] * factor)
    assert np.isfinite(np.asarray(nib.load(out).dataobj)).all()
    assert any(choice["kind"] == "pixels" for choice in report["routing"])


def test_amir_begins_as_the_restormer_that_it_starts_from(tmp_path):
    config = {"dim": 8, "num_blocks": [1, 1, 1, 2], "num_refinement_blocks": 0}
    torch.manual_seed(1)
    trunk = build_network("restormer", config)
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    amir = starting_network(recipe_of({**RECIPE, "config": config, "start_from": str(tmp_path / "trunk.safetensors")}))
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(amir.eval()(image), trunk(image), atol=1e-5, rtol=1e-5)
    smaller = {**RECIPE, "config": {**config, "num_blocks": [1, 1, 1, 1]}}
    with pytest.raises(TrainingError, match="belong to another network"):
        starting_network(recipe_of({**smaller, "start_from": str(tmp_path / "trunk.safetensors")}))


def test_frozen_weights_stay_as_they_were_drawn(place, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({**RECIPE, "frozen": ["dict_generator."], "learning_rate": 0.1}))
    out = tmp_path / "run"
    assert main(["train", "--recipe", str(tmp_path / "r.json"), "--out", str(out), "--data", str(place)]) == 0
    torch.manual_seed(0)
    before = build_network("amir", RECIPE["config"]).state_dict()
    after = torch.load(out / "state.pt", weights_only=True)["step"]
    changed = {key for key, value in before.items() if not torch.equal(value, after[f"network.{key}"])}
    assert not any(key.startswith("dict_generator") for key in changed)
    assert any(key.startswith("latent") for key in changed)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shares": {"CT": 1}}, "same modalities"),
        ({"parts": {"US": {}}, "shares": {"US": 1}}, "same modalities"),
        ({"crops": [[32, 3]]}, "divided"),
        ({"shares": {"CT": 0, "MR": 1, "PT": 1}}, "above 0"),
        ({"floors": {"PT": 0}}, "floors"),
        ({"fractions": [0.1, 2]}, "fractions"),
        ({"parts": {"CT": {"noise": 1}, "MR": {}, "PT": {}}}, "wrong kind"),
        ({"parts": {"CT": {}, "MR": {"factor": 7}, "PT": {}}}, "factor is 2, 3 or 4"),
    ],
)
def test_a_recipe_that_cannot_work_says_why(change, told):
    with pytest.raises(TrainingError, match=told):
        recipe_of({**RECIPE, **change})


def test_networks_that_need_more_than_the_image_are_refused(place, tmp_path):
    with pytest.raises(TrainingError, match="more than the image"):
        task_of(recipe_of({**RECIPE, "architecture": "rat", "config": {}}), place, tmp_path, Progress())
    with pytest.raises(TrainingError, match="begins with 'routers'"):
        task_of(recipe_of({**RECIPE, "frozen": ["routers"]}), place, tmp_path, Progress())


def test_a_plain_folder_cannot_tell_modalities_apart(place, tmp_path):
    with pytest.raises(TrainingError, match="does not say of every file"):
        task_of(recipe_of(RECIPE), place / "ct", tmp_path, Progress())


def test_the_full_size_keeps_the_parts():
    full = full_size(recipe_of({**RECIPE, "full": {"config": {}, "crops": [[128, 8]]}}))
    assert full.parts == RECIPE["parts"]
    assert full.part("MR").crops == ((128, 4),)
