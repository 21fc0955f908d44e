"""``medapp retrain``: a better model from a project's corrections, compared before it is adopted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medapp.cli.numbers import above_zero
from medapp.cli.train import stoppable
from medapp.errors import UsageError
from medapp.jobs.worker import run as run_request
from medapp.progress import Progress, ProgressEvent
from medapp.requests import (
    AdoptRequest,
    Crashed,
    Done,
    Refused,
    Request,
    RetrainRequest,
    RetrainResult,
    RollBackRequest,
    Stopped,
    TrainingSetRequest,
)
from medapp.services.workspace import Workspace

_WORST_CASES = 10


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``retrain`` to the command line."""
    parser = subparsers.add_parser(
        "retrain",
        help="retrain a model from a project's corrections and compare it with the one in use",
        epilog="The model in use stays until --adopt; --roll-back lets the one before serve again.",
    )
    parser.add_argument("project", nargs="?", default="", help="project folder, name.medapp")
    parser.add_argument("--model", default="", metavar="ID", help="model to begin from, such as soft-matting")
    parser.add_argument("--minutes", type=above_zero, default=10.0, help="of training; default 10")
    parser.add_argument(
        "--data-set", default="", metavar="VERSION", help="frozen version; default: freeze what is there"
    )
    parser.add_argument("--run", default="", metavar="RUN", dest="run_folder", help="go on with this run folder")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.add_argument("--survey", action="store_true", help="only count what there is to train from")
    parser.add_argument("--adopt", default="", metavar="RUN", help="let the new model of this run serve from now on")
    parser.add_argument(
        "--roll-back", default="", metavar="ID", help="let the model before the adopted one serve again"
    )
    parser.add_argument("--json", action="store_true", help="the scorecard as JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit status."""
    workspace = Workspace()
    try:
        if arguments.roll_back:
            return _tell(_ask(RollBackRequest(arguments.roll_back), workspace))
        if arguments.adopt:
            return _tell(_ask(AdoptRequest(arguments.adopt), workspace))
        if not arguments.project or not arguments.model:
            raise UsageError("A project and a model are needed.", "medapp retrain work.medapp --model soft-matting")
        if arguments.survey:
            return _tell(_ask(TrainingSetRequest(arguments.project, arguments.model), workspace))
        request = RetrainRequest(
            arguments.project,
            arguments.model,
            arguments.minutes,
            arguments.data_set,
            arguments.run_folder,
            arguments.device,
        )
        outcome = _ask(request, workspace)
    finally:
        workspace.close()
    if not isinstance(outcome, Done):
        return _tell(outcome)
    result: RetrainResult = outcome.result
    content = json.loads(Path(result.scorecard).read_text(encoding="utf-8"))
    if arguments.json:
        print(json.dumps({**asdict(result), "scorecard": content}, ensure_ascii=False))
    else:
        print("\n".join(lines_of(content)))
        print(f"\nmedapp retrain --adopt {result.run}", file=sys.stderr)
    return 0


def lines_of(content: Mapping[str, Any]) -> list[str]:
    """A scorecard as text: metrics of each hold-out, the worst cases, effort, notes."""
    about = content["data_set"]
    lines = [
        f"{content['champion']['title']} (in use) against {content['challenger']['title']} (new)",
        f"Trained from {about['cases']} cases of {about['patients']} patients, data set {about['version']}",
    ]
    for group in content["groups"]:
        rows = [row for row in content["metrics"] if row["group"] == group]
        lines += ["", f"{group[:1].upper()}{group[1:]}: {rows[0]['cases']} cases of {rows[0]['patients']} patients"]
        table = [["metric", "in use", "new", "change", "95 % of the change", ""]]
        for row in rows:
            unit = f" {row['unit']}" if row["unit"] else ""
            span = "-" if row["ci95"] is None else " to ".join(f"{value:+.4g}" for value in row["ci95"]) + unit
            change = "-" if row["change_percent"] is None else f"{row['change_percent']:+.1f} %"
            values = (f"{row['champion']:.4g}{unit}", f"{row['challenger']:.4g}{unit}")
            table.append([row["title"], *values, change, span, row["verdict"]])
        lines += _aligned(table)
        first = rows[0]["key"]
        worst = [case for case in content["cases"] if case["group"] == group and case["metric"] == first]
        lines += [f"worst first, by {rows[0]['title']}:"]
        for case in worst[:_WORST_CASES]:
            change = "-" if case["change_percent"] is None else f"{case['change_percent']:+.1f} %"
            lines.append(f"  {case['verdict']:6} {change:>9}  {case['case']}")
    effort = {name: part for name, part in content["effort"].items() if part["mattes"]}
    if effort:
        lines += ["", "Effort per accepted matte"]
        head = ["", "mattes", "strokes", "seconds"]
        keys = ("mattes", "strokes_per_matte", "seconds_per_matte")
        named = [[name.replace("_", " "), *(f"{part[key]:g}" for key in keys)] for name, part in effort.items()]
        lines += _aligned([head, *named])
    return [*lines, "", *content["notes"]]


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _ask(request: Request, workspace: Workspace) -> Done | Stopped | Refused | Crashed:
    """Run it; Ctrl+C stops politely, so that a run can go on."""
    with stoppable() as is_stopped:
        return run_request(request, workspace, Progress(_Phases(), is_stopped))


class _Phases:
    """A line on standard error when something new begins, and the run folder once it is known."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, event: ProgressEvent) -> None:
        for line in (event.note, f"run folder {event.detail['run']}" if "run" in event.detail else ""):
            if line and line not in self._said:
                self._said.add(line)
                print(line, file=sys.stderr, flush=True)


def _tell(outcome: Done | Stopped | Refused | Crashed) -> int:
    if isinstance(outcome, Done):
        print(json.dumps(asdict(outcome.result), ensure_ascii=False))
        return 0
    if isinstance(outcome, Refused):
        print(f"{outcome.message}\n{outcome.hint}".rstrip(), file=sys.stderr)
        return 2
    if isinstance(outcome, Stopped):
        print("cancelled; the model in use is unchanged and the run can go on with --run", file=sys.stderr)
        return 3
    print(outcome.report, file=sys.stderr)
    return 70
