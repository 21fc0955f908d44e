"""The bench of the networks makes every row, and what it measures is right."""

import json
import sys

import numpy as np
import pytest
import torch

from medapp.benchmarks import network_cases, networks
from medapp.benchmarks.memory import PeakMemory
from medapp.cli.main import main


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_network_gets_a_row(capsys):
    assert main(["bench", "networks", "--quick"]) == 0

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [row["name"] for row in rows]
    for name in ("restore_rwkv", "amir", "drmc 2-D", "drmc 3-D", "rat", "sgsgan 2-D", "medical_matting", "pddm"):
        assert any(found.startswith(name) and "x" in found for found in names), name
    for row in rows:
        assert row.get("relative_difference", 0) < 0.1, row["name"]  # bf16 of fresh networks
        assert "channels-last" not in row["name"] or row["relative_difference"] < 1e-5
    assert (
        next(row for row in rows if row["name"].startswith("rat") and "sorted" in row["name"])["max_difference"] < 1e-5
    )


def test_the_loop_that_ours_is_held_against_is_the_definition():
    found = network_cases.wkv(tokens=100, channels=3, repeats=1)
    assert found["max_error_float64"] < 1e-6
    assert found["peer_max_error_float64"] < 1e-4


def test_a_case_runs_in_a_process_of_its_own():
    found = networks._in_own_process("wkv_size", 1, {"tokens": 2048, "channels": 2, "repeats": 1})
    assert found["ms"][0] > 0


def test_a_case_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such_network"):
        networks._in_own_process("network", 1, {"name": "no_such_network", "config": {}, "shape": [1], "repeats": 1})


def test_peak_memory_sees_what_came_and_went():
    memory = PeakMemory()
    if memory.process_mb() == 0:
        pytest.skip("this system does not tell")
    np.ones(10_000_000)
    assert memory.growth_mb() > 50
    assert PeakMemory().growth_mb() < 50 or not sys.platform.startswith("linux")


def test_growth_is_held_against_the_side_before():
    figures = {256: ([10.0, 30.0], 20.0), 512: ([41.0, 90.0], 80.0), 1024: ([200.0], 300.0)}
    rows = list(
        networks._growing("WKV", networks.FULL, lambda side: dict(zip(("ms", "growth_mb"), figures[side], strict=True)))
    )
    assert [row.get("times_longer") for row in rows] == [None, 4.1, 4.88]
    assert [row.get("ok") for row in rows] == [None, True, False]
