"""The fit check says in one line why a model suits a scan or not."""

from dataclasses import replace

import pytest

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
