"""Measure depth completion on held-out frames, at several numbers and patterns of points, against plain fills."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.depth.estimator import DepthEstimator
from medapp.depth.fill import FILLS, FillCompleter
from medapp.depth.metrics import DepthScores, mean_scores
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.training.completion_data import PATTERNS, DepthFrame, manifest_depth, manifest_frames
from medapp.training.tasks.completion import data_hash, score_at

TASK = "depth-completion"
COUNTS = (5, 20, 50, 100, 200, 500, 1000)
PATTERN_COUNT = 100
UNKNOWN_SCENES = "RGB-D scenes not trained on"
_SHOWN = ("mae", "rmse", "rel", "delta_110")

Method = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]


def evaluate_depth(
    library: ModelLibrary,
    data: Path,
    progress: Progress,
    model_id: str | None = None,
    counts: tuple[int, ...] = COUNTS,
    patterns: tuple[str, ...] = PATTERNS,
    seeds: int = 3,
) -> dict[str, Any]:
    """The models and the fills on the ``val`` frames of a folder with ``MANIFEST.csv``.

    Args:
        library: Where the models are.
        data: The folder.
        progress: Counts settings.
        model_id: One model; None = all that serve depth.
        counts: Numbers of points, drawn uniformly.
        patterns: Other ways to draw 100 points.
        seeds: Draws a frame; every method sees the same points.

    Returns:
        ``{task, data_sha256, n_frames, rows}``; rows ``{kind, pattern, points, method, mae, rmse, rel, delta_110,
        gain_percent}``, errors in mm as means over draws, then frames. ``gain_percent`` compares the mean absolute
        error with that of the better fill.

    Raises:
        TrainingError: There are no such frames.
        WeightsError: The model cannot be used.
        Cancelled: The user stopped it.
    """
    rows = manifest_depth(data, "val")
    frames = manifest_frames(data, rows)
    groups: dict[str, list[DepthFrame]] = {}
    known = {row["source repo"] for row in manifest_depth(data, "train", may_be_none=True)}
    for row, frame in zip(rows, frames, strict=True):
        groups.setdefault(scene_kind(row, known), []).append(frame)
    ids = [model_id] if model_id else [card.id for card in library.list() if card.serves == "depth"]
    fills: dict[str, Method] = {name: _method(FillCompleter(fill)) for fill, name in FILLS.items()}
    models: dict[str, Method] = {one: _method(DepthEstimator(library.load(one, "cpu"))) for one in ids}
    settings = [("uniform", count) for count in counts]
    settings += [(pattern, PATTERN_COUNT) for pattern in patterns if pattern != "uniform"]
    progress.start(len(groups) * len(settings) + len(groups), "settings", "evaluating")
    table: list[dict[str, Any]] = []
    for kind, members in groups.items():
        for pattern, count in settings:
            scores = {
                name: mean_scores(score_at(method, members, count, pattern, seeds))
                for name, method in {**fills, **models}.items()
            }
            best = min(scores[name].mae for name in fills)
            table += [_row(kind, pattern, count, name, score, best) for name, score in scores.items()]
            progress.step()
        for name, method in models.items():  # nothing measured: only finite is asked for
            made = [method(frame.rgb, np.zeros_like(frame.depth_mm)) for frame in members]
            is_finite = all(np.isfinite(depth).all() for depth in made)
            table.append({"kind": kind, "pattern": "none", "points": 0, "method": name, "is_finite": is_finite})
        progress.step()
    return {"task": TASK, "data_sha256": data_hash(frames), "n_frames": len(frames), "seeds": seeds, "rows": table}


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What the card of a model keeps: errors in mm and gain over the better fill, by kind and number of points."""
    figures: dict[str, Any] = {
        "measured_by": f"medapp evaluate --task {TASK}",
        "data_sha256": result["data_sha256"],
        "conditions": f"{result['n_frames']} held-out frames, {result['seeds']} draws each, uniform points",
    }
    for row in result["rows"]:
        if row["method"] == model_id and row["pattern"] == "uniform":
            kept = {name: row[name] for name in (*_SHOWN, "gain_percent")}
            figures.setdefault(row["kind"], {})[f"{row['points']} points"] = kept
    return figures


def scene_kind(row: Mapping[str, str], known: Collection[str]) -> str:
    """What a frame of the manifest shows, and whether training has seen anything like it.

    Args:
        row: Of the manifest.
        known: Sources of the training rows: photographs of another source are scenes of another kind.
    """
    if "endoscopy" in row["path"]:
        return "rendered endoscopy"
    return "RGB-D rooms" if row["source repo"] in known else UNKNOWN_SCENES


def _method(completer: FillCompleter | DepthEstimator) -> Method:
    return lambda rgb, sparse: completer.estimate(rgb, sparse).depth_mm


def _row(kind: str, pattern: str, count: int, name: str, score: DepthScores, best: float) -> dict[str, Any]:
    shown = {key: round(getattr(score, key), 4) for key in _SHOWN}
    gain = round(100 * (1 - score.mae / best), 1)
    return {"kind": kind, "pattern": pattern, "points": count, "method": name, **shown, "gain_percent": gain}
