"""``medapp inspect PATH…``: say what is in files and folders, a JSON line each."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from medapp.errors import Cancelled
from medapp.jobs.queue import JobQueue
from medapp.requests import Done, InspectRequest, Refused, Stopped


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``inspect`` to the command line."""
    parser = subparsers.add_parser("inspect", help="say what is in files and folders, a JSON line each")
    parser.add_argument("paths", metavar="PATH", nargs="+")
    parser.add_argument("--modality", metavar="M", help="DICOM code for files that do not say theirs, such as CT")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the lines; 0 when something could be read, 2 when nothing could."""
    request = InspectRequest(tuple(str(Path(path)) for path in arguments.paths), arguments.modality)
    queue = JobQueue(threads=1)
    try:
        outcome = queue.run(request)
    finally:
        queue.close()
    if isinstance(outcome, Stopped):
        raise Cancelled
    if not isinstance(outcome, Done):
        text = f"{outcome.message}\n{outcome.hint}".rstrip() if isinstance(outcome, Refused) else outcome.report
        print(text, file=sys.stderr)
        return 2 if isinstance(outcome, Refused) else 70
    for line in outcome.result:
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))
    return 0 if any(line["kind"] in ("scan", "stack", "image") for line in outcome.result) else 2
