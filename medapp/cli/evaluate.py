"""``medapp evaluate``: measure a task on held-out patients against classical methods."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medapp import paths
from medapp.errors import UsageError
from medapp.networks.card import read_card
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress, ProgressEvent

STANDARD_OUTPUT = "-"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser("evaluate", help="measure a task on held-out patients against classical methods")
    parser.add_argument("--task", required=True, help="such as ct-denoise; a wrong one lists all")
    parser.add_argument("--model", help="one model of the library; default: all models of the task")
    parser.add_argument("--models-dir", type=Path, help="look for models here instead of in the library")
    parser.add_argument("--data", type=Path, help="folder of scans; default: the val rows of $MEDAPP_SHARED/data")
    parser.add_argument(
        "--json", metavar="FILE", help="write the result here as well; - = print it instead of the table"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--slices", type=int, default=5, help="slices of each subject, evenly spaced")
    parser.add_argument("--quick", action="store_true", help="fewer conditions or cases, to try things")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = as torch chooses")
    parser.add_argument("--update-card", action="store_true", help="write the figures into the cards of --models-dir")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; prints a table, or JSON with ``--json -``."""
    from medapp.services.evaluation import tasks

    data = arguments.data or paths.shared_data_dir()
    if arguments.task not in tasks.TASKS:
        raise UsageError(f"The task '{arguments.task[:40]}' cannot be evaluated", f"Tasks: {', '.join(tasks.TASKS)}")
    if not data.exists():
        raise UsageError("There are no evaluation data at this place", "Set MEDAPP_SHARED, or use --data DIR")
    if arguments.slices < 1:
        raise UsageError("--slices must be at least 1", "The default is 5")
    if arguments.update_card and not arguments.models_dir:
        raise UsageError("--update-card needs --models-dir", "Say in which folder the cards are")
    if arguments.threads > 0:
        import torch

        torch.set_num_threads(arguments.threads)
    shipped = arguments.models_dir or paths.shipped_models_dir()
    library = ModelLibrary(shipped, arguments.models_dir or paths.user_models_dir())
    result = tasks.evaluate(
        arguments.task, library, data, Progress(_show), arguments.model, arguments.slices, arguments.quick
    )
    if arguments.update_card:
        for model_id in {row.get("name", row.get("method")) for row in result["rows"]}:
            _update_card(shipped / f"{model_id}.json", tasks.card_figures(result, model_id))
    text = json.dumps(result, indent=2)
    if arguments.json and arguments.json != STANDARD_OUTPUT:
        _write(Path(arguments.json), text)
    print(text if arguments.json == STANDARD_OUTPUT else tasks.table(result, arguments.markdown))
    return 0


def _update_card(path: Path, figures: Mapping[str, Any]) -> None:
    """Put the figures beside the others of a card; methods without a card have none to keep."""
    if path.is_file():
        card = read_card(path)
        path.write_text(replace(card, figures={**card.figures, **figures}).to_json(), encoding="utf-8")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError("The result file cannot be written", "Choose another place with --json") from error


def _show(event: ProgressEvent) -> None:
    if event.total and event.done % 10 == 0:
        print(f"{event.note or event.unit} {event.done}/{event.total}", file=sys.stderr, flush=True)
