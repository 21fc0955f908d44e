"""Measure networks for several kinds of scans: each kind under the headline condition of its single task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medapp.errors import UsageError
from medapp.networks.card import ALL_IN_ONE, MR_SUPER_RESOLUTION, PET_SYNTHESIS, Card
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration.metrics import judging_of
from medapp.restoration.restorer import NetworkRestorer
from medapp.services.evaluation import restorations
from medapp.services.evaluation.calibration import calibration_of, trust_block, trust_figures
from medapp.services.evaluation.cards import cards_of
from medapp.services.evaluation.conditions import CT_DENOISE, MODALITIES, conditions_of
from medapp.services.evaluation.subjects import CLEAN, held_out_subjects
from medapp.services.evaluation.tables import Block, interval, number, signed, told_data
from medapp.training.sources import MANIFEST

TASK = ALL_IN_ONE
SINGLE_TASKS = (CT_DENOISE, MR_SUPER_RESOLUTION, PET_SYNTHESIS)
"""Their first condition is what an all-in-one network is measured under."""
KINDS = {"CT": "CT", "MR": "MR", "PT": "PET"}
_QUICK_SLICES = 1


def evaluate_all_in_one(
    library: ModelLibrary,
    data: Path,
    progress: Progress,
    model_id: str | None = None,
    slices_per_subject: int = 5,
    is_quick: bool = False,
) -> dict[str, Any]:
    """Degrade held-out slices of each modality, restore them by filters, single-task models and all-in-one models.

    CT at a quarter of the dose with the soft kernel, MR x4, PET at a tenth of the counts; subjects, judging and rivals
    are those of the single tasks.

    Args:
        library: Where the models are.
        data: A folder with ``MANIFEST.csv``, whose ``val`` rows are used.
        progress: Counts slices.
        model_id: One all-in-one model beside the filters; None = all, and the single-task models of the library.
        slices_per_subject: Evenly spaced over each subject.
        is_quick: One slice a subject, no calibration of trust maps.

    Returns:
        ``{task, data_sha256, slices_per_subject, is_quick, rows, calibration, notes}``; rows as those of
        ``restorations.evaluate`` with ``modality``, ``unit`` and ``is_single``; ``calibration`` of the all-in-one
        models alone; ``data_sha256`` over those of the modalities.

    Raises:
        UsageError: There is no such model, or nothing that could be judged.
        WeightsError: A model cannot be used.
        Cancelled: The user stopped it.
    """
    cards = cards_of(library, TASK, model_id)
    if not (data / MANIFEST).is_file():
        raise UsageError("This folder does not say which file is CT, MR or PET", "Use a folder with MANIFEST.csv")
    rows: list[dict[str, Any]] = []
    calibration: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    missing: list[str] = []
    for task in SINGLE_TASKS:
        modality, condition = MODALITIES[task], conditions_of(task)[0]
        try:
            count = min(slices_per_subject, _QUICK_SLICES) if is_quick else slices_per_subject
            subjects, hashes[modality] = held_out_subjects(data, modality, count, progress)
        except UsageError as error:
            missing.append(f"{modality} left out: {error.message}.")
            continue
        judged = [one for one in subjects if one.group == CLEAN] or subjects
        rivals = cards_of(library, task) if model_id is None else []
        models = [NetworkRestorer(library.load(card.id), modality=modality) for card in _for(modality, rivals, cards)]
        fitting = [model for model in models if condition.takes(model.card)]
        progress.start(sum(len(one.slices) for one in judged), "slices", f"evaluating {modality}")
        made = restorations.rows_of(judged, judged[0].group, condition, modality, fitting, progress)
        if not is_quick:
            own = [model for model in fitting if model.model.card.task == TASK]
            made_of = [calibration_of(model, judged, condition, progress) for model in own]
            calibration += [{**told, "condition": f"{KINDS[modality]}, {told['condition']}"} for told in made_of]
        unit = judging_of(judged[0].slices[0][0], modality).unit
        single = {card.id for card in rivals}
        rows += [{"modality": modality, "unit": unit, "is_single": row["name"] in single, **row} for row in made]
    if not rows:
        raise UsageError("There is no slice here that could be judged", "Choose a folder with CT, MR or PET")
    return {
        "task": TASK,
        "data_sha256": _joined(hashes),
        "data_sha256_of": hashes,
        "slices_per_subject": slices_per_subject,
        "is_quick": is_quick,
        "rows": rows,
        "calibration": calibration,
        "notes": missing,
    }


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What the card of an all-in-one model keeps, by modality; nothing for single-task models, whose cards say more."""
    kept = ("psnr_db", "ci95", "psnr_whole_db", "ssim", "rmse", "bias", "gain_db", "gain_ci95", "best_classical")
    kept = (*kept, "gain_inner_db", "gain_inner_ci95", "over", "n_subjects", "n_slices", "unit")
    figures: dict[str, Any] = {}
    for row in result["rows"]:
        if row["name"] == model_id and row["kind"] == "model" and not row["is_single"]:
            figures[f"{KINDS[row['modality']]}: {row['condition']}"] = {key: row[key] for key in kept if key in row}
    figures |= trust_figures(result["calibration"], model_id)
    return {"data_sha256": result["data_sha256"], **figures} if figures else {}


def table(result: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """One block a modality, a row a method, and what each model is worth against the best filter and single model."""
    blocks = []
    for modality in dict.fromkeys(row["modality"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["modality"] == modality and row["kind"] != "reference"]
        first = rows[0]
        singles = [row for row in rows if row["is_single"] and row["kind"] == "model"]
        best = max(singles, key=lambda row: row["psnr_db"], default=None)
        head = ("method", "PSNR, dB", "95 %", "SSIM", f"RMSE, {first['unit']}", f"shift, {first['unit']}")
        head += ("gain over the best classical, dB", "95 %", "off the border, dB", "95 %")
        head += (f"against {best['name']}, dB", "95 %") if best else ()
        lines = []
        for row in rows:
            kind = " (single task)" if row["is_single"] else ""
            cells = [f"{row['name']}{kind}", number(row.get("psnr_db"), 2), interval(row.get("ci95"))]
            cells += [number(row.get("ssim"), 4), number(row.get("rmse"), 3), signed(row.get("bias"), 3)]
            cells += [signed(row.get("gain_db"), 2), interval(row.get("gain_ci95"))]
            cells += [signed(row.get("gain_inner_db"), 2), interval(row.get("gain_inner_ci95"))]
            if best:
                told = (row.get("over") or {}).get(best["name"])
                cells += [signed(told[0] if told else None, 2), interval(told[1:] if told else None)]
            lines.append(tuple(cells))
        who = f"{first['n_subjects']} patients, {first['n_slices']} slices"
        blocks.append(Block(f"{KINDS[modality]}, {first['condition']} ({who})", head, tuple(lines)))
    pairs = list(_pairs(result["rows"]))
    if pairs:
        head = ("modality", "model", "against", "difference, dB", "95 %")
        blocks.append(
            Block("All-in-one models against each other and their comparison runs", head, tuple(pairs), left=3)
        )
    if result["calibration"]:
        blocks.append(trust_block(result["calibration"]))
    notes = [
        "PSNR, SSIM, RMSE inside the body; MR with the measured k-space put back; gains are paired by patient.",
        *result["notes"],
        told_data(result),
    ]
    return blocks, notes


def _pairs(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Each two models that were trained as all-in-one restorers or as their comparison, once."""
    own = [row for row in rows if row["kind"] == "model" and not row["is_single"]]
    for at, row in enumerate(own):
        for other in own[at + 1 :]:
            if other["modality"] == row["modality"]:
                gain, *ends = row["over"][other["name"]]
                yield KINDS[row["modality"]], row["name"], other["name"], signed(gain, 2), interval(ends)


def _for(modality: str, single: Sequence[Card], several: Sequence[Card]) -> list[Card]:
    return [card for card in (*single, *several) if card.intake(modality) is not None]


def _joined(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{key} {hashes[key]}" for key in sorted(hashes)).encode()).hexdigest()
