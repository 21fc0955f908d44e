"""The fit check says in one line why a model suits a scan or not."""

from dataclasses import replace

import pytest

from medapp.networks.card import Intake
from medapp.restoration.fit import ScanFacts, fit_card, fit_filter
from tests.networks.test_card import CARD

CT = ScanFacts("CT", "HU", (10, 512, 512), (0.7, 0.7))


def test_a_scan_like_the_training_data_is_green():
    assert fit_card(CT, CARD).level == "green"


@pytest.mark.parametrize(
    ("change", "level", "told"),
    [
        ({"modality": "MR"}, "blocked", "made for CT; this is MR"),
        ({"modality": None}, "blocked", "does not say"),
        ({"unit": "arbitrary"}, "blocked", "HU"),
        ({"shape": (10, 16, 512)}, "blocked", "at least 32 px"),
        ({"shape": (1, 512, 512, 3)}, "blocked", "grey"),
        ({"spacing_mm": None}, "amber", "not known"),
        ({"spacing_mm": (2.0, 2.0)}, "amber", "2.00 mm"),
    ],
)
def test_other_scans_say_why(change, level, told):
    fit = fit_card(replace(CT, **change), CARD)
    assert fit.level == level
    assert told in fit.reason
    assert "\n" not in fit.reason


def test_the_filter_takes_every_grey_modality_and_no_colour():
    assert fit_filter(replace(CT, modality="PT", unit="SUV")).level == "green"
    assert fit_filter(ScanFacts(None, "arbitrary", (1, 64, 64, 3))).level == "blocked"


SUV = replace(CARD, takes=(Intake("PT", "SUV", (0.0, 20.0)),), extent_mm=200.0, spacing_mm=None)


def test_whole_body_pet_is_blocked_for_models_trained_on_crops():
    crop, body = (ScanFacts("PT", "SUV", (20, side, side), (4.0, 4.0)) for side in (60, 168))
    assert fit_card(crop, SUV).level == "green"
    fit = fit_card(body, SUV)
    assert fit.level == "blocked"
    assert fit.reason == "trained on crops of 200 mm; this scan is 672 mm wide"
    assert fit_card(replace(body, spacing_mm=None), SUV).level == "amber"


def test_pet_in_other_units_than_suv_is_blocked():
    facts = ScanFacts("PT", "BQML", (20, 60, 60), (4.0, 4.0))
    assert fit_card(facts, SUV).reason == "needs values in SUV; these are in BQML; weight, dose or times are missing"


def test_a_model_for_several_modalities_asks_each_for_its_unit():
    card = replace(
        CARD, takes=(*CARD.takes, Intake("PT", "SUV", (0.0, 20.0)), Intake("MR", "arbitrary", (0.0, 4095.0)))
    )
    assert fit_card(CT, card).reason == "made for CT or PT or MR"
    assert fit_card(replace(CT, modality="MR", unit="arbitrary"), card).level == "green"
    assert fit_card(replace(CT, modality="PT"), card).reason == "needs values in SUV; these are in HU"
    assert fit_card(replace(CT, modality="US"), card).level == "blocked"


def test_a_volume_model_needs_enough_slices():
    fit = fit_card(replace(CT, shape=(4, 512, 512)), replace(CARD, dims=3, min_side_px=8))
    assert fit.reason == "needs at least 8 px and slices a side; this has 4"


def test_regions_of_another_engine_than_in_training_are_amber():
    card = replace(CARD, inputs=("region_map",), region_engine="SAM · vit_b")
    assert fit_card(CT, card).level == "green"
    assert fit_card(CT, card, "SAM · vit_b").level == "green"
    fit = fit_card(CT, card, "region tree")
    assert (fit.level, fit.reason) == ("amber", "trained with SAM · vit_b; these regions are from region tree")


def test_colour_models_take_pictures_that_do_not_say_what_they_are():
    for unit in ("arbitrary", "colour"):
        card = replace(CARD, channels=3, takes=(Intake("XC", unit, (0.0, 255.0)),), spacing_mm=None)
        for silent in (None, "OT"):
            fit = fit_card(ScanFacts(silent, "arbitrary", (1, 64, 64, 3)), card)
            assert (fit.level, fit.reason) == ("amber", "made for XC; this picture does not say what it is")
        assert fit_card(ScanFacts("XC", "arbitrary", (1, 64, 64, 3)), card).level == "green"
        assert fit_card(ScanFacts("ES", "arbitrary", (1, 64, 64, 3)), card).level == "blocked"
    assert fit_card(CT, card).reason == "made for colour images"


def test_a_model_of_several_kinds_judges_each_by_what_its_card_says_of_it():
    pet = Intake("PT", "SUV", (0.0, 80.0), extent_mm=200.0, min_side_px=24)
    mr = Intake("MR", "arbitrary", (0.0, 1000.0), limits="percentiles", scale=4, spacing_mm=(0.5, 1.0))
    card = replace(CARD, task="all-in-one", takes=(*CARD.takes, mr, pet), spacing_mm=None)
    whole_body = ScanFacts("PT", "SUV", (40, 168, 168), (4.0, 4.0))
    assert fit_card(whole_body, card).level == "blocked"
    assert fit_card(replace(whole_body, shape=(40, 43, 41)), card).level == "green"
    assert fit_card(CT, card).level == "green"  # as wide as it may be
    assert "its result here has 0.25 mm" in fit_card(ScanFacts("MR", "arbitrary", (9, 64, 64), (1.0, 1.0)), card).reason
