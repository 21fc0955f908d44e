"""``medapp matte FILE --box x0,y0,x1,y1`` or ``--mask FILE``: masks, their disagreement and an alpha as PNG."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from medapp.errors import UsageError
from medapp.networks.card import ROUGH_MASK
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.workspace import Workspace


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``matte`` to the command line."""
    parser = subparsers.add_parser("matte", help="propose masks, their disagreement and an alpha for one slice")
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument(
        "--model", metavar="ID", help="a model that serves matting; default: the first that fits what is given"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--box", type=_numbers(4), metavar="X0,Y0,X1,Y1", help="pixels of the slice")
    where.add_argument("--point", type=_numbers(2), metavar="X,Y", help="a click, in pixels of the slice")
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="a rough mask of what is meant, bright on dark; a box is not needed then",
    )
    parser.add_argument("--slice", type=int, metavar="N", help="from 1; default: the middle one")
    parser.add_argument("--count", type=int, default=8, metavar="K", help="masks to draw, 1 to 32")
    parser.add_argument("--seed", type=int, default=-1, metavar="N", help="of the draws; default: from the pixels")
    parser.add_argument("--mean", action="store_true", help="the first mask and the alpha from the most likely draw")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets the pictures and matting.json")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the pictures; prints one JSON line."""
    from medapp.services.propose_mattes import matte_file  # loads torch

    if arguments.box is None and arguments.point is None and arguments.mask is None:
        raise UsageError("A box, a click or a rough mask is needed.", "--box X0,Y0,X1,Y1, --point X,Y or --mask FILE")
    workspace = Workspace()
    try:
        model_id = arguments.model or _first(workspace.library, arguments.mask is not None)
        result = matte_file(
            arguments.file,
            arguments.out,
            model_id,
            workspace,
            arguments.point,
            arguments.box,
            None if arguments.slice is None else arguments.slice - 1,
            arguments.count,
            arguments.seed,
            arguments.mean,
            Progress(),
            arguments.mask,
        )
    finally:
        workspace.close()
    print(json.dumps(result))
    print(f"written to {arguments.out}", file=sys.stderr)
    return 0


def _first(library: ModelLibrary, has_mask: bool) -> str:
    """The first matting model that starts from what there is: a rough mask, or a box or click."""
    cards = [card for card in library.list() if card.serves == "matting" and not library.is_successor(card)]
    if not cards:
        raise UsageError("There is no matting model in the library.", "Import one, or name it with --model.")
    return next((card for card in cards if (ROUGH_MASK in card.inputs) == has_mask), cards[0]).id


def _numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    def parse(text: str) -> tuple[float, ...]:
        parts = text.split(",")
        if len(parts) != count:
            raise argparse.ArgumentTypeError(f"{count} numbers with commas between them")
        try:
            return tuple(float(part) for part in parts)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{count} numbers with commas between them") from error

    return parse
