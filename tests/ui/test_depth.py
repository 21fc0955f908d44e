"""Depth completion in the window: points by mouse and keyboard, a depth file, the map, its reading, the ruler."""

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from medapp import paths
from medapp.networks.architectures.pddm import PDDM
from medapp.networks.checkpoint import keep_weights
from medapp.requests import DepthFileRequest
from medapp.scan.depth import read_depth
from medapp.ui.canvas.depth_tools import DepthField
from medapp.ui.dialogs.depth_file_sheet import DepthFileSheet
from medapp.ui.opening import UNKNOWN
from tests.depth.test_completing import TOY, toy_card

SIZE = (60, 80)
LEFT, NO_KEYS = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


@pytest.fixture
def frame(window, qtbot, open_files, tmp_path):
    """A colour frame in the Restore workspace; a toy depth model is in the library."""
    keep_weights(PDDM(**TOY).state_dict(), toy_card(), paths.user_models_dir())
    y, x = np.indices(SIZE)
    Image.fromarray(np.stack([2 * x, 3 * y, 90 + 0 * x], axis=-1).astype(np.uint8)).save(tmp_path / "frame.png")
    open_files(window, tmp_path / "frame.png", modality=UNKNOWN)
    window.set_workspace("restore")
    qtbot.waitUntil(lambda: "toy-depth" in dict(window.depth_mode.models), timeout=30000)
    window.depth_mode.choose("toy-depth")
    return window.document


def _view(window):
    return window.grid.views[0]


def _click(window, x, y):
    view = _view(window)
    QTest.mouseClick(view, LEFT, NO_KEYS, view.annotation_point(x, y).toPoint())


def _drag(window, start, end):
    view = _view(window)
    a, b = (view.annotation_point(*p).toPoint() for p in (start, end))
    QTest.mousePress(view, LEFT, NO_KEYS, a)
    for share in (0.5, 1.0):
        QTest.mouseMove(view, QPoint(round(a.x() + share * (b.x() - a.x())), round(a.y() + share * (b.y() - a.y()))))
    QTest.mouseRelease(view, LEFT, NO_KEYS, b)


def _type(window, text, key=Qt.Key.Key_Return):
    field = _view(window).findChild(DepthField)
    QTest.keyClicks(field, text)
    QTest.keyClick(field, key)


def _place(window, *points):
    window.depth_map.place.click()
    for x, y, depth in points:
        _click(window, x, y)
        _type(window, str(depth))


def _run(window, qtbot):
    window.depth_map.run.click()
    qtbot.waitUntil(lambda: window.document.depth.map is not None and not window.bridge.running(), timeout=30000)


def test_points_are_clicked_and_typed_listed_changed_and_undone(window, qtbot, frame):
    panel = window.depth_map
    assert panel.isVisible()
    _place(window, (20, 15, 31.5), (60, 40, 48))

    assert frame.depth.points == ((20.0, 15.0, 31.5), (60.0, 40.0, 48.0))
    shown = [[panel.table.item(r, c).text() for c in (0, 1)] for r in range(panel.table.rowCount())]
    assert shown == [["20, 15", "31.5"], ["60, 40", "48"]]

    _drag(window, (60, 40), (50, 30))
    assert frame.depth.points[1] == (50.0, 30.0, 48.0)
    panel.table.item(0, 1).setText("33,5")
    assert frame.depth.points[0][2] == 33.5
    panel.table.item(0, 1).setText("no number")
    assert panel.table.item(0, 1).text() == "33.5"
    _click(window, 50, 30)
    QTest.keyClick(_view(window), Qt.Key.Key_Delete)
    assert len(frame.depth.points) == 1
    for _ in range(3):
        frame.undo()
    assert frame.depth.points == ((20.0, 15.0, 31.5), (60.0, 40.0, 48.0))
    frame.redo()
    assert frame.depth.points[1] == (50.0, 30.0, 48.0)
    panel.clear.click()
    assert frame.depth.points == ()
    frame.undo()
    assert len(frame.depth.points) == 2


def test_a_point_without_a_depth_does_not_count(window, qtbot, frame):
    window.depth_map.place.click()
    _click(window, 20, 15)
    field = _view(window).findChild(DepthField)
    assert field.isVisible()
    assert QApplication.focusWidget() is field
    QTest.keyClicks(field, "b")  # a letter is no tool here, and no depth
    assert frame.tool == "depth"
    _type(window, "", Qt.Key.Key_Return)
    assert field.isVisible()
    _type(window, "", Qt.Key.Key_Escape)
    assert not field.isVisible()
    _click(window, 30, 20)
    _click(window, 40, 30)  # the one before had no depth
    _type(window, "12")
    assert frame.depth.points == ((40.0, 30.0, 12.0),)
    window.set_workspace("review")
    assert frame.tool == "navigate"


def test_points_are_placed_and_moved_by_keyboard(window, qtbot, frame):
    frame.set_tool("depth")
    view = _view(window)
    view.setFocus()
    frame.set_position((0, 20, 30))
    QTest.keyClick(view, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClick(view, Qt.Key.Key_Return)
    _type(window, "25")
    assert frame.depth.points == ((40.0, 20.0, 25.0),)
    QTest.keyClick(view, Qt.Key.Key_Down)
    assert frame.depth.points == ((40.0, 21.0, 25.0),)
    QTest.keyClick(view, Qt.Key.Key_Delete)
    assert frame.depth.points == ()


def test_points_stay_with_the_project(window, make_window, qtbot, frame):
    _place(window, (20, 15, 31.5))
    path = frame.project.path
    window.close()
    qtbot.waitUntil(lambda: not window.isVisible())

    again = make_window()
    again.session.open_project(path)
    qtbot.waitUntil(lambda: again.document.series is not None, timeout=30000)
    assert again.document.depth.points == ((20.0, 15.0, 31.5),)


def test_depth_comes_back_beside_the_frame_and_is_read_under_the_pointer(window, qtbot, frame):
    _place(window, (20, 15, 31.5), (60, 40, 48))
    _run(window, qtbot)

    qtbot.waitUntil(lambda: frame.compare_mode == "side by side", timeout=30000)
    assert [info.kind for info in frame.series_list] == ["original", "depth", "depth"]
    view = _view(window)
    view.repaint()
    chips = [pane.chip.text for pane in view.panes]
    assert chips == ["ORIGINAL", "DEPTH · PDDM-style toy 1"]
    assert view.panes[1].depth_bar.role == "depth"
    QTest.mouseMove(view, view.annotation_place(30, 20, view.panes[1].area).toPoint())
    depth, sigma = frame.depth.map.depth_mm[20, 30], frame.depth.map.sigma_mm[20, 30]
    assert window.depth_map.reading.text() == f"{depth:.1f} ± {sigma:.1f} mm"
    assert "mm" in window.status._value.text()

    window.depth_map.show_sigma.click()
    qtbot.waitUntil(lambda: window.depth_mode.role == "sigma", timeout=30000)
    view.repaint()
    assert view.panes[1].chip.text.startswith("DEPTH ±")
    assert view.panes[1].depth_bar.role == "sigma"
    assert window.depth_map.reading.text() == f"{depth:.1f} ± {sigma:.1f} mm" or not window.depth_map.reading.text()
    window.depth_map.show_depth.click()
    qtbot.waitUntil(lambda: window.depth_mode.role == "depth", timeout=30000)


def test_the_ruler_reads_depth_until_the_camera_is_known(window, qtbot, frame):
    window.depth_mode.choose("fill-nearest")
    _place(window, (20, 15, 40))
    _run(window, qtbot)
    frame.set_compare("single")
    window.depth_map.ruler.click()
    _drag(window, (10, 30), (60, 30))

    assert frame.depth.ruler_text() == "depth +0.0 mm"
    assert "focal length" in window.depth_map._ruler_text.text()
    window.depth_map.camera.setCurrentIndex(window.depth_map.camera.findData("focal"))
    window.depth_map.camera.activated.emit(1)
    window.depth_map.focal.setValue(100)
    assert frame.depth.length.along_mm == pytest.approx(20, abs=1)  # 50 px at 40 mm and 100 px
    assert "along the surface" in window.depth_map._ruler_text.text()
    QTest.keyClick(_view(window), Qt.Key.Key_Escape)
    assert frame.depth.ruler is None


def test_a_depth_file_is_read_only_by_a_stated_scale(window, qtbot, frame, tmp_path):
    sparse = np.zeros(SIZE, dtype=np.uint16)
    sparse[::8, ::8] = 2000
    Image.fromarray(sparse).save(tmp_path / "sparse.png")
    asked = []
    sheet = DepthFileSheet(window, tmp_path / "sparse.png", asked.append)
    qtbot.addWidget(sheet)
    sheet.present()
    assert not sheet.read.isEnabled()
    assert sheet.scale.findText("EndoSLAM", Qt.MatchFlag.MatchStartsWith) < 0
    sheet.scale.setCurrentIndex(sheet.scale.count() - 1)
    sheet.factor.setValue(0.02)
    assert "value × 0.02" in sheet.meaning.text()
    sheet.read.click()

    window.depth_mode.read_file(tmp_path / "sparse.png", asked[0])
    qtbot.waitUntil(lambda: window.depth_mode.file is not None, timeout=30000)
    assert window.depth_mode.file.points == 80
    assert "80 depths" in window.depth_map._file_text.text()
    _run(window, qtbot)
    assert frame.depth.map.depth_mm.shape == SIZE
    window.depth_map._drop_file.click()
    assert window.depth_mode.file is None


def test_files_of_another_size_or_without_a_scale_are_refused_in_a_message(window, qtbot, frame, tmp_path):
    Image.fromarray(np.ones((5, 5), dtype=np.uint16)).save(tmp_path / "small.png")
    for scale, words in (("mm", "5 × 5"), ("", "Nobody stated")):
        window.depth_mode.read_file(tmp_path / "small.png", scale)
        qtbot.waitUntil(lambda w=words: any(w in m.text for m in window.messages.all), timeout=30000)
    assert window.depth_mode.file is None
    assert any(isinstance(request, DepthFileRequest) for request in window.bridge._queue.requests)


def test_a_fill_needs_a_point_a_network_does_not(window, qtbot, frame):
    panel = window.depth_map
    assert panel.run.isEnabled()
    assert "relative" in panel._model_text.text()
    panel.model.setCurrentIndex(panel.model.findData("fill-linear"))
    panel.model.activated.emit(panel.model.currentIndex())
    assert not panel.run.isEnabled()
    assert "at least one" in panel._model_text.text()
    assert not panel.keeps.isVisible()


def test_a_depth_series_opens_in_colours_with_its_bar_and_is_exported(window, qtbot, frame, tmp_path):
    _place(window, (20, 15, 31.5))
    _run(window, qtbot)
    frame.open_series(window.depth_mode.partner("depth").series_id)
    qtbot.waitUntil(lambda: frame.is_derived, timeout=30000)
    frame.set_compare("single")
    view = _view(window)
    picture = view.grab_image()
    assert view.panes[0].depth_bar is not None
    centre = view.annotation_point(40, 30).toPoint()
    colour = picture.pixelColor(centre)
    assert max(colour.red(), colour.green(), colour.blue()) - min(colour.red(), colour.green(), colour.blue()) > 40
    window.depth_mode.export(tmp_path / "out")
    qtbot.waitUntil(lambda: (tmp_path / "out" / "sigma.tiff").exists() and not window.bridge.running(), timeout=30000)
    np.testing.assert_allclose(
        read_depth(tmp_path / "out" / "depth.png").depth_mm, frame.depth.map.depth_mm, atol=1 / 256
    )


def test_grey_scans_say_what_belongs_here(window, qtbot, open_files, tmp_path):
    Image.fromarray(np.full((40, 40), 90, dtype=np.uint8)).save(tmp_path / "grey.png")
    open_files(window, tmp_path / "grey.png", modality=UNKNOWN)
    window.set_workspace("restore")
    assert window.depth_map._stack.currentIndex() == 0
    assert not window.actions_by_name["tool_depth"].isEnabled()
    assert not window.actions_by_name["depth_run"].isEnabled()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_panel_fits_the_smallest_window_in_both_themes(make_window, qtbot, open_files, tmp_path, theme):
    window = make_window(theme=theme)
    Image.fromarray(np.full((40, 40, 3), 90, dtype=np.uint8)).save(tmp_path / "frame.png")
    open_files(window, tmp_path / "frame.png", modality=UNKNOWN)
    window.resize(1024, 700)
    window.set_workspace("restore")
    QTest.qWait(50)
    panel = window.depth_map
    for part in (panel.place, panel.open_file, panel.run):
        assert part.width() >= part.sizeHint().width()
        assert panel.rect().contains(part.mapTo(panel, QPoint(part.width() - 1, 0)))
