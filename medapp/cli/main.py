"""The command line: the same services as the window's, without one.

JSON goes to standard output, the log to standard error. Exit status: 0 done, 1 a check failed, 2 nothing readable or
wrong usage, 3 cancelled, 70 our bug.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from importlib import import_module

from medapp.errors import Cancelled, MedappError

EXIT_DONE, EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_CANCELLED, EXIT_BUG = 0, 1, 2, 3, 70

COMMANDS = {
    "inspect": "say what is in files and folders, a JSON line each",
    "demo": "run the whole loop without a window: import, restore, propose, matte, save, export, verify",
    "verify": "hash an exported folder again and compare it with its manifest",
    "evaluate": "measure a task on held-out patients against classical methods",
    "train": "train or go on training a network from a recipe",
    "retrain": "retrain a model from a project's corrections; adopt it, or roll back",
    "matte": "propose masks, their disagreement and an alpha for one slice, by a matting model",
    "models": "list, show or import models",
    "restore": "restore a file by a model or filter, with a trust map where wanted",
    "regions": "divide slices into the regions that RAT attends within: a label map",
    "depth": "complete the depth of a colour frame from a few measured points",
    "bench": "speed against peers in the same run; simulated noise against real",
}


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="medapp")
    subparsers = parser.add_subparsers(required=True)
    import_module(f"medapp.cli.{arguments[0]}").add_parser(subparsers)  # only the chosen one, so others cost nothing
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as stop:
        return EXIT_DONE if stop.code == 0 else EXIT_USAGE
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        return int(chosen.run(chosen))
    except (Cancelled, KeyboardInterrupt):
        # commands whose unfinished work can be gone on with say so
        print(getattr(chosen, "when_cancelled", "cancelled; nothing was changed"), file=sys.stderr)
        return EXIT_CANCELLED
    except MedappError as error:
        print(f"{error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        return EXIT_DONE
    except Exception:  # the one place of the command line that may catch everything
        traceback.print_exc()
        return EXIT_BUG
