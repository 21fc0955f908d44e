"""The evaluation tells exactly the promised figures, for the manifest and for any folder of scans."""

import json
import logging
from contextlib import contextmanager

import numpy as np
import pytest

from medapp.cli.main import main
from medapp.errors import UsageError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration.kspace import zero_filled
from medapp.restoration.restorer import NetworkRestorer
from medapp.services.evaluation.measuring import measure_restoration
from medapp.services.evaluation.restorations import FREE, card_figures, evaluate
from medapp.services.evaluation.subjects import held_out_subjects
from tests.services.evaluation.making import MR, make_model, make_mr
from tests.training.making import make_data


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


@pytest.fixture
def models(tmp_path):
    return make_model(tmp_path / "models")


def test_input_filters_and_models_are_measured_on_the_same_patients(data, models, tmp_path):
    make_model(models, "other")
    result = evaluate("ct-denoise", ModelLibrary(models, tmp_path / "none"), data, Progress(), is_quick=True)

    assert result["task"] == "ct-denoise"
    assert result["unit"] == "HU"
    assert len(result["data_sha256"]) == 64
    rows = {row["name"]: row for row in result["rows"]}
    assert {row["kind"] for row in result["rows"]} == {"input", "classical", "model", "reference"}
    assert rows["non-local means"]["psnr_db"] > rows["input"]["psnr_db"]
    assert rows["non-local means"]["noise_power"] < rows["input"]["noise_power"] == 1
    assert rows["toy"]["n_subjects"] == 1
    best = max(r["psnr_db"] for r in result["rows"] if r["kind"] in ("classical", "input"))
    assert rows["toy"]["gain_db"] == pytest.approx(rows["toy"]["psnr_db"] - best, abs=0.002)
    assert rows["toy"]["over"]["other"] == [0, 0, 0]  # the same weights
    assert rows["reference"]["noise_power"] < rows["input"]["noise_power"]
    for row in result["rows"]:
        if row["kind"] == "reference":
            continue
        assert row["ci95"][0] <= row["psnr_db"] + 1e-3
        assert row["ci95"][1] >= row["psnr_db"] - 1e-3


def test_the_trust_map_is_held_against_the_error(data, models, tmp_path):
    result = evaluate("ct-denoise", ModelLibrary(models, models), data, Progress(), slices_per_subject=1)
    assert {row["condition"] for row in result["rows"]} >= {"dose 0.25, hann filter", "dose 0.1, ramp filter"}
    (told,) = result["calibration"]
    assert told["condition"] == "dose 0.25, hann filter"
    assert -1 <= told["rank_correlation"] <= 1
    assert len(told["error_by_decile"]) == 10
    assert told["rises"] == all(
        b > a for a, b in zip(told["error_by_decile"], told["error_by_decile"][1:], strict=False)
    )
    assert "trust map, dose 0.25, hann filter" in card_figures(result, "toy")


def test_the_figures_go_into_the_card_and_the_model_still_loads(data, models, capsys):
    arguments = ["evaluate", "--task", "ct-denoise", "--quick", "--data", str(data), "--update-card", "--json", "-"]
    with _own_log_handlers():
        assert main([*arguments, "--model", "toy"]) == 2  # which folder?
        make_model(models, "other")
        assert main([*arguments, "--models-dir", str(models)]) == 0

    printed = json.loads(capsys.readouterr().out)
    figures = ModelLibrary(models, models).load("toy", "cpu").card.figures["dose 0.25, hann filter, clean"]
    assert set(figures["over"]) == {"other"}
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
        assert main([*arguments, "--data", str(data), "--model", "missing"]) == 2
    assert json.loads((tmp_path / "out.json").read_text()) == printed
    for row in printed["rows"]:  # each method on a line with its figures
        told = f"{row.get('psnr_db', row['noise_power']):.2f}"
        assert any(line.startswith(row["name"]) and told in line for line in table.splitlines())
    assert printed["rows"][0]["n_subjects"] == 3  # a folder without manifest: every scan in it


def test_a_folder_without_ct_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(UsageError):
        evaluate("ct-denoise", ModelLibrary(tmp_path, tmp_path), tmp_path, Progress())


def test_mr_is_judged_on_patients_of_val_without_label_maps_and_slices_of_air(tmp_path):
    data = make_mr(tmp_path / "data")
    subjects, _ = held_out_subjects(data, "MR", 5, Progress())
    assert [subject.patient for subject in subjects] == ["ptbp1", "ptbp2"]
    assert [len(subject.slices) for subject in subjects] == [2, 2]


def test_mr_models_are_measured_at_their_factor_with_and_without_the_measured_kspace(tmp_path):
    data = make_mr(tmp_path / "data")
    models = make_model(tmp_path / "models", "mr-x2", MR, "mr-super-resolution", scale=2)
    library = ModelLibrary(models, models)
    result = evaluate("mr-super-resolution", library, data, Progress(), is_quick=True)
    x2 = {row["name"]: row for row in result["rows"] if row["condition"] == "x2"}
    x4 = {row["name"]: row for row in result["rows"] if row["condition"] == "x4"}
    assert "mr-x2" not in x4
    assert x4["zero-filled"]["psnr_db"] < x2["zero-filled"]["psnr_db"]
    for name in ("bicubic", "Lanczos", "total variation", "non-local means", "wavelet"):
        assert x2[f"{name}, k-space kept"]["psnr_db"] >= x2[name]["psnr_db"] - 0.02
    assert x2["mr-x2"]["psnr_db"] >= x2["mr-x2" + FREE]["psnr_db"]  # the measured part is exact
    assert result["unit"] == "% of the range"
    figures = card_figures(result, "mr-x2")["x2, clean"]
    assert figures["psnr_db_without_measured_kspace"] == x2["mr-x2" + FREE]["psnr_db"]
    only = evaluate("mr-super-resolution", library, data, Progress(), "mr-x2", is_quick=True)
    assert {row["condition"] for row in only["rows"]} == {"x2"}

    reference = held_out_subjects(data, "MR", 1, Progress())[0][0].slices[0][0]
    restorer = NetworkRestorer(library.load("mr-x2", "cpu"), modality="MR")
    own = measure_restoration(restorer, zero_filled(reference, 2), reference, "MR", is_filled=True)
    one = evaluate("mr-super-resolution", library, data, Progress(), "mr-x2", slices_per_subject=1, is_quick=True)
    told = next(row for row in one["rows"] if row["kind"] == "model")
    assert own["psnr_db"] == pytest.approx(told["psnr_by_patient"][0], abs=0.01)
    assert np.isfinite([own[key] for key in ("ssim", "rmse", "bias", "edge_width", "noise_power")]).all()
