"""A worker whose service plays what the paths of the request say: the real server and policy around an actor."""

from __future__ import annotations

import os
import sys
import time

from medapp.errors import MedappError
from medapp.jobs import worker
from medapp.progress import Progress


def act(request, workspace, progress: Progress):
    """Play each path of the request in turn; returns those that were read."""
    refused = dict(request.refused)
    read = []
    progress.start(len(request.paths), "files")
    for path in request.paths:
        if path in refused:
            continue
        progress.parsing(path, limit_s=0.6)
        if path == "hang":
            while True:
                pass
        elif path == "abort":
            os.abort()
        elif path == "greedy":
            try:
                bytearray(3 * 2**30)
            except MemoryError:
                raise MedappError("too large", "smaller") from None
        progress.parsing("")
        if path == "refuse":
            raise MedappError("The file is damaged.", "Ask for it again.")
        if path == "bug":
            raise ZeroDivisionError("a bug")
        if path == "slow":
            for _ in range(200):
                time.sleep(0.02)
                progress.step()
        if path == "spin":
            while True:
                pass
        read.append(path)
        progress.step(note=path)
    return read, request.refused, os.getpid()


worker.handler_of = lambda request: act
sys.exit(worker.serve(sys.argv[1], sys.argv[2]))
