"""Pictures with soft targets: what the sources become, and what a crop shows."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.training.matting_crops import CropPlan, MattingCrops
from medapp.training.matting_data import MattingData, Specimen, load_matting_data
from medapp.training.rough_masks import RoughPlan


def _retina(folder, observers):
    """A bright eye with one dark vessel down its middle, as wide as each observer thinks."""
    image = np.full((400, 360, 3), (200, 120, 60), np.uint8)
    image[:, 160:200] = (120, 40, 20)
    place = folder / "skin_or_endoscopy" / "fundus"
    place.mkdir(parents=True)
    Image.fromarray(image).save(place / "Image_01L.jpg")
    Image.fromarray(np.full((80, 90, 3), 60, np.uint8)).save(place / "stone.jpg")
    rows = [("skin_or_endoscopy/fundus/Image_01L.jpg", "train")]
    for name, half in observers:
        drawn = np.zeros((400, 360), np.uint8)
        drawn[:, 180 - half : 180 + half] = 255
        Image.fromarray(drawn).save(place / f"Image_01L_{name}.png")
        rows.append((f"skin_or_endoscopy/fundus/Image_01L_{name}.png", "train"))
    (folder / "matting" / "background").mkdir(parents=True)
    Image.fromarray(np.full((80, 90, 3), 60, np.uint8)).save(folder / "matting" / "background" / "stone.jpg")
    rows.append(("matting/background/stone.jpg", "train"))
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "kind", "licence", "sha256"))
        table.writerows((path, kind, "CC BY 4.0", f"{len(path):064x}") for path, kind in rows)


def test_vessels_are_the_mean_of_two_observers_and_need_both(tmp_path):
    _retina(tmp_path, [("1stHO", 20), ("2ndHO", 12)])
    data = load_matting_data(tmp_path, "train", Progress())
    vessels = data.specimens["vessels"]
    assert len(vessels) == 2  # the whole, and the one window that holds enough
    window = vessels[1]
    assert window.image.shape == (*window.alpha.shape, 3)
    middle = window.alpha.shape[1] // 2
    levels = window.alpha[80]
    assert levels.max() == pytest.approx(1.0)
    assert levels[0] == 0.0
    assert ((levels > 0.45) & (levels < 0.55)).sum() == pytest.approx(8, abs=2)  # where only one saw it, halved
    assert window.box_xyxy[0] < middle < window.box_xyxy[2]

    (tmp_path / "one").mkdir()
    _retina(tmp_path / "one", [("1stHO", 20)])
    with pytest.raises(TrainingError, match="no mattes"):
        load_matting_data(tmp_path / "one", "train", Progress())


def _data(image, alpha, source):
    rows, columns = np.nonzero(alpha > 0.1)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    specimen = Specimen(source, "one", image.astype(np.float32), alpha.astype(np.float32), box)
    return MattingData({source: [specimen]}, [np.full((40, 40), 0.5, np.float32)], (), "", {})


def test_a_crop_spans_what_a_box_of_the_turned_thing_would():
    """A bar lies along a diagonal: a box of it as it lies upright would be far too large or small once it is turned."""
    row, column = np.mgrid[:120, :120]
    alpha = ((abs(row - column) < 8) & (abs(row + column - 119) < 70)).astype(np.float32)
    crops = MattingCrops(_data(1 - alpha, alpha, "vessels"), CropPlan({"vessels": 1.0}, (1.5, 1.5), shift=0.0))
    _, alphas = crops.batch(0, 48, 16)
    for each in alphas[:, 0]:
        rows, columns = np.nonzero(each > 0.5)
        longest = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longest == pytest.approx(48 / 1.5, abs=2)
        assert (rows.min() + rows.max()) / 2 == pytest.approx(23.5, abs=1.5)


def test_colours_stay_colours_and_grey_stays_grey():
    row, column = np.mgrid[:60, :60]
    alpha = np.clip((16 - np.hypot(row - 30, column - 30)) / 4 + 0.5, 0, 1)
    red = np.stack([0.3 + 0.6 * alpha, 0.4 - 0.2 * alpha, np.full_like(alpha, 0.3)], axis=-1)
    plan = CropPlan({"skin": 1.0}, greyed=0.0, channels=3)
    coloured, _ = MattingCrops(_data(red, alpha, "skin"), plan).batch(0, 32, 8)
    assert coloured.shape == (8, 3, 32, 32)
    assert (np.abs(coloured[:, 0] - coloured[:, 2]).max(axis=(1, 2)) > 0.2).all()
    of_grey, _ = MattingCrops(_data(alpha, alpha, "skin"), plan).batch(0, 32, 8)
    assert np.array_equal(of_grey[:, :1].repeat(3, axis=1), of_grey)
    in_grey, _ = MattingCrops(_data(red, alpha, "skin"), CropPlan({"skin": 1.0})).batch(0, 32, 8)
    assert in_grey.shape == (8, 1, 32, 32)


def test_hard_labels_get_a_soft_border_and_soft_ones_stay():
    hard = np.zeros((60, 60), np.float32)
    hard[20:40, 20:40] = 1
    for source, is_blurred in (("lesion", True), ("vessels", False)):
        plan = CropPlan({source: 1.0}, softness=(0.02, 0.02))
        _, alphas = MattingCrops(_data(hard, hard, source), plan).batch(0, 60, 4)
        soft_share = ((alphas > 0.05) & (alphas < 0.95)).mean()
        assert (soft_share > 0.12) == is_blurred, source


@pytest.fixture
def disc():
    """One dark disc, in a picture a little uneven."""
    row, column = np.mgrid[:90, :90]
    soft = np.clip((20 - np.hypot(row - 45, column - 45)) / 3 + 0.5, 0, 1).astype(np.float32)
    image = (0.7 + 0.05 * np.sin(row / 9) - 0.4 * soft).astype(np.float32)
    return MattingData({"skin": [Specimen("skin", "p1 0", image, soft, (24, 24, 66, 66))]}, (), (), "", {})


@pytest.mark.parametrize("kind", ["disturbed", "careless", "region", "box"])
def test_a_rough_mask_comes_after_the_image_and_lies_on_the_thing(disc, kind):
    plan = CropPlan({"skin": 1.0}, rough=RoughPlan({kind: 1.0}))
    images, alphas = MattingCrops(disc, plan, 0).batch(3, 64, 6)
    bare, _ = MattingCrops(disc, CropPlan({"skin": 1.0}), 0).batch(3, 64, 6)
    assert images.shape == (6, 2, 64, 64)
    assert np.array_equal(images[0, 0], bare[0, 0])  # the image itself does not change
    assert images[:, 1].min() == 0
    for rough, truth in zip(images[:, 1] > (0 if kind == "box" else 0.5), alphas[:, 0] >= 0.5, strict=True):
        assert (rough & truth).sum() / (rough | truth).sum() > (0.35 if kind == "region" else 0.6)
        assert kind == "region" or not np.array_equal(rough, truth)
    again, _ = MattingCrops(disc, plan, 0).batch(3, 64, 6)
    assert np.array_equal(images, again)


def test_grey_matter_is_never_told_by_a_box_which_white_matter_has_too(disc):
    specimen = disc.specimens["skin"][0]
    tissues = {source: [replace(specimen, source=source)] for source in ("brain", "grey matter")}
    data = MattingData(tissues, (), (), "", {})
    for source, boxes in (("brain", 8), ("grey matter", 0)):
        plan = CropPlan({source: 1.0}, rough=RoughPlan({"box": 1.0}))
        images, _ = MattingCrops(data, plan, 0).batch(3, 64, 8)
        assert sum(set(np.unique(told)) <= {0.0, 0.5} for told in images[:, 1]) == boxes
