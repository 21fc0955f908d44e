"""``medapp verify FOLDER``: hash an exported folder again and compare it with its manifest."""

from __future__ import annotations

import argparse
import json

from medapp.progress import Progress
from medapp.requests import VerifyRequest
from medapp.services.verify import verify


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``verify`` to the command line."""
    parser = subparsers.add_parser("verify", help="hash an exported folder again and compare it with its manifest")
    parser.add_argument("folder", metavar="FOLDER")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what changed, is missing or was added; 0 when nothing did, 1 otherwise, 2 without a manifest."""
    result = verify(VerifyRequest(folder=arguments.folder), None, Progress())
    print(json.dumps(result, ensure_ascii=False))
    return 0 if result["ok"] else 1
