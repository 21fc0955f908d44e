"""What of a project counts for retraining, who trains and who judges."""

import subprocess
import sys

import numpy as np
import pytest

from medapp import paths
from medapp.errors import TrainingError, UnsuitableModelError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.requests import TrainingSetRequest
from medapp.services.gather import dealt, find_cases, freeze, survey
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from tests.matting.toy_matting import keep_toy_matting
from tests.networks.toys import keep_toy
from tests.services.corrected import add_case, add_reference

DOSE = {"kind": "ct-dose", "doses": [0.2, 0.5], "kernels": ["hann"], "views": 60}


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "work", reader="Ann") as made:
        yield made


@pytest.fixture
def card():
    return keep_toy_matting(paths.user_models_dir())


@pytest.fixture
def restorer():
    return keep_toy(paths.user_models_dir(), "rat", task="ct-denoise", degradation=DOSE)


def test_accepted_mattes_are_counted_with_what_is_missing(project, card):
    for seed in range(3):
        add_case(project, seed, f"P-{seed}", slices=2)
    told = survey(TrainingSetRequest(str(project.path), card.id), Workspace(), Progress())
    assert (told.model_id, told.kind, told.cases, told.patients) == (card.id, "matting", 6, 3)
    assert (told.recommended, told.missing, told.versions) == (20, 14, ())
    assert 0 < told.hold_out < 6
    assert any("14 of the recommended 20" in note for note in told.notes)
    assert told.effort["with_alpha"]["mattes"] == 3
    assert told.effort["by_hand"] == {"mattes": 3, "strokes_per_matte": 1.0, **_seconds(told.effort["by_hand"])}
    assert project.data_sets("matting") == ()  # looking freezes nothing


def _seconds(part):
    return {"seconds_per_matte": part["seconds_per_matte"]}


def test_mattes_of_several_readers_are_one_family(project, card):
    add_case(project, 1, "P-1", readers=("Ann", "Bo"))
    (case,) = find_cases(project, "matting", card, Progress()).cases
    assert sorted(case.readers) == ["Ann", "Bo"]


def test_what_cannot_be_learnt_from_is_left_out_and_told(project, card):
    flagged = add_case(project, 1, "P-1")
    project.set_series(flagged, state="flagged")
    empty = add_case(project, 2, "P-2")
    matte = project.annotation(empty).mattes[0]
    wipe = matte.make_patch("alpha", (0, 0, 0), np.zeros((1, 48, 48), np.uint16))
    speck = matte.make_patch("alpha", (0, 10, 10), np.full((1, 2, 2), 65535, np.uint16))
    from medapp.annotation.edits import Stroke

    project.journal(empty, Stroke(matte.matte_id, (wipe,)))
    project.journal(empty, Stroke(matte.matte_id, (speck,)))
    banded = add_case(project, 3, "P-3")
    matte = project.annotation(banded).mattes[0]
    band = matte.make_patch("unknown", (0, 20, 20), np.ones((1, 4, 4), np.uint8))
    project.journal(banded, Stroke(matte.matte_id, (band,)))
    found = find_cases(project, "matting", card, Progress())
    assert found.cases == ()
    assert len([note for note in found.notes if note.startswith("1 ")]) == 3
    with pytest.raises(TrainingError, match="no accepted mattes"):
        freeze(project, "matting", card, Progress())
    assert project.data_sets("matting") == ()


def test_one_patient_only_is_refused_before_anything_is_frozen(project, card):
    for seed in range(3):
        add_case(project, seed, "P-1")
    with pytest.raises(TrainingError, match="one patient") as caught:
        freeze(project, "matting", card, Progress())
    assert "another patient" in caught.value.hint
    assert project.training_roles("matting") == {}


def test_who_judges_once_judges_for_ever(project, card):
    for seed in range(4):
        add_case(project, seed, f"P-{seed}")
    first, _ = freeze(project, "matting", card, Progress())
    judges = {case.group for case in first.of("hold-out")}
    for seed in range(4, 12):
        add_case(project, seed, f"P-{seed}")
    second, _ = freeze(project, "matting", card, Progress())
    assert judges < {case.group for case in second.of("hold-out")}
    assert not {case.group for case in first.of("training")} & {case.group for case in second.of("hold-out")}
    assert {case.group for case in second.of("training")}.isdisjoint(case.group for case in second.of("hold-out"))
    assert freeze(project, "matting", card, Progress())[0] == second  # nothing changed: no new version


def test_a_series_put_to_a_patient_of_the_other_side_neither_trains_nor_judges(project, card):
    series = {seed: add_case(project, seed, f"P-{seed}") for seed in range(4)}
    version, _ = freeze(project, "matting", card, Progress())
    judge = version.of("hold-out")[0]
    trains = version.of("training")[0]
    project.set_series(judge.series_id, group=trains.group)
    found = dealt(find_cases(project, "matting", card, Progress()), project.training_roles("matting"))
    assert judge.series_id not in {case.series_id for case in found.cases}
    assert len({case.series_id for case in found.cases}) == len(series) - 1
    assert any("other side" in note for note in found.notes)


def test_references_are_slices_of_marked_series_in_the_models_unit(project, restorer):
    for seed in range(3):
        add_reference(project, seed, f"P-{seed}")
    add_reference(project, 7, "P-7", unit="arbitrary")
    told = survey(TrainingSetRequest(str(project.path), restorer.id), Workspace(), Progress())
    assert (told.kind, told.cases, told.patients, told.recommended, told.missing) == ("restoration", 6, 3, 10, 4)
    assert any("not in HU" in note for note in told.notes)


def test_without_references_it_is_said_how_to_mark_them(project, restorer):
    add_case(project, 1, "P-1")
    with pytest.raises(TrainingError, match="no slices of reference") as caught:
        freeze(project, "restoration", restorer, Progress())
    assert "Reference" in caught.value.hint


def test_references_of_mixed_units_say_so(project, restorer):
    add_reference(project, 1, "P-1", unit="arbitrary")
    with pytest.raises(TrainingError, match="not in HU"):
        freeze(project, "restoration", restorer, Progress())


def test_a_model_that_cannot_be_retrained_is_refused(project):
    card = keep_toy(paths.user_models_dir(), "restore_rwkv")
    assert ModelLibrary(paths.shipped_models_dir(), paths.user_models_dir()).card(card.id).degradation == {}
    with pytest.raises(UnsuitableModelError, match="cannot be retrained"):
        survey(TrainingSetRequest(str(project.path), card.id), Workspace(), Progress())


def test_copies_of_a_slice_that_judges_do_not_train(project, card):
    for seed in range(4):
        add_case(project, seed, f"P-{seed}")
    version, _ = freeze(project, "matting", card, Progress())
    judge = version.of("hold-out")[0]
    seed = int(project.series_info(judge.series_id).title.split()[1])
    copy = add_case(project, seed, "P-copy")
    second, found = freeze(project, "matting", card, Progress())
    assert copy not in {case.series_id for case in second.of("training")}
    assert any("copies" in note for note in found.notes) or copy in {c.series_id for c in second.of("hold-out")}


def test_counting_and_rolling_back_load_no_torch():
    code = "import sys, medapp.services.gather, medapp.services.adoption; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
