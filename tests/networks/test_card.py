"""Cards are data: valid ones come back as they were, others are refused with the reason."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from medapp.errors import WeightsError
from medapp.networks.card import Card, Intake, parse_card, read_card

CARD = Card(
    id="toy-1",
    name="Toy",
    version="1",
    architecture="restore_rwkv",
    task="ct-denoise",
    takes=(Intake("CT", "HU", (-1024.0, 3072.0), (-8.0, 24.0)),),
    sha256="0" * 64,
    config={"dim": 4},
    spacing_mm=(0.4, 1.0),
    limits=("Only a toy.",),
    data=({"name": "phantoms", "licence": "CC0"},),
)


def test_a_card_survives_its_json():
    assert parse_card(CARD.to_json()).summary() == CARD.summary()


@pytest.mark.parametrize(("name", "title"), [("Soft matting", "Soft matting 2"), ("Pathology ×4", "Pathology ×4 v2")])
def test_a_title_keeps_the_version_apart_from_a_number_in_the_name(name, title):
    assert replace(CARD, name=name, version="2").title == title


def test_a_model_of_a_finer_grid_keeps_how_its_pairs_were_made():
    card = replace(
        CARD,
        task="mr-super-resolution",
        takes=(Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles"),),
        scale=4,
        degradation={"kind": "mr-kspace", "factor": 4},
    )
    assert parse_card(card.to_json()) == card


def test_what_differs_for_one_kind_of_scan_stands_at_its_intake():
    mr = Intake("MR", "arbitrary", (0.0, 1000.0), limits="percentiles", scale=4, spacing_mm=(0.5, 1.2))
    pet = Intake("PT", "SUV", (0.0, 80.0), extent_mm=200.0, min_side_px=24)
    card = parse_card(replace(CARD, task="all-in-one", takes=(*CARD.takes, mr, pet)).to_json())
    assert card.takes[1:] == (mr, pet)
    seen = [(one.scale, one.spacing_mm, one.extent_mm, one.min_side_px) for one in map(card.narrowed, card.modalities)]
    assert seen == [(1, (0.4, 1.0), None, 32), (4, (0.5, 1.2), None, 32), (1, (0.4, 1.0), 200.0, 24)]
    assert [card.narrowed(modality).fills_kspace for modality in card.modalities] == [False, True, False]
    assert card.narrowed("US") == card
    assert "extent_mm" not in json.loads(CARD.to_json())["takes"][0]  # nothing said where nothing differs


def test_cards_of_the_first_format_are_still_read():
    entries = CARD.summary()
    (intake,) = entries.pop("takes")
    for key in ("serves", "inputs", "region_engine", "dims", "extent_mm"):
        del entries[key]
    del intake["curve"], intake["limits"]
    old = parse_card(json.dumps({**entries, **intake, "format": 1}))
    assert old == CARD


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"takes": [{"modality": "CT", "unit": "HU", "value_range": [3072, -1024]}]}, "value_range"),
        ({"takes": [{"modality": "CT", "unit": "HU", "value_range": [float("nan"), 1]}]}, "value_range"),
        ({"takes": [{"modality": "CT", "unit": "HU"}]}, "value_range"),
        ({"takes": []}, "takes"),
        ({"takes": [{"modality": "MR", "unit": "arbitrary", "value_range": [0, 1], "limits": "own"}]}, "limits"),
        (
            {
                "takes": [
                    {
                        "modality": "MR",
                        "unit": "arbitrary",
                        "value_range": [0, 1],
                        "limits": "percentiles",
                        "curve": "log",
                    }
                ]
            },
            "linear",
        ),
        ({"scale": 0}, "scale"),
        ({"takes": [{**CARD.summary()["takes"][0], "scale": 0}]}, "scale"),
        ({"takes": [{**CARD.summary()["takes"][0], "scale": 2}], "dims": 3}, "scale"),
        ({"takes": [{**CARD.summary()["takes"][0], "extent_mm": -1}]}, "extent_mm"),
        ({"takes": [{**CARD.summary()["takes"][0], "min_side_px": 2.5}]}, "min_side_px"),
        ({"takes": [{**CARD.summary()["takes"][0], "first_filter": "magic"}]}, "first_filter"),
        ({"scale": 2.0}, "scale"),
        ({"scale": True}, "scale"),
        ({"scale": 2, "dims": 3}, "scale"),
        ({"degradation": ["mr-kspace"]}, "degradation"),
        ({"takes": [CARD.summary()["takes"][0]] * 2}, "twice"),
        ({"inputs": ["eval"]}, "inputs"),
        ({"serves": "coffee"}, "serves"),
        ({"dims": 4}, "dims"),
        ({"extent_mm": -1}, "extent_mm"),
        ({"sha256": "xyz"}, "sha256"),
        ({"id": "../evil"}, "'id'"),
        ({"channels": 2}, "channels"),
        ({"name": 7}, "'name'"),
        ({"config": []}, "config"),
        ({"limits": [1]}, "limits"),
        ({"run": "rm"}, "unknown run"),
        ({"format": 99}, "newer medapp"),
    ],
)
def test_a_card_that_is_not_valid_says_where(change, told):
    with pytest.raises(WeightsError, match=told):
        parse_card(json.dumps({**CARD.summary(), **change}))


def test_missing_entries_are_named():
    entries = CARD.summary()
    del entries["task"]
    with pytest.raises(WeightsError, match="missing task"):
        parse_card(json.dumps(entries))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(WeightsError):
        parse_card(text)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "card.json"
    path.write_text(" " * 2_000_000)
    with pytest.raises(WeightsError, match="too large"):
        read_card(path)


def test_cards_lists_and_fits_need_no_torch():
    code = (
        "import sys; import medapp.networks.card, medapp.networks.library, medapp.restoration.fit;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
