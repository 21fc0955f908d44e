"""The start page: open images, try a sample, recent projects, what this machine can do."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QToolButton, QVBoxLayout, QWidget

from medapp.ui import theme
from medapp.ui.document import Document
from medapp.ui.icons import icon
from medapp.ui.widgets import button, column, label, row, wrapped

_RECENT = 6


class StartPage(QWidget):
    """What a person sees first."""

    open_requested = Signal()
    folder_requested = Signal()
    sample_requested = Signal()
    project_requested = Signal(str)
    paths_dropped = Signal(list)

    def __init__(self, document: Document) -> None:
        super().__init__()
        self.setObjectName("startPage")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._document = document
        self.open = button(
            "Open images…", "primary", "Open images (Ctrl+O) — DICOM, NIfTI, PNG, TIFF, ZIP", "folder-open"
        )
        self.open.clicked.connect(lambda _c=False: self.open_requested.emit())
        self.folder = button("Open folder…", "", "Open folder (Ctrl+Shift+O) — every image in it", "folders")
        self.folder.clicked.connect(lambda _c=False: self.folder_requested.emit())
        self.sample = button("Try a sample", "", "Three small bundled cases", "test-tube")
        self.sample.clicked.connect(lambda _c=False: self.sample_requested.emit())
        title = label("medapp", "headline")
        line = wrapped("Restore, segment, matte and curate medical images. Or drop files and folders here.")
        self._recent_title = label("Recent projects", "title")
        self._recent = QVBoxLayout()
        self._recent.setSpacing(2)
        self.machine = label(machine_line(), "secondary")
        block = QWidget()
        block.setFixedWidth(460)
        block.setLayout(
            column(
                title,
                line,
                theme.GROUP_GAP,
                row(self.open, self.folder, self.sample, -1),
                theme.GROUP_GAP,
                self._recent_title,
                self._recent,
                theme.GROUP_GAP,
                self.machine,
                margin=0,
                spacing=6,
            )
        )
        self.setLayout(column(-1, row(-1, block, -1), -1, margin=theme.GROUP_GAP))
        self.setFocusProxy(self.open)
        self.setAcceptDrops(True)
        document.settings_changed.connect(self._rebuild)
        self._rebuild()

    def _rebuild(self) -> None:
        while self._recent.count():
            widget = self._recent.takeAt(0).widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        there = [Path(p) for p in self._document.settings.recent_projects if Path(p).is_dir()]
        for path in there[:_RECENT]:
            entry = QToolButton()
            entry.setProperty("look", "row")
            entry.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            entry.setIcon(icon("package", "text_2"))
            entry.setText(path.stem)
            entry.setToolTip(str(path))
            entry.setAccessibleName(f"Open project {path.stem}")
            entry.clicked.connect(lambda _c=False, p=str(path): self.project_requested.emit(p))
            self._recent.addWidget(entry)
        if not there:
            self._recent.addWidget(label("Projects appear here as soon as you have opened an image.", "secondary"))

    def dragEnterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.paths_dropped.emit(paths)


def machine_line() -> str:
    """One line on this machine, without loading a GPU library."""
    cores = os.cpu_count() or 1
    gpu = Path("/proc/driver/nvidia/version").exists() or bool(os.environ.get("CUDA_PATH"))
    if gpu:
        return f"NVIDIA GPU found, {cores} CPU cores. It is checked when a restoration first runs."
    return f"No NVIDIA GPU found: restorations run on {cores} CPU {'core' if cores == 1 else 'cores'}."
