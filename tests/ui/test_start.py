import subprocess
import sys

import numpy as np
from PIL import Image
from PySide6.QtCore import Qt

from medapp.ui import opening
from tests.builders import make_scan, write_dicom_series

NEVER = ("torch", "pymatting", "numba", "SimpleITK", "transformers")
LATER = ("sqlalchemy", "pydicom", "nibabel", "scipy", "pyqtgraph")

START = """
import sys
from pathlib import Path
from medapp.ui import app
from medapp.ui.main_window import MainWindow

made = MainWindow.__init__
def build(self, *given, **named):
    made(self, *given, **named)
    self.first_painted.connect(lambda: print("at paint:", *sorted(sys.modules)))
MainWindow.__init__ = build
status = app.run_window(grab=Path(sys.argv[1]))
print("at end:", *sorted(sys.modules))
sys.exit(status)
"""


def test_the_window_paints_before_anything_slow_is_loaded_and_never_loads_torch(tmp_path):
    picture = tmp_path / "window.png"

    done = subprocess.run([sys.executable, "-c", START, str(picture)], capture_output=True, text=True, timeout=200)

    assert done.returncode == 0, done.stderr
    at_paint, at_end = (line.split() for line in done.stdout.splitlines() if line.startswith("at "))
    assert not set(at_paint) & {*NEVER, *LATER}
    assert not set(at_end) & set(NEVER)
    assert picture.stat().st_size > 1000


def test_a_stranger_is_offered_images_and_a_sample(window):
    page = window.start_page
    assert page.isVisible()
    assert page.open.isVisible()
    assert page.sample.isVisible()
    assert "CPU" in page.machine.text() or "GPU" in page.machine.text()
    assert not window.tool_strip.isVisible()


def test_dropping_nothing_readable_says_so_in_one_line(window, qtbot, tmp_path):
    bad = tmp_path / "note.dcm"
    bad.write_bytes(b"this is no image at all" * 20)

    window.opening.open_paths([str(bad)])
    qtbot.waitUntil(lambda: bool(window.messages.all) and not window.bridge.running(), timeout=20000)

    assert len(window.messages.all) == 1
    assert "could not be read" in window.messages.all[0].text
    assert window.document.series is None


def test_an_empty_folder_is_told(window, qtbot, tmp_path):
    window.opening.open_paths([str(tmp_path)])
    qtbot.waitUntil(lambda: bool(window.messages.all) and not window.bridge.running(), timeout=20000)

    assert "nothing in there" in window.messages.all[0].text


def test_a_second_small_file_comes_on_screen_too(window, open_files, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "map_partial", lambda _found: None)  # so small that it is read before it is shown
    for place, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((8, 8), 40 * place, np.uint8)).save(tmp_path / name)
        open_files(window, tmp_path / name, modality="unknown")
        qtbot.waitUntil(lambda n=name: window.document.series.title == n[0], timeout=20000)


def test_after_a_cancelled_import_the_series_from_before_is_back(window, open_files, qtbot, tmp_path):
    write_dicom_series(tmp_path / "first", make_scan((3, 16, 16)), SeriesDescription="First")
    open_files(window, tmp_path / "first")
    write_dicom_series(tmp_path / "second", make_scan((200, 128, 128)))

    document, bridge = window.document, window.bridge
    document.slice_arrived.connect(lambda *_: [bridge.cancel(job.number) for job in bridge.running()])
    window.opening.open_paths([str(tmp_path / "second")])
    qtbot.waitUntil(lambda: bridge.jobs()[-1].state == "stopped", timeout=20000)

    qtbot.waitUntil(lambda: document.series is not None and document.scan.shape == (3, 16, 16), timeout=20000)
    assert len(document.series_list) == 1
    assert not list((document.project.path / "voxels").glob("partial-*"))


def test_workspaces_change_panels_and_never_the_data(window, qtbot):
    shown = {}
    for key in (Qt.Key.Key_1, Qt.Key.Key_2, Qt.Key.Key_3, Qt.Key.Key_4):
        modifiers = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
        qtbot.keyClick(window, key, modifiers)
        shown[window.workspace] = {name for name, dock in window.docks.items() if not dock.isHidden()}

    assert list(shown) == ["review", "restore", "annotate", "curate"]
    assert "restore" in shown["restore"]
    assert {"layers", "proposals"} <= shown["annotate"]
    assert window.curate.isVisible()


def test_image_only_hides_every_panel_and_again_restores(window, qtbot):
    before = {name for name, dock in window.docks.items() if dock.isVisible()}

    qtbot.keyClick(window, Qt.Key.Key_F9)
    assert not any(dock.isVisible() for dock in window.docks.values())

    qtbot.keyClick(window, Qt.Key.Key_F9)
    assert {name for name, dock in window.docks.items() if dock.isVisible()} == before


def test_nothing_is_wider_than_the_smallest_window(window, qtbot):
    window.resize(window.minimumSize())
    for name in ("review", "restore", "annotate", "curate"):
        window.set_workspace(name)
        qtbot.wait(30)
        assert window.width() == 1024, name
        assert window.height() == 700, name


def test_settings_survive_a_restart(window):
    from medapp import settings

    window.document.change_settings(reader="AB", theme="light")

    assert settings.load().reader == "AB"
    assert settings.load().theme == "light"
