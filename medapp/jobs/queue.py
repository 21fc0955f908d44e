"""The window's end of slow work: three workers, jobs in order, cancel, kill, limits for foreign files.

Free of Qt: callbacks arrive on the queue's own threads; ``ui.job_bridge`` turns them into signals. Workers are started
by module name and never imported, so nothing of torch can reach this process.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Listener
from typing import Any

from medapp.progress import ProgressEvent
from medapp.requests import (
    Crashed,
    Lane,
    Outcome,
    PromptRequest,
    ReaderRequest,
    Refused,
    Request,
    Stopped,
)

log = logging.getLogger(__name__)

OnProgress = Callable[[ProgressEvent], None]
OnOutcome = Callable[[Outcome], None]
AUTHKEY_VARIABLE = "MEDAPP_WORKER_KEY"
_START_LIMIT_S = 60.0
WORKER_ENVIRONMENT = {
    # glibc hands large blocks back after every use and zeroes them again at the next: half of a network's time on a CPU
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    # a waiting thread spins, by default for milliseconds, and takes the processor from the one it waits for when busy
    "GOMP_SPINCOUNT": "10000",
}
"""For torch; what the environment says already goes first."""
_WATCH_STEP_S = 0.1


def worker_command(lane: Lane, address: str) -> list[str]:
    """The command line that starts a worker, from a checkout, a wheel or a frozen build."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--worker", lane, address]
    return [sys.executable, "-m", "medapp", "--worker", lane, address]


@dataclass
class _Job:
    job_id: int
    request: Request
    on_progress: OnProgress | None
    on_outcome: OnOutcome | None
    cancelled: bool = False
    file: str = ""
    file_since: float = 0.0
    file_limit_s: float = 0.0
    killed_because: str = ""


@dataclass
class _Worker:
    lane: Lane
    waiting: deque[_Job] = field(default_factory=deque)
    running: _Job | None = None
    process: subprocess.Popen[bytes] | None = None
    connection: Connection | None = None
    starting: bool = False


class JobQueue:
    """Runs requests in worker processes, one at a time per lane.

    Args:
        threads: Compute threads each worker may use; None = torch's and BLAS's own choice.
        environment: Variables the workers get beside those of this process; they count before them.
    """

    def __init__(self, threads: int | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._threads, self._environment = threads, dict(environment or {})
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        self._workers: dict[Lane, _Worker] = {lane: _Worker(lane) for lane in ("reader", "prompts", "batch")}
        self._closed = False
        self._watcher = threading.Thread(target=self._watch, name="job-limits", daemon=True)
        self._watcher.start()

    # ------------------------------------------------------------------------------------------------ what callers use

    def submit(
        self, request: Request, *, on_progress: OnProgress | None = None, on_outcome: OnOutcome | None = None
    ) -> int:
        """Queue a request; returns at once with the job's number.

        A prompt supersedes the prompts that still wait: latest wins.
        """
        job = _Job(next(self._ids), request, on_progress, on_outcome)
        superseded: list[_Job] = []
        with self._lock:
            worker = self._workers[request.lane]
            if isinstance(request, PromptRequest):
                superseded = [other for other in worker.waiting if isinstance(other.request, PromptRequest)]
                worker.waiting = deque(other for other in worker.waiting if other not in superseded)
            worker.waiting.append(job)
        for other in superseded:
            self._finish(other, Stopped())
        self._pump(worker)
        return job.job_id

    def run(self, request: Request, on_progress: OnProgress | None = None) -> Outcome:
        """Run a request and wait; for the command line and tests, never for the window."""
        done = threading.Event()
        box: list[Outcome] = []

        def take(outcome: Outcome) -> None:
            box.append(outcome)
            done.set()

        job_id = self.submit(request, on_progress=on_progress, on_outcome=take)
        try:
            done.wait()
        except KeyboardInterrupt:
            self.cancel(job_id)
            done.wait(5.0)
            if not box:
                self.stop_now(job_id)
                done.wait()
        return box[0]

    def warm_up(self, lane: Lane) -> None:
        """Start a lane's worker before it is needed."""
        self._pump(self._workers[lane], start_anyway=True)

    def cancel(self, job_id: int) -> None:
        """Ask a job to stop at its next unit; a waiting job stops at once."""
        with self._lock:
            for worker in self._workers.values():
                for job in worker.waiting:
                    if job.job_id == job_id:
                        worker.waiting.remove(job)
                        threading.Thread(target=self._finish, args=(job, Stopped()), daemon=True).start()
                        return
                job_running = worker.running
                if job_running is not None and job_running.job_id == job_id:
                    job_running.cancelled = True
                    if worker.connection is not None:
                        with contextlib.suppress(OSError, ValueError):
                            worker.connection.send(("cancel", job_id))
                    return

    def stop_now(self, job_id: int) -> None:
        """End the worker process of a running job; the project stays sound and the next job gets a new worker."""
        with self._lock:
            for worker in self._workers.values():
                if worker.running is not None and worker.running.job_id == job_id:
                    worker.running.cancelled = True
                    self._kill(worker)
                    return
        self.cancel(job_id)

    def close(self) -> None:
        """End all workers; jobs that run or wait are stopped."""
        with self._lock:
            self._closed = True
            workers = list(self._workers.values())
            for worker in workers:
                worker.waiting.clear()
                if worker.connection is not None:
                    with contextlib.suppress(OSError, ValueError):
                        worker.connection.send(("quit", 0))
        deadline = time.monotonic() + 1.0
        for worker in workers:
            if worker.process is None:
                continue
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            if worker.connection is not None:
                with contextlib.suppress(OSError):
                    worker.connection.close()

    # --------------------------------------------------------------------------------------------------------- inside

    def _pump(self, worker: _Worker, start_anyway: bool = False) -> None:
        with self._lock:
            if self._closed or worker.starting:
                return
            if worker.connection is None:
                if worker.waiting or start_anyway:
                    worker.starting = True
                    threading.Thread(
                        target=self._start, args=(worker,), name=f"start-{worker.lane}", daemon=True
                    ).start()
                return
            if worker.running is not None or not worker.waiting:
                return
            job = worker.waiting.popleft()
            worker.running = job
            connection = worker.connection
        try:
            connection.send(("run", job.job_id, job.request))
        except (OSError, ValueError):
            log.warning("the %s worker was gone when a job came", worker.lane)  # its listening thread puts this right

    def _start(self, worker: _Worker) -> None:
        key = secrets.token_bytes(24)
        environment = {**os.environ, **self._environment, AUTHKEY_VARIABLE: key.hex()}
        if worker.lane != "reader":
            environment = {**WORKER_ENVIRONMENT, **environment}
        if self._threads is not None:
            environment["OMP_NUM_THREADS"] = str(self._threads)
        try:
            with Listener(authkey=key) as listener:
                address = str(listener.address)
                process = subprocess.Popen(
                    worker_command(worker.lane, address), env=environment, stdin=subprocess.DEVNULL
                )
                connection = self._accept(listener, process)
        except (OSError, EOFError, RuntimeError) as error:
            log.error("the %s worker did not start: %s", worker.lane, error)
            with self._lock:
                worker.starting = False
                waiting, worker.waiting = list(worker.waiting), deque()
            for job in waiting:
                self._finish(job, Refused("The worker process could not be started.", "Restart medapp and try again."))
            return
        with self._lock:
            worker.process, worker.connection, worker.starting = process, connection, False
            closed = self._closed
        if closed:
            process.kill()
            process.wait()
            connection.close()
            return
        threading.Thread(
            target=self._listen, args=(worker, connection, process), name=f"listen-{worker.lane}", daemon=True
        ).start()
        self._pump(worker)

    @staticmethod
    def _accept(listener: Listener, process: subprocess.Popen[bytes]) -> Connection:
        """Wait for the worker to call back, without hanging should it die first."""
        box: list[Connection] = []
        failed: list[BaseException] = []

        def wait() -> None:
            try:
                box.append(listener.accept())
            except Exception as error:  # handed to the starter below
                failed.append(error)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_LIMIT_S
        while thread.is_alive() and time.monotonic() < deadline and process.poll() is None:
            thread.join(0.02)
        thread.join(0.2)
        if box:
            return box[0]
        process.kill()
        process.wait()
        raise RuntimeError(f"no answer from the worker ({failed[0] if failed else 'it ended or took too long'})")

    def _listen(self, worker: _Worker, connection: Connection, process: subprocess.Popen[bytes]) -> None:
        while True:
            try:
                message: tuple[Any, ...] = connection.recv()
            except (EOFError, OSError):
                break
            kind, job_id, content = message
            with self._lock:
                job = worker.running
                if job is None or job.job_id != job_id:
                    continue
                if kind == "outcome":
                    worker.running = None
                elif isinstance(content, ProgressEvent) and content.file is not None:
                    job.file, job.file_since = content.file, time.monotonic()
                    job.file_limit_s = content.file_limit_s
            if kind == "outcome":
                self._finish(job, content)
                self._pump(worker)
            elif job.on_progress is not None and (content.file is None or content.note):
                job.on_progress(content)
        self._worker_died(worker, connection, process)

    def _worker_died(self, worker: _Worker, connection: Connection, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.0)
        if process.poll() is None:
            process.kill()
            process.wait()
        with contextlib.suppress(OSError):
            connection.close()
        with self._lock:
            job, worker.running = worker.running, None
            worker.connection, worker.process = None, None
            closed = self._closed
        if job is not None:
            outcome = self._after_death(worker, job, process.returncode)
            if outcome is not None:
                self._finish(job, outcome)
        if not closed:
            self._pump(worker)

    def _after_death(self, worker: _Worker, job: _Job, returncode: int) -> Outcome | None:
        """What a dead worker means for its job; None when the job was queued again without the bad file."""
        if job.cancelled or self._closed:
            return Stopped()
        log.warning("the %s worker ended with status %s", worker.lane, returncode)
        if isinstance(job.request, ReaderRequest) and job.file:
            reason = job.killed_because or "The decoder crashed on this file."
            job.request = replace(job.request, refused=(*job.request.refused, (job.file, reason)))
            job.file, job.killed_because = "", ""
            with self._lock:
                worker.waiting.appendleft(job)
            return None
        if returncode in (-9, 137):
            return Refused(
                "The worker was ended by the system, most likely because memory ran out. Your project is unchanged.",
                "Close other programs or choose a smaller tile, then try again.",
            )
        return Crashed(f"The {worker.lane} worker ended unexpectedly (status {returncode}) during: {job.request.title}")

    def _finish(self, job: _Job, outcome: Outcome) -> None:
        if job.on_outcome is not None:
            job.on_outcome(outcome)

    def _kill(self, worker: _Worker) -> None:
        if worker.process is not None and worker.process.poll() is None:
            worker.process.kill()

    def _watch(self) -> None:
        """Kill the reader when a foreign file overruns its time."""
        while not self._closed:
            time.sleep(_WATCH_STEP_S)
            with self._lock:
                for worker in self._workers.values():
                    job = worker.running
                    if job is None or not job.file or job.killed_because:
                        continue
                    if time.monotonic() - job.file_since > job.file_limit_s:
                        job.killed_because = f"Reading it took longer than {job.file_limit_s:.0f} s, so it was stopped."
                        self._kill(worker)
