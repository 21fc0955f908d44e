"""A click with a matting model: strip of masks, alpha, uncertainty, unknown band."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication, QTabBar

from medapp import paths
from medapp.annotation.edits import Stroke
from medapp.annotation.matte import FULL
from medapp.requests import MattingRequest
from medapp.ui.prompts import MattingSet, Prompt
from medapp.ui.proposing import candidates_of, plane_patch
from tests.builders import write_dicom_series
from tests.matting.toy_matting import keep_toy_matting
from tests.ui.test_stories import disc_scan, spot

LEFT = Qt.MouseButton.LeftButton


def open_disc(make_window, open_files, tmp_path, **preferences):
    window = make_window(**preferences)
    write_dicom_series(tmp_path / "disc", disc_scan())
    open_files(window, tmp_path / "disc")
    window.set_workspace("annotate")
    window.grid.set_layout("1")
    window.document.set_window(20, 400)
    window.show_dock("proposals")
    QApplication.processEvents()
    return window


def with_toy(window, qtbot):
    source = window.proposals.source
    qtbot.waitUntil(lambda: source.findText("Toy matting") >= 0, timeout=20000)
    source.setCurrentIndex(source.findText("Toy matting"))
    source.activated.emit(source.currentIndex())
    window.document.set_tool("prompt")
    return window


@pytest.fixture
def matting_window(make_window, open_files, tmp_path, qtbot):
    """A window with one disc on screen, whose clicks a toy matting model answers."""
    keep_toy_matting(paths.user_models_dir())
    return with_toy(open_disc(make_window, open_files, tmp_path), qtbot)


@pytest.fixture
def guided_window(make_window, open_files, tmp_path, qtbot):
    """The same with a model that looks at rough masks."""
    keep_toy_matting(paths.user_models_dir(), config={"input_channels": 2}, inputs=("rough_mask",))
    return with_toy(open_disc(make_window, open_files, tmp_path), qtbot)


@pytest.fixture
def answered(matting_window, qtbot):
    """The same after a click on the disc."""
    document = matting_window.document
    qtbot.mouseClick(matting_window.grid.views[0], LEFT, pos=spot(matting_window, 43, 48))
    qtbot.waitUntil(lambda: document.matting is not None, timeout=20000)
    return matting_window


def requests_of(window):
    return [request for request in window.bridge._queue.requests if isinstance(request, MattingRequest)]


def test_a_click_gives_a_strip_of_masks_and_an_alpha(answered):
    document, strip = answered.document, answered.proposals.matting.strip
    assert [c.name for c in document.candidates] == [*(f"Mask {n}" for n in range(1, 9)), "α"]
    assert [strip.item(n).text() for n in range(strip.count())] == [c.name for c in document.candidates]
    assert strip.isVisible()
    assert not answered.proposals._list.isVisible()
    left, top, right, bottom = document.matting.box_xyxy
    assert left <= 25 and right >= 61 and top <= 30 and bottom >= 66  # noqa: PT018 - one box around the disc
    assert right - left < 80  # the region under the click said how large the thing is


def test_in_a_small_window_the_buttons_of_a_proposal_lie_on_nothing_else(matting_window, qtbot):
    matting_window.resize(1024, 700)
    matting_window.document.new_matte()  # its fields need height too
    qtbot.mouseClick(matting_window.grid.views[0], LEFT, pos=spot(matting_window, 43, 48))
    qtbot.waitUntil(lambda: matting_window.document.matting is not None, timeout=20000)
    matting_window.grab()

    assert matting_window.height() == 700
    tray, tabs = matting_window.proposals, [one for one in matting_window.findChildren(QTabBar) if one.isVisible()]
    assert not matting_window.docks["layers"].isHidden()
    assert [one.tabText(0) for one in tabs] == ["Proposals"]
    below = tabs[0].mapTo(matting_window, QPoint(0, 0)).y()
    assert tray.accept.mapTo(matting_window, QPoint(0, tray.accept.height())).y() <= below
    strip = tray.matting.strip
    qtbot.waitUntil(lambda: strip.visibleRegion().boundingRect().height() == strip.height(), timeout=5000)


def test_the_same_click_gives_the_same_strip_again(answered, qtbot):
    document, view = answered.document, answered.grid.views[0]
    first = document.matting
    alpha = document.candidates[-1].alpha
    qtbot.keyClick(view, Qt.Key.Key_Escape)
    assert document.matting is None
    qtbot.mouseClick(view, LEFT, pos=spot(answered, 43, 48))
    qtbot.waitUntil(lambda: document.matting is not None, timeout=20000)
    assert document.matting.seed == first.seed
    assert np.array_equal(document.candidates[-1].alpha, alpha)


def test_keys_step_through_the_strip_and_the_pointer_only_looks(answered, qtbot):
    document, view, strip = answered.document, answered.grid.views[0], answered.proposals.matting.strip
    qtbot.keyClick(view, Qt.Key.Key_N)
    assert document.candidate_index == strip.currentRow() == 1
    qtbot.keyClick(strip, Qt.Key.Key_Right)
    assert document.candidate_index == strip.currentRow() == 2

    strip.scrollToItem(strip.item(0))
    qtbot.mouseMove(strip.viewport(), strip.visualItemRect(strip.item(0)).center())
    qtbot.waitUntil(lambda: document.shown_candidate is document.candidates[0])
    assert document.candidate is document.candidates[2]
    qtbot.mouseMove(strip.viewport(), QPoint(2, strip.viewport().height() - 2))
    document.hover_candidate(None)
    assert document.shown_candidate is document.candidate


def test_a_mask_and_the_alpha_are_accepted_one_by_one_and_undone_one_by_one(answered, qtbot):
    document, view = answered.document, answered.grid.views[0]
    answered.proposals._hard.setChecked(True)
    z, seed = document.position_zyx[0], document.matting.seed
    document.step_candidate(2)
    mask = document.candidate.mask
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert np.array_equal(document.active_matte.slice_alpha(z) == 1, mask)
    assert document.history.undo_text == f"Accept mask 3 of 8 from Toy matting 1, seed {seed}"
    assert document.matting is not None  # the others may be accepted too

    document.step_candidate(20)
    alpha = document.candidate.alpha
    answered.proposals.mode.setCurrentIndex(1)
    answered.proposals.mode.activated.emit(1)
    answered.proposals.accept.click()
    np.testing.assert_allclose(document.active_matte.slice_alpha(z), alpha, atol=1e-4)
    assert document.history.undo_text == f"Replace with α from Toy matting 1, seed {seed}"

    qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(document.active_matte.slice_alpha(z) == 1, mask)
    qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not document.active_matte.slice_alpha(z).any()


def test_the_strip_names_the_matte_that_accepting_made(answered, qtbot):
    assert answered.proposals._text.text().endswith("for a new matte")

    qtbot.keyClick(answered.grid.views[0], Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: answered.document.active_matte is not None, timeout=20000)

    assert answered.proposals._text.text().endswith(f"for “{answered.document.active_matte.name}”")


def test_what_is_uncertain_becomes_the_unknown_band_in_one_step(answered, qtbot):
    document, view, tray = answered.document, answered.grid.views[0], answered.proposals.matting
    z = document.position_zyx[0]
    rows, columns = document.matting.uncertainty.shape
    ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None].repeat(columns, axis=1)  # a toy is unsure everywhere
    document.set_candidates(list(document.candidates), 0, replace(document.matting, uncertainty=ramp))
    tray.bits.set_value(0.5)
    expected = document.matting.uncertain(tray.bits.value(), (96, 96))
    assert 0 < expected.sum() < expected.size
    matte = document.new_matte()
    steps = len(document.history)

    qtbot.keyClick(view, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)

    assert len(document.history) == steps + 1
    assert np.array_equal(matte.slice_stored(z, 0, "unknown").astype(bool), expected)
    assert np.array_equal(matte.slice_alpha(z) == 1, document.candidate.mask)  # it was empty: the shown mask goes in
    assert "Toy matting 1, seed" in document.history.undo_text
    tray.to_band.click()
    assert "already" in answered.messages.all[-1].text
    qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not matte.slice_stored(z, 0, "unknown").any()
    assert not matte.slice_alpha(z).any()


def test_a_band_that_leaves_nothing_sure_is_refused(answered):
    document = answered.document
    matte = document.new_matte()
    answered.matte_proposing.uncertain_to_band(0.0)
    assert "Raise the threshold" in answered.messages.all[-1].hint
    assert not matte.slice_stored(document.position_zyx[0], 0, "unknown").any()


def test_the_threshold_leaves_the_middle_of_a_thing_known_until_it_is_chosen():
    row, column = np.mgrid[:40, :40]
    distance = np.hypot(row - 20, column - 20)
    for sure, expected in ((0.05, 0.1), (0.45, 0.5)):
        uncertainty = np.where(np.abs(distance - 12) < 2, 1.0, sure).astype(np.float32)
        matting = MattingSet((5, 5, 45, 45), uncertainty, 1, "Toy 1")
        mask = np.zeros((50, 50), dtype=bool)
        mask[5:45, 5:45] = distance < 12
        assert matting.suggested_bits(mask) == expected


def test_the_band_of_a_locked_matte_stays(answered):
    document = answered.document
    matte = document.new_matte()
    document.change_matte(matte.matte_id, is_locked=True)
    answered.matte_proposing.uncertain_to_band(0.02)
    assert "locked" in answered.messages.all[-1].text
    assert not matte.slice_stored(document.position_zyx[0], 0, "unknown").any()


def test_the_uncertainty_lies_over_its_slice_only(answered, qtbot):
    document, view = answered.document, answered.grid.views[0]

    def picture():
        return view.grab().toImage()

    before = picture()
    qtbot.keyClick(view, Qt.Key.Key_V, Qt.KeyboardModifier.ShiftModifier)
    assert answered.proposals.matting.uncertainty.isChecked()
    assert picture() != before
    document.step_slice(0, 1)
    there = picture()
    document.show_uncertainty(False)
    assert picture() == there


def test_more_masks_a_new_draw_and_the_mean_ask_again_at_the_same_place(answered, qtbot):
    document, tray = answered.document, answered.proposals.matting
    seed = document.matting.seed
    tray.count.setValue(4)
    qtbot.waitUntil(lambda: len(document.candidates) == 5, timeout=20000)
    assert document.matting.seed == seed
    tray.anew.click()
    qtbot.waitUntil(lambda: document.matting is not None and document.matting.seed == seed + 1, timeout=20000)
    tray.mean_first.setChecked(True)
    qtbot.waitUntil(lambda: requests_of(answered)[-1].mean_first and not document.is_proposing, timeout=20000)
    last = requests_of(answered)[-1]
    assert (last.count, last.seed) == (4, seed + 1)
    assert document.settings.matting_count == 4


def test_a_box_is_the_crop_and_the_latest_prompt_wins(matting_window, qtbot):
    document, view = matting_window.document, matting_window.grid.views[0]
    document.prompt_kind = "box"
    for x0, y0, x1, y1 in ((5, 5, 30, 25), (25, 30, 60, 66)):
        qtbot.mousePress(view, LEFT, pos=spot(matting_window, x0, y0))
        qtbot.mouseMove(view, spot(matting_window, x1, y1))
        qtbot.mouseRelease(view, LEFT, pos=spot(matting_window, x1, y1))
    qtbot.waitUntil(lambda: document.matting is not None, timeout=20000)
    left, top, right, bottom = document.matting.box_xyxy
    assert left < 25 < 60 < right
    assert top < 30 < 66 < bottom
    assert len(requests_of(matting_window)) == 2


def test_esc_while_it_is_drawing_leaves_nothing_behind(matting_window, qtbot):
    document, view = matting_window.document, matting_window.grid.views[0]
    qtbot.mouseClick(view, LEFT, pos=spot(matting_window, 43, 48))
    assert matting_window.proposals._waiting.isVisible()
    qtbot.keyClick(view, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not document.is_proposing)
    qtbot.wait(400)
    assert document.candidates == []
    assert document.matting is None


def test_without_a_matting_model_the_choice_is_absent(make_window, open_files, tmp_path, monkeypatch, qtbot):
    monkeypatch.setattr(paths, "shipped_models_dir", lambda: tmp_path / "none")
    window = open_disc(make_window, open_files, tmp_path)
    qtbot.waitUntil(lambda: bool(window.restoring.models), timeout=20000)
    assert [window.proposals.source.itemText(n) for n in range(window.proposals.source.count())] == ["Region tree"]
    assert not window.actions_by_name["uncertain_to_band"].isEnabled()


def test_a_click_on_what_is_painted_starts_from_it_and_one_beside_it_from_its_region(guided_window, qtbot):
    document, view = guided_window.document, guided_window.grid.views[0]
    z = document.position_zyx[0]
    qtbot.mouseClick(view, LEFT, pos=spot(guided_window, 43, 48))
    qtbot.waitUntil(lambda: document.matting is not None, timeout=20000)
    assert document.matting.told == "region"
    assert guided_window.proposals._text.text() == "From the region, for a new matte"
    assert "told the region" in document.candidates[-1].note
    of_region = document.candidates[-1].alpha
    qtbot.keyClick(view, Qt.Key.Key_Escape)

    matte = document.new_matte()
    painted = np.zeros((96, 96), dtype=np.uint16)
    painted[40:60, 35:50] = FULL
    document.apply(Stroke(matte.matte_id, (plane_patch(matte, painted, z, 0),), "Brush stroke"))
    qtbot.mouseClick(view, LEFT, pos=spot(guided_window, 43, 48))
    qtbot.waitUntil(lambda: document.matting is not None, timeout=20000)
    assert document.matting.told == "active matte"
    left, top, right, bottom = document.matting.box_xyxy
    assert right - left == bottom - top == 30  # one and a half times what is painted
    assert not np.array_equal(document.candidates[-1].alpha, of_region)

    seed = document.matting.seed
    document.apply(Stroke(matte.matte_id, (plane_patch(matte, np.zeros_like(painted), z, 0),), "Erase"))
    guided_window.matte_proposing.draw_anew()
    qtbot.waitUntil(lambda: document.matting is not None and document.matting.seed == seed + 1, timeout=20000)
    assert document.matting.told == "active matte"  # more draws of the same place
    assert not list(document.project.cache_dir.glob("rough-*.npy"))


def test_a_click_where_the_whole_slice_looks_most_like_one_thing_is_answered(guided_window, qtbot):
    document, proposing = guided_window.document, guided_window.proposing
    view = guided_window.grid.views[0]
    z = document.position_zyx[0]
    qtbot.waitUntil(lambda: proposing.tree(0, z) is not None, timeout=20000)
    key, tree = next(iter(proposing._trees.items()))
    score = tree.score.copy()
    score[tree.parent == np.arange(len(tree.parent))] = score.max() + 1
    proposing._trees[key] = replace(tree, score=score)

    candidates, index = candidates_of(proposing._trees[key], [Prompt("point", ((43.0, 48.0),), True, 0, z)])
    assert 0 <= index < len(candidates)

    qtbot.mouseClick(view, LEFT, pos=spot(guided_window, 43, 48))
    qtbot.waitUntil(lambda: document.matting is not None, timeout=20000)
    assert not document.is_proposing


@pytest.fixture
def only_own_models(tmp_path, monkeypatch):
    (tmp_path / "no-models").mkdir()
    monkeypatch.setattr(paths, "shipped_models_dir", lambda: tmp_path / "no-models")


def draw_a_box(window, qtbot):
    view = window.grid.views[0]
    window.document.prompt_kind = "box"
    window.document.tool_changed.emit()
    qtbot.mousePress(view, LEFT, pos=spot(window, 26, 30))
    qtbot.mouseMove(view, spot(window, 60, 66))
    qtbot.mouseRelease(view, LEFT, pos=spot(window, 60, 66))
    qtbot.waitUntil(lambda: window.document.matting is not None, timeout=20000)


def test_a_box_alone_is_offered_to_the_model_that_is_made_for_it(only_own_models, guided_window, qtbot):
    window, document, panel = guided_window, guided_window.document, guided_window.proposals
    keep_toy_matting(paths.user_models_dir(), "toy-box", name="Toy box")
    window.restoring.refresh()
    qtbot.waitUntil(lambda: panel.source.findText("Toy box") >= 0, timeout=20000)
    qtbot.mouseClick(window.grid.views[0], LEFT, pos=spot(window, 43, 48))
    qtbot.waitUntil(lambda: document.matting is not None, timeout=20000)
    assert not panel.better.isVisible()  # it saw the region under the click
    qtbot.keyClick(window.grid.views[0], Qt.Key.Key_Escape)

    draw_a_box(window, qtbot)
    assert panel.better.isVisible()
    assert panel.better.text() == "Ask Toy box"
    box = document.matting.box_xyxy

    panel.better.click()
    qtbot.waitUntil(lambda: document.matting is not None and document.matting.model == "Toy box 1", timeout=20000)
    assert document.matting.box_xyxy == box
    assert not panel.better.isVisible()
    assert panel._text.text() == "From Toy box 1, for a new matte"
    assert panel.source.currentText() == "Toy matting"  # the next click is answered as before
    window.matte_proposing.draw_anew()
    qtbot.waitUntil(lambda: not document.is_proposing, timeout=20000)
    assert document.matting.model == "Toy box 1"  # more draws of the same


def test_without_a_model_for_boxes_none_is_offered(only_own_models, guided_window, qtbot):
    draw_a_box(guided_window, qtbot)

    assert guided_window.document.matting.told == ""
    assert not guided_window.proposals.better.isVisible()
