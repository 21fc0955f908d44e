"""PET models are trained on simulated centres, and refuse what is no SUV."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from medapp.errors import MedappError, TrainingError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration.ranges import from_network as leaving
from medapp.restoration.ranges import to_network as entering
from medapp.services.train import train
from medapp.training.degradations.pet_centres import CENTRES, at_centre, drifted, low_doses, mask_at_centre, spacing_at
from medapp.training.losses.pet import hottest_error, uptake_error
from medapp.training.recipe import recipe_of
from medapp.training.tasks import task_of
from medapp.training.tasks.pet_synthesis import from_network, to_network
from tests.services.evaluation.making import make_pet

RECIPE = {
    "name": "toy-pet",
    "task": "pet-synthesis",
    "config": {"dims": 2, "n_feats": 16, "res_num": 1},
    "crops": [[40, 2]],
    "centres": ["A", "C"],
    "draws": 1,
    "slices_per_series": 2,
    "iterations": 4,
    "warm_up": 1,
    "check_every": 2,
    "tuning_patients": ["STS_002"],
}
SGSGAN = {
    "architecture": "sgsgan",
    "config": {"dims": 2, "channels": [4, 4, 8, 8], "style_width": 8},
    "centres": ["A"],
    "guidance_from": 0.25,
    "critic_heard_from": 0.5,
    "critic_channels": [4, 4, 8, 8],
}
TRAINED = tuple((f"STS_00{n}", "train") for n in (1, 2, 3))


@pytest.fixture
def data(tmp_path):
    return make_pet(tmp_path / "data", TRAINED)


def _train(tmp_path, data, **changes):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**RECIPE, **changes}))
    train(path, tmp_path / "run", 5, data, Progress())
    return ModelLibrary(tmp_path / "run", tmp_path / "none").card("toy-pet")


def test_the_card_says_that_the_centres_are_simulated_and_how(tmp_path, data):
    card = _train(tmp_path, data)
    assert card.task == "pet-synthesis"
    assert any("Simulated centres" in limit for limit in card.limits)
    assert [centre["name"][0] for centre in card.training["simulated centres"]] == ["A", "C"]
    assert card.training["simulated centres"][1]["scanner"]["iterations"] == CENTRES[2].scanner.iterations
    assert card.training["patients"] == 2
    assert card.data[0]["slices"] == 4  # of those that there are, what was trained on at each centre
    assert card.spacing_mm == (4.0, 6.0)
    assert card.extent_mm == pytest.approx(136, abs=4)  # what a scan may be wider than by half at the most
    assert card.min_side_px < 30


def test_a_critic_is_told_on_the_card_and_a_segmenter_stays_as_it_learnt(tmp_path, data):
    card = _train(tmp_path, data, **SGSGAN, segmentation=0.05, adversarial=0.001)
    assert card.limits[0].startswith("Adversarial weights")
    curves = [json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()]
    assert all(np.isfinite(point["score"]) for point in curves if "score" in point)

    recipe = recipe_of({**RECIPE, **SGSGAN, "segmentation": 0.05})
    task = task_of(recipe, data, tmp_path / "cache", Progress())
    batch = task.batch(0, 0, 1, 0.0)
    segmenter = task.parts()["segmenter"]
    for share, learns in ((0.0, True), (0.9, False)):
        segmenter.zero_grad()
        task.network.zero_grad()
        loss, _ = task.loss(batch, share)
        loss.backward()
        assert any(weight.grad is not None for weight in segmenter.parameters()) == learns
    assert all(weight.grad is not None for weight in task.network.parameters())


def test_crops_may_be_larger_than_the_slices(tmp_path, data):
    task = task_of(recipe_of({**RECIPE, "crops": [[64, 4]]}), data, tmp_path / "cache", Progress())
    batch = task.batch(3, 0, 1, 0.0)
    assert batch["degraded"].shape == batch["tumour"].shape == (4, 1, 64, 64)
    assert float(batch["degraded"].min()) >= 0
    whole, halves = batch["reference"], [task.batch(3, rank, 2, 0.0)["reference"] for rank in (0, 1)]
    assert torch.equal(whole[0::2], halves[0])
    assert torch.equal(whole[1::2], halves[1])


@pytest.mark.parametrize(("words", "factor"), [("PET FDG (Bq/ml)", 1), ("PET FDG (SUV)", 300)])
def test_pet_in_another_unit_is_refused_whatever_calls_it_suv(tmp_path, data, words, factor):
    with (data / "MANIFEST.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["path"].endswith("_pet.nii.gz"):
            row["modality"] = words
            image = nib.load(data / row["path"])
            nib.save(nib.Nifti1Image(image.get_fdata() * factor, image.affine), data / row["path"])
    with (data / "MANIFEST.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(TrainingError, match="SUV"):
        task_of(recipe_of(RECIPE), data, tmp_path / "cache", Progress())


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"start_from": "no-such-model"}, "start from"), ({"config": {"n_feat": 8}}, "n_feat|drmc|DRMC")],
)
def test_what_cannot_start_is_said_before_the_data_are_read(tmp_path, changes, told):
    with pytest.raises(MedappError, match=told) as refused:
        task_of(recipe_of({**RECIPE, **changes}), tmp_path / "nowhere", tmp_path / "cache", Progress())
    assert "MANIFEST" not in refused.value.message + refused.value.hint


def test_pet_without_suv_is_refused(tmp_path, data):
    with (data / "MANIFEST.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    folder = tmp_path / "plain"  # NIfTI of a folder says no unit
    folder.mkdir()
    for row in rows:
        if row["path"].endswith("_pet.nii.gz"):
            (data / row["path"]).rename(folder / row["path"].split("/")[-1])
    with pytest.raises(TrainingError, match="not in SUV") as refused:
        task_of(recipe_of(RECIPE), folder, tmp_path / "cache", Progress())
    assert "weight" in refused.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"centres": ["Z"]},
        {"adversarial": 0.001},
        {"fractions": [0.0, 0.5]},
        {**SGSGAN, "adversarial": 0.001, "crops": [[24, 2]]},
        {"hottest_weight": -1},
    ],
)
def test_recipes_that_cannot_work_are_refused_in_words(changes, tmp_path, data):
    with pytest.raises(TrainingError) as refused:
        task_of(recipe_of({**RECIPE, **changes}), data, tmp_path / "cache", Progress())
    assert refused.value.hint


@pytest.mark.parametrize("centre", CENTRES, ids=lambda centre: centre.name)
def test_centres_differ_in_voxels_and_noise_but_keep_the_uptake(centre):
    y, x = np.mgrid[:30, :34]
    suv = np.where(np.hypot(y - 15, x - 17) < 11, 2.0, 0.05).astype(np.float32)
    full, inside = at_centre(suv, 5.0, centre), mask_at_centre(suv > 1, 5.0, centre)
    side = spacing_at(5.0, centre)
    assert full.shape == inside.shape
    assert full.shape[0] * side == pytest.approx(150, abs=side)
    assert full.sum() * side**2 == pytest.approx(suv.sum() * 25, rel=0.08)
    weak, strong = low_doses(full, side, centre, (0.5, 0.05), 1)
    assert np.std((strong - full)[inside]) > 1.5 * np.std((weak - full)[inside])
    assert np.mean(strong[inside]) == pytest.approx(np.mean(full[inside]), rel=0.1)
    assert strong.min() >= 0


def test_one_centre_is_never_trained_on():
    held_out = [centre.name[0] for centre in CENTRES if centre.is_held_out]
    assert held_out == ["E"]
    assert not set(held_out) & set(recipe_of(RECIPE | {"centres": list("ABCD")}).centres)
    assert not set(held_out) & set(recipe_of({"name": "a", "task": "pet-synthesis", "iterations": 1}).centres)


@pytest.mark.parametrize("curve", ["log", "linear"])
def test_training_and_restoring_scale_alike(curve, tmp_path):
    recipe = recipe_of({**RECIPE, "curve": curve})
    suv = np.linspace(0, 79, 50).astype(np.float32)
    from medapp.networks.card import Intake

    intake = Intake("PT", "SUV", recipe.value_range, recipe.network_range, curve=curve)
    seen = to_network(torch.from_numpy(suv), recipe)
    assert torch.allclose(seen, torch.from_numpy(entering(suv, intake)), atol=1e-5)
    assert torch.allclose(from_network(seen, recipe), torch.from_numpy(leaving(seen.numpy(), intake)), atol=1e-3)


def test_a_smooth_answer_pays_for_its_low_maximum():
    reference = torch.full((1, 1, 8, 8), 1.0)
    reference[0, 0, 4, 4] = 9.0
    tumour = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    tumour[0, 0, 2:7, 2:7] = True
    smooth = torch.nn.functional.avg_pool2d(reference, 3, 1, 1, count_include_pad=False)
    none = torch.zeros_like(tumour)
    assert hottest_error(smooth, reference, tumour) > 1
    assert hottest_error(smooth, reference, none) > 1
    assert hottest_error(reference, reference, tumour) == 0
    assert uptake_error(smooth, reference, tumour, 4.0) > uptake_error(smooth, reference, tumour, 1.0)


def test_a_drifted_scanner_is_like_its_centre_and_stays_the_same_for_a_patient():
    for centre in CENTRES:
        exact, one, other = drifted(centre, 0.0, 1), drifted(centre, 0.7, 1), drifted(centre, 0.7, 2)
        assert (exact.blur_mm, exact.voxel_mm, exact.scanner) == (centre.blur_mm, centre.voxel_mm, centre.scanner)
        assert one == drifted(centre, 0.7, 1) != other
        assert 0.66 < one.scanner.counts_per_suv_ml / centre.scanner.counts_per_suv_ml < 1.51
        assert one.blur_mm >= 0
        assert (one.voxel_mm is None) == (centre.voxel_mm is None)


def test_a_scanner_like_the_reference_is_as_sharp_as_the_reference():
    assert {drifted(CENTRES[0], 1.0, seed).blur_mm for seed in range(20)} == {0.0}
    assert max(drifted(CENTRES[1], 1.0, seed).blur_mm for seed in range(20)) > 2.0


def test_every_second_crop_comes_from_a_drifted_scanner(tmp_path, data):
    recipe = {**RECIPE, "crops": [[40, 4]]}
    exact, drifting = (
        task_of(recipe_of({**recipe, "drift": drift}), data, tmp_path / "cache", Progress()) for drift in (0.0, 0.7)
    )
    assert drifting.data.patients == exact.data.patients
    judged = drifting.judge(drifting.network.eval()).figures
    assert {"suvmax_bias_a", "suvmax_bias_c"} <= set(judged)
    assert exact.judge(exact.network.eval()).figures["input_psnr_db"] == judged["input_psnr_db"]  # judged at centres
    one, other = (task.batch(0, 0, 1, 0.0)["degraded"] for task in (exact, drifting))
    assert not torch.equal(one, other)
