"""The process at the other end: takes one request at a time, runs its service, sends progress and the outcome."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import re
import signal
import threading
import traceback
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from medapp.errors import Cancelled, MedappError, RunUnusableError
from medapp.jobs.queue import AUTHKEY_VARIABLE
from medapp.progress import Progress, ProgressEvent
from medapp.requests import Crashed, Done, Lane, Outcome, Refused, Request, Stopped
from medapp.services.handlers import handler_of
from medapp.services.workspace import Workspace

log = logging.getLogger(__name__)

_HEADROOM_BYTES = 512 * 2**20
_IDLE_S = 10.0


def run(request: Request, workspace: Workspace, progress: Progress) -> Outcome:
    """Run a request; the whole error policy of slow work."""
    try:
        return Done(handler_of(request)(request, workspace, progress))
    except Cancelled:
        return Stopped()
    except MedappError as error:
        return Refused(error.message, error.hint, isinstance(error, RunUnusableError))
    except MemoryError:
        return Refused("Memory ran out. Your project is unchanged.", "Close other programs, or choose smaller tiles.")
    except Exception:  # the one place that may catch everything
        report = without_paths(traceback.format_exc())
        log.error("%s", report)
        return Crashed(report)


def without_paths(report: str) -> str:
    """A crash report without folders of this machine, which may hold a patient's name."""
    package = Path(__file__).resolve().parent.parent
    report = report.replace(str(package.parent), "")
    return re.sub(r"(/[^\s'\":,)]+)+/([^/\s'\":,)]+)", r"…/\2", report)


def serve(lane: Lane, address: str) -> int:
    """Call the window back and answer until it hangs up.

    Returns:
        The exit status of the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C belongs to the window
    key = bytes.fromhex(os.environ.pop(AUTHKEY_VARIABLE))
    try:
        connection = Client(address, authkey=key)
    except (OSError, EOFError, AuthenticationError) as error:  # the window is gone already: nobody to tell
        log.info("no window answered: %s", type(error).__name__)
        return 1
    return _Server(lane, connection).serve()


class _Server:
    def __init__(self, lane: Lane, connection: Connection) -> None:
        self._lane = lane
        self._connection = connection
        self._send_lock = threading.Lock()
        self._workspace = Workspace()
        self._cancelled: set[int] = set()
        self._inbox: list[tuple[int, Request]] = []
        self._news = threading.Condition()
        self._hung_up = False

    def serve(self) -> int:
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        while True:
            with self._news:
                if not self._news.wait_for(self._has_news, timeout=_IDLE_S):
                    hand_back_memory()
                    self._news.wait_for(self._has_news)
                if self._hung_up:
                    break
                job_id, request = self._inbox.pop(0)
            outcome = self._run(job_id, request)
            try:
                self._send("outcome", job_id, outcome)
            except (OSError, BrokenPipeError):
                break
            del outcome
            gc.collect()
        self._workspace.close()
        return 0

    def _has_news(self) -> bool:
        return bool(self._inbox) or self._hung_up

    def _run(self, job_id: int, request: Request) -> Outcome:
        progress = Progress(
            report=lambda event: self._report(job_id, event),
            is_stopped=lambda: job_id in self._cancelled or self._hung_up,
        )
        outcome = run(request, self._workspace, progress)
        if self._lane == "reader":
            limit_memory(None)
        return outcome

    def _report(self, job_id: int, event: ProgressEvent) -> None:
        if self._lane == "reader" and event.file is not None:
            limit_memory(event.declared_bytes if event.file else None)
        try:
            self._send("progress", job_id, event)
        except OSError:  # the window is gone: what is under way is taken back like a cancelled job
            self._hung_up = True
            raise Cancelled from None

    def _send(self, *message: Any) -> None:
        with self._send_lock:
            self._connection.send(message)

    def _receive(self) -> None:
        while True:
            try:
                message: tuple[Any, ...] = self._connection.recv()
            except (EOFError, OSError):
                message = ("quit", 0)
            with self._news:
                if message[0] == "run":
                    self._inbox.append((message[1], message[2]))
                elif message[0] == "cancel":
                    self._cancelled.add(message[1])
                else:
                    self._hung_up = True
                self._news.notify_all()
            if message[0] == "quit":
                # A decoder may spin and never look: give it two seconds, then go. The project is sound at any instant.
                timer = threading.Timer(2.0, os._exit, (0,))
                timer.daemon = True
                timer.start()
                return


def hand_back_memory() -> None:
    """Give freed memory back to the system; a busy worker keeps it for the next slice. Without effect outside glibc."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        log.debug("this system's allocator cannot be asked to trim")


def limit_memory(declared_bytes: int | None) -> None:
    """Let this process take 2 x the declared size + 512 MiB more than it has; None lifts the limit.

    Counts private memory (``RLIMIT_DATA``), so that mapped voxel files do not matter. Without effect on Windows.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if declared_bytes is None:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return
    limit = _private_bytes() + 2 * declared_bytes + _HEADROOM_BYTES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _private_bytes() -> int:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2**30
