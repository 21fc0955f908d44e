"""Model panel: every model of the library with its fit, figures and limits, by mouse and keys."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QScrollArea

from medapp import paths
from medapp.networks.card import Intake
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan
from medapp.store.project import Project
from tests.networks.toys import keep_toy


@pytest.fixture
def panel(window, qtbot):
    """The panel in a window without any series."""
    window.set_workspace("restore")
    window.show_dock("model")
    qtbot.waitUntil(lambda: window.model.choice.count() > 0, timeout=20000)
    return window.model


def entries(panel):
    return {panel.choice.itemData(i) for i in range(panel.choice.count())}


def test_every_shipped_model_is_told_of_without_an_open_series(panel):
    shipped = {path.name.removesuffix(".recipe.json") for path in paths.shipped_models_dir().glob("*.recipe.json")}
    with_weights = {name for name in shipped if (paths.shipped_models_dir() / f"{name}.safetensors").is_file()}
    assert with_weights <= entries(panel)
    for name in with_weights:
        panel.show_model(name)
        assert "Limits\n• " in panel.text, name
        assert "Measured on held-out patients\n" in panel.text, name
        assert "Not measured" not in panel.text, name


def test_figures_are_told_against_what_one_would_otherwise_use(panel):
    panel.show_model("ct-denoise-rat")
    assert "dB above non-local means (95 %: " in panel.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "7 patients" in panel.text
    panel.show_model("guided-matting")
    assert "Tumour, told a rough mask: error" in panel.text
    assert "All of them, told a box: error" in panel.text
    panel.show_model("depth-pddm-style")
    assert "below the better plain fill at 5 to 1,000 points" in panel.text
    assert not panel.use.isVisible()  # it restores nothing


def test_in_a_small_window_no_line_is_cut_off_and_nothing_empty_follows_the_last(panel, window, qtbot):
    window.resize(1024, 700)
    panel.show_model("ct-denoise-rwkv")

    def is_whole(line):
        return line.height() >= line.heightForWidth(line.width()) > 2 * line.fontMetrics().height()

    def figures():
        return [line for line in panel.findChildren(QLabel) if "dB above" in line.text() and line.isVisible()]

    qtbot.waitUntil(lambda: len(figures()) >= 4 and all(map(is_whole, figures())), timeout=5000)
    inner = panel.findChild(QScrollArea).widget()
    qtbot.waitUntil(lambda: inner.height() == inner.heightForWidth(inner.width()), timeout=5000)  # and no empty end


def test_keys_walk_through_the_models_and_a_button_takes_one(window, tmp_path, qtbot):
    keep_toy(paths.user_models_dir(), "restore_rwkv", takes=(Intake("MR", "arbitrary", (0.0, 1.0)),))
    with Project.create(tmp_path / "p") as project:
        values = np.random.default_rng(0).random((2, 40, 48)).astype(np.float32)
        project.add_series(Scan(values, Geometry.from_spacing((4.0, 2.0, 2.0)), "MR"))
    window.session.open_project(tmp_path / "p.medapp")
    qtbot.waitUntil(lambda: window.document.series is not None, timeout=20000)
    window.set_workspace("restore")
    window.show_dock("model")
    qtbot.waitUntil(lambda: "toy-restore-rwkv" in entries(window.model), timeout=20000)
    window.restoring.choose("filter-nlm")
    panel = window.model
    assert panel.choice.currentData() == "filter-nlm"

    panel.choice.setFocus()
    while panel.choice.currentData() != "toy-restore-rwkv":
        before = panel.choice.currentIndex()
        QTest.keyClick(panel.choice, Qt.Key.Key_Up)
        assert panel.choice.currentIndex() < before
    assert window.restoring.model_id == "filter-nlm"  # looking changes nothing
    QTest.mouseClick(panel.use, Qt.MouseButton.LeftButton)
    assert window.restoring.model_id == "toy-restore-rwkv"
    assert not panel.use.isEnabled()
    assert panel.use.text() == "Chosen for restoring"
    assert "Not measured on held-out patients" in panel.text
