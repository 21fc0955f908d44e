"""Medical Matting from a data folder to a network that has learnt something."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from medapp.errors import Cancelled, TrainingError
from medapp.progress import Progress
from medapp.training.matting_crops import CropPlan, MattingCrops
from medapp.training.matting_data import load_matting_data
from medapp.training.matting_loop import MattingRecipe, averaged_so_far, train_matting

TOY = {"num_filters": (4, 4, 4, 4), "hidden_channel": 2, "num_sampling": 2}


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


@pytest.fixture
def crops(data_dir):
    return MattingCrops(load_matting_data(data_dir, "train", Progress()), CropPlan({"cut-out": 1.0, "skin": 1.0}))


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


def test_a_batch_is_the_same_whenever_it_is_drawn_and_holds_the_thing_in_its_middle(crops):
    images, alphas = crops.batch(5, 32, 12)
    again, _ = crops.batch(5, 32, 12)
    assert np.array_equal(images, again)
    assert not np.array_equal(images, crops.batch(6, 32, 12)[0])
    assert images.shape == alphas.shape == (12, 1, 32, 32)
    assert images.dtype == alphas.dtype == np.float32
    assert 0 <= min(images.min(), alphas.min()) <= max(images.max(), alphas.max()) <= 1
    assert (alphas[:, 0, 12:20, 12:20].mean(axis=(1, 2)) > 0.9).all()
    assert (alphas[:, 0, :2, :2].mean(axis=(1, 2)) < 0.5).all()


def test_training_learns_goes_on_and_can_start_from_weights(crops, tmp_path):
    recipe = MattingRecipe(
        TOY, updates=100, crops=((16, 4),), learning_rate=0.01, strategy="None", kl_scale=0.05, matte_prior=True
    )
    network = train_matting(recipe, crops, tmp_path / "run", Progress())
    notes = [json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()]
    assert notes[-1]["alpha"] < 0.8 * notes[0]["alpha"]
    image = torch.rand(1, 1, 16, 16)
    noise = torch.zeros(1, 2, 2)
    with torch.no_grad():
        again = averaged_so_far(recipe, tmp_path / "run")(image, noise=noise).alpha
        torch.testing.assert_close(again, network(image, noise=noise).alpha)

    started = MattingRecipe(TOY, minutes=0.0)
    other = train_matting(started, crops, tmp_path / "next", Progress(), start=network.state_dict())
    assert torch.equal(other(image, noise=noise).alpha, network(image, noise=noise).alpha)


def test_stopping_keeps_the_state(crops, tmp_path):
    calls = []
    progress = Progress(is_stopped=lambda: calls.append(1) or len(calls) > 4)
    recipe = MattingRecipe(TOY, minutes=1.0, crops=((16, 2),))
    with pytest.raises(Cancelled):
        train_matting(recipe, crops, tmp_path / "run", progress)
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 4


def test_a_damaged_state_and_an_empty_folder_are_said(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="damaged"):
        averaged_so_far(MattingRecipe(TOY), tmp_path)
    with pytest.raises(TrainingError, match="no run"):
        averaged_so_far(MattingRecipe(TOY), tmp_path / "none")
