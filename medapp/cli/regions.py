"""``medapp regions FILE --out labels.nii.gz``: the region maps that RAT attends within, without a window."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from medapp.progress import Progress, ProgressEvent
from medapp.scan.scan import Window
from medapp.services.workspace import Workspace


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``regions`` to the command line."""
    parser = subparsers.add_parser("regions", help="divide slices into regions: a label map on the grid of the file")
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--model", metavar="SAM_ID", default="", help="a SAM of the library; default: the region tree")
    parser.add_argument("--slice", type=int, metavar="N", help="from 1; default: all, for PNG the middle one")
    parser.add_argument("--window", type=_window, metavar="CENTER,WIDTH", help="default: as the file is shown at first")
    parser.add_argument("--out", type=Path, required=True, metavar="LABELS", help="a .nii.gz or .png file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the label map; prints one JSON line."""
    from medapp.services.region_files import regions_of_file  # loads scikit-image

    workspace = Workspace()
    try:
        result = regions_of_file(
            arguments.file,
            arguments.out,
            workspace,
            arguments.model,
            None if arguments.slice is None else arguments.slice - 1,
            arguments.window,
            Progress(_show),
        )
    finally:
        workspace.close()
    print(json.dumps(result))
    return 0


def _show(event: ProgressEvent) -> None:
    if event.total > 1 and event.done:
        print(f"{event.done} of {event.total} {event.unit}", file=sys.stderr, flush=True)


def _window(text: str) -> Window:
    try:
        center, width = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError("two numbers with a comma between them") from error
    if not width > 0:
        raise argparse.ArgumentTypeError("the width must be above 0")
    return Window(center, width)
