"""Retrain a model from a project: a frozen data set, fine-tuning, champion against challenger, a scorecard."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medapp import paths
from medapp.errors import ExportError, RunUnusableError, TrainingError
from medapp.export.files import write_bytes
from medapp.networks.checkpoint import keep_weights, load_checked
from medapp.networks.device import choose_device, has_fast_bf16
from medapp.networks.library import LINE, LoadedModel, ModelLibrary
from medapp.progress import Progress
from medapp.requests import RetrainRequest, RetrainResult
from medapp.services.adoption import CHALLENGER
from medapp.services.effort import effort_of
from medapp.services.fine_tuning import UNSEEN_SHARE, FineTuning, best_share, blended, challenger_card
from medapp.services.gather import freeze, kind_of, shortage
from medapp.services.scorecard import FILE, Compared, scorecard, write_scorecard
from medapp.services.workspace import Workspace
from medapp.store.data_sets import DataSetKind, DataSetVersion
from medapp.store.project import Project
from medapp.training.loop import TrainedRun, Trainer
from medapp.training.recipe import Recipe
from medapp.training.run_folder import RunFolder

_log = logging.getLogger(__name__)

FORMAT = 1
PLAN = "retraining.json"
"""In a run folder: what it retrains, from what."""
MOST_MINUTES = 7 * 24 * 60.0


@dataclass(frozen=True)
class Plan:
    """What a run retrains; kept with it, so that it goes on with the same after a kill.

    Attributes:
        project_id: Tells the project from others.
        kind: ``matting`` or ``restoration``.
        model_id: The champion: the model that was in use when the run began.
        line: First model of its line.
        champion_sha256: Of its weights.
        data_set, data_set_sha256: Frozen version.
        minutes: Budget.
        notes: Of gathering.
    """

    project_id: str
    kind: DataSetKind
    model_id: str
    line: str
    champion_sha256: str
    data_set: str
    data_set_sha256: str
    minutes: float
    notes: tuple[str, ...] = ()
    format: int = FORMAT


def retrain(request: RetrainRequest, workspace: Workspace, progress: Progress) -> RetrainResult:
    """Fine-tune the model in use within the budget and compare both on the locked hold-out; it stays in use.

    Raises:
        TrainingError: There is nothing to learn from or to judge by, the run folder cannot be used, or the training
            went wrong; the model in use is unchanged and the last state that was kept is sound.
        UnsuitableModelError: This model cannot be retrained from corrections.
        WeightsError: The model cannot be loaded.
        ProjectError: The project cannot be read or written.
        Cancelled: The user stopped it; the run can go on.
    """
    project, library = workspace.project(request.project), workspace.library
    progress.tell("gathering")
    folder = Path(request.run) if request.run else _new_folder(request.model_id)
    if request.run:
        plan = read_plan(folder)
        version = _version_of(plan, project)
    else:
        plan, version = _planned(request, project, library, progress)
        _write_plan(folder, plan)
    progress.tell("gathering", run=str(folder))
    champion = _champion(plan, library)
    tuning = prepare(project, version, champion, plan, library, progress)
    progress.tell("training", run=str(folder))
    run = RunFolder(folder)
    trainer = Trainer(_precise(tuning.recipe, request.device), tuning.task, run, request.device)
    trained = trainer.train(float("inf"), progress)
    progress.tell("comparing", run=str(folder))
    challenger = _challenger(folder, run, plan, champion, tuning, trained, library, progress)
    card_path = _compare(folder, project, version, plan, champion, challenger, tuning, request.device, progress)
    return RetrainResult(
        str(folder),
        plan.model_id,
        challenger.card.id,
        str(card_path),
        trained.iteration,
        round(trained.seconds, 1),
        trained.is_done,
    )


def _precise(recipe: Recipe, device: str) -> Recipe:
    """Half precision for mattes also on CPUs quick at it: twice the steps. Restorers would lose grey values."""
    chosen = choose_device(device)
    is_quick = recipe.task == "matting" and chosen.type == "cpu" and has_fast_bf16(chosen)
    return replace(recipe, precision="bf16") if is_quick else recipe


def prepare(
    project: Project,
    version: DataSetVersion,
    champion: LoadedModel,
    plan: Plan,
    library: ModelLibrary,
    progress: Progress,
) -> FineTuning:
    """What is particular to matting or restoration."""
    recipe_path = library.recipe_path(plan.line)
    old = paths.shared_data_dir()
    old_data = old if (old / "MANIFEST.csv").is_file() else None
    if plan.kind == "matting":
        from medapp.services.fine_tuning_mattes import tune_mattes

        return tune_mattes(project, version, champion, recipe_path, old_data, plan.minutes, progress)
    from medapp.services.fine_tuning_restorers import tune_restorer

    return tune_restorer(project, version, champion, recipe_path, old_data, plan.minutes, progress)


def read_plan(folder: Path) -> Plan:
    """What a run retrains.

    Raises:
        TrainingError: The folder holds no retraining, a damaged one, or one of a newer medapp.
    """
    try:
        content = dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))
        if int(content["format"]) > FORMAT:
            raise TrainingError("This run folder was written by a newer medapp; it was not changed.", "Update medapp.")
        known = {field.name for field in fields(Plan)}
        values: dict[str, Any] = {key: value for key, value in content.items() if key in known}
        return Plan(**{**values, "notes": tuple(values.get("notes", ()))})
    except FileNotFoundError as error:
        raise RunUnusableError("There is no retraining in this folder.", "Start a new one.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunUnusableError(
            "The plan of this run is damaged.", "Start a new one; the project is unchanged."
        ) from error


def _planned(
    request: RetrainRequest, project: Project, library: ModelLibrary, progress: Progress
) -> tuple[Plan, DataSetVersion]:
    if not 0 < request.minutes <= MOST_MINUTES:
        raise TrainingError("The time budget is no number of minutes above 0.", "Ten minutes are a good start.")
    in_use = library.in_use(request.model_id)
    card = library.card(in_use)
    kind = kind_of(card)
    notes: tuple[str, ...] = ()
    if request.data_set:
        version = project.data_set(request.data_set)
        if version.kind != kind:
            raise TrainingError(
                f"The data set {version.name} is not one for {card.name}.", "Choose another version, or none."
            )
        if not version.of("training") or not version.of("hold-out"):
            raise TrainingError(f"The data set {version.name} has nobody to judge by.", "Freeze a new version.")
    else:
        version, found = freeze(project, kind, card, progress)
        notes = (*found.notes, *shortage(kind, found))
    plan = Plan(
        project.project_id,
        kind,
        in_use,
        library.line(in_use),
        card.sha256,
        version.name,
        version.sha256,
        request.minutes,
        notes,
    )
    return plan, version


def _version_of(plan: Plan, project: Project) -> DataSetVersion:
    if plan.project_id != project.project_id:
        raise TrainingError("This run belongs to another project.", "Open that project, or start a new run.")
    version = project.data_set(plan.data_set)
    if version.sha256 != plan.data_set_sha256:
        raise RunUnusableError("The data set of this run is not what it began with.", "Start a new run.")
    return version


def _champion(plan: Plan, library: ModelLibrary) -> LoadedModel:
    card = library.card(plan.model_id)
    if card.sha256 != plan.champion_sha256:
        raise RunUnusableError("The model that this run began from has changed.", "Start a new run.")
    network = load_checked(library.weights_path(plan.model_id), card)
    return LoadedModel(card, network, torch.device("cpu"))


def _new_folder(model_id: str) -> Path:
    runs = paths.user_data_dir() / "runs"
    number = 1
    while (runs / f"{model_id}-{number}").exists():
        number += 1
    return runs / f"{model_id}-{number}"


def _write_plan(folder: Path, plan: Plan) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / PLAN, (json.dumps(asdict(plan), indent=2, ensure_ascii=False) + "\n").encode())
    except (OSError, ExportError) as error:
        raise TrainingError(
            "The run folder cannot be written; the model in use is unchanged.", "Free some space, then start again."
        ) from error


# ----------------------------------------------------------------------------------------------------------- comparing


def _challenger(
    folder: Path,
    run: RunFolder,
    plan: Plan,
    champion: LoadedModel,
    tuning: FineTuning,
    trained: TrainedRun,
    library: ModelLibrary,
    progress: Progress,
) -> LoadedModel:
    """The fine-tuned model, as far on the way as forgets little; kept in the run with its card."""
    name = "best" if run.has_weights("best") else "last"
    if not run.has_weights(name):
        raise TrainingError(
            "The time budget ended before the first batches; the model in use is unchanged.", "Give it more minutes."
        )
    weights = _on_cpu(tuning.to_keep(run.load_weights(name)))
    share = best_share(tuning, champion.network, weights, progress)
    made = {
        LINE: plan.line,
        "retrained_from": plan.model_id,
        "data_set": plan.data_set,
        "data_set_sha256": plan.data_set_sha256,
        "minutes": round(trained.seconds / 60, 2),
        "iterations": trained.iteration,
        "share_of_the_way": share,
        "machine": f"{platform.machine()} {platform.system()}",
        "threads": torch.get_num_threads(),
    }
    data = ({"name": f"own project, {plan.data_set}", "licence": "own", "sha256": plan.data_set_sha256},)
    card = challenger_card(champion.card, library.next_id(plan.line), plan.line, made, data)
    kept = keep_weights(blended(champion.network.state_dict(), weights, share), card, _emptied(folder / CHALLENGER))
    return LoadedModel(kept, load_checked(folder / CHALLENGER / f"{kept.id}.safetensors", kept), torch.device("cpu"))


def _emptied(folder: Path) -> Path:
    """Of an earlier comparison of this run, whose id another adopted model may have by now."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
    return folder


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.cpu() for key, value in weights.items()}


def _compare(
    folder: Path,
    project: Project,
    version: DataSetVersion,
    plan: Plan,
    champion: LoadedModel,
    challenger: LoadedModel,
    tuning: FineTuning,
    device: str,
    progress: Progress,
) -> Path:
    (folder / FILE).unlink(missing_ok=True)
    held_out = tuning.held_out(progress)
    chosen = choose_device(device)
    pair = [LoadedModel(model.card, model.network.to(chosen), chosen) for model in (champion, challenger)]
    progress.start(len(held_out), "cases", "comparing")
    compared: list[Compared] = []
    for case in held_out:
        progress.check()
        compared.append(Compared(case.group, case.name, case.patient, *(case.measure(model) for model in pair)))
        progress.step(note="comparing")
    if not compared:
        raise TrainingError("There is no case to judge by.", "Add cases of other patients.")
    content = scorecard(
        plan.kind,
        {"id": champion.card.id, "title": champion.card.title},
        {"id": challenger.card.id, "title": challenger.card.title},
        {
            "version": version.name,
            "sha256": version.sha256,
            "cases": len(version.of("training")),
            "patients": len({case.group for case in version.of("training")}),
            "hold_out_cases": len(version.of("hold-out")),
        },
        compared,
        effort_of(project, version.cases, champion.card) if plan.kind == "matting" else {},
        [*plan.notes, *tuning.notes, *_about(compared, float(challenger.card.training["share_of_the_way"]))],
        tuning.unit,
    )
    return write_scorecard(folder, content)


def _about(compared: Sequence[Compared], share: float) -> list[str]:
    if share == UNSEEN_SHARE:
        chosen = "no cases were held apart to choose the part, so it is the usual one."
    else:
        chosen = "the part was chosen on cases that neither train nor judge."
    notes = [f"The new weights lie {100 * share:.3g} % of the way from the model in use to what was learnt; {chosen}"]
    if len({row.group for row in compared}) < 2:
        notes.append(
            "What the model was first judged by is not on this machine: what it may have lost there is not measured."
        )
    return notes
