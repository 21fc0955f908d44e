"""PySide6 6.12.0 steals references from None and True on Python before 3.12; these notice."""

import sys

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget


class Sender(QObject):
    fired = Signal(bool)


def test_calls_that_return_nothing_leave_none_alone(qtbot):
    widget = QWidget()
    qtbot.addWidget(widget)
    before = sys.getrefcount(None)

    for _ in range(1000):
        widget.setEnabled(True)

    assert sys.getrefcount(None) > before - 50


def test_emitting_leaves_true_alone(qtbot):
    sender = Sender()
    before = sys.getrefcount(True)

    for _ in range(1000):
        sender.fired.emit(True)

    assert sys.getrefcount(True) > before - 50
