"""What a person does, with real mouse and key events."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication

from medapp.annotation.edits import Stroke
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan
from medapp.ui.panels.library import describe
from medapp.ui.proposing import plane_patch
from tests.builders import make_scan, write_dicom_series

LEFT = Qt.MouseButton.LeftButton


def disc_scan(depth=6, size=96):
    """A bright disc that moves a little from slice to slice."""
    z, y, x = np.indices((depth, size, size))
    disc = (y - 48) ** 2 + (x - 40 - z) ** 2 < 18**2
    noise = np.random.default_rng(1).normal(0, 5, disc.shape)
    values = np.where(disc, 120, -80) + noise
    return Scan(values.astype(np.int16), Geometry.from_spacing((3.0, 0.8, 0.8)), "CT", "HU", series_key="disc")


@pytest.fixture
def disc_window(window, open_files, tmp_path):
    write_dicom_series(tmp_path / "disc", disc_scan())
    open_files(window, tmp_path / "disc")
    window.set_workspace("annotate")
    window.grid.set_layout("1")
    window.document.set_window(20, 400)
    QApplication.processEvents()
    return window


def spot(window, x, y):
    """The widget point of a pixel of the slice on screen."""
    return window.grid.views[0].annotation_point(x, y).toPoint()


def wheel(view, steps):
    at = QPointF(view.rect().center())
    event = QWheelEvent(
        at,
        view.mapToGlobal(at),
        QPoint(),
        QPoint(0, 120 * steps),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view, event)


def test_opening_a_folder_shows_the_series_and_lists_it(window, open_files, tmp_path):
    write_dicom_series(tmp_path / "ct", make_scan((5, 20, 24)))

    open_files(window, tmp_path / "ct")

    document = window.document
    assert document.scan.shape == (5, 20, 24)
    assert document.project.path.suffix == ".medapp"
    assert describe(document.series) == "CT · 24×20×5"
    assert window.grid.isVisible()
    assert document.default_window.width == 400


def test_the_first_slice_is_there_before_the_series_is(window, qtbot, tmp_path):
    write_dicom_series(tmp_path / "ct", make_scan((160, 64, 64)))
    arrived = []
    window.document.slice_arrived.connect(lambda _path, z: arrived.append((z, window.document.series is None)))

    window.opening.open_paths([str(tmp_path / "ct")])
    qtbot.waitUntil(lambda: window.document.series is not None, timeout=20000)

    assert arrived[0] == (80, True)
    assert window.document.position_zyx[0] == 80


def test_the_wheel_goes_through_the_slices(disc_window):
    before = disc_window.document.position_zyx[0]

    wheel(disc_window.grid.views[0], 1)

    assert abs(disc_window.document.position_zyx[0] - before) == 1


def test_digits_choose_window_presets_and_with_a_brush_its_opacity(disc_window, qtbot):
    document = disc_window.document
    document.set_tool("navigate")
    disc_window.grid.views[0].setFocus()

    qtbot.keyClick(disc_window.grid.views[0], Qt.Key.Key_2)
    assert (document.window.center, document.window.width) == (-600, 1500)

    document.set_tool("brush")
    qtbot.keyClick(disc_window.grid.views[0], Qt.Key.Key_3)
    assert document.brush.opacity == pytest.approx(0.3)
    assert (document.window.center, document.window.width) == (-600, 1500)


def test_a_click_becomes_a_matte_that_undo_takes_back(disc_window, qtbot):
    document = disc_window.document
    document.set_tool("prompt")
    z = document.position_zyx[0]
    view = disc_window.grid.views[0]

    qtbot.mouseClick(view, LEFT, pos=spot(disc_window, 40 + z, 48))
    qtbot.waitUntil(lambda: bool(document.candidates), timeout=20000)
    mask = document.candidate.mask
    assert 0.8 < mask.sum() / (np.pi * 18**2) < 1.2

    qtbot.keyClick(view, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: document.active_matte is not None and bool(document.active_matte.annotated_slices()))
    alpha = document.active_matte.slice_alpha(z)
    assert alpha[48, 40 + z] == 1.0
    assert alpha[5, 5] == 0.0
    assert document.tool == "brush"
    assert document.annotation.marks == {z: "annotated"}

    qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not document.active_matte.annotated_slices()
    assert document.annotation.marks == {}


def test_comma_and_point_walk_through_smaller_and_larger_regions(disc_window, qtbot):
    document = disc_window.document
    document.set_tool("prompt")
    view = disc_window.grid.views[0]
    qtbot.mouseClick(view, LEFT, pos=spot(disc_window, 43, 48))
    qtbot.waitUntil(lambda: bool(document.candidates), timeout=20000)
    first = document.candidate.mask.sum()
    rows = disc_window.proposals._list
    assert "score" not in rows.item(0).text()  # a tree's scores have no scale that a person could read

    qtbot.keyClick(view, Qt.Key.Key_Comma)
    qtbot.keyClick(view, Qt.Key.Key_Comma)
    smaller = document.candidate.mask.sum()
    qtbot.keyClick(view, Qt.Key.Key_Period)
    larger = document.candidate.mask.sum()
    qtbot.keyClick(view, Qt.Key.Key_Period)

    assert smaller < larger < first == document.candidate.mask.sum()


def test_esc_rejects_the_proposal_and_keeps_accepted_work(disc_window, qtbot):
    document = disc_window.document
    matte = document.new_matte()
    document.set_tool("prompt")
    view = disc_window.grid.views[0]
    qtbot.mouseClick(view, LEFT, pos=spot(disc_window, 43, 48))
    qtbot.waitUntil(lambda: bool(document.candidates), timeout=20000)

    qtbot.keyClick(view, Qt.Key.Key_Escape)

    assert document.candidates == []
    assert document.active_matte.matte_id == matte.matte_id


def test_a_locked_matte_takes_no_proposal(disc_window, qtbot):
    document = disc_window.document
    matte = document.new_matte()
    document.change_matte(matte.matte_id, is_locked=True)
    document.set_tool("prompt")
    qtbot.mouseClick(disc_window.grid.views[0], LEFT, pos=spot(disc_window, 43, 48))
    qtbot.waitUntil(lambda: bool(document.candidates), timeout=20000)

    disc_window.proposals.accept.click()

    assert "locked" in disc_window.messages.all[-1].text
    assert not document.active_matte.annotated_slices()


def test_proposals_of_a_slice_wait_in_a_tray(disc_window, qtbot):
    document, tray = disc_window.document, disc_window.proposals
    qtbot.keyClick(disc_window.grid.views[0], Qt.Key.Key_A)
    qtbot.waitUntil(lambda: bool(document.candidates), timeout=20000)
    proposed = list(document.candidates)
    assert not any((a.mask & b.mask).any() for a in proposed for b in proposed if a is not b)
    assert len(document.history) == 0

    qtbot.keyClick(disc_window.grid.views[0], Qt.Key.Key_N)
    assert document.candidate is proposed[1 % len(proposed)]
    qtbot.mouseClick(tray.reject, LEFT)
    assert len(document.candidates) == len(proposed) - 1
    qtbot.mouseClick(tray.accept, LEFT)
    qtbot.waitUntil(lambda: len(document.history) == 2, timeout=20000)


def stroke(window, qtbot, points):
    view = window.grid.views[0]
    places = [spot(window, *point) for point in points]
    qtbot.mousePress(view, LEFT, pos=places[0])
    for place in places[1:]:
        qtbot.mouseMove(view, place)
    qtbot.mouseRelease(view, LEFT, pos=places[-1])


def test_a_stroke_is_saved_at_once_and_there_after_a_restart(disc_window, make_window, qtbot):
    document = disc_window.document
    document.new_matte("Liver")
    document.set_tool("brush")
    stroke(disc_window, qtbot, [(30, 30), (36, 30), (42, 31)])
    assert document.active_matte.annotated_slices() == (3,)
    qtbot.waitUntil(lambda: document.save_state[0] == "saved" and bool(document.save_state[1]))
    assert disc_window.status.saved.text().startswith("✓ saved")
    painted = document.active_matte.slice_stored(3)
    document.go_to_slice(0, 1)
    qtbot.wait(500)
    path = document.project.path
    disc_window.close()

    again = make_window(recent_projects=(str(path),))
    again.session.open_project(path)
    qtbot.waitUntil(lambda: again.document.series is not None, timeout=20000)

    assert again.document.position_zyx[0] == 1
    assert again.document.tool == "brush"
    assert (again.document.window.center, again.document.window.width) == (20, 400)
    assert again.document.active_matte.name == "Liver"
    assert np.array_equal(again.document.active_matte.slice_stored(3), painted)

    again.document.undo()
    assert again.document.position_zyx[0] == 3
    assert not again.document.active_matte.annotated_slices()


def test_what_a_crash_left_behind_is_recovered_and_said(disc_window, make_window, qtbot, tmp_path):
    document = disc_window.document
    document.new_matte()
    document.set_tool("brush")
    stroke(disc_window, qtbot, [(30, 30), (40, 30)])
    qtbot.waitUntil(lambda: document.save_state[0] == "saved" and bool(document.save_state[1]))
    copy = document.project.save_copy(tmp_path / "as if killed.medapp")  # a copy made while it is open

    again = make_window()
    again.session.open_project(copy)
    qtbot.waitUntil(lambda: again.document.active_matte is not None, timeout=20000)

    assert again.messages.all[0].text.startswith("Recovered 2 strokes from ")
    assert again.document.active_matte.annotated_slices() == (3,)


def test_interpolating_is_previewed_and_one_undo_step(disc_window, qtbot):
    document = disc_window.document
    matte = document.new_matte()
    disc = np.zeros((96, 96), np.uint16)
    disc[40:60, 30:50] = 65535
    for z in (0, 4):
        document.apply(Stroke(matte.matte_id, (plane_patch(matte, disc, z, 0),)))
    matte = document.active_matte
    steps = len(document.history)

    disc_window.actions_by_name["interpolate"].trigger()
    qtbot.waitUntil(lambda: document.preview is not None, timeout=20000)
    assert matte.annotated_slices() == (0, 1, 2, 3, 4)
    assert len(document.history) == steps

    qtbot.keyClick(disc_window.grid.views[0], Qt.Key.Key_Escape)
    assert matte.annotated_slices() == (0, 4)

    disc_window.actions_by_name["interpolate"].trigger()
    qtbot.waitUntil(lambda: document.preview is not None, timeout=20000)
    qtbot.keyClick(disc_window.grid.views[0], Qt.Key.Key_Return)
    assert len(document.history) == steps + 1
    assert document.annotation.marks == {
        0: "annotated",
        4: "annotated",
        1: "propagated",
        2: "propagated",
        3: "propagated",
    }

    document.undo()
    assert matte.annotated_slices() == (0, 4)
    assert document.annotation.marks == {0: "annotated", 4: "annotated"}


def test_copy_to_next_slice_goes_there_with_the_matte(disc_window):
    document = disc_window.document
    matte = document.new_matte()
    square = np.zeros((96, 96), np.uint16)
    square[10:20, 10:20] = 65535
    document.apply(Stroke(matte.matte_id, (plane_patch(matte, square, 3, 0),)))

    disc_window.actions_by_name["copy_next"].trigger()

    assert document.position_zyx[0] == 4
    assert np.array_equal(document.active_matte.slice_stored(4), square)


def test_filtering_the_series_makes_a_derived_one_under_its_source(disc_window, qtbot):
    document, restoring = disc_window.document, disc_window.restoring
    qtbot.waitUntil(lambda: bool(restoring.models), timeout=30000)
    restoring.choose("filter-nlm")

    disc_window.set_workspace("restore")
    disc_window.restore.run.click()
    qtbot.waitUntil(lambda: document.processed is not None, timeout=60000)
    qtbot.waitUntil(lambda: len(document.series_list) == 2 and not disc_window.bridge.running(), timeout=60000)

    derived = document.series_list[1]
    assert derived.source_id == document.series_list[0].series_id
    assert derived.kind == "filtered"
    assert document.compare_mode == "swipe"
    assert "Mean shift" in disc_window.restore._report.text()
    qtbot.waitUntil(lambda: document.processed_slices is None)

    document.open_series(derived.series_id)
    qtbot.waitUntil(lambda: document.is_derived)
    assert document.original.shape == document.scan.shape
    assert document.annotation.series_id == derived.source_id


def test_ticks_and_words_agree_and_the_derived_series_is_exported(disc_window, qtbot, tmp_path):
    document, restoring = disc_window.document, disc_window.restoring
    qtbot.waitUntil(lambda: bool(restoring.models), timeout=30000)
    restoring.choose("filter-nlm")
    disc_window.set_workspace("restore")
    disc_window.restore.run.click()
    qtbot.waitUntil(lambda: len(document.series_list) == 2 and not disc_window.bridge.running(), timeout=60000)
    disc_window.set_workspace("curate")
    curate = disc_window.curate

    assert curate.count.text() == "2 of 2 shown · 2 for export"
    document.change_series(document.series_list[0].series_id, "Change patient group", group="pat07")
    assert {curate.model.index(row, 2).data() for row in range(2)} == {"pat07"}
    document.change_series(document.series_list[0].series_id, "Exclude series", included=False)
    assert curate.count.text() == "2 of 2 shown · 1 for export"
    document.change_series(document.series_list[0].series_id, "Include series", included=True)

    curate.export.click()
    sheet = next(w for w in QApplication.topLevelWidgets() if type(w).__name__ == "ExportSheet" and w.isVisible())
    sheet.out.setText(str(tmp_path / "out"))
    sheet.go.click()
    qtbot.waitUntil(lambda: sheet.go.text() == "Export", timeout=60000)
    sheet.go.click()
    qtbot.waitUntil(lambda: "verified" in sheet.state.text(), timeout=60000)
    assert len(list((tmp_path / "out").rglob("derived/z*.dcm"))) == 6
    groups = json.loads((tmp_path / "out" / "splits.json").read_text())["groups"]
    assert sum(len(names) for names in groups.values()) == 1  # source and derived series never part
    sheet.close()


def test_a_photograph_is_asked_for_its_modality_once_per_folder(window, qtbot, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((20, 30), ord(name[0]), np.uint8)).save(tmp_path / name)
    asked = []
    window.opening.modality_needed.connect(asked.append)

    window.opening.open_paths([str(tmp_path / "a.png")])
    assert len(asked) == 1
    window.opening.open_paths([str(tmp_path / "a.png")], "unknown")
    qtbot.waitUntil(lambda: window.document.series is not None and not window.bridge.running(), timeout=20000)
    window.opening.open_paths([str(tmp_path / "b.png")])
    qtbot.waitUntil(lambda: len(window.document.series_list) == 2, timeout=20000)

    assert len(asked) == 1
    assert window.document.series_list[1].modality is None


def test_curate_filters_excludes_groups_and_exports(window, qtbot, open_files, tmp_path):
    write_dicom_series(tmp_path / "one", make_scan((3, 16, 16)), SeriesDescription="Thorax")
    open_files(window, tmp_path / "one")
    for name in ("pat07_left.png", "pat08_left.png"):
        Image.fromarray(np.full((20, 30), int(name[4]) * 20, np.uint8)).save(tmp_path / name)
        window.opening.open_paths([str(tmp_path / name)], "unknown")
    qtbot.waitUntil(lambda: len(window.document.series_list) == 3, timeout=20000)
    window.set_workspace("curate")
    curate = window.curate

    qtbot.keyClicks(curate.filter, "thorax")
    assert curate.filtered.rowCount() == 1
    curate.filter.clear()
    assert curate.filtered.rowCount() == 3

    assert "2 series without a patient id → 2 groups: pat07, pat08" in curate.matches.text()
    curate.apply_groups.click()
    assert {info.group for info in window.document.series_list} >= {"pat07", "pat08"}

    curate.filter.setText("pat08")
    curate.table.selectRow(0)
    curate.exclude.click()
    curate.table.clearSelection()
    curate.filter.clear()
    assert len(curate.chosen()) == 2
    window.document.undo()
    assert len(curate.chosen()) == 3

    curate.export.click()
    sheet = next(w for w in QApplication.topLevelWidgets() if type(w).__name__ == "ExportSheet" and w.isVisible())
    sheet.out.setText("somewhere")
    sheet.go.click()
    assert "whole path" in sheet.state.text()
    sheet.out.setText(str(tmp_path / "out"))
    sheet.go.click()
    qtbot.waitUntil(lambda: sheet.go.text() == "Export", timeout=60000)
    assert not (tmp_path / "out").exists()
    sheet.go.click()
    qtbot.waitUntil(
        lambda: (tmp_path / "out" / "manifest.json").exists() and not window.bridge.running(), timeout=60000
    )
    qtbot.waitUntil(lambda: "verified" in sheet.state.text())
    sheet.close()


def test_importing_a_mask_makes_a_matte(disc_window, qtbot, tmp_path):
    import nibabel

    labels = np.zeros((6, 96, 96), np.uint8)
    labels[2:4, 40:50, 30:40] = 1
    affine = disc_window.document.scan.geometry.affine_xyz
    nibabel.save(nibabel.Nifti1Image(labels.transpose(2, 1, 0), affine), tmp_path / "labels.nii.gz")

    disc_window.opening.import_masks([str(tmp_path / "labels.nii.gz")])
    qtbot.waitUntil(lambda: disc_window.document.active_matte is not None, timeout=20000)

    assert disc_window.document.active_matte.annotated_slices() == (2, 3)
    disc_window.document.undo()
    assert len(disc_window.document.annotation) == 0
