"""Small questions that come with a guess."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from medapp.ui.dialogs.questions import ModalityQuestion, guessed_modality

NOT_KNOWN = "unknown"


@pytest.mark.parametrize(
    ("path", "modality"),
    [
        ("/home/victor/scan.nii.gz", NOT_KNOWN),
        ("/home/doctor/pictures/a.png", NOT_KNOWN),
        ("/data/carpet/summer/history.png", NOT_KNOWN),
        ("/data/patient_1.nii", NOT_KNOWN),
        ("/data/lung_ct-3.nii.gz", "CT"),
        ("/data/CT01/0001.png", "CT"),
        (r"C:\scans\CT\a.nii", "CT"),
        ("/data/sub-01/anat/sub-01_T1w.nii.gz", "MR"),
        ("/data/MR/a.png", "MR"),
        ("/data/head.flair.nii", "MR"),
        ("/data/PET/a.nii", "PT"),
        ("/data/suv_a.nii", "PT"),
        ("/data/ct/case_pet.nii", "PT"),  # the file says more than its folder
        ("/data/pet-ct/a.nii", NOT_KNOWN),
        ("/data/histology/a.png", "SM"),
        ("/data/H&E/a.png", "SM"),
        ("/data/stained.png", "SM"),
    ],
)
def test_the_modality_is_guessed_from_whole_words(path, modality):
    assert guessed_modality([path]) == modality


def test_files_that_contradict_each_other_leave_the_guess_open():
    assert guessed_modality(["/data/ct.nii", "/data/pet.nii"]) == NOT_KNOWN
    assert guessed_modality(["/data/t1.nii", "/data/t2.nii", "/data/a.nii"]) == "MR"


def test_the_question_begins_at_the_guess(qtbot):
    answers = []
    sheet = ModalityQuestion(None, ["/home/victor/liver_mr.nii.gz"], lambda paths, value: answers.append(value))
    qtbot.addWidget(sheet)

    sheet._on_open()

    assert answers == ["MR"]


def test_the_keyboard_begins_at_the_guess(qtbot):
    answers = []
    sheet = ModalityQuestion(None, ["/data/liver_mr.nii.gz"], lambda paths, value: answers.append(value))
    qtbot.addWidget(sheet)
    sheet.present()
    qtbot.waitExposed(sheet)

    assert sheet.focusWidget() is next(choice for choice in sheet.choices if choice.isChecked())
    qtbot.keyClick(sheet.focusWidget(), Qt.Key.Key_Space)
    sheet._on_open()

    assert answers == ["MR"]
