"""``medapp train``: train a network from a recipe, or go on with a run."""

from __future__ import annotations

import argparse
import json
import math
import os
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
    parser = subparsers.add_parser(
        "train",
        help="train or go on training a network from a recipe",
        epilog="Several GPUs or machines: torchrun --nproc-per-node GPUS -m medapp train ...",
    )
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE", help="models/<name>.recipe.json")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder; an interrupted run goes on")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after so long, the run can go on later; default: never"
    )
    parser.add_argument("--data", type=Path, help="folder with MANIFEST.csv; default $MEDAPP_SHARED/data")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = as torch chooses")
    parser.add_argument("--full", action="store_true", help="the recipe's full-size model, for a large GPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.set_defaults(run=run, when_cancelled="stopped; the same command goes on from here")


def run(arguments: argparse.Namespace) -> int:
    """Train; prints one JSON line with what came out."""
    import torch

    from medapp.services.train import train

    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    stop = threading.Event()

    def stop_politely(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # asked twice
        stop.set()

    before = {number: signal.signal(number, stop_politely) for number in (signal.SIGTERM, signal.SIGINT)}
    data_dir = arguments.data or paths.shared_data_dir()
    try:
        result = train(
            arguments.recipe,
            arguments.out,
            arguments.minutes,
            data_dir,
            Progress(_Lines(), stop.is_set),
            arguments.device,
            arguments.full,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if os.environ.get("RANK", "0") == "0":
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
