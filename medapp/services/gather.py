"""What a project offers to retrain a model from: accepted mattes, or slices of series marked as reference."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.annotation import Annotation
from medapp.annotation.matte import Matte
from medapp.errors import TrainingError, UnsuitableModelError
from medapp.networks.card import Card
from medapp.progress import Progress
from medapp.requests import TrainingSetRequest, TrainingSetResult
from medapp.services.effort import effort_of
from medapp.services.workspace import Workspace
from medapp.store.data_sets import DataSetKind, DataSetVersion, Role
from medapp.store.project import DataSetCase, Project
from medapp.store.series import SeriesInfo
from medapp.training.label_maps import looks_like_labels
from medapp.training.references import image_hash

RECOMMENDED: Mapping[DataSetKind, tuple[int, int]] = {"matting": (20, 5), "restoration": (10, 3)}
"""Cases and patients from which a retraining usually gains."""
RETRAINED_TASKS = ("ct-denoise", "mr-super-resolution")
"""Of restoration models."""
HOLD_OUT_SHARE = 0.25
"""Of the cases, by patient; a patient that judges once judges for ever."""
SLICES_A_MATTE = 12
"""At most so many slices of one matte, evenly spaced: neighbours tell the same."""
SLICES_A_REFERENCE = 12
_MOST_HELD_OUT = 0.4
_LEAST_PX = 20
_FULL_SHARE = 0.98
_SAME_THING = 0.5
_HALF = 32768


@dataclass(frozen=True)
class Found:
    """What counts, and what was left out.

    Attributes:
        cases: In a fixed order; roles are not dealt out yet (all ``training``) unless ``dealt``.
        notes: One sentence each.
    """

    cases: tuple[DataSetCase, ...]
    notes: tuple[str, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Patient groups, sorted."""
        return tuple(sorted({case.group for case in self.cases}))

    def of(self, role: Role) -> tuple[DataSetCase, ...]:
        """The cases of one role."""
        return tuple(case for case in self.cases if case.role == role)


def survey(request: TrainingSetRequest, workspace: Workspace, progress: Progress) -> TrainingSetResult:
    """Count what there is to retrain from; nothing is frozen and nothing written. Loads no torch.

    Raises:
        UnsuitableModelError: This model cannot be retrained from corrections.
        WeightsError: There is no such model.
        ProjectError: The project cannot be read.
        Cancelled: The user stopped it.
    """
    project, library = workspace.project(request.project), workspace.library
    in_use = library.in_use(request.model_id)
    card = library.card(in_use)
    kind = kind_of(card)
    found = dealt(find_cases(project, kind, card, progress), project.training_roles(kind))
    recommended, _ = RECOMMENDED[kind]
    notes = [*found.notes, *shortage(kind, found)]
    return TrainingSetResult(
        in_use,
        kind,
        len(found.cases),
        len(found.groups),
        len(found.of("hold-out")),
        recommended,
        max(0, recommended - len(found.cases)),
        project.data_sets(kind),
        tuple(notes),
        effort_of(project, found.cases, card) if kind == "matting" else {},
    )


def kind_of(card: Card) -> DataSetKind:
    """What a model is retrained from.

    Raises:
        UnsuitableModelError: Nothing a project holds.
    """
    if card.serves == "matting":
        return "matting"
    if card.serves == "restoration" and card.degradation and card.task in RETRAINED_TASKS and card.dims == 2:
        return "restoration"
    raise UnsuitableModelError(
        f"{card.name} cannot be retrained here: its card does not say how its training pairs were made.",
        "Choose a matting model, or a restoration model that was trained by medapp.",
    )


def freeze(project: Project, kind: DataSetKind, card: Card, progress: Progress) -> tuple[DataSetVersion, Found]:
    """Freeze what is accepted now as a data set version, or return the newest one when nothing changed.

    Raises:
        TrainingError: There is nothing to train on, or all of it is of one patient.
        SaveFailedError: The project cannot be written.
        Cancelled: The user stopped it; nothing was frozen.
    """
    found = dealt(find_cases(project, kind, card, progress, is_frozen=True), project.training_roles(kind))
    found = without_copies(project, found, progress)
    check_enough(kind, found)
    return project.add_data_set(kind, found.cases), found


def check_enough(kind: DataSetKind, found: Found) -> None:
    """Refuse what nothing can be learnt from, or nothing judged by.

    Raises:
        TrainingError: Says what is missing.
    """
    why = f" {found.notes[0]}" if found.notes else ""
    if not found.cases:
        if kind == "matting":
            raise TrainingError(
                f"The project has no accepted mattes to train on.{why}", "Accept or paint mattes, then train."
            )
        raise TrainingError(
            f"The project has no slices of reference to train on.{why}",
            "Mark series that look as restored ones should as Reference in the library.",
        )
    if len(found.groups) < 2:
        raise TrainingError(
            "All of it is of one patient, so nobody is left to judge the new model by.",
            "Add a case of another patient, or set the patient groups in Curate.",
        )
    for role in ("training", "hold-out"):
        if not any(case.role == role for case in found.cases):
            side = "train on" if role == "training" else "judge by"
            raise TrainingError(
                f"Every patient has its side by now, and nobody is left to {side}.", "Add cases of other patients."
            )


def shortage(kind: DataSetKind, found: Found) -> tuple[str, ...]:
    """What is missing from the recommended numbers, in words."""
    recommended, patients = RECOMMENDED[kind]
    what = "accepted mattes" if kind == "matting" else "slices of reference"
    notes = []
    if len(found.cases) < recommended:
        missing = recommended - len(found.cases)
        notes.append(
            f"{missing} of the recommended {recommended} {what} are missing; training is possible all the same."
        )
    if len(found.groups) < patients:
        missing = patients - len(found.groups)
        notes.append(f"{missing} of the recommended {patients} patients are missing; the hold-out says less.")
    return tuple(notes)


# ------------------------------------------------------------------------------------------------------------- finding


def find_cases(project: Project, kind: DataSetKind, card: Card, progress: Progress, is_frozen: bool = False) -> Found:
    """Everything that counts now, all of it with the role ``training``.

    Args:
        card: Of the model in use; its intakes say which references it can take.
        is_frozen: Save what is only journalled as revisions, and name them in the cases.

    Raises:
        SaveFailedError: The project cannot be written.
        Cancelled: The user stopped it.
    """
    infos = [info for info in project.series() if info.kind == "original"]
    left_out: Counter[str] = Counter()
    cases: list[DataSetCase] = []
    progress.start(len(infos), "series", "gathering")
    for info in infos:
        progress.step(note="gathering")
        if kind == "matting":
            cases += _matte_cases(project, info, is_frozen, left_out)
        elif info.is_reference:
            cases += _reference_cases(project, info, card, is_frozen, left_out)
    notes = [f"{count} {why}" for why, count in sorted(left_out.items())]
    nameless = sum(1 for info in infos if not info.group and any(case.series_id == info.series_id for case in cases))
    if nameless:
        notes.append(
            f"{nameless} series have no patient group and count as a patient each; set the groups in Curate if several "
            "are of one patient."
        )
    return Found(tuple(cases), tuple(notes))


def group_of(info: SeriesInfo) -> str:
    """Patient group of a series; one without counts as a patient of its own."""
    return info.group or f"series {info.series_id[:12]}"


def _matte_cases(project: Project, info: SeriesInfo, is_frozen: bool, left_out: Counter[str]) -> Iterator[DataSetCase]:
    revision_id, sha256, annotation = _annotation(project, info, is_frozen)
    if not len(annotation):
        return
    if info.state == "flagged":
        left_out["flagged series with mattes were left out."] += 1
        return
    things: dict[tuple[str, ...], list[int]] = {}
    for z in sorted({z for matte in annotation for z in matte.annotated_slices()}):
        usable = []
        for matte in annotation:
            if z not in matte.annotated_slices():
                continue
            why = _unusable(annotation, matte, z)
            if why:
                left_out[why] += 1
            else:
                usable.append(matte)
        for family in families(usable, z):
            things.setdefault(tuple(matte.matte_id for matte in family), []).append(z)
    for matte_ids, slices in things.items():
        readers = tuple(annotation.matte(matte_id).reader for matte_id in matte_ids)
        for z in spread(slices, SLICES_A_MATTE):
            yield DataSetCase(
                info.series_id,
                z,
                group_of(info),
                "training",
                info.voxels_sha256,
                revision_id,
                sha256,
                matte_ids,
                readers,
            )


def _annotation(project: Project, info: SeriesInfo, is_frozen: bool) -> tuple[int, str, Annotation]:
    if not is_frozen:
        return 0, "", project.annotation(info.series_id)
    if info.series_id in project.unsaved_series():
        project.save_revision(info.series_id, note="frozen for training")
    revisions = project.revisions(info.series_id)
    if not revisions:
        return 0, "", project.annotation(info.series_id)
    newest = revisions[-1]
    return newest.revision_id, newest.content_sha256, project.load_revision(newest.revision_id)


def _unusable(annotation: Annotation, matte: Matte, z: int) -> str:
    """Why a matte of a slice cannot be learnt from; empty when it can."""
    if annotation.marks.get(z) in ("propagated", "doubtful"):
        return "mattes on slices marked propagated or doubtful were left out."
    if matte.slice_stored(z, layer="unknown").any():
        return "mattes with an unknown band were left out: refine them first."
    inside = matte.slice_stored(z) >= _HALF
    if np.count_nonzero(inside) < _LEAST_PX:
        return "mattes with hardly anything inside were left out."
    if inside.mean() > _FULL_SHARE:
        return "mattes that cover the whole slice were left out."
    return ""


def families(mattes: Sequence[Matte], z: int) -> list[list[Matte]]:
    """Mattes of one slice, those of several readers of the same thing together."""
    found: list[list[Matte]] = []
    masks = {matte.matte_id: matte.slice_stored(z) >= _HALF for matte in mattes}
    for matte in mattes:
        for family in found:
            if any(other.reader == matte.reader for other in family):
                continue  # two layers of one reader are two things
            if _overlap(masks[family[0].matte_id], masks[matte.matte_id]) >= _SAME_THING:
                family.append(matte)
                break
        else:
            found.append([matte])
    return found


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    either = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / either if either else 0.0


def _reference_cases(
    project: Project, info: SeriesInfo, card: Card, is_frozen: bool, left_out: Counter[str]
) -> Iterator[DataSetCase]:
    intake = card.intake(info.modality)
    if info.state == "flagged":
        left_out["flagged series were left out."] += 1
        return
    if intake is None:
        left_out[f"series marked as reference are not of {', '.join(card.modalities)} and were left out."] += 1
        return
    if info.unit != intake.unit:
        left_out[f"series marked as reference are not in {intake.unit} and were left out."] += 1
        return
    scan = project.scan(info.series_id)
    if info.is_colour != (card.channels == 3):
        left_out["series marked as reference have other colours than the model takes and were left out."] += 1
        return
    depth = scan.shape[0]
    sample = np.stack([np.asarray(scan.slice_values(z), np.float32) for z in spread(range(depth), 3)])
    if sample.ndim == 3 and looks_like_labels(sample):
        left_out["series marked as reference are label maps and were left out."] += 1
        return
    revision_id, sha256, annotation = _annotation(project, info, is_frozen)
    for z in spread(range(depth), SLICES_A_REFERENCE):
        values = np.asarray(scan.slice_values(z), np.float32)
        if not np.ptp(values) > 0:
            left_out["slices of a single value were left out."] += 1
            continue
        ids = tuple(m.matte_id for m in annotation if z in m.annotated_slices())
        readers = tuple(annotation.matte(matte_id).reader for matte_id in ids)
        frozen = (revision_id, sha256) if ids else (0, "")
        yield DataSetCase(info.series_id, z, group_of(info), "training", info.voxels_sha256, *frozen, ids, readers)


def spread(places: Sequence[int], most: int) -> list[int]:
    """At most so many of the places, evenly spaced."""
    if len(places) <= most:
        return list(places)
    return [places[int(i)] for i in np.linspace(0, len(places) - 1, most + 2)[1:-1].round()]


# --------------------------------------------------------------------------------------------------------------- roles


def dealt(found: Found, known: Mapping[str, Role]) -> Found:
    """The cases with their roles: whoever has one keeps it, new patients are dealt out by a hash of their name.

    Args:
        known: See ``Project.training_roles``.
    """
    groups: dict[str, list[DataSetCase]] = {}
    for case in found.cases:
        groups.setdefault(case.group, []).append(case)
    roles: dict[str, Role] = {}
    for group, cases in groups.items():
        before = {role for case in cases if (role := known.get(f"series:{case.series_id}")) is not None}
        named = known.get(f"group:{group}")
        if named is not None or before:
            roles[group] = named or ("hold-out" if "hold-out" in before else "training")
    _deal_new(groups, roles)
    kept, moved = [], set()
    for case in found.cases:
        role = roles[case.group]
        if known.get(f"series:{case.series_id}", role) == role:
            kept.append(replace(case, role=role))
        else:
            moved.add(case.series_id)
    notes = found.notes
    if moved:
        notes = (*notes, f"{len(moved)} series were put to a patient of the other side and were left out of both.")
    return Found(tuple(kept), notes)


def without_copies(project: Project, found: Found, progress: Progress) -> Found:
    """Without training cases whose slice also judges under another patient: turned or flipped ones too.

    Raises:
        Cancelled: The user stopped it.
    """
    hashes = {}
    for case in found.cases:
        progress.check()
        key = (case.series_id, case.slice_index)
        if key not in hashes:
            hashes[key] = image_hash(project.scan(case.series_id).slice_values(case.slice_index))
    judged = {hashes[case.series_id, case.slice_index] for case in found.of("hold-out")} - {""}
    kept = tuple(c for c in found.cases if c.role == "hold-out" or hashes[c.series_id, c.slice_index] not in judged)
    copies = len(found.cases) - len(kept)
    notes = (f"{copies} cases are copies of cases that judge and were left out.",) if copies else ()
    return Found(kept, (*found.notes, *notes))


def _deal_new(groups: Mapping[str, Sequence[DataSetCase]], roles: dict[str, Role]) -> None:
    total = sum(len(cases) for cases in groups.values())
    new = sorted((group for group in groups if group not in roles), key=lambda g: hashlib.sha256(g.encode()).digest())
    held = sum(len(groups[group]) for group, role in roles.items() if role == "hold-out" and group in groups)
    for group in new:
        size = len(groups[group])
        wanted = held < HOLD_OUT_SHARE * total and held + size <= _MOST_HELD_OUT * total
        roles[group] = "hold-out" if wanted else "training"
        held += size if wanted else 0
    if len(groups) < 2:
        roles.update(dict.fromkeys(new, "training"))
    elif new and not held:  # all are too large: the smallest judges
        roles[min(new, key=lambda group: len(groups[group]))] = "hold-out"
