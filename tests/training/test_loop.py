"""The loop on a toy task: exact resume, bad luck of every kind, several processes."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from medapp.errors import Cancelled, TrainingError
from medapp.progress import Progress
from medapp.training import loop, run_folder
from medapp.training.loop import Trainer
from medapp.training.run_folder import RunFolder
from tests.training import toy_task
from tests.training.toy_task import ToyTask, toy_recipe


@pytest.fixture(autouse=True)
def _every_point(monkeypatch):
    monkeypatch.setattr(loop, "NOTE_EVERY", 2)


def _train(folder, task=None, progress=None, for_minutes=5, **changes):
    return Trainer(toy_recipe(**changes), task or ToyTask(), RunFolder(folder), "cpu").train(
        for_minutes, progress or Progress()
    )


def _curve(folder):
    """All but the clock."""
    return [{k: v for k, v in point.items() if k != "seconds"} for point in RunFolder(folder).curves()]


def _weights(folder, name="last"):
    return RunFolder(folder).load_weights(name)


def _same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def _stopping_after(count):
    calls = []
    return Progress(is_stopped=lambda: calls.append(1) or len(calls) > count)


def test_a_run_leaves_curves_five_samples_and_the_best_weights(tmp_path):
    events = []
    done = _train(tmp_path / "run", progress=Progress(events.append), iterations=60, learning_rate=0.05)

    assert (done.iteration, done.iterations, done.is_done) == (60, 60, True)
    points = RunFolder(tmp_path / "run").curves()
    losses = [point["error"] for point in points if "loss" in point]
    assert losses[-1] < 0.5 * losses[0]
    scores = [point["score"] for point in points if "score" in point]
    assert done.best_score == pytest.approx(max(scores), abs=1e-4)
    assert json.loads((tmp_path / "run" / "data.json").read_text())["sha256"] == "0" * 64
    samples = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.name for path in samples] == ["1.png", "2.png", "3.png", "4.png", "5.png"]
    with Image.open(samples[0]) as picture:
        assert (picture.size, picture.mode) == ((24, 8), "L")
        assert picture.getextrema() != (0, 0)
    assert str(tmp_path / "run") in [event.detail.get("run") for event in events]
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.parametrize("stop_after", [3, 7, 10])
def test_a_stopped_run_goes_on_to_the_same_curve_and_weights(tmp_path, stop_after):
    _train(tmp_path / "whole")
    with pytest.raises(Cancelled):
        _train(tmp_path / "broken", progress=_stopping_after(stop_after))
    assert 0 < RunFolder(tmp_path / "broken").load_state()["iteration"] < 12
    _train(tmp_path / "broken")

    assert _curve(tmp_path / "broken") == _curve(tmp_path / "whole")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "broken"))
    assert _same(_weights(tmp_path / "whole", "best"), _weights(tmp_path / "broken", "best"))


def test_a_killed_run_loses_only_what_came_after_its_last_state(tmp_path):
    def killed(step, image):
        if step == 8:
            raise KeyboardInterrupt  # as near to a kill as a test in one process gets
        return image

    _train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed", ToyTask(spoil=killed))
    with (tmp_path / "killed" / "curves.jsonl").open("a") as file:
        file.write('{"iteration": 9, "lo')  # in the middle of a line
    assert RunFolder(tmp_path / "killed").load_state()["iteration"] == 5
    _train(tmp_path / "killed")

    assert _curve(tmp_path / "killed") == _curve(tmp_path / "whole")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "killed"))


def test_time_that_is_up_is_no_end_and_the_run_goes_on(tmp_path):
    first = _train(tmp_path / "run", for_minutes=0)
    assert (first.iteration, first.is_done) == (0, False)
    assert _train(tmp_path / "run").is_done
    again = _train(tmp_path / "run")  # nothing is left to do
    assert (again.iteration, again.is_done) == (12, True)


def test_a_budget_of_time_ends_by_the_clock(tmp_path):
    events = []
    done = _train(tmp_path / "run", progress=Progress(events.append), iterations=0, minutes=0.01)
    assert done.is_done
    assert done.iteration > 0
    assert (events[-1].done, events[-1].total, events[-1].unit) == (1, 1, "seconds")
    assert RunFolder(tmp_path / "run").has_weights("best")


def test_a_batch_that_is_not_finite_is_skipped(tmp_path):
    done = _train(tmp_path / "run", ToyTask(spoil=lambda step, image: image * (float("nan") if step == 4 else 1)))
    assert done.is_done
    assert all(torch.isfinite(value).all() for value in _weights(tmp_path / "run").values())
    assert [point["iteration"] for point in _curve(tmp_path / "run") if "loss" in point] == [2, 4, 6, 8, 10, 12]


def test_a_loss_that_stays_not_finite_ends_the_run_and_the_last_good_state_stays(tmp_path):
    spoilt = ToyTask(spoil=lambda step, image: image * (float("nan") if step >= 6 else 1))
    with pytest.raises(TrainingError, match="not finite") as caught:
        _train(tmp_path / "run", spoilt, iterations=40)
    assert "learning_rate" in caught.value.hint
    state = RunFolder(tmp_path / "run").load_state()
    assert state["iteration"] == 5
    assert _same(state["averaged"], _weights(tmp_path / "run"))
    assert _train(tmp_path / "run", iterations=40, learning_rate=0.001).is_done


def test_a_disk_that_fills_at_the_checkpoint_leaves_the_last_one(tmp_path, monkeypatch):
    _train(tmp_path / "run", iterations=5)
    before = RunFolder(tmp_path / "run").load_state()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(TrainingError, match="The disk of the run folder is full"):
        _train(tmp_path / "fresh")
    monkeypatch.undo()
    monkeypatch.setattr(run_folder.RunFolder, "save_samples", lambda self, samples: full(0) if samples else None)
    with pytest.raises(OSError, match="No space"):
        _train(tmp_path / "run", iterations=10)
    monkeypatch.undo()
    real, writes = os.fsync, []

    def full_later(number):
        writes.append(number)
        if len(writes) > 2:  # recipe and data are written, the samples not any more
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(run_folder.os, "fsync", full_later)
    with pytest.raises(TrainingError, match="what was kept before is sound"):
        _train(tmp_path / "run", iterations=10)
    monkeypatch.undo()
    after = RunFolder(tmp_path / "run").load_state()
    assert after["iteration"] == 5
    assert _same(before["step"], after["step"])
    assert not list((tmp_path / "run").rglob("*.part"))
    _train(tmp_path / "whole", iterations=10)
    _train(tmp_path / "run", iterations=10)
    assert _train(tmp_path / "run", iterations=10).is_done


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), "graphics card vanished"),
        (torch.OutOfMemoryError("CUDA out of memory"), "Memory ran out"),
        (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]"), "Another process"),
    ],
)
def test_a_device_that_vanishes_is_said_and_the_state_stays(tmp_path, error, told):
    def vanishing(step, image):
        if step == 7:
            raise error
        return image

    with pytest.raises(TrainingError, match=told) as caught:
        _train(tmp_path / "run", ToyTask(spoil=vanishing))
    assert "sound" in caught.value.message
    assert caught.value.hint
    _train(tmp_path / "whole")
    _train(tmp_path / "run")
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "run"))


def test_our_own_bugs_are_not_called_bad_luck(tmp_path):
    def wrong(step, image):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        _train(tmp_path / "run", ToyTask(spoil=wrong))


def test_folders_of_another_run_or_a_newer_medapp_are_refused(tmp_path):
    _train(tmp_path / "run", iterations=2)
    with pytest.raises(TrainingError, match="another seed"):
        _train(tmp_path / "run", seed=3)
    other = ToyTask()
    other.data = toy_task.DataFacts("1" * 64)
    with pytest.raises(TrainingError, match="other data"):
        _train(tmp_path / "run", other)
    told = json.loads((tmp_path / "run" / "data.json").read_text())
    for number, words in ((99, "newer medapp"), (1, "older medapp")):
        (tmp_path / "run" / "data.json").write_text(json.dumps({**told, "format": number}))
        with pytest.raises(TrainingError, match=words):
            _train(tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text("{")
    with pytest.raises(TrainingError, match="damaged"):
        _train(tmp_path / "run")


@pytest.mark.parametrize("content", [b"not a state", b""])
def test_a_damaged_state_is_said(tmp_path, content):
    _train(tmp_path / "run", iterations=2)
    (tmp_path / "run" / "state.pt").write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        _train(tmp_path / "run")


def test_a_state_of_another_network_is_said(tmp_path):
    _train(tmp_path / "run", iterations=2)
    with pytest.raises(TrainingError, match="does not fit"):
        _train(tmp_path / "run", ToyTask(network=nn.Conv2d(1, 1, 3, padding=1)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_too(tmp_path, precision):
    done = _train(tmp_path / "run", precision=precision, iterations=60, learning_rate=0.05)
    losses = [point["error"] for point in _curve(tmp_path / "run") if "loss" in point]
    assert done.is_done
    assert losses[-1] < 0.5 * losses[0]
    assert {value.dtype for value in _weights(tmp_path / "run").values()} == {torch.float32}


def test_the_learning_rate_rises_and_falls(tmp_path):
    cosine = toy_recipe(iterations=100, warm_up=10)
    rates = [cosine.rate(step, cosine.spent(step, 0)) for step in range(100)]
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == max(rates[9:12]) <= 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02 * rates[10]
    flat = toy_recipe(iterations=100, warm_up=10, schedule="flat", cool_down=20)
    rates = [flat.rate(step, flat.spent(step, 0)) for step in range(100)]
    assert set(rates[10:80]) == {0.01}
    assert rates[90] == pytest.approx(0.005)
    by_time = toy_recipe(iterations=0, minutes=10, schedule="flat", warm_up=0)
    assert by_time.rate(5, by_time.spent(5, 540)) == pytest.approx(0.003)


def test_two_processes_learn_what_one_does(tmp_path):
    """Three samples a batch: one process has two of them, the other one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.training.toy_task", str(tmp_path / "two")]
    members = [
        subprocess.Popen(
            command,
            cwd=root,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [member.communicate(timeout=600)[1] for member in members]
    assert [member.returncode for member in members] == [0, 0], told
    before = loop.NOTE_EVERY
    toy_task.main(str(tmp_path / "one"))
    loop.NOTE_EVERY = before

    one, two = ([p for p in _curve(tmp_path / name) if "loss" in p] for name in ("one", "two"))
    assert len(one) == len(two) == 12
    for first, second in zip(one, two, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    best, of_two = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    for key in best:
        torch.testing.assert_close(best[key], of_two[key], rtol=1e-4, atol=1e-5)


def test_two_trainings_in_one_folder_do_not_mix(tmp_path):
    with RunFolder(tmp_path / "run").owned(), pytest.raises(TrainingError, match="under way in this run folder"):
        _train(tmp_path / "run", iterations=4)
    assert not (tmp_path / "run" / "recipe.json").exists()

    assert _train(tmp_path / "run", iterations=4).is_done  # the lock went with its holder
