"""Measure clicks: how well a region fits after 1, 3 and 5 clicks of a simulated person, tree against SAM."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.region_tree import RegionTree
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.regions.clicks import Click, next_click, overlap
from medapp.regions.prompts import Prompts, Proposal
from medapp.regions.region_tree_builder import build_region_tree
from medapp.regions.segmenter import TREE_NAME, propose_from_tree
from medapp.services.evaluation.figures import by_group, mean_interval, rounded
from medapp.training.region_data import KNOWN, OTHER, RegionPicture, load_region_data

TASK = "regions"
CLICKS = (1, 3, 5)
BOX = "box"
STEPPED = f"{TREE_NAME}, stepped"
MEAN_KNOWN, MEAN_OTHER, MEAN_ALL = "mean of the sets trained on", "mean of the other sets", "mean of all sets"
_PICTURES_A_PATIENT = 4
_PICTURES_A_SOURCE = 40
_THINGS_A_PICTURE = 6
_DRAWS = 4000

Answer = Callable[[Prompts], list[Proposal]]


@dataclass(frozen=True, eq=False)
class ClickCase:
    """One thing that a person wants, in its picture."""

    picture: RegionPicture
    truth: NDArray[np.bool_]


@dataclass
class Clicked:
    """How far a method came with one thing.

    Attributes:
        overlaps: IoU of the first answer, by number of clicks; under ``BOX`` with a box alone.
        best: IoU of the best of the answers that were offered beside it.
        steps: Levels or answers that were stepped through, keys beside the clicks.
        click_ms: Of each answer.
    """

    overlaps: dict[int | str, float] = field(default_factory=dict)
    best: dict[int | str, float] = field(default_factory=dict)
    steps: int = 0
    click_ms: list[float] = field(default_factory=list)


def evaluate_regions(
    library: ModelLibrary, data: Path, progress: Progress, model_id: str | None = None, is_quick: bool = False
) -> dict[str, Any]:
    """The region tree, and every SAM of a library, on the ``val`` rows of a folder with ``MANIFEST.csv``.

    Args:
        library: Where the models are.
        data: The folder.
        progress: Counts pictures.
        model_id: One model; None = all that serve regions.
        is_quick: One picture a patient, two things a picture.

    Returns:
        ``{task, data_sha256, n_cases, clicks, rows, differences}``. Rows: ``{set, name, cases, patients, iou, ci95,
        best, steps, click_ms, prepare_ms}``, times as CPU time; ``iou``, ``ci95`` and ``best`` by number of clicks, as
        text, or ``box``. Differences: ``{set, name, over, clicks, difference, ci95}``.

    Raises:
        TrainingError: There are no such pictures.
        WeightsError: A model cannot be used.
        Cancelled: The user stopped it.
    """
    from medapp.regions.sam import SamEngine

    cases, sha256 = held_out_clicks(data, progress, is_quick)
    ids = [model_id] if model_id else [card.id for card in library.list() if card.serves == "regions"]
    engines = {one: SamEngine.load(library.weights_path(one)) for one in ids}
    found: dict[str, list[Clicked]] = {name: [] for name in (TREE_NAME, STEPPED, *engines)}
    prepared: dict[str, dict[str, float]] = {name: {} for name in (TREE_NAME, *engines)}
    progress.start(len(cases), "things", "clicking")
    tree: tuple[RegionPicture, RegionTree] | None = None
    for case in cases:
        picture = case.picture
        if tree is None or tree[0] is not picture:
            began = time.process_time()
            tree = picture, build_region_tree(picture.values, picture.window)
            prepared[TREE_NAME][picture.name] = 1000 * (time.process_time() - began)
            for name, engine in engines.items():
                began = time.process_time()
                engine.prepare(picture.values, picture.window)
                prepared[name][picture.name] = 1000 * (time.process_time() - began)
        found[TREE_NAME].append(clicked(case.truth, _tree_answer(tree[1])))
        found[STEPPED].append(clicked_with_steps(case.truth, tree[1]))
        for name, engine in engines.items():
            found[name].append(clicked(case.truth, _sam_answer(engine, picture)))
        progress.step()
    return {
        "task": TASK,
        "data_sha256": sha256,
        "n_cases": len(cases),
        "clicks": list(CLICKS),
        "rows": _rows(cases, found, prepared),
        "differences": _differences(cases, found, list(engines)),
    } | ({"is_quick": True} if is_quick else {})


def held_out_clicks(data: Path, progress: Progress, is_quick: bool = False) -> tuple[list[ClickCase], str]:
    """The things to click on, and one SHA-256 over their pixels; slices and things are evenly spaced, never chosen."""
    cases: list[ClickCase] = []
    pictures = load_region_data(data, "val", progress).pictures
    for source in (*KNOWN, *OTHER):
        of_patient: dict[str, list[RegionPicture]] = {}
        for picture in pictures.get(source, ()):
            of_patient.setdefault(picture.patient, []).append(picture)
        chosen = [
            picture
            for patient in sorted(of_patient)
            for picture in _spread(of_patient[patient], 1 if is_quick else _PICTURES_A_PATIENT)
        ]
        for picture in _spread(chosen, _PICTURES_A_SOURCE):
            things = sorted(picture.things(), key=np.count_nonzero)
            cases += [ClickCase(picture, thing) for thing in _spread(things, 2 if is_quick else _THINGS_A_PICTURE)]
    digest = hashlib.sha256()
    for case in cases:
        digest.update(np.ascontiguousarray(case.picture.values).tobytes())
        digest.update(np.packbits(case.truth).tobytes())
    return cases, digest.hexdigest()


def clicked(truth: NDArray[np.bool_], answer: Answer) -> Clicked:
    """One click into the middle of a thing, then each into the middle of the largest error of the first answer."""
    made = Clicked()
    made.overlaps[BOX], made.best[BOX], _ = _judged(truth, answer(Prompts(box_xyxy=_box(truth))))
    include: list[tuple[float, float]] = []
    exclude: list[tuple[float, float]] = []
    found: NDArray[np.bool_] | None = None
    for count in range(1, max(CLICKS) + 1):
        click = next_click(truth, found)
        if click is not None:
            (include if click.is_include else exclude).append(click.point_xy)
            began = time.process_time()
            answers = answer(Prompts(tuple(include), tuple(exclude)))
            made.click_ms.append(1000 * (time.process_time() - began))
            made.overlaps[count], made.best[count], found = _judged(truth, answers)
        else:  # nothing is wrong any more
            made.overlaps[count], made.best[count] = made.overlaps[count - 1], made.best[count - 1]
    return made


def clicked_with_steps(truth: NDArray[np.bool_], tree: RegionTree) -> Clicked:
    """As ``clicked``, by someone who knows the truth: at each click the level that helps most is stepped to.

    The region is accepted as it is at the first click, added or subtracted later; a level that makes it worse is not
    accepted.
    """
    made = Clicked()
    found: NDArray[np.bool_] | None = None
    for count in range(1, max(CLICKS) + 1):
        click = next_click(truth, found)
        if click is None:
            made.overlaps[count] = made.best[count] = made.overlaps[count - 1]
            continue
        found, steps = _best_level(truth, tree, click, found)
        made.steps += steps
        made.overlaps[count] = made.best[count] = overlap(found, truth)
    return made


def mean_of_sets(
    values: Mapping[str, Sequence[float]], patients: Mapping[str, Sequence[str]], seed: int = 0
) -> tuple[float, float, float]:
    """Mean over cases, patients, then sets, with its 95 % bootstrap interval: ``(mean, low, high)``.

    Patients are resampled within each set, so every set keeps its weight; of a set of one patient, who says nothing
    about others, the cases are.
    """
    random = np.random.default_rng(seed)
    drawn = np.zeros(_DRAWS)
    means = []
    for source in values:
        by_patient = by_group(values[source], patients[source])
        each = np.array(list(by_patient.values()) if len(by_patient) > 1 else values[source], dtype=np.float64)
        means.append(each.mean())
        drawn += each[random.integers(len(each), size=(_DRAWS, len(each)))].mean(axis=1)
    low, high = np.quantile(drawn / len(means), (0.025, 0.975))
    return float(np.mean(means)), float(low), float(high)


def card_figures(result: Mapping[str, Any], model_id: str) -> dict[str, Any]:
    """What the card of a model keeps: IoU by set and number of clicks, beside the region tree's, and times."""
    figures: dict[str, Any] = {
        "measured_by": f"medapp evaluate --task {TASK}",
        "data_sha256": result["data_sha256"],
        "conditions": f"{result['n_cases']} held-out things; IoU by clicks, first answer, in brackets the region tree",
    }
    of_tree = {row["set"]: row for row in result["rows"] if row["name"] == TREE_NAME}
    for row in result["rows"]:
        if row["name"] == model_id:
            iou, tree = row["iou"], of_tree[row["set"]]["iou"]
            figures[row["set"]] = {key: f"{iou[key]} ({tree[key]})" for key in iou}
            if row["prepare_ms"] is not None:
                figures["ms"] = {"embedding": row["prepare_ms"], "click": row["click_ms"]}
    return figures


# ------------------------------------------------------------------ inside


def _tree_answer(tree: RegionTree) -> Answer:
    return lambda prompts: propose_from_tree(tree, prompts)


def _sam_answer(engine: Any, picture: RegionPicture) -> Answer:
    return lambda prompts: list(engine.propose(picture.values, picture.window, prompts))


def _judged(truth: NDArray[np.bool_], answers: Sequence[Proposal]) -> tuple[float, float, NDArray[np.bool_]]:
    """IoU of the first answer and of the best one, and the first; no answer is an empty one."""
    masks = [proposal.mask for proposal in answers] or [np.zeros_like(truth)]
    overlaps = [overlap(mask, truth) for mask in masks]
    return overlaps[0], max(overlaps), masks[0]


def _best_level(
    truth: NDArray[np.bool_], tree: RegionTree, click: Click, found: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], int]:
    """The region after the best level was merged, and how many levels it lies from the one that is shown first."""
    best, steps = found, 0
    reached = -1.0 if found is None else overlap(found, truth)
    for level in range(tree.levels_at(click.point_xy)):
        region = tree.region_at(click.point_xy, level)
        if found is not None:
            region = found | region if click.is_include else found & ~region
        fits = overlap(region, truth)
        if fits > reached:
            best, reached, steps = region, fits, abs(level - tree.best_level(click.point_xy))
    assert best is not None
    return best, steps


def _box(truth: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, cols = np.nonzero(truth)
    return float(cols.min()), float(rows.min()), float(cols.max()), float(rows.max())


def _rows(
    cases: Sequence[ClickCase],
    found: Mapping[str, Sequence[Clicked]],
    prepared: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    sources = [source for source in (*KNOWN, *OTHER) if any(case.picture.source == source for case in cases)]
    rows = []
    for source in sources:
        chosen = [i for i, case in enumerate(cases) if case.picture.source == source]
        patients = [cases[i].picture.patient for i in chosen]
        for name, all_made in found.items():
            made = [all_made[i] for i in chosen]
            keys = [key for key in (*CLICKS, BOX) if key in made[0].overlaps]
            intervals = {str(key): mean_interval([m.overlaps[key] for m in made], patients) for key in keys}
            best = {str(key): mean_interval([m.best[key] for m in made], patients)[0] for key in keys}
            took = _took(cases, prepared.get(name, {}), [source])
            rows.append(_row(source, name, len(chosen), len(set(patients)), intervals, best, made, took))
    for title, members in _means(sources):
        for name, all_made in found.items():
            values, patients_of = _by_set(cases, members)
            made = [all_made[i] for one in members for i in values[one]]
            intervals, best = {}, {}
            for key in [key for key in (*CLICKS, BOX) if key in made[0].overlaps]:
                intervals[str(key)] = mean_of_sets(
                    {one: [all_made[i].overlaps[key] for i in values[one]] for one in members}, patients_of
                )
                best[str(key)] = mean_of_sets(
                    {one: [all_made[i].best[key] for i in values[one]] for one in members}, patients_of
                )[0]
            people = sum(len(set(patients_of[one])) for one in members)
            took = _took(cases, prepared.get(name, {}), members)
            rows.append(_row(title, name, len(made), people, intervals, best, made, took))
    return rows


def _row(
    source: str,
    name: str,
    cases: int,
    patients: int,
    intervals: Mapping[str, tuple[float, float, float]],
    best: Mapping[str, float],
    made: Sequence[Clicked],
    prepare_ms: Sequence[float],
) -> dict[str, Any]:
    click_ms = [ms for one in made for ms in one.click_ms]
    return {
        "set": source,
        "name": name,
        "cases": cases,
        "patients": patients,
        "iou": {key: rounded(value[0], 3) for key, value in intervals.items()},
        "ci95": {key: [rounded(limit, 3) for limit in value[1:]] for key, value in intervals.items()},
        "best": {key: rounded(value, 3) for key, value in best.items()},
        "steps": rounded(float(np.mean([one.steps for one in made])), 1),
        "click_ms": rounded(float(np.median(click_ms)), 1) if click_ms else None,
        "prepare_ms": rounded(float(np.median(prepare_ms)), 1) if prepare_ms else None,
    }


def _differences(
    cases: Sequence[ClickCase], found: Mapping[str, Sequence[Clicked]], models: Sequence[str]
) -> list[dict[str, Any]]:
    """How much better the first answer of a model is than the tree's, and its best answer than the stepped tree."""
    sources = [source for source in (*KNOWN, *OTHER) if any(case.picture.source == source for case in cases)]
    rows = []
    for name in models:
        for title, members in [*_means(sources), *((source, [source]) for source in sources)]:
            chosen, patients = _by_set(cases, members)
            for rival, ours, theirs in ((TREE_NAME, "overlaps", "overlaps"), (STEPPED, "best", "overlaps")):
                for count in CLICKS:
                    apart = {
                        one: [
                            getattr(found[name][i], ours)[count] - getattr(found[rival][i], theirs)[count]
                            for i in chosen[one]
                        ]
                        for one in members
                    }
                    mean, low, high = mean_of_sets(apart, patients)
                    rows.append(
                        {
                            "set": title,
                            "name": name,
                            "over": rival,
                            "clicks": count,
                            "difference": rounded(mean, 3),
                            "ci95": [rounded(low, 3), rounded(high, 3)],
                        }
                    )
    return rows


def _took(cases: Sequence[ClickCase], prepared: Mapping[str, float], members: Sequence[str]) -> list[float]:
    """How long the pictures of some sets took to prepare, ms."""
    names = {case.picture.name for case in cases if case.picture.source in members}
    return [prepared[name] for name in sorted(names) if name in prepared]


def _means(sources: Sequence[str]) -> list[tuple[str, list[str]]]:
    known = [source for source in sources if source in KNOWN]
    other = [source for source in sources if source in OTHER]
    groups = ((MEAN_KNOWN, known), (MEAN_OTHER, other), (MEAN_ALL, [*known, *other] if known and other else []))
    return [(title, members) for title, members in groups if members]


def _by_set(cases: Sequence[ClickCase], members: Sequence[str]) -> tuple[dict[str, list[int]], dict[str, list[str]]]:
    chosen = {one: [i for i, case in enumerate(cases) if case.picture.source == one] for one in members}
    return chosen, {one: [cases[i].picture.patient for i in chosen[one]] for one in members}


def _spread(entries: Sequence[Any], most: int) -> list[Any]:
    """At most so many of a list, evenly spaced."""
    if len(entries) <= most:
        return list(entries)
    return [entries[int(i)] for i in np.linspace(0, len(entries) - 1, most).round()]
