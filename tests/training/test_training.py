"""A run trains, survives a kill exactly, and leaves a model that the library loads."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from medapp.errors import Cancelled, TrainingError
from medapp.networks.card import Intake
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration.kspace import zero_filled
from medapp.services.train import train
from medapp.training.losses.pixel import log_error
from medapp.training.recipe import read_recipe, recipe_of
from medapp.training.run_folder import RunFolder
from medapp.training.tasks import task_of
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
    assert card.data == ({"name": "phantom", "licence": "CC0", "patients": 1, "slices": 1},)
    assert library.load("toy", "cpu").network is not None
    curves = [json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in curves if "psnr_db" in line] == [0, 3, 6]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path, data):
    recipe = make_recipe(tmp_path / "r.json")
    train(recipe, tmp_path / "whole", 5, data, Progress())
    events = []
    progress = Progress(events.append, lambda: events[-1].detail.get("iteration", 0) >= 4)
    with pytest.raises(Cancelled):
        train(recipe, tmp_path / "broken", 5, data, progress)
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


def _task(data, cache, **changes):
    recipe = recipe_of({**RECIPE, "noise_fields": 2, "crops": [[32, 3]], **changes})
    return task_of(recipe, data, cache, Progress())


def test_validation_patients_are_never_trained_on(tmp_path, data):
    task = _task(data, tmp_path / "cache")
    assert task.data.files == ("ct/a.nii.gz", "ct/b.nii.gz")
    assert task.data.patients == 1  # the other one chooses the checkpoint
    with pytest.raises(TrainingError, match="only one patient"):
        _task(make_data(tmp_path / "one", (("a", "train"), ("c", "val"))), tmp_path / "cache", tuning_patients=[])


def test_a_folder_of_scans_is_divided_by_patient(tmp_path, data):
    (data / "MANIFEST.csv").unlink()
    task = _task(data, tmp_path / "cache", tuning_patients=[])
    assert len(task.data.files) == 3
    assert task.data.patients == 2


def test_batches_repeat_are_shared_and_cover_light_and_heavy_noise(tmp_path, data):
    task = _task(data, tmp_path / "cache")
    first, again = (task.batch(3, 0, 1, 0.0) for _ in range(2))
    assert torch.equal(first["degraded"], again["degraded"])
    assert first["degraded"].shape == first["reference"].shape == (3, 1, 32, 32)
    shares = [task.batch(3, rank, 2, 0.0)["degraded"] for rank in range(2)]
    assert torch.equal(torch.cat(shares), first["degraded"][[0, 2, 1]])
    assert "filler" in task.batch(3, 4, 5, 0.0)
    batches = [task.batch(step, 0, 1, 0.0) for step in range(30)]
    levels = [
        float((d - r).std()) for batch in batches for d, r in zip(batch["degraded"], batch["reference"], strict=True)
    ]
    assert max(levels) > 2.5 * min(levels)


def test_simulated_noise_is_found_again(tmp_path, data):
    _task(data, tmp_path / "cache")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert files
    _task(data, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == files


def test_slices_that_are_noisy_themselves_are_no_reference(tmp_path, data):
    with pytest.raises(TrainingError, match="clean enough"):
        _task(make_data(tmp_path / "noisy", noise=40.0), tmp_path / "cache")


def _brain(number, size=72):
    y, x = np.mgrid[:size, :size] - size / 2
    image = np.where(y**2 + x**2 < (26 + number) ** 2, 300.0, 5.0)
    return image + 150.0 * (np.sin(x / 2) * np.cos(y / (3 + number)) > 0.3) * (image > 100)


def _mr_data(folder):
    rows = [["path", "modality", "kind", "source repo", "licence", "notes", "sha256", "bytes"]]
    (folder / "mri").mkdir(parents=True)
    for number, name in enumerate(("ptbp01_t1", "ptbp02_t1", "ptbp03_t1")):
        volume = np.stack([_brain(number), _brain(number + 3), _brain(number + 5)])
        volume += np.random.default_rng(number).normal(0, 3, volume.shape)
        volume *= 1 + number  # arbitrary units differ from scan to scan
        nib.save(
            nib.Nifti1Image(volume.T.astype(np.float32), np.diag([-1.0, -1.0, 3.0, 1.0])),
            folder / "mri" / f"{name}.nii.gz",
        )
        rows.append([f"mri/{name}.nii.gz", "MR T1", "train", "phantom", "CC0", "", "", ""])
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


MR = {"task": "mr-super-resolution", "factor": 2, "tuning_patients": ["ptbp02"], "crops": [[32, 3]]}


def _mr_recipe(**changes):
    known = ("noise_fields",)
    return {**{key: value for key, value in RECIPE.items() if key not in known}, **MR, **changes}


def test_mr_slices_lose_their_fine_detail_as_a_whole_and_enter_by_their_own_percentiles(tmp_path):
    task = task_of(recipe_of(_mr_recipe()), _mr_data(tmp_path / "data"), tmp_path / "cache", Progress())

    assert task.data.patients == 2
    batch = task.batch(0, 0, 1, 0.0)
    assert batch["degraded"].shape == (3, 1, 32, 32)
    assert -300 < float(batch["degraded"].min()) < 200  # whatever the unit was
    assert 800 < float(batch["degraded"].max()) < 1400
    judged = task.judge(task.network.eval())
    assert len(judged.samples) == 1  # the middle slice of the patient held out
    degraded, reference = judged.samples[0].degraded * 1000, judged.samples[0].reference * 1000
    np.testing.assert_allclose(zero_filled(reference, 2), degraded, atol=0.1)
    np.testing.assert_allclose(np.percentile(degraded, (0.5, 99.5)), (0, 1000), atol=0.5)
    assert judged.score == pytest.approx(judged.figures["input_psnr_db"], abs=1e-3)  # untrained: as it came


def test_an_mr_model_says_on_its_card_how_slices_enter_and_what_grid_comes_out(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(_mr_recipe()))
    train(tmp_path / "r.json", tmp_path / "run", 5, _mr_data(tmp_path / "data"), Progress())

    card = ModelLibrary(tmp_path / "run", tmp_path / "none").load("toy", "cpu").card
    assert card.takes == (Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles"),)
    assert (card.scale, card.degradation) == (2, {"kind": "mr-kspace", "factor": 2})


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
    (tmp_path / "empty").mkdir()
    for place, told in (("empty", "no image"), ("none", "no data folder")):
        with pytest.raises(TrainingError, match=told):
            train(make_recipe(tmp_path / "r.json"), tmp_path / "run", 5, tmp_path / place, Progress())


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


def test_an_mr_network_with_a_first_filter_is_trained_on_what_the_filter_leaves(tmp_path):
    recipe = _mr_recipe(first_filter="nlm")
    data = _mr_data(tmp_path / "data")
    task = task_of(recipe_of(recipe), data, tmp_path / "cache", Progress())
    judged = task.judge(task.network.eval())
    plain = task_of(recipe_of(_mr_recipe()), data, tmp_path / "cache", Progress())
    assert judged.score > plain.judge(plain.network.eval()).score + 0.2  # its start is better already
    np.testing.assert_allclose(  # and holds what was measured
        zero_filled(judged.samples[0].degraded * 1000, 2), zero_filled(judged.samples[0].reference * 1000, 2), atol=0.5
    )

    (tmp_path / "r.json").write_text(json.dumps(recipe))
    train(tmp_path / "r.json", tmp_path / "run", 5, data, Progress())
    card = ModelLibrary(tmp_path / "run", tmp_path / "none").load("toy", "cpu").card
    assert card.takes[0].first_filter == "nlm"
    assert any("classical filter" in limit for limit in card.limits)
