"""``medapp models list | show | import | parity | cost | train-all``: what restores and segments, and where from."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from medapp.cli import train_all
from medapp.errors import MedappError
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
    bring.add_argument("--modality", default="", help="DICOM code of what it was trained on, such as CT")
    bring.add_argument("--unit", default="", help="of --range; HU for CT and SUV for PT unless given")
    bring.add_argument("--range", type=_range, help="native values LOW,HIGH that its input was scaled from")
    same = actions.add_parser("parity", help="compare networks with the published ones by files of reference tensors")
    same.add_argument("files", nargs="+", metavar="FILE")
    same.add_argument("--json", action="store_true", help="a JSON line for each file")
    cost = actions.add_parser("cost", help="parameters and multiply-adds of every architecture, as published")
    cost.add_argument("--json", action="store_true", help="a JSON line for each network")
    train_all.add_parser(actions)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action; returns the exit status."""
    if arguments.action == "parity":
        return parity([Path(file) for file in arguments.files], arguments.json)
    if arguments.action == "cost":
        return cost(arguments.json)
    if arguments.action == "train-all":
        return train_all.run(arguments)
    if arguments.action == "import":
        return _print(_ask(_import_request(arguments)))
    outcome = _ask(ModelsRequest())
    if not isinstance(outcome, Done):
        return _print(outcome)
    if arguments.action == "show":
        chosen = [model for model in outcome.result if arguments.id in (model["id"], model.get("in_use"))]
        if not chosen:
            return _print(Refused(f"There is no model {arguments.id}.", "List them: medapp models list"))
        is_line = chosen[0].get("in_use", chosen[0]["id"]) != chosen[0]["id"]
        told = {key: value for key, value in chosen[0].items() if is_line or key not in ("in_use", "history")}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    for model in outcome.result:
        modalities = [intake["modality"] for intake in model["takes"]]
        row = {key: model[key] for key in ("id", "title", "version", "serves", "task", "inputs")}
        adopted = {"in_use": model["in_use"]} if model.get("in_use", model["id"]) != model["id"] else {}
        print(json.dumps({**row, "modalities": modalities, **adopted}, ensure_ascii=False))
    return 0


def parity(paths: list[Path], as_json: bool) -> int:
    """Check every file, also after one that fails; returns 1 where any differs or is refused."""
    from medapp.networks.parity import check_parity  # loads torch

    status = 0
    for path in paths:
        try:
            found = check_parity(path)
        except MedappError as error:
            status = 1
            row = {"file": path.name, "refused": error.message, "hint": error.hint}
            line = f"{path.name}: {error.message}. {error.hint}"
        else:
            status = status if found.is_equal else 1
            row = {"file": path.name, **asdict(found), "is_equal": found.is_equal}
            row = {k: v for k, v in row.items() if k != "path" and v != math.inf}  # JSON has no infinity
            line = (
                f"{path.name}: {found.architecture} {'equals' if found.is_equal else 'DIFFERS from'} its reference, "
                f"max abs {found.max_abs:.2e}, relative L2 {found.relative_l2:.2e}, {found.seconds:.2f} s"
            )
        print(json.dumps(row, ensure_ascii=False) if as_json else line)
    return status


def _import_request(arguments: argparse.Namespace) -> ImportModelRequest:
    return ImportModelRequest(
        arguments.file, arguments.architecture, arguments.modality.upper(), arguments.unit, arguments.range
    )


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError("two numbers, such as -1024,3072") from error
    return low, high


def cost(as_json: bool) -> int:
    """Print what every architecture costs in its published configuration, as a Markdown table."""
    from medapp.networks.cost import DEFAULTS, case_cost  # loads torch
    from medapp.networks.registry import architecture

    columns = ("weight_macs", "thop", "attention_macs", "other_macs", "macs")
    if not as_json:
        titles = ("conv + linear", "as thop counts", "attention", "other products", "all products")
        print(f"| network | input | parameters | {' | '.join(f'{title}, G' for title in titles)} |")
        print(f"| --- | --- | {' | '.join(['---:'] * (len(titles) + 1))} |")
    for case in DEFAULTS:
        found = case_cost(case)
        if as_json:
            numbers = {**asdict(found), **{name: getattr(found, name) for name in columns}}
            print(
                json.dumps({"architecture": case.architecture, "config": case.config, "shape": case.shape, **numbers})
            )
            continue
        cells = [f"{getattr(found, name) / 1e9:.4f}" for name in columns]
        size = " × ".join(map(str, case.shape[1:]))
        title = architecture(case.architecture).title
        print(f"| {title} | {size} | {found.parameters:,} | {' | '.join(cells)} |")
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
