"""``medapp models list | show | import``: what restores and segments, and where it came from."""

from __future__ import annotations

import argparse
import json

from medapp.jobs.worker import run as run_request
from medapp.progress import Progress
from medapp.requests import Done, ImportModelRequest, ModelsRequest, Outcome, Refused, Request
from medapp.services.workspace import Workspace


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``models`` to the command line."""
    parser = subparsers.add_parser("models", help="list, show or import models")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="every model of the library, a JSON line each")
    show = actions.add_parser("show", help="the card of one model")
    show.add_argument("id")
    bring = actions.add_parser("import", help="check a weights file and add it as safetensors with a card")
    bring.add_argument("file")
    bring.add_argument("--architecture", default="", help="needed where the file's keys do not tell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action; returns the exit status."""
    if arguments.action == "import":
        return _print(_ask(ImportModelRequest(arguments.file, arguments.architecture)))
    outcome = _ask(ModelsRequest())
    if not isinstance(outcome, Done):
        return _print(outcome)
    if arguments.action == "show":
        chosen = [model for model in outcome.result if model["id"] == arguments.id]
        if not chosen:
            return _print(Refused(f"There is no model {arguments.id}.", "List them: medapp models list"))
        print(json.dumps(chosen[0], indent=2, ensure_ascii=False))
        return 0
    for model in outcome.result:
        print(json.dumps({k: model[k] for k in ("id", "title", "task", "modality", "version") if k in model}))
    return 0


def _ask(request: Request) -> Outcome:
    return run_request(request, Workspace(), Progress())


def _print(outcome: Outcome) -> int:
    if isinstance(outcome, Done):
        print(json.dumps({"id": outcome.result}))
        return 0
    if isinstance(outcome, Refused):
        print(json.dumps({"refused": outcome.message, "hint": outcome.hint}))
        return 2
    print(json.dumps({"failed": str(outcome)}))
    return 70
