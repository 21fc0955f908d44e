"""``medapp depth``: complete the depth of a colour frame from a file of a stated scale, or from typed points."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np

from medapp.depth.depth_map import add_points
from medapp.errors import UsageError
from medapp.progress import Progress
from medapp.scan.camera import Camera
from medapp.scan.depth import write_depth
from medapp.scan.depth_scale import PRESETS
from medapp.scan.reading import read_scan
from medapp.scan.thumbnail import picture_png
from medapp.scan.turbo import depth_colours, spread
from medapp.services.depth import NOT_A_MEASUREMENT, completer, depth_report, stated_depth
from medapp.services.workspace import Workspace


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``depth`` to the command line."""
    presets = "; ".join(f"{scale.name}: {scale.title}, {scale.words()}" for scale in PRESETS.values())
    parser = subparsers.add_parser(
        "depth",
        help="complete the depth of a colour frame from a few measured points",
        description=f"{NOT_A_MEASUREMENT} Depth files are read only by a stated scale. Presets: {presets}",
    )
    parser.add_argument("frame", help="a colour image: PNG, JPEG, TIFF, BMP or DICOM")
    parser.add_argument("--sparse", default="", help="depth file of the same size: PNG, TIFF or NPY")
    parser.add_argument("--preset", default="", help="its scale: a preset, or such as unit=mm,scale=0.02")
    parser.add_argument("--points", default="", help='measured points "x,y,mm;x,y,mm"; they win over the file')
    parser.add_argument(
        "--model", default="", help="model id, fill-nearest or fill-linear; default: the first depth model"
    )
    parser.add_argument("--focal", type=float, default=0.0, help="focal length in pixels, kept with the result")
    parser.add_argument("--keep-points", action="store_true", help="put the measured depths back into the result")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--out", required=True, help="folder for depth.png, depth.tiff, sigma.*, side-cars, preview.png"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Complete one frame and write the files; prints one JSON line."""
    since, workspace = time.perf_counter(), Workspace()
    scan = read_scan(arguments.frame)
    if not scan.is_colour or scan.shape[0] != 1:
        raise UsageError(f"{Path(arguments.frame).name} is not one colour frame.", "Choose a colour image.")
    rgb = np.asarray(scan.slice_values(0))
    H, W = rgb.shape[:2]
    notes: tuple[str, ...] = ()
    sparse = np.full((H, W), np.nan, dtype=np.float32)
    camera = Camera.centred(arguments.focal, W, H) if arguments.focal else None
    if arguments.sparse:
        found = stated_depth(arguments.sparse, arguments.preset, Progress())
        notes, sparse = found.notes, found.depth_mm
        camera = camera or found.scale.camera
        if sparse.shape != (H, W):
            (h, w) = sparse.shape
            raise UsageError(f"The depth file is {w} × {h}, the frame {W} × {H}.", "Both must be of one picture.")
    sparse = add_points(sparse, parse_points(arguments.points))
    chosen = completer(arguments.model or _first_model(workspace), workspace, arguments.device, arguments.keep_points)
    made = chosen.estimate(rgb, sparse, Progress())
    report = {**depth_report(made, chosen), "seconds": round(time.perf_counter() - since, 2)}
    report["notes"] = [*notes, *made.notes]
    out = Path(arguments.out)
    facts = {"made_by": report, "use": NOT_A_MEASUREMENT}
    written = list(write_depth(out, "depth", made.depth_mm, facts, camera))
    if made.sigma_mm is not None:
        written += write_depth(out, "sigma", made.sigma_mm, facts, camera)
    preview = out / "preview.png"
    preview.write_bytes(picture_png(depth_colours(made.depth_mm, *spread(made.depth_mm)), 0))
    print(json.dumps({**report, "files": [path.name for path in (*written, preview)]}, ensure_ascii=False))
    return 0


def parse_points(text: str) -> tuple[tuple[float, float, float], ...]:
    """``x,y,mm;x,y,mm`` to points.

    Raises:
        UsageError: Something else.
    """
    points: list[tuple[float, float, float]] = []
    for number, part in enumerate((p for p in text.split(";") if p.strip()), start=1):
        try:
            x, y, depth = (float(value) for value in part.split(","))
        except ValueError as error:
            raise UsageError(f"Point {number} is not x,y,mm.", 'Write --points "120,80,35;40,200,52.5"') from error
        if not all(math.isfinite(value) for value in (x, y, depth)):
            raise UsageError(f"Point {number} is not finite.", 'Write --points "120,80,35;40,200,52.5"')
        same = next((n for n, (u, v, _) in enumerate(points, 1) if (round(u), round(v)) == (round(x), round(y))), 0)
        if same and points[same - 1][2] != depth:
            raise UsageError(f"Points {same} and {number} give one pixel two depths.", "Leave one of them out.")
        points.append((x, y, depth))
    return tuple(points)


def _first_model(workspace: Workspace) -> str:
    found = [card.id for card in workspace.library.list() if card.serves == "depth"]
    return found[0] if found else "fill-linear"
