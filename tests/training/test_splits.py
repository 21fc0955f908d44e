"""Patients stay together, and stay on their side."""

import pytest

from medapp.errors import TrainingError
from medapp.training.recipe import Recipe
from medapp.training.splits import patient_of, split_by_patient


@pytest.mark.parametrize(
    ("paths", "patient"),
    [
        (["ct/TCGA-17-Z059_1.nii.gz", "x/TCGA-17-Z059_0.nii.gz"], "TCGA-17-Z059"),
        (["ct/lidc0001_sparse.nii.gz", "ct/lidc0001.nii.gz"], "lidc0001"),
        (["ct/sts/STS_012_ct.nii.gz", "pet/sts/STS_012_pet.nii.gz", "mri/STS_012_t1.nii.gz"], "STS_012"),
        (["mri/ms03_s1_FLAIR.nii.gz", "mri/ms03_s2_T1W.nii.gz"], "ms03"),
        (["mri/ptbp01_t1.nii.gz", "mri/ptbp01_tissue.nii.gz"], "ptbp01"),
        (["he/bmgraz001_01_256_256.png", "he/bmgraz001_02_0_0.png"], "bmgraz001"),
        (["fundus/Image_01L.jpg", "fundus/Image_01R.jpg"], "Image_01"),
        (["sub-07_ses-1_T1w.nii.gz", "sub-07_ses-2_FLAIR.nii.gz"], "sub-07"),
        (["misc/stroke_T1.nii.gz", "misc/stroke_FLAIR.nii.gz"], "stroke"),
        (["a/abdomen_ct.nii.gz"], "abdomen_ct"),
    ],
)
def test_what_was_measured_of_one_person_stays_together(paths, patient):
    assert {patient_of(path) for path in paths} == {patient}


def test_nobody_changes_sides_when_others_are_added():
    few = [f"p{n}" for n in range(40)]
    train, held_out = split_by_patient(few, 0.25, seed=3)
    more_train, more_held_out = split_by_patient([f"p{n}" for n in reversed(range(80))], 0.25, seed=3)
    assert set(train) <= set(more_train)
    assert set(held_out) <= set(more_held_out)
    assert not set(train) & set(held_out)
    assert 4 <= len(held_out) <= 16
    assert split_by_patient(few, 0.25, seed=4) != (train, held_out)


def test_both_sides_get_somebody_and_the_locked_stay_held_out():
    for seed in range(20):
        train, held_out = split_by_patient(["a", "b"], 0.1, seed)
        assert len(train) == len(held_out) == 1
        assert "a" in split_by_patient(["a", "b", "c"], 0.1, seed, locked=["a", "gone"])[1]
        assert split_by_patient(["a", "b", "c"], 0.9, seed)[0]


def test_one_patient_cannot_be_split_and_the_hint_says_what_to_do():
    with pytest.raises(TrainingError, match="only one patient") as caught:
        split_by_patient(["a", "a"], 0.2)
    assert "more patients" in caught.value.hint
    with pytest.raises(TrainingError, match="no patients"):
        split_by_patient([], 0.2)
    with pytest.raises(TrainingError, match="nobody is left"):
        split_by_patient(["a", "b"], 0.2, locked=["a", "b"])
    with pytest.raises(ValueError, match="share"):
        split_by_patient(["a", "b"], 1.0)


def test_patients_a_recipe_names_are_held_out_where_they_are_and_a_part_of_the_others_elsewhere():
    recipe = Recipe("toy", tuning_patients=("a", "b"))
    assert recipe.held_out(["a", "b", "c"]) == {"a", "b"}
    assert recipe.held_out(["b", "c"]) == {"b"}
    elsewhere = recipe.held_out([f"p{n}" for n in range(20)])
    assert 0 < len(elsewhere) < 20
    with pytest.raises(TrainingError, match="only one patient"):
        recipe.held_out(["p"])
