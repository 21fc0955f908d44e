"""Run folders and scorecards as a worker writes them, at toy size."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image


def plan(folder: Path, project_id: str, at: float | None = None) -> Path:
    """A run that was begun for a project."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": 1,
        "project_id": project_id,
        "kind": "matting",
        "model_id": "soft-matting",
        "line": "soft-matting",
        "champion_sha256": "0",
        "data_set": "matting 1",
        "data_set_sha256": "0",
        "minutes": 3.0,
        "notes": [],
    }
    path = folder / "retraining.json"
    path.write_text(json.dumps(content))
    if at is not None:
        os.utime(path, (at, at))
    return folder


def points(folder: Path, count: int, first: int = 1) -> None:
    """Curve points every 25 iterations, a check at every other one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curves.jsonl").open("a", encoding="utf-8") as file:
        for n in range(first, first + count):
            file.write(json.dumps({"iteration": 25 * n, "seconds": 2.0 * n, "rate": 1e-4, "loss": 1.0 / n}) + "\n")
            if n % 2 == 0:
                file.write(json.dumps({"iteration": 25 * n, "seconds": 2.0 * n, "score": -0.2 / n, "sad": 9.0}) + "\n")


def samples(folder: Path, count: int = 5, grey: int = 128) -> None:
    """Sample pictures: black input, grey result, white reference."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    row = np.repeat(np.array([[0, grey, 255]], np.uint8), 16, axis=0).repeat(16, axis=1)
    for n in range(1, count + 1):
        Image.fromarray(row).save(folder / "samples" / f"{n}.png")


def scorecard(folder: Path) -> Path:
    """Two better, one worse on the new hold-out; all the same on the old one."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = [
        ("sad", "SAD", "/ 1000", "lower", 4.0, 3.0, "better"),
        ("edge_width", "Edge width against the reference, without sign", "", "lower", 0.2, 0.3, "worse"),
        ("soft_dice", "Soft Dice", "", "higher", 0.8, 0.9, "better"),
    ]
    rows, cases = [], []
    for group in ("new hold-out", "old hold-out"):
        for key, title, unit, better, before, after, verdict in metrics:
            is_new = group.startswith("new")
            row = {"key": key, "title": title, "unit": unit, "better": better, "group": group, "cases": 6}
            after, verdict = (after, verdict) if is_new else (before, "same")
            change = 100 * (after - before) / before
            row |= {"champion": before, "challenger": after, "verdict": verdict, "change_percent": change}
            row["ci95"] = [after - before - 0.1, after - before + 0.1] if is_new else None
            rows.append(row)
    for case, change, verdict in (("Liver of series 2", 20.0, "worse"), ("Kidney of series 1", -30.0, "better")):
        cases.append(
            {
                "group": "new hold-out",
                "case": case,
                "patient_group": "P7",
                "metric": "sad",
                "champion": 4.0,
                "challenger": 4.0 * (1 + change / 100),
                "change_percent": change,
                "verdict": verdict,
            }
        )
    content = {
        "format": 1,
        "kind": "matting",
        "champion": {"id": "soft-matting", "title": "Soft matting 1"},
        "challenger": {"id": "soft-matting.2", "title": "Soft matting 2"},
        "data_set": {"version": "matting 1", "sha256": "0", "cases": 9, "patients": 3},
        "groups": ["new hold-out", "old hold-out"],
        "metrics": rows,
        "cases": cases,
        "effort": {
            "before": {"mattes": 9, "strokes_per_matte": 14.0, "seconds_per_matte": 52.0},
            "after": {"mattes": 4, "strokes_per_matte": 6.0, "seconds_per_matte": 20.0},
            "with_masks": {"mattes": 0, "strokes_per_matte": None, "seconds_per_matte": None},
        },
        "notes": ["Chosen on cases that neither train nor judge."],
    }
    path = folder / "scorecard.json"
    path.write_text(json.dumps(content))
    return path
