"""``medapp restore FILE --out restored.nii.gz`` (``.png`` for colour): restore a file by a model or filter."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from medapp.cli.numbers import between, not_negative
from medapp.progress import Progress, ProgressEvent
from medapp.requests import RestoreRequest
from medapp.services.workspace import Workspace


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``restore`` to the command line."""
    parser = subparsers.add_parser("restore", help="restore a file by a model or filter; never for diagnosis")
    parser.add_argument("file", metavar="FILE", type=Path, help="an image file or the folder of a series")
    parser.add_argument("--model", required=True, metavar="ID", help="of `medapp models list`, or filter-nlm")
    parser.add_argument("--modality", help="CT, MR, PT or SM (stained slides), where the format does not say")
    parser.add_argument(
        "--strength", type=between(0, 100), default=100.0, metavar="PERCENT", help="blend with the original"
    )
    parser.add_argument(
        "--free-kspace",
        action="store_true",
        help="MR super-resolution: let the model change the measured part of k-space, which is kept otherwise",
    )
    parser.add_argument("--trust", action="store_true", help="a trust map too: spread of 8 answers, 8 times as long")
    parser.add_argument("--regions", default="", metavar="SAM_ID", help="finds regions; default: the region tree")
    parser.add_argument(
        "--tile", type=not_negative, default=0, metavar="PX", help="side of the tiles; default: by the memory"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".nii.gz; .png or .tif for colour")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the restored series; prints one JSON line."""
    from medapp.services.restore_file import restore_file  # loads torch

    asked = RestoreRequest(
        "",
        "",
        arguments.model,
        strength=arguments.strength / 100,
        device=arguments.device,
        tile_px=arguments.tile,
        region_model_id=arguments.regions,
        keep_measured=not arguments.free_kspace,
        trust=arguments.trust,
    )
    workspace = Workspace()
    try:
        report = restore_file(arguments.file, arguments.out, asked, workspace, arguments.modality, Progress(_show))
    finally:
        workspace.close()
    print(json.dumps(report, ensure_ascii=False))
    return 0


def _show(event: ProgressEvent) -> None:
    if event.total > 1 and event.done:
        print(f"{event.done} of {event.total} {event.unit}", file=sys.stderr, flush=True)
