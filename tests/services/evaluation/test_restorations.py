"""The evaluation prints exactly the promised figures, for the manifest and for any folder of scans."""

import json
import logging
from contextlib import contextmanager

import pytest

from medapp.cli.main import main
from medapp.errors import UsageError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.evaluation.restorations import evaluate
from medapp.services.train import train
from tests.training.making import make_data, make_recipe


@contextmanager
def _own_log_handlers():
    """The command sets the log up for its process; a test gives it back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


def test_input_filters_and_models_are_measured_on_the_same_patients(tmp_path, data):
    train(make_recipe(tmp_path / "r.json", iterations=1, tuning_patients=[]), tmp_path / "run", 5, data, Progress())
    library = ModelLibrary(tmp_path / "run", tmp_path / "none")
    result = evaluate("ct-denoise", library, data, Progress(), all_conditions=False)

    assert result["task"] == "ct-denoise"
    assert result["n_subjects"] == 1
    assert len(result["data_sha256"]) == 64
    rows = {row["name"]: row for row in result["rows"]}
    assert {row["kind"] for row in result["rows"]} == {"input", "classical", "model"}
    assert rows["non-local means"]["psnr_db"] > rows["input"]["psnr_db"]
    assert rows["toy"]["gain_db"] == pytest.approx(
        rows["toy"]["psnr_db"] - max(r["psnr_db"] for r in result["rows"] if r["kind"] == "classical"), abs=0.002
    )
    for row in result["rows"]:
        assert {"name", "kind", "psnr_db", "ssim", "rmse", "ci95"} <= set(row)
        assert row["ci95"][0] <= row["psnr_db"] <= row["ci95"][1]


def test_the_figures_go_into_the_card_and_the_model_still_loads(tmp_path, data, capsys):
    train(make_recipe(tmp_path / "r.json", iterations=1, tuning_patients=[]), tmp_path / "run", 5, data, Progress())
    arguments = ["evaluate", "--task", "ct-denoise", "--quick", "--data", str(data), "--update-card", "--json", "-"]
    with _own_log_handlers():
        assert main([*arguments, "--model", "toy"]) == 2  # which folder?
        assert main([*arguments, "--model", "toy", "--models-dir", str(tmp_path / "run")]) == 0

    printed = json.loads(capsys.readouterr().out)
    library = ModelLibrary(tmp_path / "run", tmp_path / "none")
    figures = library.load("toy", "cpu").card.figures["dose 0.25, hann filter, clean"]
    assert figures["psnr_db"] == next(row["psnr_db"] for row in printed["rows"] if row["kind"] == "model")


def test_the_command_prints_a_table_or_json_and_writes_it(tmp_path, data, capsys):
    arguments = ["evaluate", "--task", "ct-denoise", "--quick", "--models-dir", str(tmp_path)]
    with _own_log_handlers():
        assert main([*arguments, "--data", str(data / "ct"), "--json", str(tmp_path / "out.json")]) == 0
        table = capsys.readouterr().out
        assert main([*arguments, "--data", str(data / "ct"), "--json", "-"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert main([*arguments, "--data", str(tmp_path / "nothing")]) == 2
        assert main(["evaluate", "--task", "magic", "--models-dir", str(tmp_path), "--data", str(data)]) == 2
    assert json.loads((tmp_path / "out.json").read_text()) == printed
    for row in printed["rows"]:  # each method on a line with its figures
        assert any(line.startswith(row["name"]) and f"{row['psnr_db']:.2f}" in line for line in table.splitlines())
    assert printed["n_subjects"] == 3  # a folder without manifest: every scan in it


def test_a_folder_without_ct_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    library = ModelLibrary(tmp_path, tmp_path)
    with pytest.raises(UsageError, match="no CT scan"):
        evaluate("ct-denoise", library, tmp_path, Progress())
