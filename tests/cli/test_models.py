"""``medapp models`` from the outside: import, list, show, and what bad files get."""

import json
from dataclasses import fields

import pytest
import torch

from medapp.cli.main import main
from medapp.networks.card import Card
from medapp.networks.registry import build_network
from tests.networks.toys import TOYS


def _official(folder, name="restore_rwkv", change=lambda weights: weights):
    torch.manual_seed(0)
    path = folder / "Generator_best.pth"
    torch.save(change(build_network(name, TOYS[name]).state_dict()), path)
    return path


def _lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_an_official_checkpoint_becomes_a_model_that_is_listed_and_shown(tmp_path, capsys):
    legacy = {"latent.0.att.dwconv.weight": torch.zeros(32, 1, 3, 3)}  # of checkpoints before 2025-07-28
    path = _official(tmp_path, change=lambda weights: {**weights, **legacy})
    assert main(["models", "import", str(path), "--architecture", "restore_rwkv", "--modality", "ct"]) == 0
    (brought,) = _lines(capsys)

    assert main(["models", "list"]) == 0
    row = next(row for row in _lines(capsys) if row["id"] == brought["id"])
    assert (row["serves"], row["modalities"], row["inputs"]) == ("restoration", ["CT"], [])
    assert main(["models", "show", brought["id"]]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["takes"][0]["value_range"] == [-1024.0, 3072.0]
    assert any("has not measured" in line for line in card["limits"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--architecture", "amir"], "do not fit amir: missing"),
        (["--architecture", "unet"], "'unet' is not known"),
        (["--architecture", "pddm"], "Nobody published"),
        (["--range=100,0", "--modality", "CT"], "two rising numbers"),
        (["--range=0,100"], "needs a modality"),
        (["--modality", "US"], "does not say which scans"),
    ],
)
def test_imports_that_cannot_be_say_why_in_one_line_with_a_hint(tmp_path, capsys, arguments, told):
    assert main(["models", "import", str(_official(tmp_path)), *arguments]) == 2
    (line,) = _lines(capsys)
    assert told in line["refused"]
    assert line["hint"]
    assert "\n" not in line["refused"]


def test_a_missing_file_and_a_card_for_another_network_are_said(tmp_path, capsys):
    assert main(["models", "import", str(tmp_path / "none.pth")]) == 2
    assert "There is no file none.pth" in _lines(capsys)[0]["refused"]
    path = _official(tmp_path)
    assert main(["models", "import", str(path)]) == 0
    model_id = _lines(capsys)[0]["id"]
    main(["models", "show", model_id])
    card = json.loads(capsys.readouterr().out)
    kept = {entry.name: card[entry.name] for entry in fields(Card) if entry.name in card}  # what is told beside it goes
    path.with_suffix(".json").write_text(json.dumps(kept))
    assert main(["models", "import", str(path), "--architecture", "amir"]) == 2
    assert "The card beside the file is for restore_rwkv" in _lines(capsys)[0]["refused"]
    path.with_suffix(".json").write_text(json.dumps({**kept, "architecture": "unet"}))
    assert main(["models", "import", str(path)]) == 2
    assert "'unet' is not known" in _lines(capsys)[0]["refused"]
