"""Measure a restoration task on held-out patients: the input, classical methods, and the models, on the same slices."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UsageError
from medapp.networks.card import MR_SUPER_RESOLUTION
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration.kspace import keep_measured
from medapp.restoration.metrics import Judging, judging_of
from medapp.restoration.restorer import NetworkRestorer
from medapp.services.evaluation.calibration import calibration_of, trust_block, trust_figures
from medapp.services.evaluation.cards import cards_of
from medapp.services.evaluation.conditions import CT_DENOISE, MODALITIES, Condition, conditions_of
from medapp.services.evaluation.figures import by_group, group_mean, mean_interval, paired_interval, rounded
from medapp.services.evaluation.measuring import maps_for, measure_restored
from medapp.services.evaluation.subjects import CLEAN, Subject, held_out_subjects
from medapp.services.evaluation.tables import Block, interval, number, signed, told_data

_log = logging.getLogger(__name__)

TASKS = (CT_DENOISE, MR_SUPER_RESOLUTION)
FREE = ", k-space free"
"""Added to a model's name where the measured frequencies were not put back."""
REFERENCE = "reference"
"""The originals themselves: how much noise they have."""
_QUICK_SLICES = 2
_SHOWN = ("psnr_db", "psnr_inner_db", "psnr_whole_db", "ssim", "rmse", "bias", "edge_width")
_NOISE = ("noise_power", "noise_frequency")


@dataclass
class Measured:
    """The figures of one method in one condition, a dictionary a slice."""

    kind: str
    slices: list[dict[str, float]] = field(default_factory=list)

    def of(self, key: str) -> list[float]:
        """One figure of every slice."""
        return [one[key] for one in self.slices]


def evaluate(
    task: str,
    library: ModelLibrary,
    data: Path,
    progress: Progress,
    model_id: str | None = None,
    slices_per_subject: int = 5,
    is_quick: bool = False,
) -> dict[str, Any]:
    """Degrade held-out slices, restore them by every method, compare with the originals.

    Args:
        task: One of ``TASKS``.
        library: Where the models are.
        data: A folder with ``MANIFEST.csv`` (its ``val`` rows are used), or any folder of scans.
        progress: Counts slices.
        model_id: One model; None = all models of the task.
        slices_per_subject: Evenly spaced over each subject.
        is_quick: At most two slices a subject, the headline dose only, no calibration of trust maps.

    Returns:
        ``{task, data_sha256, unit, slices_per_subject, is_quick, rows, calibration}``. A row a condition, group of
        subjects and method: ``{condition, group, name, kind, n_subjects, n_slices, psnr_db, ci95, psnr_by_patient,
        ssim, rmse, bias, bias_worst, edge_width, noise_power, noise_frequency, ...}``: means over slices, then
        patients, PSNR inside the body; ``ci95`` is the interval of the mean PSNR. Models have ``gain_db`` and
        ``gain_ci95`` over ``best_classical``, the same ``_inner``, off the border of the slice, and ``over``: their
        gain over each other model, with its interval. ``kind`` is ``input``, ``classical``, ``model``, ``variant`` (a
        model without the measured k-space put back) or ``reference`` (of which only the noise is told).

    Raises:
        UsageError: The task is not known, there is no such model, or nothing there is such a scan.
        WeightsError: A model cannot be used.
        Cancelled: The user stopped it.
    """
    if task not in TASKS:
        raise UsageError(f"The task '{task[:40]}' cannot be evaluated", f"Tasks: {', '.join(TASKS)}")
    cards = cards_of(library, task, model_id)
    subjects, data_sha256 = held_out_subjects(
        data, MODALITIES[task], min(slices_per_subject, _QUICK_SLICES) if is_quick else slices_per_subject, progress
    )
    models = [NetworkRestorer(library.load(card.id), modality=MODALITIES[task]) for card in cards]
    conditions = [
        condition
        for condition in conditions_of(task, is_quick)
        if model_id is None or any(condition.takes(card) for card in cards)
    ]
    progress.start(len(conditions) * sum(len(one.slices) for one in subjects), "slices", "evaluating")
    rows: list[dict[str, Any]] = []
    calibration: list[dict[str, Any]] = []
    for condition in conditions:
        fitting = [model for model in models if condition.takes(model.card)]
        for group in sorted({one.group for one in subjects}):
            members = [one for one in subjects if one.group == group]
            rows += rows_of(members, group, condition, MODALITIES[task], fitting, progress)
        if not is_quick and (condition.factor > 1 or condition is conditions[0]):
            judged = [one for one in subjects if one.group == CLEAN] or subjects
            calibration += [calibration_of(model, judged, condition, progress) for model in fitting]
    return {
        "task": task,
        "data_sha256": data_sha256,
        "unit": judging_of(subjects[0].slices[0][0], MODALITIES[task]).unit,
        "slices_per_subject": slices_per_subject,
        "is_quick": is_quick,
        "rows": rows,
        "calibration": calibration,
    }


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What a card says about a model's results: each condition and group in a few numbers."""
    figures: dict[str, Any] = {"data_sha256": result["data_sha256"], "unit": result["unit"]}
    kept = ("psnr_db", "ci95", "psnr_whole_db", "ssim", "rmse", "bias", "edge_width", "noise_power")
    kept = (*kept, "gain_db", "gain_ci95", "best_classical", "psnr_inner_db", "gain_inner_db", "gain_inner_ci95")
    kept = (*kept, "over", "n_subjects")
    for row in result["rows"]:
        if row["kind"] != "model" or row["name"] != model_id:
            continue
        entry = {key: row[key] for key in kept if key in row}
        same = [one for one in result["rows"] if (one["condition"], one["group"]) == (row["condition"], row["group"])]
        entry["input_psnr_db"] = next(one["psnr_db"] for one in same if one["kind"] == "input")
        free = next((one for one in same if one["name"] == model_id + FREE), None)
        if free is not None:
            entry["psnr_db_without_measured_kspace"] = free["psnr_db"]
        figures[f"{row['condition']}, {row['group']}"] = entry
    return figures | trust_figures(result["calibration"], model_id)


def restoration_table(result: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """A block a condition, a row a method; then how well the trust maps tell the error."""
    unit = result["unit"]
    head = ("method", "PSNR, dB", "95 %", "SSIM", f"RMSE, {unit}", f"shift, {unit}", "worst", "edge width, %")
    head += ("noise power", "noise freq.", "gain, dB", "95 %", "off the border, dB", "gain, dB", "95 %")
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in result["rows"]:
        wider = row.get("edge_width")
        cells = (
            row["name"],
            number(row.get("psnr_db"), 2),
            interval(row.get("ci95")),
            number(row.get("ssim"), 4),
            number(row.get("rmse"), 2),
            signed(row.get("bias"), 2),
            signed(row.get("bias_worst"), 2),
            signed(None if wider is None else 100 * wider, 1),
            number(row["noise_power"], 3),
            number(row["noise_frequency"], 2),
            signed(row.get("gain_db"), 2),
            interval(row.get("gain_ci95")),
            number(row.get("psnr_inner_db"), 2),
            signed(row.get("gain_inner_db"), 2),
            interval(row.get("gain_inner_ci95")),
        )
        who = f"{row['n_subjects']} patients, {row['n_slices']} slices"
        found.setdefault(f"{row['condition']}, {row['group']} ({who})", []).append(cells)
    blocks = [Block(title, head, tuple(lines)) for title, lines in found.items()]
    if result["calibration"]:
        blocks.append(trust_block(result["calibration"]))
    notes = [
        "PSNR, SSIM, RMSE inside the body; shift and noise in flat regions, noise power and mean frequency against",
        "the input; edge width against the reference; gain: PSNR over the best classical method, paired by patient.",
        told_data(result),
    ]
    return blocks, notes


def rows_of(
    subjects: Sequence[Subject],
    group: str,
    condition: Condition,
    modality: str,
    models: Sequence[NetworkRestorer],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Every method on every slice of these subjects."""
    found: dict[str, Measured] = {}
    patients: list[str] = []
    for subject in subjects:
        for reference, spacing_mm in subject.slices:
            degraded = condition.degrade(reference, spacing_mm)
            judging = judging_of(reference, modality)
            for name, kind, restored in _restored(degraded, condition, models, judging, progress):
                figures = measure_restored(restored, degraded, reference, judging)
                found.setdefault(name, Measured(kind)).slices.append(figures)
            own = measure_restored(reference, degraded, reference, judging)
            found.setdefault(REFERENCE, Measured("reference")).slices.append(own)
            patients.append(subject.patient)
            progress.step()
    rows = [{"condition": condition.title, "group": group, **_row(name, one, patients)} for name, one in found.items()]
    _add_gains(rows, found, patients)
    return rows


def _restored(
    degraded: NDArray[np.float32],
    condition: Condition,
    models: Sequence[NetworkRestorer],
    judging: Judging,
    progress: Progress,
) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Name, kind and result of every method."""
    yield condition.input_name, "input", degraded
    for name, rival in condition.rivals.items():
        progress.check()
        yield name, "classical", rival(degraded, progress)
    for model in models:
        maps = maps_for(model, degraded, judging)
        if not model.fills:
            yield model.id, "model", model.restore_slice(degraded, progress=progress, maps=maps).values
            continue
        free = NetworkRestorer(model.model, model.tile_px, model.modality, keeps_measured=False)
        made = free.restore_slice(degraded, progress=progress, maps=maps, is_filled=True).values
        yield model.id, "model", keep_measured(made, degraded, condition.factor)
        yield model.id + FREE, "variant", made


def _row(name: str, measured: Measured, patients: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "kind": measured.kind,
        "n_subjects": len(set(patients)),
        "n_slices": len(patients),
    }
    is_reference = measured.kind == "reference"
    for key in _NOISE if is_reference else (*_SHOWN, *_NOISE):
        row[key] = rounded(group_mean(measured.of(key), patients))
    if is_reference:
        return row
    row["ci95"] = [rounded(value, 3) for value in mean_interval(measured.of("psnr_db"), patients)[1:]]
    row["psnr_by_patient"] = [rounded(value, 2) for value in by_group(measured.of("psnr_db"), patients).values()]
    shifts = [group_mean(one, [""] * len(one)) for one in _by_patient(measured.of("bias"), patients)]
    finite = [shift for shift in shifts if np.isfinite(shift)]
    row["bias_worst"] = rounded(max(finite, key=abs)) if finite else None
    return row


def _by_patient(values: Sequence[float], patients: Sequence[str]) -> list[list[float]]:
    return [[v for v, of in zip(values, patients, strict=True) if of == one] for one in sorted(set(patients))]


def _add_gains(rows: list[dict[str, Any]], found: Mapping[str, Measured], patients: Sequence[str]) -> None:
    """How far each model is above the best classical method, the input among them, and above the other models."""
    rivals = [row["name"] for row in rows if row["kind"] in ("classical", "input")]
    models = [row["name"] for row in rows if row["kind"] == "model"]
    for key, ending in (("psnr_db", ""), ("psnr_inner_db", "_inner")):
        best = max(rivals, key=lambda name: group_mean(found[name].of(key), patients))
        for row in rows:
            if row["kind"] in ("model", "variant"):
                gain, *interval = paired_interval(found[row["name"]].of(key), found[best].of(key), patients)
                row |= {f"best_classical{ending}": best, f"gain{ending}_db": rounded(gain, 3)}
                row[f"gain{ending}_ci95"] = [rounded(value, 3) for value in interval]
    for row in rows:
        if row["kind"] == "model":
            own = found[row["name"]].of("psnr_db")
            others = {name: paired_interval(own, found[name].of("psnr_db"), patients) for name in models}
            row["over"] = {
                name: [rounded(value, 3) for value in told] for name, told in others.items() if name != row["name"]
            }
