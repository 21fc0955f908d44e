"""``medapp train`` from the command line: one JSON line, a polite stop, refusals in one line."""

import json
import os
import signal
import threading
import time

import pytest

from medapp.cli.main import main
from medapp.training.run_folder import RunFolder
from tests.training.making import make_data, make_recipe


@pytest.fixture
def command(tmp_path):
    recipe = make_recipe(tmp_path / "r.json", iterations=16, check_every=4)
    data = make_data(tmp_path / "data")
    line = ["train", "--recipe", recipe, "--out", tmp_path / "run", "--data", data, "--device", "cpu"]
    return [str(part) for part in line]


def test_a_run_says_what_came_out_in_one_line(command, tmp_path, capsys):
    assert main([*command, "--minutes", "0"]) == 0  # only begun
    begun = json.loads(capsys.readouterr().out)
    assert (begun["iteration"], begun["is_done"]) == (0, False)
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["iteration"], told["is_done"], told["model"]) == (16, True, str(tmp_path / "run" / "toy.safetensors"))
    assert told["score"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_kill_keeps_the_last_batch(command, tmp_path, capsys, number):
    state = tmp_path / "run" / "state.pt"

    def kill():
        while not state.exists():
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    killer = threading.Thread(target=kill)
    killer.start()
    assert main(command) == 3
    killer.join()

    assert signal.getsignal(number) is before
    assert 4 <= RunFolder(tmp_path / "run").load_state()["iteration"] < 16
    assert "goes on from here" in capsys.readouterr().err
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["iteration"] == 16


def test_what_cannot_be_trained_is_said_in_a_line_with_a_hint(command, tmp_path, capsys):
    for change, told in (("--recipe", "no recipe"), ("--data", "no data folder")):
        changed = list(command)
        changed[changed.index(change) + 1] = str(tmp_path / "nothing")
        assert main(changed) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("INFO")]
        assert told in lines[-2]
        assert lines[-1]
    make_recipe(tmp_path / "r.json", start_from="no-such-model")
    assert main(command) == 2
    assert "no weights" in capsys.readouterr().err
