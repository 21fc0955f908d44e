"""All-in-one models are measured on every modality, beside filters and the single-task models of the library."""

import json
from dataclasses import replace

import pytest

from medapp.cli.main import main
from medapp.errors import UsageError
from medapp.networks.card import read_card
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.card_words import figures_in_words
from medapp.services.evaluation.tasks import card_figures, evaluate, table
from tests.services.evaluation.making import CT, MR, PET, make_model
from tests.training.places import three_modalities


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    data = three_modalities(tmp_path_factory.mktemp("data"), ("a", "b"))
    models = tmp_path_factory.mktemp("models")
    make_model(models, "alone")
    make_model(models, "twin", task="all-in-one")
    make_model(models, "all", task="all-in-one")
    path = models / "all.json"
    takes = (CT, replace(MR, scale=4), replace(PET, min_side_px=24))
    path.write_text(replace(read_card(path), takes=takes).to_json())
    library = ModelLibrary(models, models / "none")
    return data, library, evaluate("all-in-one", library, data, Progress(), slices_per_subject=1)


def test_each_modality_is_measured_as_its_single_task(measured):
    data, library, result = measured
    rows = {(row["modality"], row["name"]): row for row in result["rows"]}
    assert [rows[modality, "all"]["unit"] for modality in ("CT", "MR", "PT")] == ["HU", "% of the range", "SUV"]
    assert rows["CT", "alone"]["is_single"]
    assert ("MR", "alone") not in rows
    assert "all, k-space free" in {name for modality, name in rows if modality == "MR"}
    assert "Gaussian" in {name for modality, name in rows if modality == "PT"}
    alone = evaluate("ct-denoise", library, data, Progress(), slices_per_subject=1, is_quick=True)
    (same,) = (row for row in alone["rows"] if row["name"] == "alone")
    assert same["psnr_db"] == rows["CT", "alone"]["psnr_db"]


def test_the_table_tells_gains_and_single_models_and_the_card_keeps_them(measured):
    _, library, result = measured
    text = table(result, is_markdown=True)
    assert text.count("####") == 5
    assert "| CT | all | twin | +0.00 | 0.00 to 0.00 |" in text  # the same weights, and CT is all that the other takes
    assert text.count("| all | twin |") == 1
    assert "against alone, dB" in text
    figures = card_figures(result, "all")
    kinds = ("CT: dose 0.25, hann filter", "MR: x4", "PET: 0.1 of the counts")
    trusted = [f"trust map, {kind.replace(': ', ', ', 1)}" for kind in kinds]
    assert set(figures) == {"data_sha256", *kinds, *trusted}
    card = replace(library.card("all"), figures=figures)
    ct, mr, pet, *trust = figures_in_words(card)
    assert [sentence.split(":")[0] for sentence in trust] == [one[:1].upper() + one[1:] for one in trusted]
    assert "CT: dose 0.25, hann filter:" in ct
    assert "HU" in ct
    assert mr.startswith("MR: x4:")
    assert "HU" not in mr
    assert pet.startswith("PET: 0.1 of the counts:")
    assert card_figures(result, "alone") == {}  # its own task says more


def test_what_is_not_there_is_said(tmp_path, capsys, measured):
    data, library, _ = measured
    with pytest.raises(UsageError, match="which file is CT, MR or PET"):
        evaluate("all-in-one", library, data / "ct", Progress(), "all")
    with pytest.raises(UsageError, match="no such model"):
        evaluate("all-in-one", library, data, Progress(), "alone")
    asked = ["evaluate", "--task", "all-in-one", "--data", str(data), "--models-dir", str(tmp_path), "--json", "-"]
    assert main([*asked, "--quick"]) == 0  # without a model: filters alone
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"input", "classical", "reference"}
