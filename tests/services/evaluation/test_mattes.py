"""Mattes are measured beside closed form, which is told a trimap while the network is told a box."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from medapp.cli.main import main
from medapp.errors import TrainingError, UsageError
from medapp.matting.proposer import MattingProposer
from medapp.networks.card import Card
from medapp.networks.checkpoint import keep_weights
from medapp.networks.library import ModelLibrary
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.services.evaluation.matte_cases import MatteCase, held_out_cases, softened
from medapp.services.evaluation.mattes import Crop, closed_form_of, evaluate_mattes, in_slice, measure_matte
from medapp.training.degradations.mattes import disturbed_mask
from tests.matting.toy_matting import keep_toy_matting

CONFIG = {"num_filters": [4, 4, 4, 4], "hidden_channel": 2, "num_sampling": 2}


def _disc(height=90, width=80, radius=22.0, soft=6.0):
    row, column = np.mgrid[:height, :width]
    return np.clip((radius - np.hypot(row - height / 2, column - width / 2)) / soft + 0.5, 0, 1).astype(np.float32)


@pytest.fixture
def data(tmp_path):
    """A composite, two lesions, a retina seen by two observers and a tumour; and a row of the other split."""
    disc = _disc()
    lesion = (170 - 90 * disc).astype(np.uint8)
    row, column = np.mgrid[:700, :700]
    vessels = [(np.abs((column + row // 3) % 120 - 60) < half) for half in (8, 10)]
    files = {
        "matting/composite/disc_image.png": (np.dstack([40 + 160 * disc] * 3).astype(np.uint8), "val"),
        "matting/composite/disc_alpha.png": ((255 * disc).astype(np.uint8), "val"),
        "skin_or_endoscopy/isic/one.jpg": (np.dstack([lesion] * 3), "val"),
        "skin_or_endoscopy/isic/one_mask.png": (((disc > 0.5) * 255).astype(np.uint8), "val"),
        "skin_or_endoscopy/isic/two.jpg": (np.dstack([lesion.T] * 3), "train"),
        "skin_or_endoscopy/isic/two_mask.png": (((disc.T > 0.5) * 255).astype(np.uint8), "train"),
        "skin_or_endoscopy/fundus/Image_11L.jpg": (np.dstack([180 - 80 * vessels[0]] * 3).astype(np.uint8), "val"),
        "skin_or_endoscopy/fundus/Image_11L_1stHO.png": ((vessels[0] * 255).astype(np.uint8), "val"),
        "skin_or_endoscopy/fundus/Image_11L_2ndHO.png": ((vessels[1] * 255).astype(np.uint8), "val"),
    }
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "modality", "kind", "licence", "sha256"))
        for path, (pixels, kind) in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / path)
            table.writerow((path, "x", kind, "CC0", "0" * 64))
    return folder


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    torch.manual_seed(0)
    network = build_network("medical_matting", CONFIG)
    card = Card("tiny", "Tiny", "1", "medical_matting", "matting", (), "0" * 64, CONFIG, serves="matting")
    keep_weights(network.state_dict(), card, folder)
    return folder


def _case(alpha, **changes):
    values = (40 + 160 * alpha).astype(np.float32)
    return MatteCase(
        **{"source": "a", "name": "1", "patient": "1", "values": values, "window": None} | changes, alpha=alpha
    )


def test_held_out_things_are_found_with_their_patients_and_readers(data):
    cases, sha256 = held_out_cases(data, Progress())
    assert {case.source for case in cases} == {"cut-out", "skin", "vessels"}
    assert "two" not in {case.name for case in cases}
    retina = [case for case in cases if case.source == "vessels"]
    assert {case.patient for case in retina} == {"Image_11"}  # both eyes are one person's
    assert set(np.unique(retina[0].alpha)) == {0.0, 0.5, 1.0}
    assert len(sha256) == 64
    with pytest.raises(TrainingError, match=r"MANIFEST\.csv"):
        held_out_cases(data / "matting", Progress())


def test_closed_form_is_the_better_the_less_its_mask_was_disturbed(data):
    crop = Crop.of(_case(_disc()))
    assert max(crop.truth.shape) == 128
    errors = [np.abs(closed_form_of(crop, px) - crop.truth).mean() for px in (2, 4, 6)]
    assert errors[0] < errors[2] < 0.1


def test_a_case_gives_the_same_figures_each_time_and_finding_nothing_counts(models):
    proposer = MattingProposer(ModelLibrary(models, models).load("tiny", "cpu"))
    case = _case(_disc())
    first = measure_matte(proposer, case)
    assert first == measure_matte(proposer, case)
    assert set(first) >= {"sad", "mse", "grad", "conn", "soft_dice", "ged"}
    with torch.no_grad():
        for parameter in proposer.model.network.parameters():
            parameter.zero_()  # a flat matte everywhere
    assert measure_matte(proposer, case)["grad"] > 0


def test_a_hard_label_gets_a_border_of_about_a_pixel_of_the_crop():
    mask = _disc(soft=1e-3) > 0.5
    soft = softened(mask)
    assert 0 < np.count_nonzero((soft > 0.05) & (soft < 0.95)) < 0.3 * mask.sum()
    assert abs(soft.sum() / mask.sum() - 1) < 0.01


def test_the_command_compares_models_with_closed_form_and_keeps_it_on_the_card(data, models, capsys):
    command = ["evaluate", "--task", "matting", "--models-dir", str(models), "--data", str(data), "--quick"]
    assert main([*command, "--model", "tiny", "--update-card", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {(row["source"], row["name"]): row for row in told["rows"]}
    assert ("all", "tiny, rough mask") not in rows  # it takes none
    tiny, closed = rows["all", "tiny"], rows["all", "closed form"]
    assert tiny["below_percent"]["sad"] == pytest.approx(100 * (1 - tiny["sad"] / closed["sad"]), abs=0.2)
    low, high = tiny["below_ci95"]["sad"]
    assert low <= tiny["below_percent"]["sad"] <= high
    assert closed["sad"] < rows["all", "disturbed mask"]["sad"]
    figures = ModelLibrary(models, models).card("tiny").figures
    assert figures["skin"]["sad"] == rows["skin", "tiny"]["sad"]

    assert main(command) == 0
    table = capsys.readouterr().out
    assert any(line.startswith("all") and "tiny" in line for line in table.splitlines())
    assert main([*command, "--model", "other"]) == 2
    with pytest.raises(UsageError):
        evaluate_mattes(ModelLibrary(models, models), data, Progress(), "other")


def test_a_model_that_takes_rough_masks_has_a_second_row_in_which_it_is_told_those_of_closed_form(data, models, capsys):
    keep_toy_matting(models, "led", config={"input_channels": 2}, inputs=("rough_mask",))
    command = ["evaluate", "--task", "matting", "--models-dir", str(models), "--data", str(data), "--quick"]
    assert main([*command, "--model", "led", "--update-card", "--json", "-"]) == 0
    rows = {(row["source"], row["name"]): row for row in json.loads(capsys.readouterr().out)["rows"]}
    boxed, told = rows["all", "led"], rows["all", "led, rough mask"]
    assert told["cases"] == boxed["cases"]
    assert [told[key] for key in ("sad", "mse", "ged")] != [boxed[key] for key in ("sad", "mse", "ged")]
    assert set(told["below_percent"]) == {"sad", "mse", "grad", "conn"}
    figures = ModelLibrary(models, models).card("led").figures
    assert figures["all, rough mask"]["sad"] == told["sad"]


def test_a_rough_mask_finds_its_way_into_the_slice_and_back():
    case = _case(_disc(200, 300, 60.0))
    crop = Crop.of(case)
    mask = disturbed_mask(crop.truth >= 0.5, 4.0, crop.seed)
    whole = in_slice(mask, crop, case.alpha.shape)
    assert whole.shape == case.alpha.shape
    back = in_slice(mask, crop, case.alpha.shape)[crop.place] > 0.5
    assert abs(back.mean() - mask.mean()) < 0.01
    near = (whole > 0.5) & (case.alpha > 0.5)
    assert near.sum() / ((whole > 0.5) | (case.alpha > 0.5)).sum() > 0.8
