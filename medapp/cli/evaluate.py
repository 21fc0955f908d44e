"""``medapp evaluate``: measure a task on held-out patients against classical methods."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from medapp import paths
from medapp.errors import UsageError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress, ProgressEvent


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser("evaluate", help="measure a task on held-out patients against classical methods")
    parser.add_argument("--task", required=True, help="ct-denoise, depth-completion or matting")
    parser.add_argument("--model", help="one model of the library; default: all models of the task")
    parser.add_argument("--models-dir", type=Path, help="look for models here instead of in the library")
    parser.add_argument("--data", type=Path, help="folder of scans; default: the val rows of $MEDAPP_SHARED/data")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    parser.add_argument("--slices", type=int, default=5, help="slices of each subject, evenly spaced")
    parser.add_argument("--quick", action="store_true", help="quarter dose with the soft kernel only")
    parser.add_argument("--update-card", action="store_true", help="write the figures into the card of --model")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; prints the result as JSON."""
    if arguments.task == "depth-completion":
        return _depth(arguments)
    from medapp.services.evaluate import card_figures, evaluate
    from medapp.services.evaluate_mattes import TASK as MATTING
    from medapp.services.evaluate_mattes import card_figures as matting_figures
    from medapp.services.evaluate_mattes import evaluate_mattes

    data = arguments.data or paths.shared_data_dir()
    if not data.exists():
        raise UsageError("There are no evaluation data at this place", "Set MEDAPP_SHARED, or use --data DIR")
    if arguments.slices < 1:
        raise UsageError("--slices must be at least 1", "The default is 5")
    if arguments.update_card and not (arguments.model and arguments.models_dir):
        raise UsageError("--update-card needs --model and --models-dir", "Say which card in which folder")
    shipped = arguments.models_dir or paths.shipped_models_dir()
    library = ModelLibrary(shipped, arguments.models_dir or paths.user_models_dir())
    if arguments.task == MATTING:
        result = evaluate_mattes(library, data, Progress(_show), arguments.model)
    else:
        result = evaluate(
            arguments.task, library, data, Progress(_show), arguments.model, arguments.slices, not arguments.quick
        )
    if arguments.update_card:
        card = library.card(arguments.model)
        figures = matting_figures(result) if arguments.task == MATTING else card_figures(result, card.id)
        kept = replace(card, figures={**card.figures, **figures})
        (shipped / f"{card.id}.json").write_text(kept.to_json(), encoding="utf-8")
    text = json.dumps(result, indent=2)
    if arguments.json:
        try:
            arguments.json.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError("The result file cannot be written", "Choose another place with --json") from error
    print(text)
    return 0


def _depth(arguments: argparse.Namespace) -> int:
    """Depth completion has points instead of doses; the table is printed as JSON."""
    from medapp.services.evaluate_depth import card_figures, evaluate_depth

    shipped = arguments.models_dir or paths.shipped_models_dir()
    library = ModelLibrary(shipped, arguments.models_dir or paths.user_models_dir())
    data = arguments.data or paths.shared_data_dir()
    result = evaluate_depth(library, data, Progress(_show), arguments.model, seeds=1 if arguments.quick else 3)
    if arguments.update_card:
        card = library.card(arguments.model)
        kept = replace(card, figures=card_figures(result, card.id))
        (shipped / f"{card.id}.json").write_text(kept.to_json(), encoding="utf-8")
    text = json.dumps(result, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def _show(event: ProgressEvent) -> None:
    if event.total and event.done % 10 == 0:
        print(f"{event.note or event.unit} {event.done}/{event.total}", file=sys.stderr, flush=True)
