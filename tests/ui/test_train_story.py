"""The Train workspace with the real service: corrections become a model, which is adopted and rolled back."""

from __future__ import annotations

import sys

import pytest
from PySide6.QtCore import Qt

from medapp import paths
from medapp.store.project import Project
from tests.matting.toy_matting import keep_toy_matting
from tests.services.corrected import add_case

LEFT = Qt.MouseButton.LeftButton
CONTROL_ALT = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
MINUTES = 0.02


@pytest.fixture(autouse=True)
def no_shared_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDAPP_SHARED", str(tmp_path / "nothing"))


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "work", reader="Ann") as made:
        for seed in range(5):
            add_case(made, seed, f"P-{seed}")
    return made.path


@pytest.fixture
def page(make_window, project, qtbot):
    """The page of a window in which the toy model is chosen."""
    keep_toy_matting(paths.user_models_dir())
    window = make_window()
    window.session.open_project(project)
    qtbot.waitUntil(lambda: window.document.series is not None, timeout=30000)
    qtbot.keyClick(window, Qt.Key.Key_5, CONTROL_ALT)
    qtbot.waitUntil(lambda: window.training.recipe.survey is not None, timeout=30000)
    box = window.train.base_model
    box.setFocus()
    for _ in range(box.findData("toy-matting") - box.currentIndex()):
        qtbot.keyClick(box, Qt.Key.Key_Down)
    qtbot.waitUntil(lambda: window.training.recipe.model_id == "toy-matting")
    qtbot.waitUntil(lambda: not window.training.recipe.is_counting)
    window.training.recipe.set_minutes(MINUTES)
    return window.train


def test_corrections_become_a_model_that_is_adopted_and_rolled_back(page, qtbot):
    window = page.window()
    training = window.training
    assert page.survey.text() == "5 accepted mattes of 5 patients"
    assert "15 of the recommended 20 accepted mattes are missing" in page.missing.text()

    qtbot.mouseClick(page.start, LEFT)
    qtbot.waitUntil(lambda: training.state in ("compared", "failed"), timeout=90000)
    assert training.problem is None
    qtbot.waitUntil(lambda: len(training.watch.pictures) > 0 and page.scorecard.isVisible())
    log = "\n".join(training.watch.log)
    for line in ("Gathering what was accepted", "Training", "Comparing the new model", "Compared after"):
        assert line in log
    assert page.scorecard.metrics.item(0, 0).text() == "SAD ↓\n/ 1000"
    assert page.scorecard.cases.rowCount() > 0
    assert "Toy matting 1.2" in page.scorecard.headline.text()

    qtbot.mouseClick(page.scorecard.adopt, LEFT)
    qtbot.waitUntil(lambda: training.recipe.adopted_id == "toy-matting.2", timeout=30000)
    served = next(row for row in training.recipe.models if row["id"] == "toy-matting")
    assert (served["in_use"], page.base_model.currentText()) == ("toy-matting.2", "Toy matting 1.2")
    qtbot.waitUntil(lambda: page.data_set.findData("mattes-1") > 0)

    qtbot.mouseClick(page.scorecard.roll_back, LEFT)
    qtbot.waitUntil(lambda: training.recipe.adopted_id == "", timeout=30000)
    assert page.base_model.currentText() == "Toy matting 1"
    assert training.record.decision == "rolled back"


def test_one_patient_alone_is_refused_with_a_hint(page, project, qtbot):
    window = page.window()
    for info in window.document.series_list:
        window.document.change_series(info.series_id, group="P-0")
    qtbot.waitUntil(lambda: window.document.save_state[0] == "saved", timeout=20000)

    qtbot.mouseClick(page.start, LEFT)
    qtbot.waitUntil(lambda: window.training.state == "failed", timeout=60000)
    assert "All of it is of one patient" in window.training.problem.text
    assert "The model in use is unchanged" in window.training.problem.text
    assert "another patient" in window.training.problem.hint


def test_the_window_reads_runs_without_torch_and_loads_the_plots_late():
    import subprocess

    code = (
        "import sys, medapp.ui.main_window, medapp.ui.training, medapp.ui.panels.train\n"
        "assert 'pyqtgraph' not in sys.modules, 'the start would wait for the plots'\n"
        "import medapp.ui.panels.train_curves\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
