"""Measure low-dose PET on held-out patients, as each simulated centre would have scanned them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import TrainingError, UsageError
from medapp.networks.card import PET_SYNTHESIS
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration import metrics
from medapp.restoration.classical import TUNED_PET, tuned_filter
from medapp.restoration.metrics import judging_of
from medapp.restoration.restorer import NetworkRestorer
from medapp.services.evaluation.calibration import Case, calibration_over, trust_block, trust_figures
from medapp.services.evaluation.cards import cards_of
from medapp.services.evaluation.figures import by_group, group_mean, mean_interval, paired_interval, rounded
from medapp.services.evaluation.tables import Block, number, signed, told_data
from medapp.training.degradations.ct import pixel_seed
from medapp.training.degradations.pet_centres import (
    CENTRES,
    DOSE,
    PetCentre,
    at_centre,
    low_doses,
    mask_at_centre,
    spacing_at,
)
from medapp.training.references import Reference
from medapp.training.sources import MANIFEST, find_references
from medapp.training.tumours import tumour_beside

TASK = PET_SYNTHESIS
FURTHER_DOSES = (0.25, 0.05)
LESION_SLICES = 8
"""Through each tumour, evenly spread: where SUVmax and SUVmean are read."""
_LEAST_SIDE_PX = 24
_LEAST_BODY = 0.1
_INPUT = "low-dose input"
_TOGETHER = f"all centres, {DOSE:g} of the counts"
_QUICK_SLICES = 2


@dataclass(frozen=True, eq=False)
class PetSubject:
    """One held-out patient.

    Attributes:
        patient: Patient group.
        spacing_mm: Of the reference.
        slices: ``(Y, X)`` in SUV, by number.
        judged: Numbers of the slices whose errors count.
        tumour: ``(Y, X)`` bool, by number; where SUV is read.
    """

    patient: str
    spacing_mm: float
    slices: Mapping[int, NDArray[np.float32]]
    judged: frozenset[int]
    tumour: Mapping[int, NDArray[np.bool_]]


@dataclass
class _Measured:
    """What one method reached at one centre and dose."""

    kind: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    inside: dict[str, list[NDArray]] = field(default_factory=dict)


def evaluate_pet(
    library: ModelLibrary,
    data: Path,
    progress: Progress,
    model_id: str | None = None,
    slices_per_subject: int = 5,
    is_quick: bool = False,
) -> dict[str, Any]:
    """Scan held-out patients at every simulated centre with a part of the counts, make full-dose slices, compare.

    Args:
        library: Where the models are.
        data: A folder with ``MANIFEST.csv`` (its ``val`` rows are used), or any folder of PET in SUV.
        progress: Counts slices.
        model_id: One model; None = all models of the task.
        slices_per_subject: Whose errors count, evenly spread over each patient; SUV is read in up to 8 slices through
            the tumour beside them, at the headline dose.
        is_quick: Two slices a patient, no doses but the headline, and no calibration of trust maps.

    Returns:
        ``{task, data_sha256, unit, slices_per_subject, is_quick, rows, together, calibration, gates}``. A row a
        centre, dose and method: ``{centre, fraction, is_held_out, name, kind, n_subjects, n_slices, n_tumours,
        psnr_db, ci95, ssim, rmse, suvmax_bias, suvmax_ci95, suvmax_worst, suvmean_bias, suvmean_worst}``; biases in
        percent, a figure a tumour, where tumours are known, at the headline dose. Filters and models have
        ``gain_input_db`` with its interval, models also ``gain_db`` over ``best_classical`` and ``over`` each other
        model. ``together`` has a row a method over the tumours at all centres at the headline dose. ``calibration`` is
        of the middle judged slice of each patient at each centre, at the headline dose. ``gates`` tells of models with
        routers what they chose at each centre.

    Raises:
        UsageError: There is no such model, or nothing there is PET in SUV.
        WeightsError: A model cannot be used.
        Cancelled: The user stopped it.
    """
    cards = cards_of(library, TASK, model_id)
    subjects, data_sha256 = pet_subjects(
        data, min(slices_per_subject, _QUICK_SLICES) if is_quick else slices_per_subject, progress
    )
    models = [NetworkRestorer(library.load(card.id), modality="PT") for card in cards]
    fractions = (DOSE,) if is_quick else (DOSE, *FURTHER_DOSES)
    progress.start(len(CENTRES) * sum(len(one.slices) for one in subjects), "slices", "evaluating")
    rows: list[dict[str, Any]] = []
    calibration: list[dict[str, Any]] = []
    gates: dict[str, dict[str, dict[str, list[NDArray]]]] = {}
    for centre in CENTRES:
        rows += _rows(subjects, centre, fractions, models, gates, progress)
        if not is_quick:
            where = _condition({"centre": centre.name, "fraction": DOSE})
            calibration += [calibration_over(one, _middle_slices(subjects, centre), where, progress) for one in models]
    rows.sort(key=lambda row: fractions.index(row["fraction"]))
    return {
        "task": TASK,
        "data_sha256": data_sha256,
        "unit": "SUV",
        "slices_per_subject": slices_per_subject,
        "is_quick": is_quick,
        "rows": rows,
        "together": _together(rows),
        "calibration": calibration,
        "gates": [_told_gates(name, chosen) for name, chosen in gates.items()],
    }


def pet_subjects(data: Path, slices_per_subject: int, progress: Progress) -> tuple[list[PetSubject], str]:
    """The patients of the ``val`` rows, or of a folder without a manifest, and one SHA-256 over the judged pixels.

    Raises:
        UsageError: Nothing there is PET in SUV.
        Cancelled: The user stopped it.
    """
    is_divided = (data / MANIFEST).is_file()
    split, under = ("val", "pet/") if is_divided else (None, "")
    try:
        references = find_references(data, "PT", split, progress, under=under)
    except TrainingError as error:
        raise UsageError(error.message, error.hint) from error
    made = (_subject(reference, data, slices_per_subject) for reference in references if reference.unit == "SUV")
    subjects = [subject for subject in made if subject.judged]
    if not subjects:
        raise UsageError(
            "There is no PET slice in SUV here that could be judged",
            "SUV needs the patient's weight, the dose and the times in the files",
        )
    digest = hashlib.sha256()
    for subject in subjects:
        for z in sorted(subject.slices):
            digest.update(np.ascontiguousarray(subject.slices[z]).tobytes())
    return subjects, digest.hexdigest()


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What a card says about a model's results: each centre and dose in a few numbers."""
    figures: dict[str, Any] = {"data_sha256": result["data_sha256"], "unit": result["unit"]}
    kept = ("psnr_db", "ci95", "ssim", "rmse", "gain_input_db", "gain_input_ci95", "gain_db", "gain_ci95")
    kept = (*kept, "best_classical", "suvmax_bias", "suvmax_ci95", "suvmax_worst", "suvmean_bias", "suvmean_worst")
    kept = (*kept, "n_subjects", "n_tumours")
    for row in result["together"]:
        if row["name"] == model_id:
            figures[_TOGETHER] = {key: value for key, value in row.items() if key not in ("name", "kind")}
    for row in result["rows"]:
        if row["kind"] == "model" and row["name"] == model_id:
            figures[_condition(row)] = {key: row[key] for key in kept if key in row}
    for told in result["gates"]:
        if told["name"] == model_id and told["centre_told_percent"] is not None:
            figures["simulated centre told by the gates, %"] = told["centre_told_percent"]
    return figures | trust_figures(result["calibration"], model_id)


def pet_table(result: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """A block a centre at a tenth of the counts, one of further doses, of trust maps and of gates; and notes."""
    head = ("method", "PSNR, dB", "95 %", "SSIM", "RMSE, SUV", "over the input, dB", "95 %", "over the best filter, dB")
    head += ("95 %", "SUVmax bias, %", "95 %", "worst", "SUVmean bias, %", "worst")
    found: dict[str, list[tuple[str, ...]]] = {}
    others: list[tuple[str, ...]] = []
    for row in result["rows"]:
        if row["fraction"] == DOSE:
            who = f"{row['n_subjects']} patients, {row['n_slices']} slices, {row['n_tumours']} tumours"
            found.setdefault(f"{_condition(row)} ({who})", []).append(_cells(row))
        elif row["kind"] in ("input", "model") or row["name"] == _best_of(result, row):
            cells = (row["centre"], f"{row['fraction']:g}", row["name"], number(row["psnr_db"], 2))
            cells += (signed(row.get("gain_input_db"), 2), _interval(row.get("gain_input_ci95")))
            others.append(cells)
    blocks = [Block(title, head, tuple(lines)) for title, lines in found.items()]
    if result["together"]:
        titles = ("method", "SUVmax bias, %", "95 %", "SUVmax off by, %", "95 %", "SUVmean bias, %", "95 %")
        lines = tuple(_together_cells(row) for row in result["together"])
        count = result["together"][0]["n_readings"]
        blocks.append(Block(f"Tumours, {_TOGETHER} ({count} readings)", titles, lines))
    if others:
        short = ("centre", "counts", "method", "PSNR, dB", "over the input, dB", "95 %")
        blocks.append(Block("Further doses", short, tuple(others), left=3))
    if result["calibration"]:
        blocks.append(trust_block(result["calibration"]))
    blocks += [_gates_block(told) for told in result["gates"]]
    notes = [
        "Simulated centres. PSNR, SSIM, RMSE inside the body; the peak is the highest uptake of each reference slice.",
        "Biases of SUVmax and SUVmean inside the mask of the tumour, in the slices through it: mean, worst patient.",
        "All centres: mean over readings, then patients; off by: the size of the bias, too high and too low alike.",
        "Filters were tuned for each centre at a tenth of the counts.",
        told_data(result),
    ]
    return blocks, notes


# ----------------------------------------------------------------------------------------------------------- inside


def _subject(reference: Reference, data: Path, slices_per_subject: int) -> PetSubject:
    values, mask = reference.load(), tumour_beside(data, reference)
    usable = [
        z
        for z, one in enumerate(values)
        if one.ndim == 2 and min(one.shape) >= _LEAST_SIDE_PX and judging_of(one, "PT").body.mean() >= _LEAST_BODY
    ]
    judged = frozenset(_thinned(usable, slices_per_subject))
    through = [] if mask is None else _thinned([z for z in usable if mask[z].any()], LESION_SLICES)
    slices = {z: np.asarray(values[z], np.float32) for z in sorted(judged.union(through))}
    tumour = {z: mask[z] for z in through} if mask is not None else {}
    return PetSubject(reference.patient, reference.mean_spacing_mm, slices, judged, tumour)


def _thinned(numbers: Sequence[int], count: int) -> list[int]:
    if count >= len(numbers):
        return list(numbers)
    return [numbers[int(i)] for i in np.linspace(0, len(numbers) - 1, count + 2)[1:-1].round()]


def _middle_slices(subjects: Sequence[PetSubject], centre: PetCentre) -> Iterator[Case]:
    for subject in subjects:
        judged = sorted(subject.judged)
        full = at_centre(subject.slices[judged[len(judged) // 2]], subject.spacing_mm, centre)
        (low,) = low_doses(
            full, spacing_at(subject.spacing_mm, centre), centre, (DOSE,), pixel_seed(full, "evaluation")
        )
        yield Case(subject.patient, low, full, judging_of(full, "PT"))


def _rows(
    subjects: Sequence[PetSubject],
    centre: PetCentre,
    fractions: Sequence[float],
    models: Sequence[NetworkRestorer],
    gates: dict[str, dict[str, dict[str, list[NDArray]]]],
    progress: Progress,
) -> list[dict[str, Any]]:
    found: dict[float, dict[str, _Measured]] = {fraction: {} for fraction in fractions}
    own: dict[str, list[NDArray]] = {}
    patients: list[str] = []
    for subject in subjects:
        for z, values in subject.slices.items():
            full = at_centre(values, subject.spacing_mm, centre)
            spacing_mm = spacing_at(subject.spacing_mm, centre)
            doses = fractions if z in subject.judged else fractions[:1]
            lows = low_doses(full, spacing_mm, centre, doses, pixel_seed(full, "evaluation"))
            tumour = subject.tumour.get(z)
            inside = None if tumour is None else mask_at_centre(tumour, subject.spacing_mm, centre)
            if inside is not None:
                own.setdefault(subject.patient, []).append(full[inside])
            for fraction, low in zip(doses, lows, strict=True):
                for name, kind, made in _restored(low, centre, models, gates, subject.patient, fraction, progress):
                    measured = found[fraction].setdefault(name, _Measured(kind))
                    if z in subject.judged:
                        for key, value in _errors(made, full).items():
                            measured.figures.setdefault(key, []).append(value)
                    if inside is not None and fraction == fractions[0]:
                        measured.inside.setdefault(subject.patient, []).append(made[inside])
            if z in subject.judged:
                patients.append(subject.patient)
            progress.step()
    rows = []
    for fraction, methods in found.items():
        of_dose = [
            {
                "centre": centre.name,
                "fraction": fraction,
                "is_held_out": centre.is_held_out,
                **_row(n, m, own, patients),
            }
            for n, m in methods.items()
        ]
        _add_gains(of_dose, methods, patients)
        rows += of_dose
    return rows


def _restored(
    low: NDArray[np.float32],
    centre: PetCentre,
    models: Sequence[NetworkRestorer],
    gates: dict[str, dict[str, dict[str, list[NDArray]]]],
    patient: str,
    fraction: float,
    progress: Progress,
) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Name, kind and result of every method; what routers chose at the headline dose is noted."""
    yield _INPUT, "input", low
    for key, settings in TUNED_PET[centre.name[0]].items():
        rival = tuned_filter(key, settings)
        if rival is not None:
            progress.check()
            yield rival.name, "classical", rival.restore_slice(low).values
    for model in models:
        made = model.restore_slice(low, progress=progress)
        if made.routing and fraction == DOSE:
            chosen = np.concatenate([np.ravel(choice.shares) for choice in made.routing])
            gates.setdefault(model.id, {}).setdefault(centre.name, {}).setdefault(patient, []).append(chosen)
        yield model.id, "model", made.values


def _errors(made: NDArray, full: NDArray) -> dict[str, float]:
    judging = judging_of(full, "PT")
    return {
        "psnr_db": metrics.psnr_db(made, full, judging.limits, judging.body),
        "ssim": metrics.ssim(made, full, judging.limits, judging.body),
        "rmse": metrics.rmse(made, full, None, judging.body),
    }


def _row(name: str, measured: _Measured, own: Mapping[str, list[NDArray]], patients: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "kind": measured.kind,
        "n_subjects": len(set(patients)),
        "n_slices": len(patients),
        "psnr_by_patient": {k: rounded(v, 3) for k, v in by_group(measured.figures["psnr_db"], patients).items()},
    }
    for key, values in measured.figures.items():
        row[key] = rounded(group_mean(values, patients))
    row["ci95"] = [rounded(value, 3) for value in mean_interval(measured.figures["psnr_db"], patients)[1:]]
    tumours = sorted(patient for patient in measured.inside if any(part.size for part in own[patient]))
    row["n_tumours"] = len(tumours)
    for key, read in (("suvmax", np.max), ("suvmean", np.mean)) if tumours else ():
        biases = [
            100.0 * (float(read(np.concatenate(measured.inside[who]))) / float(read(np.concatenate(own[who]))) - 1.0)
            for who in tumours
        ]
        row[f"{key}_bias"], *row[f"{key}_ci95"] = (rounded(value, 2) for value in mean_interval(biases, tumours))
        row[f"{key}_worst"] = rounded(max(biases, key=abs), 2)
        row[f"{key}_by_patient"] = {who: rounded(bias, 2) for who, bias in zip(tumours, biases, strict=True)}
    return row


def _together(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each method over the tumours at all centres at the headline dose; empty where no tumour is known."""
    made = []
    read = [row for row in rows if row["fraction"] == DOSE and row["n_tumours"]]
    for name in dict.fromkeys(row["name"] for row in read):
        own = [row for row in read if row["name"] == name]
        patients = [who for row in own for who in row["suvmax_by_patient"]]
        highest = [float(bias) for row in own for bias in row["suvmax_by_patient"].values()]
        means = [float(bias) for row in own for bias in row["suvmean_by_patient"].values()]
        told: dict[str, Any] = {"name": name, "kind": own[0]["kind"], "n_readings": len(highest)}
        for key, values in (("suvmax_bias", highest), ("suvmax_off", np.abs(highest)), ("suvmean_bias", means)):
            told[key], *told[f"{key}_ci95"] = (rounded(v, 2) for v in mean_interval(list(values), patients))
        made.append(told)
    return made


def _together_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    cells = (row["name"], signed(row["suvmax_bias"], 1), _interval(row["suvmax_bias_ci95"]))
    cells += (number(row["suvmax_off"], 1), _interval(row["suvmax_off_ci95"]))
    return (*cells, signed(row["suvmean_bias"], 1), _interval(row["suvmean_bias_ci95"]))


def _add_gains(rows: list[dict[str, Any]], found: Mapping[str, _Measured], patients: Sequence[str]) -> None:
    """How far each method is above the input, and each model above the best filter and the other models."""
    psnr = {name: one.figures["psnr_db"] for name, one in found.items()}
    filters = [name for name, one in found.items() if one.kind in ("classical", "input")]
    best = max(filters, key=lambda name: group_mean(psnr[name], patients))
    models = [name for name, one in found.items() if one.kind == "model"]

    def over(name: str, other: str) -> list[float | None]:
        return [rounded(value, 3) for value in paired_interval(psnr[name], psnr[other], patients)]

    for row in rows:
        name = row["name"]
        if row["kind"] != "input":
            row["gain_input_db"], *row["gain_input_ci95"] = over(name, _INPUT)
        if row["kind"] == "model":
            row["best_classical"] = best
            row["gain_db"], *row["gain_ci95"] = over(name, best)
            row["over"] = {other: over(name, other) for other in models if other != name}


def _told_gates(name: str, chosen: Mapping[str, Mapping[str, list[NDArray]]]) -> dict[str, Any]:
    """Mean gates per centre, and how often the nearest mean tells the centre of a patient who was left out of it."""
    patients = sorted({patient for of in chosen.values() for patient in of})
    right = count = 0
    for patient in patients:
        means = {
            centre: np.mean([gates for who, all_of in of.items() if who != patient for gates in all_of], axis=0)
            for centre, of in chosen.items()
            if any(who != patient for who in of)
        }
        for centre, of in chosen.items():
            for gates in of.get(patient, []) if means else []:
                nearest = min(means, key=lambda one: float(np.square(means[one] - gates).sum()))
                right, count = right + (nearest == centre), count + 1
    return {
        "name": name,
        "gates": {
            centre: [round(float(v), 3) for v in np.mean([g for all_of in of.values() for g in all_of], axis=0)]
            for centre, of in chosen.items()
        },
        "spread": {
            centre: [round(float(v), 3) for v in np.std([g for all_of in of.values() for g in all_of], axis=0)]
            for centre, of in chosen.items()
        },
        "centre_told_percent": rounded(100.0 * right / count, 1) if count else None,
        "by_chance_percent": rounded(100.0 / max(1, len(chosen)), 1),
    }


def _gates_block(told: Mapping[str, Any]) -> Block:
    lines = tuple(
        (centre, " ".join(f"{gate:.2f}" for gate in gates), number(float(np.mean(told["spread"][centre])), 2))
        for centre, gates in told["gates"].items()
    )
    told_right, by_chance = (number(told[key], 0) for key in ("centre_told_percent", "by_chance_percent"))
    title = (
        f"Gates of {told['name']}, mean of each centre; the nearest mean tells the centre of {told_right} % of the "
        f"slices of left-out patients ({by_chance} % by chance)"
    )
    return Block(title, ("centre", "gates, router after router", "their spread over slices"), lines, left=2)


def _condition(row: Mapping[str, Any]) -> str:
    return f"centre {row['centre']}, {row['fraction']:g} of the counts"


def _interval(limits: Sequence[float | None] | None) -> str:
    return "-" if limits is None else f"{number(limits[0], 2)} to {number(limits[1], 2)}"


def _best_of(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The best filter at the centre and dose of a row."""
    same = [one for one in result["rows"] if _condition(one) == _condition(row) and one["kind"] == "classical"]
    return str(max(same, key=lambda one: one["psnr_db"])["name"]) if same else ""


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        number(row["psnr_db"], 2),
        _interval(row["ci95"]),
        number(row["ssim"], 3),
        number(row["rmse"], 3),
        signed(row.get("gain_input_db"), 2),
        _interval(row.get("gain_input_ci95")),
        signed(row.get("gain_db"), 2),
        _interval(row.get("gain_ci95")),
        signed(row.get("suvmax_bias"), 1),
        _interval(row.get("suvmax_ci95")),
        signed(row.get("suvmax_worst"), 1),
        signed(row.get("suvmean_bias"), 1),
        signed(row.get("suvmean_worst"), 1),
    )
