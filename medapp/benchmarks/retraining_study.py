"""Does retraining from corrections pay? 20 corrected cases of a kind the shipped model was not trained on.

Matting: whole white blood cells in smears, which no shipped model was trained on. Restoration: CT on a grid of 2 mm, as
no scanner in RAT's training had (0.49 to 0.98 mm). Corrections are the true mattes and the full-dose slices of
``train`` rows, put into a real project through the store; what is judged are other patients and pictures, and the
``val`` rows that the models were first judged by. Everything runs in a home folder of its own.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medapp import paths
from medapp.annotation.edits import AddMatte, Stroke
from medapp.annotation.matte import to_stored
from medapp.errors import UsageError
from medapp.matting.proposer import MattingProposer
from medapp.networks.card import ROUGH_MASK, Card
from medapp.networks.library import LoadedModel
from medapp.progress import Progress
from medapp.requests import AdoptRequest, RetrainRequest
from medapp.restoration.metrics import slice_noise, soft_tissue
from medapp.restoration.restorer import NetworkRestorer
from medapp.scan.geometry import Geometry
from medapp.scan.reading import read_all
from medapp.scan.scan import Scan
from medapp.services.adoption import adopt
from medapp.services.evaluation.figures import group_mean, paired_change_percent, paired_interval
from medapp.services.evaluation.matte_cases import MatteCase, softened
from medapp.services.evaluation.mattes import measure_matte
from medapp.services.evaluation.measuring import measure_restoration
from medapp.services.evaluation.subjects import NOISY_REFERENCE_HU
from medapp.services.retrain import retrain
from medapp.services.scorecard import OLD, change_of, read_scorecard
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from medapp.training.degradations import degrade
from medapp.training.sources import find_references

log = logging.getLogger(__name__)

CASES = 27
"""Corrected; a quarter of them judges, so that 20 train."""
MATTING_MINUTES = 8.0
RESTORATION_MINUTES = 6.0
GRID_MM = 2.0
OUT = Path("build") / "retraining.json"
_NUCLEUS_OR_CELL = 64
_LEAST_BODY = 0.15

Row = dict[str, Any]


def run(
    minutes: tuple[float, float] = (MATTING_MINUTES, RESTORATION_MINUTES), models_dir: Path | None = None
) -> Iterator[Row]:
    """Make both studies; a row each, also written to ``build/retraining.json``.

    Args:
        minutes: Training budget of matting and of restoration; 0 leaves one out.
        models_dir: Further models beside the shipped ones, such as of a training that is not shipped yet.
    """
    data = paths.shared_data_dir()
    if not (data / "MANIFEST.csv").is_file():
        raise UsageError("The shared data is not here.", "Set MEDAPP_SHARED to the folder that holds data/.")
    rows: list[Row] = []
    with _own_home(models_dir) as home:
        studies: tuple[tuple[Callable[[Path, Path, float], Row], float], ...] = (
            (matting_study, minutes[0]),
            (restoration_study, minutes[1]),
        )
        for study, budget in studies:
            if budget > 0:
                rows.append(study(home, data, budget))
                OUT.parent.mkdir(parents=True, exist_ok=True)
                OUT.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                yield rows[-1]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    head = ("model", "trained from", "figure", "unseen", "in use", "new", "change (95 %)", "old hold-out", "minutes")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * 3}{'---:|' * (len(head) - 3)}"]
    for row in rows:
        low, high = row["change_ci95_percent"]
        old = row["old_change_percent"]
        cells = (
            row["model"],
            f"{row['trained_cases']} {row['what']}",
            row["figure"],
            str(row["unseen_cases"]),
            f"{row['champion']:.4g}",
            f"{row['challenger']:.4g}",
            f"{row['change_percent']:+.1f} % ({low:+.1f} to {high:+.1f})",
            "-" if old is None else f"{old:+.1f} %",
            f"{row['minutes_in_all']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------- matting


def matting_study(home: Path, data: Path, minutes: float) -> Row:
    """20 corrected white blood cells against the shipped matting model that is told a box."""
    began = time.monotonic()
    pictures = sorted(row["path"] for row in _rows(data) if row["path"].startswith("pathology/wbc/"))
    kinds = {row["path"]: row["kind"] for row in _rows(data)}
    images = [path for path in pictures if not path.endswith("_mask.png")]
    corrected = [path for path in images if kinds[path] == "train"][:CASES]
    unseen = [_cell(data, path) for path in images if path not in corrected]
    workspace = Workspace()
    # told a box, as the cases below are; those that start from rough masks would be asked what they are not made for
    cards = [card for card in workspace.library.list() if card.serves == "matting" and ROUGH_MASK not in card.inputs]
    if not cards:
        raise UsageError("There is no matting model that could be retrained.", "Train models/soft-matting.recipe.json")
    model_id = cards[0].id
    with Project.create(home / "cells", reader="study") as project:
        for path in corrected:
            _add_cell(project, data, path)
        result = retrain(RetrainRequest(str(project.path), model_id, minutes), workspace, Progress())
    pair = _pair(workspace, model_id, result.run)
    figures = [[measure_matte(MattingProposer(model), case) for case in unseen] for model in pair]
    groups = [case.patient for case in unseen]
    row = _row(workspace, model_id, "white blood cells", "sad", figures, groups, result.run, began)
    for key in ("mse", "grad", "conn", "soft_dice", "ged"):
        row[f"{key}_change_percent"] = round(_change(figures, key, groups)[0], 2)
    return row


def _cell(data: Path, path: str) -> MatteCase:
    image, mask = _picture(data, path)
    return MatteCase("cells", Path(path).stem, Path(path).stem, image, None, softened(mask))


def _picture(data: Path, path: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    image = np.asarray(read_all(data / path)[0].slice_values(0))
    labels = np.asarray(read_all(data / path.replace(".png", "_mask.png"))[0].slice_values(0))
    return image, np.asarray((labels if labels.ndim == 2 else labels[..., 0]) > _NUCLEUS_OR_CELL)


def _add_cell(project: Project, data: Path, path: str) -> None:
    scan = read_all(data / path)[0]
    _, mask = _picture(data, path)
    series_id = project.add_series(scan, title="Blood smear", group=Path(path).stem)
    annotation = project.annotation(series_id)
    added = AddMatte(annotation.new_matte("White cell", reader="study"))
    added.apply(annotation)
    project.journal(series_id, added)
    matte = annotation.matte(added.snapshot.matte_id)
    patch = matte.make_patch("alpha", (0, 0, 0), to_stored(softened(mask))[None])
    if patch is not None:
        project.journal(series_id, Stroke(matte.matte_id, (patch,), "Accept α, corrected"))
    project.set_series(series_id, state="done")


# --------------------------------------------------------------------------------------------------------- restoration


def restoration_study(home: Path, data: Path, minutes: float) -> Row:
    """20 references on a grid of 2 mm against RAT."""
    began = time.monotonic()
    workspace = Workspace()
    cards = [card for card in workspace.library.list() if card.architecture == "rat" and card.degradation]
    if not cards:
        raise UsageError("There is no RAT model that could be retrained.", "Train models/ct-denoise-rat.recipe.json")
    card = cards[0]
    with Project.create(home / "scans", reader="study") as project:
        for patient, values in list(_coarse(data, "train"))[:CASES]:
            _add_reference(project, patient, values)
        result = retrain(RetrainRequest(str(project.path), card.id, minutes), workspace, Progress())
    pair = _pair(workspace, card.id, result.run)
    unseen = list(_coarse(data, "val"))
    figures: list[list[Mapping[str, float]]] = [[], []]
    for number, (_, values) in enumerate(unseen):
        degraded = degrade(_quarter(card, number), values, GRID_MM, number)
        for place, model in enumerate(pair):
            figures[place].append(measure_restoration(NetworkRestorer(model, 0, "CT"), degraded, values, "CT"))
    groups = [patient for patient, _ in unseen]
    row = _row(workspace, card.id, "CT slices with 2 mm pixels", "rmse", figures, groups, result.run, began)
    before, after = ([one["psnr_db"] for one in side] for side in figures)
    mean, low, high = paired_interval(after, before, groups)
    row["psnr_db_change"], row["psnr_db_ci95"] = round(mean, 3), [round(low, 3), round(high, 3)]
    return row


def _quarter(card: Card, number: int) -> dict[str, Any]:
    kernels = list(card.degradation.get("kernels", ["hann"]))
    return {"kind": "ct-dose", "dose": 0.25, "kernel": kernels[number % len(kernels)]}


def _coarse(data: Path, kind: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The middle slice of each patient, averaged onto a grid of 2 mm."""
    seen: set[str] = set()
    for reference in find_references(data, "CT", kind, Progress(), under="ct/"):
        if reference.patient in seen or reference.unit != "HU":
            continue
        values = reference.load()[reference.shape[0] // 2]
        if slice_noise(values, soft_tissue(values)) > NOISY_REFERENCE_HU:
            continue
        scale = reference.mean_spacing_mm / GRID_MM
        smooth = ndimage.gaussian_filter(values, 0.4 / scale) if scale < 1 else values
        coarse = ndimage.zoom(smooth, scale, order=1).astype(np.float32)
        if min(coarse.shape) >= 64 and np.mean(coarse > -500) > _LEAST_BODY:
            seen.add(reference.patient)
            yield reference.patient, coarse


def _add_reference(project: Project, patient: str, values: NDArray[np.float32]) -> None:
    geometry = Geometry.from_spacing((5.0, GRID_MM, GRID_MM))
    scan = Scan(np.rint(values)[None].astype(np.int16), geometry, "CT", "HU", series_key=patient)
    project.set_reference(project.add_series(scan, title="CT, 2 mm", group=patient), True)


# -------------------------------------------------------------------------------------------------------------- shared


def _pair(workspace: Workspace, model_id: str, run: str) -> tuple[LoadedModel, LoadedModel]:
    """Champion and challenger; the latter serves from then on, as after *Adopt*."""
    library = workspace.library
    champion = library.load(model_id, "cpu")
    adopt(AdoptRequest(run), workspace, Progress())
    return champion, library.load(library.in_use(model_id), "cpu")


def _change(
    figures: Sequence[Sequence[Mapping[str, float]]], key: str, groups: list[str]
) -> tuple[float, float, float]:
    before, after = ([one[key] for one in side] for side in figures)
    return paired_change_percent(after, before, groups)


def _row(
    workspace: Workspace,
    model_id: str,
    what: str,
    key: str,
    figures: Sequence[Sequence[Mapping[str, float]]],
    groups: list[str],
    run: str,
    began: float,
) -> Row:
    content = read_scorecard(Path(run))
    old = change_of(content, OLD, key)
    percent, low, high = _change(figures, key, groups)
    before, after = (group_mean([one[key] for one in side], groups) for side in figures)
    card = workspace.library.card(workspace.library.in_use(model_id))
    return {
        "bench": "retraining",
        "model": model_id,
        "what": what,
        "figure": key.upper(),
        "trained_cases": content["data_set"]["cases"],
        "data_set_sha256": content["data_set"]["sha256"],
        "unseen_cases": len(groups),
        "champion": round(before, 5),
        "challenger": round(after, 5),
        "change_percent": round(percent, 2),
        "change_ci95_percent": [round(low, 2), round(high, 2)],
        "old_cases": old["cases"] if old else 0,
        "old_change_percent": old["change_percent"] if old else None,
        "old_ci95_percent": old["change_ci95_percent"] if old else None,
        "share_of_the_way": card.training["share_of_the_way"],
        "training_minutes": card.training["minutes"],
        "iterations": card.training["iterations"],
        "minutes_in_all": round((time.monotonic() - began) / 60, 1),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}",
    }


def _rows(data: Path) -> list[dict[str, str]]:
    with (data / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@contextmanager
def _own_home(models_dir: Path | None) -> Iterator[Path]:
    """A home folder of its own, so that nothing of the person is touched."""
    before = os.environ.get("MEDAPP_HOME")
    with tempfile.TemporaryDirectory(prefix="medapp-retraining-") as folder:
        os.environ["MEDAPP_HOME"] = folder
        try:
            paths.user_models_dir().mkdir(parents=True)
            for path in sorted(models_dir.glob("*rat*")) if models_dir is not None else []:
                shutil.copy(path, paths.user_models_dir())
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["MEDAPP_HOME"]
            else:
                os.environ["MEDAPP_HOME"] = before
