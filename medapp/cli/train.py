"""``medapp train``: train a network from a recipe, or go on with a run."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from pathlib import Path

from medapp import paths
from medapp.progress import Progress, ProgressEvent

SECONDS_BETWEEN_LINES = 30.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``train`` to the command line."""
    parser = subparsers.add_parser("train", help="train or go on training a network from a recipe")
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE", help="models/<name>.recipe.json")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder; an interrupted run goes on")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long; the run can go on later")
    parser.add_argument("--data", type=Path, help="folder with MANIFEST.csv; default $MEDAPP_SHARED/data")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = as torch chooses")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train; prints one JSON line with what came out."""
    import torch

    from medapp.services.train import train
    from medapp.services.train_matting import is_matting_recipe, train_matting_model

    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())  # a polite kill keeps the last iteration
    data_dir = arguments.data or paths.shared_data_dir()
    progress = Progress(_Lines(), stop.is_set)
    if is_matting_recipe(arguments.recipe):
        result = train_matting_model(arguments.recipe, arguments.out, arguments.minutes, data_dir, progress)
    else:
        result = train(arguments.recipe, arguments.out, arguments.minutes, data_dir, progress)
    print(json.dumps(result))
    return 0


class _Lines:
    """A line on standard error now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"{event.note or event.unit} {event.done}/{event.total}", file=sys.stderr, flush=True)
