"""``medapp models train-all``: make the whole shelf of models again, within a budget."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from medapp import paths
from medapp.cli.numbers import above_zero
from medapp.cli.train import Lines, stoppable
from medapp.progress import Progress


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``train-all`` to ``medapp models``."""
    parser = actions.add_parser(
        "train-all",
        help="train every model that has a recipe, within a budget",
        description="Trains the recipes one after the other; interrupted, the same command goes on. Prints a JSON line "
        "a model. Exit status 1 where one could not be trained.",
    )
    parser.add_argument(
        "--budget",
        type=above_zero,
        default=math.inf,
        metavar="MINUTES",
        help="of training for all of them, shared out as the shipped ones took; making ready the data comes on top; "
        "default: what the recipes ask for",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / "shelf", help="run folders and models; default: %(default)s"
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="ID", help="some of the recipes")
    parser.add_argument("--recipes", type=Path, help="folder of recipes; default: the shipped ones")
    parser.add_argument("--data", type=Path, help="folder with MANIFEST.csv; default $MEDAPP_SHARED/data")
    parser.add_argument("--full", action="store_true", help="the full-size models, for a large GPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = as torch chooses")
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained, and for how long")
    parser.set_defaults(when_cancelled="stopped; the same command goes on from here")


def run(arguments: argparse.Namespace) -> int:
    """Train the shelf; returns the exit status."""
    import torch

    from medapp.services.train_shelf import MODELS, plan_shelf, train_shelf

    if arguments.threads > 0:
        torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    folder = arguments.recipes or paths.shipped_models_dir()
    planned = plan_shelf(folder, arguments.budget, arguments.only, arguments.full)
    if arguments.dry_run:
        for entry in planned:
            minutes = None if math.isinf(entry.minutes) else round(entry.minutes, 1)
            print(json.dumps({"id": entry.recipe.name, "task": entry.recipe.task, "minutes": minutes}))
        return 0
    with stoppable() as is_stopped:
        rows = train_shelf(
            planned,
            arguments.out,
            arguments.data or paths.shared_data_dir(),
            Progress(Lines(), is_stopped),
            arguments.device,
            lambda row: print(json.dumps(row), flush=True),
        )
    tasks = sorted({entry.recipe.task for entry in planned})
    for task in tasks:
        print(f"measure: medapp evaluate --task {task} --models-dir {arguments.out / MODELS}", file=sys.stderr)
    return 1 if any("refused" in row for row in rows) else 0
