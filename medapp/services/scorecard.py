"""Champion and challenger on the same held-out cases, as the scorecard that a person decides by."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medapp.errors import ExportError, TrainingError
from medapp.export.files import write_bytes
from medapp.services.evaluation.figures import METRICS, group_mean, paired_change_percent, paired_interval

_log = logging.getLogger(__name__)

FORMAT = 1
NEW, OLD = "new hold-out", "old hold-out"
FILE = "scorecard.json"
SAME_PERCENT = 1.0
"""A case that changed by less is the same."""


@dataclass(frozen=True)
class Compared:
    """One held-out case and what both models make of it.

    Attributes:
        group: ``NEW`` or ``OLD``.
        case: What people read; no patient's name.
        patient: Patient group.
        champion, challenger: Figures by the keys of ``METRICS``.
    """

    group: str
    case: str
    patient: str
    champion: Mapping[str, float]
    challenger: Mapping[str, float]


def scorecard(
    kind: str,
    champion: Mapping[str, str],
    challenger: Mapping[str, str],
    data_set: Mapping[str, Any],
    compared: Sequence[Compared],
    effort: Mapping[str, Any],
    notes: Sequence[str],
    unit: str = "",
) -> dict[str, Any]:
    """What goes into ``scorecard.json``.

    A metric is better or worse where the 95 % interval of its change, resampled over patients, excludes zero; a case
    where it changed by 1 % or more. Figures that should be near zero are compared without their sign.

    Args:
        kind: ``matting`` or ``restoration``.
        champion, challenger: ``id`` and ``title``.
        data_set: ``version``, ``sha256``, ``cases``, ``patients``.
        compared: Every held-out case.
        effort: See ``gather.effort_of``.
        notes: Sentences.
        unit: Of the scan, for RMSE and shift.
    """
    groups = [group for group in (NEW, OLD) if any(row.group == group for row in compared)]
    keys = [key for key in METRICS if any(key in row.champion and key in row.challenger for row in compared)]
    metrics, cases = [], []
    for group in groups:
        rows = [row for row in compared if row.group == group]
        for key in keys:
            entry = _metric(key, group, [row for row in rows if key in row.champion and key in row.challenger], unit)
            if entry is not None:
                metrics.append(entry)
        cases += [_case(key, row) for row in rows for key in keys if key in row.champion and key in row.challenger]
    cases.sort(key=lambda case: -case.pop("_harm"))
    return {
        "format": FORMAT,
        "kind": kind,
        "champion": dict(champion),
        "challenger": dict(challenger),
        "data_set": dict(data_set),
        "groups": groups,
        "metrics": metrics,
        "cases": cases,
        "effort": dict(effort),
        "notes": list(notes),
    }


def write_scorecard(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write ``scorecard.json`` whole or not at all.

    Raises:
        TrainingError: The disk is full or the folder cannot be written.
    """
    path = folder / FILE
    try:
        write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    except (OSError, ExportError) as error:
        raise TrainingError(
            "The scorecard could not be written; the new weights are kept in the run, the model in use is unchanged.",
            "Free some space, then go on with this run.",
        ) from error
    return path


def read_scorecard(folder: Path) -> dict[str, Any]:
    """The scorecard of a run.

    Raises:
        TrainingError: There is none, it is damaged, or a newer medapp wrote it.
    """
    try:
        content = dict(json.loads((folder / FILE).read_text(encoding="utf-8")))
        if int(content["format"]) > FORMAT:
            raise TrainingError("This scorecard was written by a newer medapp.", "Update medapp.")
    except FileNotFoundError as error:
        raise TrainingError(
            "This run has no scorecard yet: its models were not compared.", "Go on with the run until it ends."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError("The scorecard of this run is damaged.", "Go on with the run: it is made again.") from error
    return content


def change_of(content: Mapping[str, Any], group: str, key: str) -> dict[str, Any] | None:
    """The row of one metric on one hold-out; None where it was not measured."""
    return next((row for row in content["metrics"] if (row["group"], row["key"]) == (group, key)), None)


def _metric(key: str, group: str, rows: Sequence[Compared], unit: str) -> dict[str, Any] | None:
    metric = METRICS[key]
    before, after = (_values(key, [getattr(row, side) for row in rows]) for side in ("champion", "challenger"))
    patients = [row.patient for row in rows]
    means = group_mean(before, patients), group_mean(after, patients)
    if not all(map(math.isfinite, means)):
        return None
    _, low, high = paired_interval(after, before, patients)
    percent, percent_low, percent_high = paired_change_percent(after, before, patients)
    sign = 1 if metric.better == "higher" else -1
    is_told = len(rows) > 1
    verdict = "same"
    if is_told and sign * low > 0 and sign * high > 0:
        verdict = "better"
    elif is_told and sign * low < 0 and sign * high < 0:
        verdict = "worse"
    return {
        "key": key,
        "title": f"{metric.title}, without sign" if metric.better == "zero" else metric.title,
        "unit": unit if key in ("rmse", "bias") else metric.unit,
        "better": "higher" if metric.better == "higher" else "lower",
        "group": group,
        "champion": _rounded(means[0]),
        "challenger": _rounded(means[1]),
        "change_percent": _rounded(percent, 2),
        "change_ci95_percent": [_rounded(percent_low, 2), _rounded(percent_high, 2)] if is_told else None,
        "ci95": [_rounded(low), _rounded(high)] if is_told else None,
        "cases": len(rows),
        "patients": len(set(patients)),
        "verdict": verdict,
    }


def _case(key: str, row: Compared) -> dict[str, Any]:
    metric = METRICS[key]
    (before,), (after,) = _values(key, [row.champion]), _values(key, [row.challenger])
    percent = 100.0 * (after - before) / abs(before) if before and math.isfinite(before + after) else None
    gain = 0.0 if percent is None else percent if metric.better == "higher" else -percent
    verdict = "same" if abs(gain) < SAME_PERCENT else "better" if gain > 0 else "worse"
    return {
        "group": row.group,
        "case": row.case,
        "patient_group": row.patient,
        "metric": key,
        "champion": _rounded(before),
        "challenger": _rounded(after),
        "change_percent": _rounded(percent, 2) if percent is not None else None,
        "verdict": verdict,
        "_harm": -gain,
    }


def _values(key: str, figures: Sequence[Mapping[str, float]]) -> list[float]:
    values = [float(row[key]) for row in figures]
    return [abs(value) for value in values] if METRICS[key].better == "zero" else values


def _rounded(value: float | None, digits: int = 5) -> float | None:
    return round(float(value), digits) if value is not None and math.isfinite(value) else None
