"""Help: keys on one sheet, hints, about, and what to do after a crash."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping

from PySide6.QtWidgets import QApplication, QGridLayout, QPlainTextEdit, QVBoxLayout, QWidget

from medapp.ui import theme
from medapp.ui.actions import SPECS, shown_key
from medapp.ui.dialogs.sheet import Sheet
from medapp.ui.widgets import label, scrolling, wrapped

_MOUSE = (
    ("Wheel", "Slices; on a single image zoom"),
    ("Ctrl+wheel, Z", "Zoom at the pointer"),
    ("Middle-drag, Space", "Pan"),
    ("W + left-drag", "Window and level"),
    ("Shift+hover", "Recentre the other views"),
    ("Shift+wheel", "Five slices; brush size"),
    ("Alt+wheel", "Smaller or larger region"),
    ("Ctrl + paint", "Invert brush and eraser"),
    ("Shift+click", "Straight stroke"),
    ("Alt+click", "Pick α; exclude"),
    ("\\ or O held", "Show the original"),
    ("Double-click", "Maximise viewport"),
)
HINTS = (
    ("wheel", "Turn the wheel to go through the slices."),
    ("contrast", "Hold W and drag on the image for contrast."),
    ("pan", "Hold Space and drag to move the image."),
)


class ShortcutSheet(Sheet):
    """All keys, in columns."""

    def __init__(self, parent: QWidget | None, keys: Mapping[str, str]) -> None:
        super().__init__(parent, "Keyboard and mouse", 1000)
        entries = [(shown_key(keys.get(n, s.keys[0] if s.keys else "")), s) for n, s in SPECS.items()]
        shown = [(key, spec.text.rstrip("…")) for key, spec in entries if key and not _is_row(spec.name)]
        shown += [("1–9, 0", "Opacity, or window preset"), ("Shift+1–9, 0", "Flow")]
        shown += [("Alt+1–9", "Window presets"), *_MOUSE]
        grid = QGridLayout()
        grid.setHorizontalSpacing(theme.MARGIN)
        grid.setVerticalSpacing(2)
        lines = -(-len(shown) // 3)
        for place, (key, text) in enumerate(shown):
            column, line = divmod(place, lines)
            name = label(key)
            font = name.font()
            font.setBold(True)
            name.setFont(font)
            grid.addWidget(name, line, column * 2)
            grid.addWidget(label(text, "secondary"), line, column * 2 + 1)
        for column in (1, 3, 5):
            grid.setColumnStretch(column, 1)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.addLayout(grid)
        layout.addStretch(1)
        scroll = scrolling(inner)
        scroll.setMinimumHeight(480)
        self.body.addWidget(scroll)
        self.add_button("Close", self.accept, "primary")


def _is_row(name: str) -> bool:
    return name.startswith(("digit_", "flow_", "preset_"))


class AboutSheet(Sheet):
    """Version and licence."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent, "About medapp", 460)
        self.body.addWidget(wrapped(f"medapp {app_version()}, Apache-2.0. Not for diagnosis.", ""))
        self.body.addWidget(wrapped(f"Python {platform.python_version()} on {platform.system()}."))
        self.body.addWidget(wrapped("Icons: Phosphor, MIT. Qt for Python: LGPL-3.0."))
        self.add_button("Close", self.accept, "primary")


class CrashSheet(Sheet):
    """Something of ours broke: the work is saved, the report can be copied."""

    def __init__(self, parent: QWidget | None, report: str) -> None:
        super().__init__(parent, "Something unexpected happened", 560)
        self.report = report
        self.body.addWidget(
            wrapped("Your work is saved up to the last stroke. Copy the report to send it; it holds no names.", "")
        )
        text = QPlainTextEdit(report)
        text.setReadOnly(True)
        text.setMinimumHeight(180)
        text.setAccessibleName("Report")
        self.body.addWidget(text)
        self.add_button("Copy report", lambda: QApplication.clipboard().setText(report))
        self.add_button("Close", self.accept, "primary")


def app_version() -> str:
    """As installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("medapp")
    except PackageNotFoundError:
        return "development version"


def report_head() -> str:
    """The first lines of every report: versions, no names."""
    return f"medapp {app_version()}, Python {sys.version.split()[0]}, {platform.platform()}\n\n"
