"""Low-dose PET is measured at every simulated centre: errors, tumours, and what routers choose."""

import json

import numpy as np
import pytest

from medapp.errors import UsageError
from medapp.networks.card import Card, read_card
from medapp.networks.checkpoint import keep_weights
from medapp.networks.library import ModelLibrary
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.restoration.restorer import NetworkRestorer
from medapp.services.card_words import figures_in_words
from medapp.services.evaluation.pet import pet_subjects
from medapp.services.evaluation.tasks import card_figures, evaluate, table
from tests.services.evaluation.making import PET, make_pet

CONFIG = {"dims": 2, "n_feats": 16, "res_num": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pet")
    card = Card("toy", "Toy", "1", "drmc", "pet-synthesis", (PET,), "0" * 64, CONFIG, min_side_px=16)
    keep_weights(build_network("drmc", CONFIG).state_dict(), card, folder / "models")
    return ModelLibrary(folder / "models", folder / "none"), make_pet(folder / "data")


@pytest.fixture(scope="module")
def result(place):
    return evaluate("pet-synthesis", *place, Progress(), is_quick=True)


def _row(result, letter, name):
    return next(row for row in result["rows"] if row["centre"].startswith(letter) and row["name"] == name)


def test_every_centre_is_told_and_the_one_held_out_apart(result):
    assert result["unit"] == "SUV"
    assert len({row["centre"] for row in result["rows"]}) == 5
    assert {row["centre"][0] for row in result["rows"] if row["is_held_out"]} == {"E"}
    for letter in "ABCDE":
        low, smooth = (_row(result, letter, name) for name in ("low-dose input", "Gaussian"))
        assert smooth["gain_input_db"] == pytest.approx(smooth["psnr_db"] - low["psnr_db"], abs=0.01)
        assert smooth["gain_input_db"] > 0
        toy = _row(result, letter, "toy")
        assert toy["best_classical"] != "toy"
        assert toy["n_tumours"] == toy["n_subjects"] == 2


def test_the_tumours_of_all_centres_are_told_together_with_and_without_sign(result):
    rows = [row for row in result["rows"] if row["name"] == "low-dose input" and row["fraction"] == 0.1]
    biases = [bias for row in rows for bias in row["suvmax_by_patient"].values()]
    (told,) = (row for row in result["together"] if row["name"] == "low-dose input")
    assert told["n_readings"] == len(biases) > len(rows) - 1
    assert told["suvmax_bias"] == pytest.approx(np.mean(biases), abs=0.02)
    assert told["suvmax_off"] == pytest.approx(np.mean(np.abs(biases)), abs=0.02)
    assert told["suvmax_off_ci95"][0] <= told["suvmax_off"] <= told["suvmax_off_ci95"][1]


def test_noise_raises_suvmax_and_smoothing_lowers_it(result):
    low, smooth = (_row(result, "D", name) for name in ("low-dose input", "Gaussian"))
    assert low["suvmax_bias"] > 10
    assert smooth["suvmax_bias"] < low["suvmax_bias"]
    assert abs(low["suvmean_bias"]) < 15
    assert abs(low["suvmax_worst"]) == max(abs(bias) for bias in low["suvmax_by_patient"].values())


def test_gates_are_told_by_centre(result):
    (told,) = result["gates"]
    assert told["name"] == "toy"
    assert len(told["gates"]) == 5
    assert all(len(gates) == 6 for gates in told["gates"].values())  # two routers of three experts
    assert 0 <= told["centre_told_percent"] <= 100


def test_the_trust_map_is_held_against_the_error_at_every_centre(place, result):
    assert result["calibration"] == []  # quick
    whole = evaluate("pet-synthesis", *place, Progress(), slices_per_subject=1)
    assert [told["condition"][:8] for told in whole["calibration"]] == [f"centre {letter}" for letter in "ABCDE"]
    for told in whole["calibration"]:
        assert (told["name"], told["n_subjects"], told["unit"]) == ("toy", 2, "SUV")
        assert -1 <= told["block_rank_correlation"] <= 1
    assert "trust map, centre E, held out, 0.1 of the counts" in card_figures(whole, "toy")
    text = table(whole, is_markdown=True)
    assert text.count("| toy | centre ") == 5
    assert "0.1 of the counts | 0." in text or "0.1 of the counts | -0." in text


def test_the_result_goes_onto_a_table_and_a_card(result):
    text = table(result, is_markdown=True)
    assert "centre E, held out, 0.1 of the counts" in text
    assert "Gates of toy" in text
    figures = card_figures(result, "toy")
    assert figures["centre A, as measured, 0.1 of the counts"]["n_tumours"] == 2
    json.dumps(figures)
    card = Card("toy", "Toy", "1", "drmc", "pet-synthesis", (PET,), "0" * 64, CONFIG, figures=figures)
    told = figures_in_words(card)
    assert told[0].startswith("SUVmax of tumours, all centres, 0.1 of the counts: ")
    assert told[1].startswith("Centre A, as measured, 0.1 of the counts: ")
    assert "SUVmax of tumours" in told[1]


def test_results_are_called_synthetic(tmp_path):
    card = Card("toy", "Toy", "1", "drmc", "pet-synthesis", (PET,), "0" * 64, CONFIG, min_side_px=16)
    keep_weights(build_network("drmc", CONFIG).state_dict(), card, tmp_path)
    restorer = NetworkRestorer(ModelLibrary(tmp_path, tmp_path).load(read_card(tmp_path / "toy.json").id))
    assert restorer.chip == "SYNTHETIC PET · Toy 1"
    assert restorer.makes == "synthetic"


def test_pet_that_is_not_in_suv_is_not_judged(tmp_path):
    folder = tmp_path / "plain"
    make_pet(tmp_path / "data")
    folder.mkdir()
    for path in (tmp_path / "data" / "pet").glob("*_pet.nii.gz"):
        path.rename(folder / path.name)  # NIfTI without a manifest says no unit
    with pytest.raises(UsageError, match="SUV"):
        pet_subjects(folder, 5, Progress())
