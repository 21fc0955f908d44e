"""Pathology super-resolution is measured against interpolation, with the shift of colours and the worst regions."""

import json

import numpy as np
import pytest

from medapp.cli.main import main
from medapp.errors import UsageError
from medapp.networks.card import Intake, read_card
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.card_words import figures_in_words
from medapp.services.evaluation.pathology import evaluate_pathology, measure_picture, worst_regions
from medapp.services.evaluation.tasks import card_figures, table
from tests.networks.toys import keep_toy
from tests.training.pathology_places import CONFIG, make_slides, stained

SLIDE = Intake("SM", "colour", (0.0, 255.0))
TASK = "pathology-super-resolution"


@pytest.fixture
def data(tmp_path):
    names = (("wbc1", "val"), ("wbc2", "val"), ("bmgraz001_1", "val"), ("bmgraz001_2", "val"), ("wbc3", "train"))
    return make_slides(tmp_path / "data", names)


@pytest.fixture
def models(tmp_path):
    keep_toy(tmp_path / "models", "rat", {**CONFIG, "scale": 2}, takes=(SLIDE,), channels=3, scale=2, task=TASK)
    return tmp_path / "models"


def test_the_shift_of_a_colour_and_the_worst_regions_are_seen():
    reference = stained(1).astype(np.float32)
    moved = reference + np.array([0.0, -3.0, 1.0], np.float32)
    regions = np.zeros(reference.shape[:2], np.int32)
    regions[:8, :8] = 1
    moved[:8, :8] += 40
    found = measure_picture(moved, reference, regions)
    assert found["colour_shift"] == pytest.approx(3 - 40 * 64 / regions.size, abs=1e-3)
    assert found["worst_regions"] == pytest.approx((40 + 37 + 41) / 3, abs=1e-3)
    error = np.arange(400.0).reshape(20, 20)
    each_its_own = np.arange(400, dtype=np.int32).reshape(20, 20)
    assert worst_regions(error, each_its_own) == pytest.approx(np.arange(360, 400).mean())


def test_interpolation_and_models_are_measured_on_slides_of_val(data, models):
    result = evaluate_pathology(ModelLibrary(models, models), data, Progress())
    rows = {(row["condition"], row["group"], row["name"]): row for row in result["rows"]}

    assert {group for _, group, _ in rows} == {"all", "H&E tiles", "blood cells"}
    everything = rows["x2", "all", "bicubic"]
    assert (everything["n_slices"], everything["n_subjects"]) == (4, 3)
    assert rows["x2", "all", "linear"]["psnr_db"] < everything["psnr_db"]
    assert rows["x2", "all", "sharpened Lanczos"]["psnr_db"] > rows["x2", "all", "Lanczos"]["psnr_db"]
    assert rows["x4", "all", "bicubic"]["psnr_db"] < everything["psnr_db"]
    assert rows["x4", "all", "bicubic"]["colour_shift"] > rows["x2", "all", "bicubic"]["colour_shift"] > 0.2
    toy = rows["x2", "all", "toy-rat"]
    assert toy["over"]["bicubic"][0] == pytest.approx(toy["psnr_db"] - everything["psnr_db"], abs=0.002)
    assert toy["gain_db"] <= toy["over"]["bicubic"][0]  # over the better of the two
    assert toy["gain_ci95"][1] < 0  # random weights are no better
    assert ("x4", "all", "toy-rat") not in rows
    assert rows["x2", "all", "toy-rat, light free"]["kind"] == "variant"
    assert toy["colour_shift"] < rows["x2", "all", "toy-rat, light free"]["colour_shift"]  # random weights move it


def test_the_trust_map_is_held_against_the_error_of_each_slide(data, models):
    result = evaluate_pathology(ModelLibrary(models, models), data, Progress())
    (told,) = result["calibration"]
    assert (told["name"], told["condition"], told["n_subjects"], told["unit"]) == ("toy-rat", "x2", 3, "grey levels")
    assert len(told["error_by_decile"]) == 10
    assert -1 <= told["rank_correlation"] <= 1
    assert card_figures(result, "toy-rat")["trust map, x2"]["rises"] == told["rises"]
    assert "| toy-rat | x2 |" in table(result, is_markdown=True)
    assert "trust map" not in table(evaluate_pathology(ModelLibrary(models, models), data, Progress(), is_quick=True))


def test_the_command_prints_the_table_and_the_card_keeps_the_figures(data, models, capsys):
    arguments = ["evaluate", "--task", TASK, "--models-dir", str(models), "--data", str(data), "--quick"]
    assert main([*arguments, "--model", "toy-rat", "--update-card", "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert "| all | Lanczos | 4 of 3" in shown or "| all | Lanczos | 3 of 3" in shown
    assert "x4" not in shown
    figures = read_card(models / "toy-rat.json").figures
    assert figures["x2, all"]["colour_shift_worst"] > 0
    assert figures["x2, all"]["bicubic_psnr_db"] > figures["x2, all"]["psnr_db"]
    told = figures_in_words(read_card(models / "toy-rat.json"))
    assert told[0].startswith("x2, all pictures: ")
    assert "dB below sharpened Lanczos (95" in told[0]
    assert told[0].endswith("grey levels.")
    assert main([*arguments, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == TASK


def test_a_model_that_is_not_there_and_a_place_without_pictures_are_said(tmp_path, data, models):
    library = ModelLibrary(models, models)
    with pytest.raises(UsageError, match="no such model"):
        evaluate_pathology(library, data, Progress(), "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        evaluate_pathology(library, tmp_path / "empty", Progress())
