"""What the person of ``test_real_window`` does: run as ``python -m tests.ui.real_window_story STORY FOLDER …``."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np
from PySide6.QtCore import QPoint, QPointF, QRect, Qt, QTimer
from PySide6.QtGui import QGuiApplication, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton, QToolButton

from medapp.ui import app
from medapp.ui.canvas.furniture import MARGIN
from medapp.ui.main_window import MainWindow
from medapp.ui.panels.library import describe

LEFT, NO_KEYS = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
CONTROL = Qt.KeyboardModifier.ControlModifier
LIVER_XY = (40, 58)
AIR_XY = (4, 4)
PAINTED_XY = [(70, 40), (76, 40), (82, 41), (88, 42)]
CHIP_HEIGHT = 20


def wait_until(is_true, what, seconds=40):
    """Let the window go on until something is so."""
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        QTest.qWait(20)


class Person:
    """Looks at one window and works in it."""

    def __init__(self, window, folder):
        self.window, self.folder = window, folder
        self.document = window.document
        self.view = window.grid.views[0]
        self.seen = {"pid": os.getpid(), "platform": QGuiApplication.platformName()}

    def wait_for_series(self):
        window = self.window
        wait_until(lambda: self.document.series is not None and not window.bridge.running(), "the series")
        QTest.qWait(100)

    def press(self, key, modifiers=NO_KEYS):
        QTest.keyClick(self.view, key, modifiers)
        QTest.qWait(30)

    def place(self, xy):
        return self.view.annotation_point(*xy).toPoint()

    def wheel(self, notches):
        at = QPointF(self.view.image_area.center())
        turn = QPoint(0, 120 * notches)
        phase = Qt.ScrollPhase.NoScrollPhase
        there = self.view.mapToGlobal(at)
        event = QWheelEvent(at, there, QPoint(), turn, Qt.MouseButton.NoButton, NO_KEYS, phase, False)
        QApplication.sendEvent(self.view, event)
        QTest.qWait(30)
        return self.document.position_zyx[0]

    def drag(self, places):
        QTest.mousePress(self.view, LEFT, NO_KEYS, places[0])
        for place in places[1:]:
            QTest.mouseMove(self.view, place)
            QTest.qWait(15)
        QTest.mouseRelease(self.view, LEFT, NO_KEYS, places[-1])
        QTest.qWait(30)

    def alpha(self, xy):
        return float(self.document.active_matte.slice_alpha(self.document.position_zyx[0])[xy[1], xy[0]])

    def on_screen(self, rect):
        at = self.view.mapToGlobal(rect.topLeft())
        return [at.x(), at.y(), rect.width(), rect.height()]

    def look(self, picture):
        """Note what is there, and keep a picture of the whole screen."""
        QTest.qWait(300)
        QGuiApplication.primaryScreen().grabWindow(0).save(str(self.folder / picture))
        document = self.document
        strokes = {
            f"{matte.name} {z}": hashlib.sha256(matte.slice_stored(z).tobytes()).hexdigest()
            for matte in document.annotation
            for z in matte.annotated_slices()
        }
        trouble = [message.text for message in self.window.messages.all if message.kind != "info"]
        self.seen |= {
            "strokes": strokes,
            "matte_names": [matte.name for matte in document.annotation],
            "series": [info.kind for info in document.series_list],
            "compare": document.compare_mode,
            "position": list(document.position_zyx),
            "messages_of_trouble": trouble,
        }

    # ------------------------------------------------------------------------------------------------------- stories

    def work(self, ct_folder):
        """Open, look, click, paint, filter, compare; then close without saving anything."""
        window, document, seen = self.window, self.document, self.seen
        window.opening.open_paths([ct_folder])
        self.wait_for_series()
        seen["described"] = describe(document.series)
        hint = next(b for b in window.banners.findChildren(QPushButton) if b.text() == "Got it")
        QTest.mouseClick(hint, LEFT)
        QTest.mouseClick(self._workspace_button("Annotate"), LEFT)
        QTest.qWait(200)
        seen["slices_wheeled"] = [document.position_zyx[0], self.wheel(-1), self.wheel(-1), self.wheel(1)]

        self.press(Qt.Key.Key_P)
        QTest.mouseClick(self.view, LEFT, NO_KEYS, self.place(LIVER_XY))
        wait_until(lambda: bool(document.candidates), "the region under the click")
        seen["clicked_px"] = int(document.candidate.mask.sum())
        self.press(Qt.Key.Key_Return)
        wait_until(lambda: document.active_matte is not None and document.active_matte.annotated_slices(), "the matte")
        seen["alpha_in_liver"], seen["alpha_in_air"] = self.alpha(LIVER_XY), self.alpha(AIR_XY)

        self.press(Qt.Key.Key_B)
        document.set_brush(radius_px=4.0, hardness=0.8)
        under = {"before": self.alpha(PAINTED_XY[1])}
        self.drag([self.place(xy) for xy in PAINTED_XY])
        under["painted"] = self.alpha(PAINTED_XY[1])
        self.press(Qt.Key.Key_Z, CONTROL)
        under["undone"] = self.alpha(PAINTED_XY[1])
        self.press(Qt.Key.Key_Y, CONTROL)
        under["redone"] = self.alpha(PAINTED_XY[1])
        seen["alpha_under_brush"] = under
        wait_until(lambda: document.save_state[0] == "saved" and document.save_state[1], "the strokes to be saved")
        seen["saved_text"] = window.status.saved.text()

        self._filter()
        self._compare()
        self.look("screen.png")

    def _workspace_button(self, text):
        return next(b for b in self.window.menuWidget().findChildren(QToolButton) if b.text() == text)

    def _filter(self):
        window, document = self.window, self.document
        QTest.mouseClick(self._workspace_button("Restore"), LEFT)
        wait_until(lambda: bool(window.restoring.models), "the list of models")
        window.restoring.choose("filter-nlm")
        QTest.qWait(50)
        QTest.mouseClick(window.restore.run, LEFT)
        wait_until(
            lambda: (
                len(document.series_list) == 2 and not window.bridge.running() and document.processed_info.series_id
            ),
            "the filtered series",
        )
        QTest.qWait(300)
        patch = np.s_[document.position_zyx[0], LIVER_XY[1] - 6 : LIVER_XY[1] + 7, LIVER_XY[0] - 6 : LIVER_XY[0] + 7]
        pair = (document.original, document.processed)
        self.seen["noise_sd_hu"] = [float((s.stored[patch] * s.slope + s.intercept).std()) for s in pair]

    def _compare(self):
        view, document, seen = self.view, self.document, self.seen
        self.press(Qt.Key.Key_Q)
        area = view.image_area
        start = QPoint(view.divider_x, area.bottom() - 120)
        before = document.divider
        self.drag([start, start - QPoint(area.width() // 10, 0), start - QPoint(area.width() // 5, 0)])
        seen["divider"] = [before, document.divider]
        QTest.mouseMove(view, QPoint(area.left() + 5, area.bottom() - 5))
        QTest.qWait(100)
        seen["chips"] = [pane.chip.text for pane in view.panes]
        chips = [
            QRect(pane.clip.left() + MARGIN, pane.clip.top() + MARGIN, view.texts.chip_width(pane.chip), CHIP_HEIGHT)
            for pane in view.panes
        ]
        seen["chip_areas"] = [self.on_screen(rect) for rect in chips]
        seen["image_area"] = self.on_screen(area)
        seen["liver_on_screen"] = self.on_screen(QRect(self.place(LIVER_XY), self.place(LIVER_XY)))[:2]

    def look_again(self):
        """The next start shows the last project as it was left; undo reaches back over the restart."""
        self.wait_for_series()
        wait_until(lambda: self.document.compare_mode == "swipe", "the comparison")
        self.look("screen again.png")
        under = {"reopened": self.alpha(PAINTED_XY[1])}
        self.press(Qt.Key.Key_Z, CONTROL)
        under["undone"] = self.alpha(PAINTED_XY[1])
        self.press(Qt.Key.Key_Y, CONTROL)
        under["redone"] = self.alpha(PAINTED_XY[1])
        self.seen["alpha_under_brush"] = under


def main(story, folder, *arguments):
    """Start the program as its users do, and let the person work once the window is there."""
    folder = Path(folder)

    class Window(MainWindow):
        def __init__(self, *given):
            super().__init__(*given)
            self.first_painted.connect(lambda: QTimer.singleShot(0, self, self.be_used))  # after what the program does

        def be_used(self):
            try:
                QTest.qWaitForWindowExposed(self, 500)
                self.activateWindow()
                QTest.qWaitForWindowActive(self, 500)
                person = Person(self, folder)
                getattr(person, story)(*arguments)
                wait_until(lambda: not self.bridge.running(), "the jobs")
                (folder / f"{story}.json").write_text(json.dumps(person.seen))
            except BaseException:
                traceback.print_exc()
                self._may_close = True
                QGuiApplication.primaryScreen().grabWindow(0).save(str(folder / "failed.png"))
                self.close()
                os._exit(1)
            self.close()

    app.MainWindow = Window
    return app.run_window()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
