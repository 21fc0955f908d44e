"""Measure a task on held-out patients: the input, classical filters, and the models, on the same slices."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.errors import Cancelled, MedappError, UsageError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.regions.region_map import region_map_from_tree
from medapp.regions.region_tree_builder import build_region_tree
from medapp.restoration import metrics
from medapp.restoration.classical import evaluation_filter
from medapp.restoration.restorer import NetworkRestorer, Restorer
from medapp.scan.reading import FoundScan, read_path
from medapp.scan.scan import Window
from medapp.training.data import manifest_ct, patient_of
from medapp.training.degradations import Kernel, Scanner, low_dose

_log = logging.getLogger(__name__)

TASKS = ("ct-denoise",)
NOISY_REFERENCE_HU = 9.0
"""Scans whose own fine-grain noise is above it are reported apart: they are no clean reference."""


@dataclass(frozen=True)
class Condition:
    """How the held-out slices are degraded."""

    dose: float
    kernel: Kernel


MAIN = Condition(0.25, "hann")
OTHERS = (Condition(0.1, "hann"), Condition(1.0, "hann"), Condition(0.25, "ramp"), Condition(0.1, "ramp"))


@dataclass(frozen=True)
class Subject:
    """The slices of one patient that are judged."""

    slices: tuple[NDArray[np.float32], ...]
    spacing_mm: float
    is_noisy: bool


@dataclass
class Figures:
    """Figures of one method, a list for each subject's slices."""

    psnr_db: list[list[float]] = field(default_factory=list)
    whole_db: list[list[float]] = field(default_factory=list)
    ssim: list[list[float]] = field(default_factory=list)
    rmse: list[list[float]] = field(default_factory=list)
    bias: list[list[float]] = field(default_factory=list)
    edge: list[list[float]] = field(default_factory=list)

    def new_subject(self) -> None:
        """Begin the next subject."""
        for values in vars(self).values():
            values.append([])

    def add(self, restored: NDArray, reference: NDArray, body: NDArray[np.bool_]) -> None:
        """Measure one slice of the current subject."""
        window = metrics.CT_DISPLAY_WINDOW
        self.psnr_db[-1].append(metrics.psnr_db(restored, reference, window, body))
        self.whole_db[-1].append(metrics.psnr_db(restored, reference, window))
        self.ssim[-1].append(metrics.ssim(restored, reference, window, body))
        self.rmse[-1].append(metrics.rmse(restored, reference, window, body))
        self.bias[-1].append(metrics.flat_bias(restored, reference))
        own = metrics.edge_width_px(reference, reference)
        self.edge[-1].append(metrics.edge_width_px(restored, reference) / own - 1.0)


def evaluate(
    task: str,
    library: ModelLibrary,
    data: Path,
    progress: Progress,
    model_id: str | None = None,
    slices_per_subject: int = 5,
    all_conditions: bool = True,
) -> dict[str, Any]:
    """Degrade held-out slices, restore them by every method, compare with the originals.

    Args:
        task: ``ct-denoise``.
        library: Where the models are.
        data: A folder with ``MANIFEST.csv`` (its ``val`` rows are used), or any folder or file of CT scans.
        progress: Counts slices.
        model_id: One model; None = all models of the task.
        slices_per_subject: Evenly spaced over each subject.
        all_conditions: False measures quarter dose with the soft kernel only.

    Returns:
        ``{task, data_sha256, n_subjects, rows, more}``. ``rows`` are quarter dose, Hann filter, clean references:
        ``{name, kind, psnr_db, ssim, rmse, ci95, ...}``, PSNR in the display window inside the body, averaged over
        slices, then patients; ``ci95`` its interval over patients. ``more`` holds the same for other doses and kernels
        and for scans that are noisy themselves.

    Raises:
        UsageError: The task is not known, or nothing there is a CT scan.
        WeightsError: The model cannot be used.
        Cancelled: The user stopped it.
    """
    if task not in TASKS:
        raise UsageError(f"The task '{task[:40]}' cannot be evaluated", f"Tasks: {', '.join(TASKS)}")
    subjects, data_sha256 = _subjects(data, slices_per_subject)
    if not subjects:
        raise UsageError("There is no CT scan in HU here", "Choose a folder with CT scans")
    cards = [card for card in library.list() if card.task == task]
    ids = [model_id] if model_id else [card.id for card in cards]
    models = [NetworkRestorer(library.load(one)) for one in ids]
    conditions = (MAIN, *OTHERS) if all_conditions else (MAIN,)
    groups = {
        "clean": [subject for subject in subjects if not subject.is_noisy],
        "noisy reference": [subject for subject in subjects if subject.is_noisy],
    }
    progress.start(len(conditions) * sum(len(subject.slices) for subject in subjects), "slices", "evaluating")
    rows: list[dict[str, Any]] = []
    for condition in conditions:
        for group, members in groups.items():
            if members:
                rows += _rows(members, group, condition, models, progress)
    main_group = "clean" if groups["clean"] else "noisy reference"
    main = [
        row for row in rows if row["group"] == main_group and (row["dose"], row["kernel"]) == (MAIN.dose, MAIN.kernel)
    ]
    return {
        "task": task,
        "data_sha256": data_sha256,
        "n_subjects": len(groups[main_group]),
        "rows": main,
        "more": [row for row in rows if row not in main],
        "window": list(metrics.CT_DISPLAY_WINDOW),
        "slices_per_subject": slices_per_subject,
    }


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What a card says about a model's results: each condition and group in a few numbers."""
    figures: dict[str, Any] = {"data_sha256": result["data_sha256"]}
    rows = [*result["rows"], *result["more"]]
    for row in rows:
        if row["kind"] != "model" or row["name"] != model_id:
            continue
        same = [r for r in rows if all(r[key] == row[key] for key in ("dose", "kernel", "group"))]
        kept = (
            "psnr_db",
            "ci95",
            "psnr_whole_slice_db",
            "ssim",
            "hu_bias",
            "edge_width_change",
            "gain_db",
            "gain_ci95",
        )
        entry = {key: row[key] for key in kept if key in row}
        entry["input_psnr_db"] = next(r["psnr_db"] for r in same if r["kind"] == "input")
        entry["n_subjects"] = row["n_subjects"]
        entry["best_classical"] = row.get("best_classical", "")
        figures[f"dose {row['dose']:g}, {row['kernel']} filter, {row['group']}"] = entry
    return figures


def _rows(
    subjects: Sequence[Subject], group: str, condition: Condition, models: Sequence[Restorer], progress: Progress
) -> list[dict[str, Any]]:
    filters = {name: evaluation_filter(name, condition.kernel) for name in ("nlm", "tv", "wavelet")}
    restorers = {("classical", filter_.name): filter_ for filter_ in filters.values() if filter_ is not None}
    restorers |= {("model", model.id): model for model in models}  # type: ignore[misc]
    figures = {key: Figures() for key in (("input", "input"), *restorers)}
    for subject in subjects:
        for one in figures.values():
            one.new_subject()
        for reference in subject.slices:
            degraded = low_dose(reference, subject.spacing_mm, condition.dose, Scanner(kernel=condition.kernel))
            body = metrics.body_mask(reference)
            figures["input", "input"].add(degraded, reference, body)
            for key, restorer in restorers.items():
                maps = {"region_map": regions_of(degraded)} if "region_map" in restorer.inputs else {}
                restored = restorer.restore_slice(degraded, progress=progress, maps=maps).values
                figures[key].add(restored, reference, body)
            progress.step()
    rows = [
        {**_row(key[1], key[0], one), "dose": condition.dose, "kernel": condition.kernel, "group": group}
        for key, one in figures.items()
    ]
    _add_gain(rows, figures)
    return rows


def regions_of(degraded: NDArray[np.float32]) -> NDArray[np.int32]:
    """The region map of a slice by the region tree, in the display window of CT."""
    low, high = metrics.CT_DISPLAY_WINDOW
    return region_map_from_tree(build_region_tree(degraded, Window((low + high) / 2, high - low)))


def _row(name: str, kind: str, figures: Figures) -> dict[str, Any]:
    psnr = _by_subject(figures.psnr_db)
    bias = [value for value in _by_subject(figures.bias) if np.isfinite(value)]
    return {
        "name": name,
        "kind": kind,
        "psnr_db": _rounded(np.mean(psnr)),
        "ssim": _rounded(np.mean(_by_subject(figures.ssim)), 4),
        "rmse": _rounded(np.mean(_by_subject(figures.rmse))),
        "ci95": [_rounded(value) for value in metrics.bootstrap_interval(psnr)],
        "psnr_whole_slice_db": _rounded(np.mean(_by_subject(figures.whole_db))),
        "hu_bias": _rounded(np.mean(bias)) if bias else None,
        "hu_bias_worst": _rounded(max(bias, key=abs)) if bias else None,
        "edge_width_change": _rounded(np.nanmean(_by_subject(figures.edge)), 4),
        "n_subjects": len(psnr),
    }


def _add_gain(rows: list[dict[str, Any]], figures: dict[tuple[str, str], Figures]) -> None:
    """How far each model is above the best classical method, paired over subjects."""
    classical = [row for row in rows if row["kind"] == "classical"]
    if not classical:
        return
    best = max(classical, key=lambda row: row["psnr_db"])
    rival = np.asarray(_by_subject(figures["classical", best["name"]].psnr_db))
    for row in rows:
        if row["kind"] == "model":
            gain = np.asarray(_by_subject(figures["model", row["name"]].psnr_db)) - rival
            row["best_classical"] = best["name"]
            row["gain_db"] = _rounded(gain.mean())
            row["gain_ci95"] = [_rounded(value) for value in metrics.bootstrap_interval(gain.tolist())]


def _by_subject(values: Sequence[Sequence[float]]) -> list[float]:
    """Mean of each subject's slices; a subject without a finite figure is nan."""
    means = []
    for of_subject in values:
        finite = [value for value in of_subject if np.isfinite(value)]
        means.append(float(np.mean(finite)) if finite else float("nan"))
    return means


def _rounded(value: Any, digits: int = 3) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _subjects(data: Path, slices_per_subject: int) -> tuple[list[Subject], str]:
    """Patients with their slices, and a SHA-256 over the pixels that are judged."""
    by_patient: dict[str, list[tuple[NDArray[np.float32], float]]] = {}
    for patient, slices in _patients(data):
        by_patient.setdefault(patient, []).extend(slices)
    digest = hashlib.sha256()
    subjects = []
    for patient in sorted(by_patient):
        slices = by_patient[patient]
        count = min(slices_per_subject, len(slices))
        picks = np.linspace(0, len(slices) - 1, count + 2)[1:-1].round().astype(int) if count < len(slices) else None
        chosen = slices if picks is None else [slices[i] for i in picks]
        for values, _ in chosen:
            digest.update(np.ascontiguousarray(values).tobytes())
        noise = float(np.median([metrics.slice_noise(v, metrics.soft_tissue(v)) for v, _ in chosen]))
        subjects.append(Subject(tuple(v for v, _ in chosen), chosen[0][1], noise > NOISY_REFERENCE_HU))
    return subjects, digest.hexdigest()


def _patients(data: Path) -> Iterator[tuple[str, list[tuple[NDArray[np.float32], float]]]]:
    """CT slices in HU with their pixel size, grouped; files that cannot be read are left out with a line in the log."""
    if (data / "MANIFEST.csv").is_file():
        places = [(patient_of(row["path"]), data / row["path"]) for row in manifest_ct(data, "val")]
    else:
        places = [("", data)]
    for patient, place in places:
        try:
            for finding in read_path(place, Progress(), modality="CT"):
                if not isinstance(finding, FoundScan):
                    continue
                scan = finding.scan.decode()
                if scan.modality != "CT" or scan.unit != "HU" or scan.is_colour or min(scan.shape[1:]) < 32:
                    continue
                spacing_mm = float(np.mean(scan.in_plane_spacing_mm or (1.0, 1.0)))
                slices = [(np.asarray(scan.slice_values(z), np.float32), spacing_mm) for z in range(scan.shape[0])]
                yield patient or scan.source.patient_id or patient_of(scan.source.path) or scan.series_key, slices
        except Cancelled:
            raise
        except MedappError as error:
            _log.warning("left out: %s", error.message)
