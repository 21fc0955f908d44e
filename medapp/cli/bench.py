"""``medapp bench NAME``: rows of p50 and p95 against a peer in the same run, as JSON."""

from __future__ import annotations

import argparse
import json
from importlib import import_module

_BENCHES = (
    "canvas",
    "open",
    "brush",
    "store",
    "regions",
    "matting",
    "restoration",
    "networks",
    "start",
    "window",
    "degradations",
    "retraining",
)
_MODULES = {"retraining": "retraining_study"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bench`` to the command line."""
    parser = subparsers.add_parser("bench", help="speed against peers in the same run; simulated noise against real")
    parser.add_argument("name", choices=_BENCHES)
    parser.add_argument("--quick", action="store_true", help="networks: toy sizes, to see that every row can be made")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run one bench and print its rows, a JSON line each."""
    module = import_module(f"medapp.benchmarks.{_MODULES.get(arguments.name, arguments.name).replace('-', '_')}")
    rows = []
    for row in module.run(quick=True) if arguments.name == "networks" and arguments.quick else module.run():
        rows.append(row)
        print(json.dumps(row), flush=True)
    if hasattr(module, "table"):
        print(module.table(rows))
    return 0
