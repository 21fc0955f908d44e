from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medapp.errors import Cancelled
from medapp.jobs import queue as queue_module
from medapp.jobs import worker
from medapp.jobs.queue import AUTHKEY_VARIABLE, JobQueue, worker_command
from medapp.requests import Crashed, Done, InspectRequest, PromptRequest, Refused, Stopped

ACTOR = Path(__file__).parent / "acting_worker.py"


@pytest.fixture
def queue(monkeypatch):
    monkeypatch.setattr(
        queue_module, "worker_command", lambda lane, address: [sys.executable, str(ACTOR), lane, address]
    )
    made = JobQueue()
    yield made
    made.close()


class Outcomes:
    """Collects outcomes and progress; waits with a limit."""

    def __init__(self, count: int = 1):
        self.got, self.events, self._left = [], [], threading.Semaphore(0)
        self._count = count

    def take(self, outcome):
        self.got.append(outcome)
        self._left.release()

    def wait(self):
        for _ in range(self._count):
            assert self._left.acquire(timeout=30), "no outcome within 30 s"
        return self.got


def inspect(*paths):
    return InspectRequest(tuple(paths))


def test_a_request_comes_back_done_with_its_progress(queue):
    events = []
    outcome = queue.run(inspect("a", "b"), on_progress=events.append)

    assert isinstance(outcome, Done)
    assert outcome.result[0] == ["a", "b"]
    assert [event.note for event in events if event.note] == ["a", "b"]
    assert events[-1].done == events[-1].total == 2


def test_a_refusal_keeps_its_line_and_hint(queue):
    assert queue.run(inspect("refuse")) == Refused("The file is damaged.", "Ask for it again.")


def test_a_bug_is_reported_without_folders_and_the_worker_lives_on(queue):
    first = queue.run(inspect("a"))
    crashed = queue.run(inspect("bug"))
    last = queue.run(inspect("a"))

    assert isinstance(crashed, Crashed)
    assert "ZeroDivisionError" in crashed.report
    assert str(ACTOR.parent) not in crashed.report
    assert first.result[2] == last.result[2]


@pytest.mark.parametrize("bad", ["hang", "abort"])
def test_a_file_that_hangs_or_kills_the_decoder_is_refused_and_the_others_are_read(queue, bad):
    outcome = queue.run(inspect("a", bad, "b"))

    assert isinstance(outcome, Done)
    read, refused, _ = outcome.result
    assert read == ["a", "b"]
    assert [path for path, _ in refused] == [bad]
    assert refused[0][1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts private memory on Linux")
def test_a_file_that_takes_more_memory_than_it_declares_is_stopped(queue):
    assert queue.run(inspect("greedy")) == Refused("too large", "smaller")
    assert isinstance(queue.run(inspect("a")), Done)


def test_cancel_stops_running_work_at_its_next_unit(queue):
    outcomes, started = Outcomes(), threading.Event()
    job = queue.submit(inspect("slow"), on_progress=lambda e: started.set(), on_outcome=outcomes.take)
    assert started.wait(30)
    queue.cancel(job)

    assert outcomes.wait() == [Stopped()]


def test_stop_now_ends_a_worker_that_never_looks_and_the_next_job_gets_a_new_one(queue):
    outcomes, started = Outcomes(), threading.Event()
    job = queue.submit(inspect("spin"), on_progress=lambda e: started.set(), on_outcome=outcomes.take)
    assert started.wait(30)
    time.sleep(0.2)
    queue.stop_now(job)

    assert outcomes.wait() == [Stopped()]
    assert isinstance(queue.run(inspect("a")), Done)


def test_a_waiting_job_is_cancelled_without_being_run(queue):
    slow, waiting = Outcomes(), Outcomes()
    first = queue.submit(inspect("slow"), on_outcome=slow.take)
    second = queue.submit(inspect("a"), on_outcome=waiting.take)
    queue.cancel(second)

    assert waiting.wait() == [Stopped()]
    queue.cancel(first)
    assert slow.wait() == [Stopped()]


def test_the_latest_prompt_replaces_those_that_still_wait(queue):
    def prompt(ticket):
        return PromptRequest("p", "s", 0, 0, 0.0, 1.0, "m", ticket=ticket)

    outcomes = Outcomes(3)
    for ticket in (1, 2, 3):
        queue.submit(prompt(ticket), on_outcome=outcomes.take)
    outcomes.wait()

    # the actor has no paths to play for a prompt, so those that ran crashed; those that were replaced are stopped
    assert sum(isinstance(outcome, Stopped) for outcome in outcomes.got) == 2


def test_closing_ends_the_workers(queue):
    pid = queue.run(inspect("a")).result[2]
    queue.close()

    assert not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()


def test_a_worker_whose_window_is_gone_ends_quietly(tmp_path):
    environment = dict(os.environ, **{AUTHKEY_VARIABLE: "00" * 24})
    done = subprocess.run(
        [*worker_command("batch", str(tmp_path / "nobody"))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_worker_whose_window_dies_takes_its_job_back_quietly(monkeypatch, caplog):
    class Gone:
        def send(self, _message):
            raise BrokenPipeError

    undone = []

    def act(request, workspace, progress):
        try:
            progress.start(3, "slices")
            progress.step()
        except Cancelled:
            undone.append(True)
            raise

    monkeypatch.setattr(worker, "handler_of", lambda _request: act)
    outcome = worker._Server("batch", Gone())._run(1, inspect("a"))

    assert outcome == Stopped()
    assert undone
    assert not caplog.records
