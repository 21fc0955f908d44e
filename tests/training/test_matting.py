"""Medical Matting from a data folder to a network that has learnt something."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.training.loop import Trainer
from medapp.training.matting_crops import CropPlan, MattingCrops
from medapp.training.matting_data import MattingData, Specimen, is_texture, load_matting_data
from medapp.training.recipe import MattingRecipe
from medapp.training.run_folder import RunFolder
from medapp.training.tasks.matting import crop_plan, held_apart, matting_task

CONFIG = {"num_filters": (4, 4, 4, 4), "hidden_channel": 2, "num_sampling": 2}


@pytest.fixture
def data_dir(tmp_path):
    """A cut-out, a lesion with its mask, a backdrop, and a cut-out of the other split."""
    row, column = np.mgrid[:60, :50]
    disc = np.clip((16 - np.hypot(row - 30, column - 25)) / 6 + 0.5, 0, 1)
    colours = np.dstack([np.full((60, 50, 3), 200), 255 * disc]).astype(np.uint8)
    lesion = (120 - 80 * disc).astype(np.uint8)
    files = {
        "matting/rgba/disc.png": (colours, "train", "GPL-2.0"),
        "matting/rgba/other.png": (colours, "val", "GPL-2.0"),
        "matting/background/stone.jpg": (np.full((80, 90, 3), 60, np.uint8), "train", "CC0"),
        "skin_or_endoscopy/isic/one.jpg": (np.dstack([lesion] * 3), "train", "CC0"),
        "skin_or_endoscopy/isic/one_mask.png": (((disc > 0.5) * 255).astype(np.uint8), "train", "CC0"),
    }
    with (tmp_path / "MANIFEST.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "modality", "kind", "licence", "sha256"))
        for path, (pixels, kind, licence) in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / path)
            table.writerow((path, "x", kind, licence, f"{len(path):064x}"))
    return tmp_path


def test_only_the_asked_split_is_read_and_its_licences_are_counted(data_dir):
    data = load_matting_data(data_dir, "train", Progress())
    assert [s.name for s in data.specimens["cut-out"]] == ["matting/rgba/disc.png"]
    assert len(data.specimens["skin"]) == 1
    assert data.licences == {"GPL-2.0": 1, "CC0": 3}
    assert "matting/rgba/other.png" not in data.files
    with pytest.raises(TrainingError, match="no mattes"):
        load_matting_data(data_dir, "test", Progress())
    with pytest.raises(TrainingError, match=r"MANIFEST\.csv"):
        load_matting_data(data_dir / "matting", "train", Progress())


@pytest.fixture
def data():
    """A disc in each of a few patients."""
    row, column = np.mgrid[:60, :50]
    disc = np.clip((16 - np.hypot(row - 30, column - 25)) / 6 + 0.5, 0, 1).astype(np.float32)
    specimens = [
        Specimen("skin", f"skin/p{number}.png {z}", 0.8 - 0.1 * number - 0.3 * disc, disc, (9, 14, 41, 46))
        for number in range(4)
        for z in range(2)
    ]
    return MattingData({"skin": specimens}, [], ("skin",), "0" * 64, {"CC0": 4})


def _recipe(**changes):
    entries = {"name": "toy", "config": CONFIG, "crops": ((16, 4),), "strategy": "None", "kl_scale": 0.05}
    entries |= {"learning_rate": 0.01, "iterations": 100, "check_every": 50, "matte_prior": True}
    return MattingRecipe(**{**entries, **changes})


def _train(recipe, data, folder, network=None):
    return Trainer(recipe, matting_task(recipe, data, network), RunFolder(folder), "cpu").train(5, Progress())


def test_training_learns_and_shows_the_same_held_out_things(data, tmp_path):
    done = _train(_recipe(), data, tmp_path / "run")
    points = RunFolder(tmp_path / "run").curves()
    losses, judged = [p for p in points if "loss" in p], [p for p in points if "score" in p]
    assert losses[-1]["alpha"] < 0.8 * losses[0]["alpha"]
    assert {"kl", "reconstruction", "gradient"} <= set(losses[0])
    assert judged[-1]["sad"] < judged[0]["sad"]
    assert done.best_score == pytest.approx(-min(p["sad"] for p in judged), abs=1e-4)
    with Image.open(tmp_path / "run" / "samples" / "5.png") as picture:
        assert picture.size == (48, 16)


def test_a_model_kept_without_its_posterior_can_be_trained_on(data, tmp_path):
    _train(_recipe(), data, tmp_path / "run")
    kept = RunFolder(tmp_path / "run").load_weights("best")
    bare = {key: value for key, value in kept.items() if "posterior" not in key}
    assert len(bare) < len(kept)
    save_file(bare, tmp_path / "bare.safetensors")
    further = _recipe(start_from=str(tmp_path / "bare.safetensors"), iterations=2, learning_rate=1e-5)
    task = matting_task(further, data)
    batch = task.batch(0, 0, 1, 0.0)
    task.network.train()
    assert task.loss(batch, 0.0)[1]["kl"] == pytest.approx(0.0, abs=1e-6)  # the posterior begins as the prior
    _train(further, data, tmp_path / "next")
    before, after = (RunFolder(tmp_path / n).curves()[-1]["sad"] for n in ("run", "next"))
    assert after < 1.3 * before
    with pytest.raises(TrainingError, match="another network"):
        matting_task(_recipe(config={**CONFIG, "hidden_channel": 3}, start_from=further.start_from), data)
    with pytest.raises(TrainingError, match="no weights"):
        matting_task(_recipe(start_from="no-such-model"), data)


def test_a_patient_is_on_one_side_only(data):
    kept, held_out = held_apart(data, _recipe())
    sides = [{s.name.split(" ")[0] for s in each.specimens["skin"]} for each in (kept, held_out)]
    assert sides[0] | sides[1] == {f"skin/p{n}.png" for n in range(4)}
    assert all(sides)
    assert not sides[0] & sides[1]
    named = held_apart(data, _recipe(tuning_patients=("p2",)))[1]
    assert {s.name for s in named.specimens["skin"]} == {"skin/p2.png 0", "skin/p2.png 1"}
    alone = MattingData({"skin": data.specimens["skin"][:2]}, [], (), "0" * 64, {})
    with pytest.raises(TrainingError, match="only one patient"):
        matting_task(_recipe(), alone)


def test_crops_grow_over_the_budget_and_processes_share_them(data):
    task = matting_task(_recipe(crops=((16, 4), (24, 3)), crop_order="growing"), data)
    assert task.batch(0, 0, 1, 0.1)["image"].shape == (4, 1, 16, 16)
    whole = task.batch(3, 0, 1, 0.9)
    assert whole["alpha"].shape == (3, 1, 24, 24)
    first, second = (task.batch(3, rank, 2, 0.9) for rank in range(2))
    for key, values in whole.items():
        assert torch.equal(torch.cat([first[key], second[key]]), values[[0, 2, 1]])
    assert "filler" in task.batch(3, 3, 4, 0.9)


def test_a_plan_that_does_not_fit_is_said(data):
    assert crop_plan(_recipe(augmentation={"shift": 0.2, "crop_of_box": [1.1, 1.2]})).crop_of_box == (1.1, 1.2)
    with pytest.raises(TrainingError, match="augmentation"):
        crop_plan(_recipe(augmentation={"shifts": 0.2}))
    with pytest.raises(TrainingError, match="no source"):
        matting_task(_recipe(shares={"brain": 1.0}), data)


def test_a_model_learns_to_use_a_rough_mask_from_one_that_never_saw_any(data, tmp_path):
    _train(_recipe(iterations=20, check_every=20), data, tmp_path / "run")
    before = str(tmp_path / "run" / "best.safetensors")
    guided = _recipe(
        config={**CONFIG, "input_channels": 2},
        rough={"disturbed": 1.0},
        start_from=before,
        square_scale=1.0,
        iterations=60,
        check_every=60,
    )
    network = matting_task(guided, data).network.eval()
    blind = matting_task(_recipe(start_from=before), data).network.eval()
    batch = matting_task(guided, data).batch(0, 0, 1, 0.0)
    assert batch["image"].shape == (4, 2, 16, 16)
    with torch.no_grad():
        noise = torch.zeros(4, 1, 2)
        begins, was = network(batch["image"], None, 1, noise), blind(batch["image"][:, :1], None, 1, noise)
    torch.testing.assert_close(begins.alpha, was.alpha, atol=1e-5, rtol=1e-4)
    done = _train(guided, data, tmp_path / "guided")
    assert -done.best_score < 0.8 * RunFolder(tmp_path / "guided").curves()[0]["sad"]
    with Image.open(tmp_path / "guided" / "samples" / "1.png") as picture:
        assert picture.size == (48, 16)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"rough": {"guess": 1.0}}, "rough masks are"),
        ({"rough": {"box": 0.0}}, "above 0"),
        ({"rough": {"box": 1.0}}, "input_channels"),
        ({"rough_px": (3.0, 1.0)}, "rough_px"),
    ],
)
def test_a_recipe_of_rough_masks_that_cannot_work_says_why(entries, text):
    assert text in _recipe(**entries).problem()


def test_varied_cut_outs_lie_on_textures_in_colours_of_their_own(data_dir):
    data = load_matting_data(data_dir, "train", Progress())
    assert len(data.textures) == len(data.backdrops) - 1 == 1  # the photograph; the lesion is no texture
    plan = CropPlan(shares={"cut-out": 1.0}, channels=3)
    usual, varied, without = (
        MattingCrops(each, replace(plan, varied=share), seed=2).batch(0, 32, 8)
        for each, share in ((data, 0.0), (data, 1.0), (replace(data, textures=()), 1.0))
    )
    assert np.array_equal(usual[1][0], varied[1][0])  # the same shape, but not what fills and surrounds it
    assert not np.array_equal(usual[0][0], varied[0][0])
    assert np.array_equal(usual[0], without[0])


def test_laced_cut_outs_have_longer_borders_and_only_where_a_thing_was(data_dir):
    data = load_matting_data(data_dir, "train", Progress())
    plan = CropPlan(shares={"cut-out": 1.0}, channels=3)
    plain, laced = (MattingCrops(data, replace(plan, laced=share), seed=4).batch(0, 64, 12)[1] for share in (0.0, 1.0))

    def border(alphas):
        inside = alphas[:, 0] >= 0.5
        return (inside[:, 1:] != inside[:, :-1]).sum() + (inside[..., 1:] != inside[..., :-1]).sum()

    assert border(laced) > 1.3 * border(plain)
    assert laced.dtype == np.float32
    assert 0 <= laced.min() <= laced.max() <= 1
    assert (laced[:, 0] >= 0.5).any(axis=(1, 2)).all()  # never nothing


def test_labels_and_depths_are_no_textures():
    assert is_texture("depth/rgbd/realsense_0_rgb.jpg")
    assert is_texture("pathology/wbc/wbc002.png")
    assert not any(map(is_texture, ("depth/rgbd/realsense_0_depth.png", "pathology/wbc/wbc002_mask.png")))
    assert not any(map(is_texture, ("pathology/nuclei/bbbc038_0_label.png", "matting/rgba/disc.png")))
