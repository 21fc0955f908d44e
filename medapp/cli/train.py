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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medapp import paths
from medapp.cli.numbers import between
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
        "--minutes",
        type=between(0, math.inf),
        default=math.inf,
        help="of training; the run can go on later; default: to its end",
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
    with stoppable() as is_stopped:
        result = train(
            arguments.recipe,
            arguments.out,
            arguments.minutes,
            arguments.data or paths.shared_data_dir(),
            Progress(Lines(), is_stopped),
            arguments.device,
            arguments.full,
        )
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(result))
    return 0


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl+C and a polite kill ask the training to stop at its next batch; asked twice, it ends at once."""
    stop = threading.Event()

    def stop_politely(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, stop_politely) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Lines:
    """A line on standard error now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        """Print it when the last line is long enough ago."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"{event.note or event.unit} {event.done}/{event.total}", file=sys.stderr, flush=True)
