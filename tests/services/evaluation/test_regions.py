"""Clicks are counted the same way for the region tree and for a SAM, on held-out things only."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from medapp.cli.main import main
from medapp.errors import TrainingError
from medapp.networks.card import read_card
from medapp.progress import Progress
from medapp.regions.prompts import Proposal
from medapp.regions.region_tree_builder import build_region_tree
from medapp.regions.sam_checkpoint import import_checkpoint
from medapp.services.evaluation.regions import BOX, clicked, clicked_with_steps, held_out_clicks, mean_of_sets
from medapp.training.region_data import load_region_data, parts_of
from tests.regions.toy_sam import make_toy_sam

SIDE = 72


def disc(x, y, radius):
    rows, cols = np.mgrid[:SIDE, :SIDE]
    return (rows - y) ** 2 + (cols - x) ** 2 <= radius**2


def ringed():
    """A bright core in a grey ring on black, with grain; the core, and both together."""
    core, whole = disc(36, 36, 12), disc(36, 36, 24)
    grain = np.random.default_rng(0).normal(0, 3, (SIDE, SIDE))
    return np.clip(20 + 90 * whole + 120 * core + grain, 0, 255).astype(np.uint8), core, whole


@pytest.fixture
def data(tmp_path):
    """Two lesions to measure on, one to train on, a polyp of each kind, a blood cell with its nucleus."""
    grey, core, whole = ringed()
    files = {}
    for name, kind in (("one", "val"), ("two", "val"), ("three", "train")):
        files[f"skin_or_endoscopy/isic/{name}.jpg"] = (np.dstack([grey] * 3), kind)
        files[f"skin_or_endoscopy/isic/{name}_mask.png"] = ((whole * 255).astype(np.uint8), kind)
    for name, kind in (("a", "val"), ("b", "train")):
        files[f"skin_or_endoscopy/polyp/{name}.jpg"] = (np.dstack([grey] * 3), kind)
        files[f"skin_or_endoscopy/polyp/{name}_mask.png"] = ((core * 255).astype(np.uint8), kind)
    files["pathology/wbc/cell.png"] = (np.dstack([grey] * 3), "val")
    files["pathology/wbc/cell_mask.png"] = ((whole * 128 + core * 127).astype(np.uint8), "val")
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


def test_held_out_things_are_val_rows_with_a_cell_and_its_nucleus_apart(data):
    cases, sha256 = held_out_clicks(data, Progress())
    assert [case.picture.source for case in cases] == ["blood cells"] * 2 + ["skin lesions"] * 2 + ["polyps"]
    assert cases[0].truth.sum() < cases[1].truth.sum()
    assert len(sha256) == 64


def test_polyps_are_never_read_for_training(data):
    trained = load_region_data(data, "train", Progress())
    assert set(trained.pictures) == {"skin lesions"}
    assert not any("polyp" in file for file in trained.files)


def test_parts_of_a_tissue_are_things_of_their_own_without_crumbs():
    numbers = (disc(15, 15, 8) | disc(50, 50, 10) | disc(5, 60, 1)) * 3
    assert set(np.unique(parts_of(numbers, 20))) == {0, 1, 2}


def test_a_perfect_engine_needs_one_click_and_a_blind_one_gets_nothing():
    _, _, whole = ringed()
    perfect = clicked(whole, lambda prompts: [Proposal(whole, 1.0, "perfect")])
    blind = clicked(whole, lambda prompts: [])
    assert perfect.overlaps == {BOX: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}
    assert len(perfect.click_ms) == 1
    assert blind.overlaps[5] == 0


def test_clicks_after_the_first_correct_the_answer_that_is_shown_first():
    _, core, whole = ringed()
    asked = []

    def answer(prompts):
        asked.append(prompts)
        return [Proposal(core, 0.9, "small"), Proposal(whole, 0.1, "large")]

    made = clicked(whole, answer)
    assert made.best[1] == 1
    assert made.overlaps[1] == pytest.approx(core.sum() / whole.sum())
    x, y = asked[2].include_xy[1]
    assert whole[int(y), int(x)]
    assert not core[int(y), int(x)]


def test_someone_who_steps_through_the_levels_finds_the_core_and_the_whole():
    grey, core, whole = ringed()
    tree = build_region_tree(np.dstack([grey] * 3))
    for truth in (core, whole):
        made = clicked_with_steps(truth, tree)
        assert made.overlaps[5] >= made.overlaps[1] > 0.8


def test_every_set_keeps_its_weight_in_the_mean_of_sets():
    values = {"many": [1.0] * 30, "few": [0.0, 0.5]}
    patients = {"many": [str(i) for i in range(30)], "few": ["a", "b"]}
    mean, low, high = mean_of_sets(values, patients)
    assert mean == pytest.approx(0.625)
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.75)


def test_the_command_measures_tree_and_sam_and_writes_the_card(data, tmp_path, capsys):
    models = tmp_path / "models"
    models.mkdir()
    save_file(make_toy_sam().state_dict(), tmp_path / "toy.safetensors")
    model_id = import_checkpoint(tmp_path / "toy.safetensors", models)
    command = ["evaluate", "--task", "regions", "--data", str(data), "--models-dir", str(models), "--update-card"]

    assert main([*command, "--json", str(tmp_path / "result.json"), "--markdown"]) == 0

    result = json.loads((tmp_path / "result.json").read_text())
    assert {row["name"] for row in result["rows"]} == {"region tree", "region tree, stepped", model_id}
    assert {row["clicks"] for row in result["differences"]} == {1, 3, 5}
    assert f"| skin lesions | {model_id} | 2 of 2 |" in capsys.readouterr().out
    assert "skin lesions" in read_card(models / f"{model_id}.json").figures


def test_a_folder_without_outlines_is_refused(tmp_path):
    (tmp_path / "MANIFEST.csv").write_text("path,modality,kind,licence,sha256\n")
    with pytest.raises(TrainingError, match="no outlined things"):
        held_out_clicks(tmp_path, Progress())
