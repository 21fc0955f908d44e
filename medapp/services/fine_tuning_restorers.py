"""Fine-tuning a restorer on slices a person marked as reference, their accepted mattes painted into the regions."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from medapp.errors import ProjectDamagedError, TrainingError, UnsuitableModelError, UsageError
from medapp.networks.card import Card, Intake
from medapp.networks.library import LoadedModel
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.restoration.interpolation import first_filtered
from medapp.restoration.metrics import judging_of
from medapp.restoration.restorer import NetworkRestorer
from medapp.services.evaluation.measuring import measure_restoration, regions_of
from medapp.services.evaluation.subjects import held_out_subjects
from medapp.services.fine_tuning import FineTuning, HeldOutCase, NearStart, fine_tuned_recipe
from medapp.services.gather import spread
from medapp.services.scorecard import NEW, OLD
from medapp.store.project import DataSetCase, DataSetVersion, Project
from medapp.training.degradations import degrade
from medapp.training.recipe import RestorationRecipe, read_recipe, stages_of
from medapp.training.sources import find_references
from medapp.training.splits import split_by_patient
from medapp.training.tasks.corrections import CorrectionTask, Crops, Entry, painted
from medapp.training.tasks.restoration import RestorationTask, TuningPair
from medapp.training.tasks.starting import load_into
from medapp.training.tasks.task import DataFacts

_log = logging.getLogger(__name__)

PERCENTILES = (0.5, 99.5)
LEARNING_RATE = 3e-4
OLD_SLICES = 10
OLD_JUDGES = 6
MOST_NEW_JUDGES = 16
VARIANTS = 2
"""Degraded versions of each training slice."""
_APART_SHARE = 0.2
_APART_LEAST = 6
_APART_SLICES = 3
_APART_SIDE_PX = 192
_NEAR, _NEAR_ALONE = 0.1, 1.0
_QUARTER = 0.25
_FOLDERS = {"CT": "ct/", "MR": "mri/"}


@dataclass(frozen=True, eq=False)
class ReferenceSlice:
    """A slice to be restored towards.

    Attributes:
        patient, name: Patient group; what people read.
        values: ``(Y, X)`` float32 in the scan's unit.
        spacing_mm: Pixel size; 1 where unknown.
        mattes: ``(Y, X)`` uint8, the number of the accepted matte of each pixel, smaller ones on top; 0 = none.
    """

    patient: str
    name: str
    values: NDArray[np.float32]
    spacing_mm: float
    mattes: NDArray[np.uint8]


def tune_restorer(
    project: Project,
    version: DataSetVersion,
    champion: LoadedModel,
    recipe_path: Path | None,
    old_data: Path | None,
    minutes: float,
    progress: Progress,
) -> FineTuning:
    """Prepare the fine-tuning of a restorer; arguments and errors as ``tune_mattes``."""
    card = champion.card
    intake, notes = _intake(card, project, version)
    training = _spread_cases([c for c in version.of("training") if _is_of(project, c, intake)])
    slices = list(reference_slices(project, training, progress))
    groups = sorted({one.patient for one in slices})
    apart = split_by_patient(groups, _APART_SHARE)[1] if len(groups) >= _APART_LEAST else ()
    entries = _entries([s for s in slices if s.patient not in apart], card, intake, progress)
    if not entries:
        raise TrainingError("No reference slice could be degraded; the model in use is unchanged.", "Add others.")
    old = _old_slices(old_data, intake, progress) if old_data is not None else []
    old_apart = [old[i] for i in spread(range(len(old)), _APART_SLICES)] if len(old) >= 2 * _APART_SLICES else []
    judges = {one.patient for one in old_apart}
    old_entries = _entries([one for one in old if one.patient not in judges], card, intake, progress)
    recipe = _recipe(card, intake, recipe_path, minutes, entries)
    digest = hashlib.sha256(version.sha256.encode())
    for entry in old_entries:
        digest.update(entry.pairs[0][1].tobytes())
    facts = DataFacts(digest.hexdigest(), (version.name,), len(groups) - len(apart))
    new_pairs = _tuning([s for s in slices if s.patient in apart], card, intake)
    old_pairs = _tuning(old_apart, card, intake)
    shown = new_pairs or _tuning(slices[:1], card, intake)
    is_noise = card.degradation.get("kind") == "ct-dose"
    network = build_network(recipe.architecture, recipe.config)
    load_into(network, champion.network.state_dict())
    sides = [Crops(entries, recipe, is_noise)] + ([Crops(old_entries, recipe, is_noise)] if old_entries else [])
    task = CorrectionTask(recipe, sides, shown, facts, network)
    if not old_entries:
        notes.append(
            "What the model was first trained on is not on this machine, so it could not be mixed in: the new weights "
            "are kept near the old ones instead."
        )

    def validate(trained: nn.Module) -> tuple[float | None, float | None]:
        return _error(recipe, sides, new_pairs, facts, trained), _error(recipe, sides, old_pairs, facts, trained)

    def held_out(told: Progress) -> Sequence[HeldOutCase]:
        chosen = _spread_cases([c for c in version.of("hold-out") if _is_of(project, c, intake)], MOST_NEW_JUDGES)
        new = [(NEW, one) for one in reference_slices(project, chosen, told)]
        before = [(OLD, one) for one in _judges(old_data, intake, told)] if old_data is not None else []
        return [_held_out(group, one, card, intake, number) for number, (group, one) in enumerate([*new, *before])]

    near = NearStart(task, _NEAR if old_entries else _NEAR_ALONE)
    return FineTuning(recipe, near, validate, held_out, dict, tuple(notes), intake.unit)


def reference_slices(project: Project, cases: Sequence[DataSetCase], progress: Progress) -> Iterator[ReferenceSlice]:
    """The frozen slices with the mattes that were accepted on them.

    Raises:
        ProjectDamagedError: A revision or voxel file is not what was frozen.
        Cancelled: The user stopped it.
    """
    progress.start(len(cases), "slices", "gathering")
    for case in cases:
        progress.step(note="gathering")
        info = project.series_info(case.series_id)
        if info.voxels_sha256 != case.voxels_sha256:
            raise ProjectDamagedError("A series is not what was frozen.", "Freeze a new data set version.")
        values = np.asarray(project.scan(case.series_id).slice_values(case.slice_index), np.float32)
        mattes = np.zeros(values.shape[:2], np.uint8)
        if case.matte_ids:
            annotation = project.load_revision(case.revision_id)
            masks = [annotation.matte(one).slice_alpha(case.slice_index) >= 0.5 for one in case.matte_ids[:255]]
            for number, mask in enumerate(sorted(masks, key=lambda m: -int(np.count_nonzero(m))), 1):
                mattes[mask] = number
        spacing = float(np.mean(info.in_plane_spacing_mm)) if info.in_plane_spacing_mm else 1.0
        name = f"{info.title} · slice {case.slice_index + 1}"
        yield ReferenceSlice(case.group, name, values, spacing, mattes)


def _intake(card: Card, project: Project, version: DataSetVersion) -> tuple[Intake, list[str]]:
    if card.dims != 2 or card.channels != 1:
        raise UnsuitableModelError(f"{card.name} restores volumes or colours and cannot be retrained here.", "")
    counted = Counter(project.series_info(case.series_id).modality for case in version.cases)
    modality, _ = counted.most_common(1)[0]
    intake = card.intake(modality)
    if intake is None:
        raise UnsuitableModelError(
            f"{card.name} takes {', '.join(card.modalities)}; the references are of another modality.",
            "Mark series of that modality as Reference.",
        )
    rest = sum(counted.values()) - counted[modality]
    return intake, [f"{rest} slices of another modality than {modality} were left out."] if rest else []


def _is_of(project: Project, case: DataSetCase, intake: Intake) -> bool:
    return project.series_info(case.series_id).modality == intake.modality


def _spread_cases(cases: Sequence[DataSetCase], most: int = 64) -> list[DataSetCase]:
    return [cases[i] for i in spread(range(len(cases)), most)]


def _entries(slices: Sequence[ReferenceSlice], card: Card, intake: Intake, progress: Progress) -> list[Entry]:
    """Pairs of each slice; slices that are too small to be degraded are left out."""
    made = []
    count = 1 if card.degradation.get("kind") == "mr-kspace" else VARIANTS  # k-space is cropped one way only
    progress.start(len(slices), "slices", "gathering")
    for one in slices:
        progress.step(note="gathering")
        try:
            versions = [_degraded(card.degradation, one, seed, intake) for seed in range(count)]
        except TrainingError as error:
            _log.warning("a slice was left out: %s", error.message)
            continue
        pairs = tuple(_native(version, one.values, intake) for version in versions)
        made.append(Entry(one.patient, pairs, judging_of(one.values, intake.modality).body, one.mattes))
    return made


def _degraded(parameters: Mapping[str, Any], one: ReferenceSlice, seed: int, intake: Intake) -> NDArray[np.float32]:
    """What the network is shown of a slice in training."""
    degraded = degrade(parameters, one.values, one.spacing_mm, seed)
    return first_filtered(degraded, int(parameters.get("factor", 1)), intake.first_filter)


def _native(
    degraded: NDArray[np.float32], reference: NDArray[np.float32], intake: Intake
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both in the units of the recipe: their own, or thousandths of the degraded slice's spread."""
    if intake.limits != "percentiles":
        return degraded.astype(np.float32), reference.astype(np.float32)
    low, high = (float(v) for v in np.percentile(degraded, PERCENTILES))
    scale = np.float32(1000.0 / max(high - low, 1e-6))
    return (degraded - np.float32(low)) * scale, (reference - np.float32(low)) * scale


def _condition(card: Card, number: int) -> dict[str, object]:
    """How a judging slice is degraded: a quarter of the dose, kernels in turn, or as the card says."""
    if card.degradation.get("kind") != "ct-dose":
        return dict(card.degradation)
    low, high = card.degradation.get("doses", (_QUARTER, _QUARTER))
    kernels = list(card.degradation.get("kernels", ["hann"]))
    dose = _QUARTER if low <= _QUARTER <= high else float(np.sqrt(low * high))
    kept = {key: card.degradation[key] for key in ("kind", "views") if key in card.degradation}
    return {**kept, "dose": dose, "kernel": kernels[number % len(kernels)]}


def _tuning(slices: Sequence[ReferenceSlice], card: Card, intake: Intake) -> list[TuningPair]:
    pairs = []
    for number, one in enumerate(slices[i] for i in spread(range(len(slices)), _APART_SLICES)):
        degraded, reference = _native(_degraded(_condition(card, number), one, number, intake), one.values, intake)
        judging = judging_of(one.values, intake.modality)
        rows, columns = np.nonzero(judging.body)
        middle = (int(rows.mean()), int(columns.mean())) if rows.size else tuple(n // 2 for n in one.values.shape)
        box = tuple(_around(at, size) for at, size in zip(middle, one.values.shape, strict=True))
        window = judging.limits if intake.limits != "percentiles" else intake.value_range
        pairs.append(TuningPair(degraded[box], reference[box], judging.body[box], window))
    return pairs


def _around(middle: int, size: int) -> slice:
    first = min(max(0, middle - _APART_SIDE_PX // 2), max(0, size - _APART_SIDE_PX))
    return slice(first, min(size, first + _APART_SIDE_PX))


def _error(
    recipe: RestorationRecipe,
    sides: Sequence[Crops],
    pairs: Sequence[TuningPair],
    facts: DataFacts,
    network: nn.Module,
) -> float | None:
    """Root mean squared error relative to the window, from the PSNR; None without pairs."""
    if not pairs:
        return None
    figures = RestorationTask(recipe, sides[0], pairs, facts, network).judge(network).figures
    return float(10 ** (-figures["psnr_db"] / 20))


def _old_slices(data: Path, intake: Intake, progress: Progress) -> list[ReferenceSlice]:
    """The middle slice of patients the model was first trained on."""
    try:
        found = find_references(data, intake.modality, "train", progress, under=_FOLDERS.get(intake.modality, ""))
    except TrainingError:
        return []
    chosen: dict[str, ReferenceSlice] = {}
    for reference in found:
        if reference.unit == intake.unit and reference.patient not in chosen and len(reference.shape) == 3:
            values = np.asarray(reference.load()[reference.shape[0] // 2], np.float32)
            if min(values.shape) >= 64 and judging_of(values, intake.modality).body.mean() > 0.1:
                mattes = np.zeros(values.shape, np.uint8)
                one = ReferenceSlice(reference.patient, reference.patient, values, reference.mean_spacing_mm, mattes)
                chosen[reference.patient] = one
    ordered = [chosen[patient] for patient in sorted(chosen)]
    return [ordered[i] for i in spread(range(len(ordered)), OLD_SLICES)]


def _judges(data: Path, intake: Intake, progress: Progress) -> list[ReferenceSlice]:
    if intake.modality not in _FOLDERS:
        return []
    try:
        subjects, _ = held_out_subjects(data, intake.modality, 1, progress)
    except UsageError:
        return []
    made = [
        ReferenceSlice(s.patient, s.patient, values, spacing, np.zeros(values.shape, np.uint8))
        for s in subjects
        for values, spacing in s.slices[:1]
        if s.group == "clean"
    ]
    return [made[i] for i in spread(range(len(made)), OLD_JUDGES)]


def _held_out(group: str, one: ReferenceSlice, card: Card, intake: Intake, number: int) -> HeldOutCase:
    degraded = degrade(_condition(card, number), one.values, one.spacing_mm, number)
    regions = None
    if "region_map" in card.inputs and one.mattes.any():
        regions = painted(regions_of(degraded, judging_of(one.values, intake.modality).limits), one.mattes)

    def measure(model: LoadedModel) -> Mapping[str, float]:
        restorer = NetworkRestorer(model, 0, intake.modality)
        return measure_restoration(restorer, degraded, one.values, intake.modality, regions, is_filled=card.scale > 1)

    return HeldOutCase(group, one.name, one.patient, measure)


def _recipe(
    card: Card, intake: Intake, recipe_path: Path | None, minutes: float, entries: Sequence[Entry]
) -> RestorationRecipe:
    first = RestorationRecipe(card.id, task=card.task, architecture=card.architecture)
    if recipe_path is not None:
        last = stages_of(read_recipe(recipe_path))[-1]
        if isinstance(last, RestorationRecipe) and last.architecture == card.architecture:
            first = last
    largest = min(min(entry.shape) for entry in entries)
    fitting = tuple((side, count) for side, count in first.crops if side <= largest)
    return fine_tuned_recipe(
        first,
        card,
        minutes,
        config=dict(card.config),
        value_range=intake.value_range,
        network_range=intake.network_range,
        limits="percentiles" if intake.limits == "percentiles" else "fixed",
        factor=card.scale,
        focus=first.focus if intake.modality == "CT" else None,
        crops=fitting or ((max(8, largest // 8 * 8), 4),),
        learning_rate=LEARNING_RATE,
        check_every=100,
    )
