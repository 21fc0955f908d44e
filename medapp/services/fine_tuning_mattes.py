"""Fine-tuning a matting model on a project's mattes, mixed with what it was first trained on where that is at hand."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.annotation.annotation import Annotation
from medapp.errors import ProjectDamagedError, TrainingError
from medapp.matting.matter import shown_image
from medapp.matting.proposer import MattingProposer
from medapp.networks.card import ROUGH_MASK
from medapp.networks.library import LoadedModel
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.scan.intensity import starting_window
from medapp.scan.scan import Window
from medapp.services.evaluation.matte_cases import MatteCase, held_out_cases
from medapp.services.evaluation.mattes import measure_matte
from medapp.services.fine_tuning import FineTuning, HeldOutCase, NearStart, fine_tuned_recipe
from medapp.services.scorecard import NEW, OLD
from medapp.store.project import DataSetCase, DataSetVersion, Project
from medapp.training.matting_crops import CropPlan, MattingCrops
from medapp.training.matting_data import MattingData, Specimen, load_matting_data, specimen_of
from medapp.training.recipe import MattingRecipe, read_recipe, stages_of
from medapp.training.rough_masks import USUAL_SHARES
from medapp.training.splits import split_by_patient
from medapp.training.tasks.matting import MattingTask, crop_plan, held_apart
from medapp.training.tasks.starting import load_into
from medapp.training.tasks.task import DataFacts

_log = logging.getLogger(__name__)

SOURCE = "corrections"
NEW_SHARE = 0.5
"""Of the crops; the rest is old."""
LEARNING_RATE = 5e-4
OLD_PER_SOURCE = 10
_APART_SHARE = 0.2
_APART_LEAST = 8
"""Patients from which on some are held apart to choose how far to go."""
_NEAR = 0.3
_NEAR_ALONE = 3.0
_JUDGED_ROUNDS = 2


def tune_mattes(
    project: Project,
    version: DataSetVersion,
    champion: LoadedModel,
    recipe_path: Path | None,
    old_data: Path | None,
    minutes: float,
    progress: Progress,
) -> FineTuning:
    """Prepare the fine-tuning of a matting model.

    Args:
        project: Holds the mattes.
        version: Who trains and who judges.
        champion: On the CPU.
        recipe_path: Of the model's line, for the weights of its loss; None = the usual ones.
        old_data: Folder with ``MANIFEST.csv`` that the line was first trained on; None = not at hand.
        minutes: Budget.
        progress: Counts files and cases.

    Raises:
        TrainingError: Nothing can be learnt from the mattes.
        ProjectDamagedError: A frozen revision cannot be read.
        Cancelled: The user stopped it.
    """
    notes: list[str] = []
    old = load_matting_data(old_data, "train", progress) if old_data is not None else None
    recipe = _recipe(champion, recipe_path, minutes, old)
    cases = list(matte_cases(project, version.of("training"), progress))
    groups = sorted({case.patient for case in cases})
    apart: tuple[str, ...] = ()
    if len(groups) >= _APART_LEAST:
        apart = split_by_patient(groups, _APART_SHARE, recipe.seed)[1]
    fresh = {side: _specimens(cases, apart, side == "apart") for side in ("train", "apart")}
    if not fresh["train"]:
        raise TrainingError(
            "None of the mattes is large enough to learn from; the model in use is unchanged.",
            "Correct larger things, or more of them.",
        )
    plan = crop_plan(recipe)
    kept_old, apart_old = held_apart(old, recipe) if old is not None else (None, None)
    mixed = MattingData(
        {**(kept_old.specimens if kept_old else {}), SOURCE: fresh["train"]},
        kept_old.backdrops if kept_old else (),
        (*(kept_old.files if kept_old else ()), version.name),
        hashlib.sha256(f"{version.sha256} {old.sha256 if old else ''}".encode()).hexdigest(),
        kept_old.licences if kept_old else {},
        kept_old.textures if kept_old else (),
    )
    facts = DataFacts(mixed.sha256, mixed.files, len(groups) - len(apart))
    judged = [_alone(SOURCE, fresh["apart"])] if fresh["apart"] else []
    judged_old = [apart_old] if apart_old is not None and any(apart_old.specimens.values()) else []
    network = build_network(recipe.architecture, recipe.config)
    load_into(network, champion.network.state_dict())
    shown = _crops(judged[0] if judged else _alone(SOURCE, fresh["train"]), plan, recipe.seed)
    task = MattingTask(recipe, MattingCrops(mixed, plan, recipe.seed), shown, facts, network)
    if old is None:
        notes.append(
            "What the model was first trained on is not on this machine, so it could not be mixed in: the new weights "
            "are kept near the old ones instead."
        )
    if not judged:
        notes.append(f"Fewer than {_APART_LEAST} patients train: none was held apart to choose how far to go.")

    def validate(trained: nn.Module) -> tuple[float | None, float | None]:
        return _error(recipe, judged, plan, facts, trained), _error(recipe, judged_old, plan, facts, trained)

    def held_out(told: Progress) -> Sequence[HeldOutCase]:
        new = [(NEW, case) for case in matte_cases(project, version.of("hold-out"), told)]
        before = held_out_cases(old_data, told, OLD_PER_SOURCE)[0] if old_data is not None else []
        return [_held_out(group, case) for group, case in (*new, *((OLD, case) for case in before))]

    near = NearStart(task, _NEAR if old is not None else _NEAR_ALONE)
    return FineTuning(recipe, near, validate, held_out, for_card(champion), tuple(notes))


def for_card(champion: LoadedModel) -> _Keeper:
    """Keeps of trained weights what the champion's card lists: without the posterior where that has none."""
    return _Keeper(frozenset(champion.network.state_dict()))


class _Keeper:
    def __init__(self, keys: frozenset[str]) -> None:
        self._keys = keys

    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in weights.items() if key in self._keys}


def matte_cases(project: Project, cases: Sequence[DataSetCase], progress: Progress) -> Iterator[MatteCase]:
    """The frozen mattes with their slices; several readers' mattes of one thing become their mean.

    Raises:
        ProjectDamagedError: A revision or voxel file is not what was frozen.
        Cancelled: The user stopped it.
    """
    annotations: dict[int, Annotation] = {}
    progress.start(len(cases), "cases", "gathering")
    for case in cases:
        progress.step(note="gathering")
        info = project.series_info(case.series_id)
        if info.voxels_sha256 != case.voxels_sha256:
            raise ProjectDamagedError("A series is not what was frozen.", "Freeze a new data set version.")
        if case.revision_id not in annotations:
            annotations = {case.revision_id: project.load_revision(case.revision_id)}
        annotation, scan = annotations[case.revision_id], project.scan(case.series_id)
        drawn = [annotation.matte(matte_id).slice_alpha(case.slice_index) for matte_id in case.matte_ids]
        alpha: NDArray[np.float32] = np.mean(drawn, axis=0).astype(np.float32)
        readers = tuple(np.asarray(one >= 0.5) for one in drawn) if len(drawn) > 1 else ()
        values = scan.slice_values(case.slice_index)
        spacing = info.in_plane_spacing_mm
        yield MatteCase(
            SOURCE,
            f"{info.title} · slice {case.slice_index + 1}",
            case.group,
            np.asarray(values),
            None if info.is_colour else starting_window(scan),
            alpha,
            readers,
            spacing_mm=float(np.sqrt(spacing[0] * spacing[1])) if spacing else None,
            modality=info.modality,
        )


def _specimens(cases: Sequence[MatteCase], apart: Sequence[str], is_apart: bool) -> list[Specimen]:
    made: list[Specimen] = []
    for number, case in enumerate(cases):
        if (case.patient in apart) == is_apart:
            window = case.window or Window(0.5, 1.0)
            shown = shown_image(case.values, None if case.values.ndim == 3 else window)
            made += specimen_of(SOURCE, f"{case.patient.replace(' ', '-')} {number}", shown, case.alpha)
    return made


def _alone(source: str, specimens: Sequence[Specimen]) -> MattingData:
    return MattingData({source: specimens}, (), (), "", {})


def _crops(data: MattingData, plan: CropPlan, seed: int) -> MattingCrops:
    present = {source: 1.0 for source, specimens in data.specimens.items() if specimens}
    return MattingCrops(data, replace(plan, shares=present), seed)


def _error(
    recipe: MattingRecipe, judged: Sequence[MattingData], plan: CropPlan, facts: DataFacts, network: nn.Module
) -> float | None:
    """Mean SAD over crops of cases held apart; None where there are none."""
    found = []
    for data in judged:
        for seed in range(_JUDGED_ROUNDS):
            crops = _crops(data, plan, seed)
            found.append(MattingTask(recipe, crops, crops, facts, network).judge(network).figures["sad"])
    return float(np.mean(found)) if found else None


def _held_out(group: str, case: MatteCase) -> HeldOutCase:
    name = case.name if group == NEW else f"{case.source} · {case.name}"

    def measure(model: LoadedModel) -> Mapping[str, float]:
        # told a box alone, also where the model takes rough masks: the harder question, and one for all models
        return measure_matte(MattingProposer(model), case)

    return HeldOutCase(group, name, case.patient, measure)


def _recipe(champion: LoadedModel, recipe_path: Path | None, minutes: float, old: MattingData | None) -> MattingRecipe:
    card = champion.card
    config = {key: value for key, value in card.config.items() if key != "use_posterior"}
    side = int(card.training.get("crop_px", 64))
    first = MattingRecipe(
        card.id, crops=((side, 8),), kl_scale=0.05, gradient_scale=0.1, matte_prior=True, strategy="None"
    )
    if recipe_path is not None:
        last = stages_of(read_recipe(recipe_path))[-1]
        if isinstance(last, MattingRecipe):
            first = replace(last, crops=tuple(pair for pair in last.crops if pair[0] == side) or ((side, 8),))
    shares = {SOURCE: 1.0}
    if old is not None:
        present = {source: first.shares.get(source, 0.0) for source, each in old.specimens.items() if each}
        total = sum(present.values()) or 1.0
        shares = {source: (1 - NEW_SHARE) * share / total for source, share in present.items()} | {SOURCE: NEW_SHARE}
    return fine_tuned_recipe(
        first,
        card,
        minutes,
        config=config,
        shares=shares,
        rough=(first.rough or dict(USUAL_SHARES)) if ROUGH_MASK in card.inputs else {},
        learning_rate=LEARNING_RATE,
        check_every=50,
    )
