"""Retraining from the command line: survey, scorecard as a table, adopt, roll back."""

import json

import pytest

from medapp import paths
from medapp.cli.main import main
from medapp.store.project import Project
from tests.matting.toy_matting import keep_toy_matting
from tests.services.corrected import add_case


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDAPP_SHARED", str(tmp_path / "nothing"))
    keep_toy_matting(paths.user_models_dir())
    with Project.create(tmp_path / "work", reader="Ann") as made:
        for seed in range(3):
            add_case(made, seed, f"P-{seed}")
    return str(tmp_path / "work.medapp")


def test_a_project_is_surveyed_retrained_adopted_and_rolled_back(project, capsys):
    assert main(["retrain", project, "--model", "toy-matting", "--survey"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 17

    assert main(["retrain", project, "--model", "toy-matting", "--minutes", "0.004"]) == 0
    told = capsys.readouterr()
    assert "Toy matting 1 (in use) against Toy matting 1.2 (new)" in told.out
    assert "New hold-out: 1 cases of 1 patients" in told.out
    assert "17 of the recommended 20 accepted mattes are missing" in told.out
    run = told.err.split("--adopt ")[1].strip()

    assert main(["retrain", "--adopt", run]) == 0
    assert json.loads(capsys.readouterr().out) == {"model_id": "toy-matting.2", "replaced": "toy-matting"}
    assert main(["retrain", "--roll-back", "toy-matting"]) == 0
    assert json.loads(capsys.readouterr().out)["model_id"] == "toy-matting"
    assert main(["retrain", "--roll-back", "toy-matting"]) == 2
    assert "nothing to roll back" in capsys.readouterr().err


def test_what_cannot_be_done_is_said_in_two_lines(project, tmp_path, capsys):
    for arguments in (
        ["retrain"],
        ["retrain", project, "--model", "nothing"],
        ["retrain", str(tmp_path / "none.medapp"), "--model", "toy-matting"],
        ["retrain", project, "--model", "toy-matting", "--run", str(tmp_path)],
        ["retrain", "--adopt", str(tmp_path)],
    ):
        assert main(arguments) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line != "gathering"]
        assert len(said) == 2
