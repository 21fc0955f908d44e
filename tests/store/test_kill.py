"""Killing the window at random instants of painting and saving."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medapp.annotation.annotation import Annotation
from medapp.annotation.history import History
from medapp.store.project import Project
from tests.store.painter import SHAPE, next_edit
from tests.store.painting import make_scan

KILLS = 44


class Nursery:
    """Windows that paint until they are killed, without the price of an interpreter each."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.painter", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
            text=True,
        )

    def paint_and_kill(self, start: int, delay_s: float) -> int:
        """Returns the number of the last edit that was acknowledged."""
        self.process.stdin.write(f"{start}\n")
        self.process.stdin.flush()
        word, pid = self.process.stdout.readline().split()
        assert word == "ready"
        time.sleep(delay_s)
        os.kill(int(pid), signal.SIGKILL)
        acknowledged = start - 1
        while (line := self.process.stdout.readline().split()) != ["dead"]:
            assert line[0] == "saved", line
            acknowledged = int(line[1])
        return acknowledged

    def close(self) -> None:
        self.process.communicate(timeout=20)


@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_no_acknowledged_stroke_is_lost_to_a_kill(tmp_path):
    chance = random.Random(20261122)
    with Project.create(tmp_path / "work") as project:
        series_id = project.add_series(make_scan(SHAPE))
    expected, history = Annotation(series_id, SHAPE), History()
    there = 0  # edits in the expected state
    interrupted = 0
    nursery = Nursery(tmp_path / "work.medapp")
    for _ in range(KILLS):
        acknowledged = nursery.paint_and_kill(there, chance.uniform(0.0, 0.2))
        with Project.open(tmp_path / "work.medapp", mode="read") as project:
            assert project._database.problems(quick=False) == []
            found = project.annotation(series_id)
            edits = project.view_state().get("edit", -1) + 1
        assert edits > acknowledged  # every acknowledged stroke
        interrupted += edits > there
        while there < edits:  # and exactly those: the state of a whole number of strokes
            edit, _ = next_edit(expected, history, series_id, there)
            edit.apply(expected)
            there += 1
        assert found.equals(expected)
    nursery.close()

    with Project.open(tmp_path / "work.medapp") as project:
        assert project.check() == []
        restored = project.history()
        assert (len(restored), restored.can_redo) == (len(history), history.can_redo)
    assert interrupted > KILLS // 2  # the kills did fall into the work
