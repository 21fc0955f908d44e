"""Export: choose formats, look at the dry run, write, read the report."""

from __future__ import annotations

import time
from pathlib import Path

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QCheckBox, QComboBox, QFileDialog, QLineEdit, QTreeWidget, QTreeWidgetItem, QWidget

from medapp.requests import ExportRequest, ExportResult, Outcome, Refused
from medapp.ui.dialogs.sheet import Sheet
from medapp.ui.document import Document
from medapp.ui.icons import icon
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Messages
from medapp.ui.widgets import button, field, label, refresh_style, row, wrapped

FORMATS = (
    ("seg", "DICOM SEG, fractional"),
    ("seg-binary", "DICOM SEG, binary"),
    ("derived", "Restored series as DICOM"),
    ("nifti", "NIfTI α and labels"),
    ("png", "16-bit PNG α and image"),
)


class ExportSheet(Sheet):
    """One sheet from the choice to the report."""

    def __init__(
        self, parent: QWidget | None, document: Document, bridge: JobBridge, messages: Messages, series_ids: list[str]
    ) -> None:
        super().__init__(parent, f"Export {len(series_ids)} series", 720)
        self._document, self._bridge, self._messages = document, bridge, messages
        self._series_ids = tuple(series_ids)
        self._planned: ExportRequest | None = None
        self._job = 0
        self._folder = ""
        name = time.strftime("medapp-export-%Y%m%d-%H%M%S")
        self.out = QLineEdit(str(Path.home() / name))
        self.out.textEdited.connect(lambda _t: self._forget_plan())
        choose = button("Choose…")
        choose.clicked.connect(lambda _c=False: self._choose())
        self.formats = {}
        boxes = row()
        for key, text in FORMATS:
            box = QCheckBox(text)
            box.setChecked(True)
            box.toggled.connect(lambda _on: self._forget_plan())
            self.formats[key] = box
            boxes.addWidget(box)
        self.meaning = QComboBox()
        self.meaning.addItem("Share of the voxel", "occupancy")
        self.meaning.addItem("Chance of belonging", "probability")
        self.meaning.setToolTip("What α means in the fractional DICOM SEG")
        self.meaning.activated.connect(lambda _i: self._forget_plan())
        self.deidentify = QCheckBox("Remove identifiers")
        self.deidentify.setChecked(True)
        self.deidentify.setToolTip("Names, ids and dates do not leave this machine")
        self.deidentify.toggled.connect(lambda _on: self._forget_plan())
        self.state = wrapped("The dry run lists every file before anything is written.")
        self.sheet = QTreeWidget()
        self.sheet.setHeaderLabels(["File", "Size", "Note"])
        self.sheet.setRootIsDecorated(False)
        self.sheet.setMinimumHeight(200)
        self.sheet.setColumnWidth(0, 330)
        self.sheet.setColumnWidth(1, 80)
        self.sheet.setAccessibleName("Files of the export")
        folder_field = field("Folder", self.out, 76)
        folder_field.addWidget(choose)
        self.body.addLayout(folder_field)
        two = row(*list(self.formats.values())[:3], -1)
        three = row(*list(self.formats.values())[3:], -1)
        for line_, gap in ((two, "Formats"), (three, "")):
            head = label(gap, "secondary")
            head.setFixedWidth(76)
            line_.insertWidget(0, head)
            self.body.addLayout(line_)
        self.body.addLayout(field("α means", self.meaning, 76))
        self.body.addWidget(self.deidentify)
        self.body.addWidget(self.sheet, 1)
        self.body.addWidget(self.state)
        self.close_button = self.add_button("Cancel", self.reject)
        self.open_folder = self.add_button("Open folder", self._open_folder)
        self.open_folder.hide()
        self.go = self.add_button("Check", self._on_go, "primary")

    # ------------------------------------------------------------------------------------------------------ requests

    def _request(self, *, dry_run: bool) -> ExportRequest:
        project = self._document.project
        return ExportRequest(
            project=str(project.path) if project is not None else "",
            series_ids=self._series_ids,
            out=str(Path(self.out.text().strip()).expanduser()),
            formats=tuple(key for key, box in self.formats.items() if box.isChecked()),
            dry_run=dry_run,
            deidentify=self.deidentify.isChecked(),
            alpha_means=self.meaning.currentData(),
        )

    def _choose(self) -> None:
        dialog = QFileDialog(self, "Folder for the export", str(Path(self.out.text()).parent))
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self._on_chosen)
        dialog.open()

    def _on_chosen(self, folder: str) -> None:
        chosen = Path(folder)
        empty = not any(chosen.iterdir()) if chosen.is_dir() else True
        self.out.setText(str(chosen if empty else chosen / Path(self.out.text()).name))
        self._forget_plan()

    def _forget_plan(self) -> None:
        self._planned = None
        self.go.setText("Check")

    def _on_go(self) -> None:
        if not any(box.isChecked() for box in self.formats.values()) or not self.out.text().strip():
            self._say("Choose a folder and at least one format.", "danger")
            return
        folder = Path(self.out.text().strip()).expanduser()
        if not folder.is_absolute():
            self._say("Give the whole path of the folder, or choose one.", "danger")
            return
        is_dry = self._planned is None
        request = self._request(dry_run=is_dry)
        self.go.setEnabled(False)
        self._say("Looking at what would be written…" if is_dry else "Writing, then reading everything back…")
        self._job = self._bridge.submit(
            request,
            subject=f"{len(self._series_ids)} series",
            on_done=lambda result: self._on_planned(request, result) if is_dry else self._on_written(result),
            on_failed=self._on_failed,
        )

    def _on_planned(self, request: ExportRequest, result: ExportResult) -> None:
        self._planned = request
        self._fill(result)
        size = sum(file[1] for file in result.files)
        text = f"{len(result.files)} files, {shown_size(size)}."
        if result.identifiers:
            text += f" {len(result.identifiers)} identifiers found; " + (
                "they are removed." if request.deidentify else "they stay in the files."
            )
        if result.problems:
            count = len(result.problems)
            text += f" {count} {'thing needs' if count == 1 else 'things need'} a look."
        self._say(text, "danger" if result.problems else "")
        self.go.setText("Export")
        self.go.setEnabled(bool(result.files))

    def _on_written(self, result: ExportResult) -> None:
        self._fill(result)
        error = result.largest_alpha_error
        told = f" Largest α error after reading back: {error:.5f}." if error is not None else ""
        self._say(f"Exported and verified: {len(result.files)} files.{told}", "ok")
        self._folder = result.folder
        self.open_folder.show()
        self.go.hide()
        self.close_button.setText("Close")
        self._messages.say(f"Exported {len(result.files)} files.{told}")

    def _on_failed(self, outcome: Outcome) -> None:
        self.go.setEnabled(True)
        if isinstance(outcome, Refused):
            self._say(f"{outcome.message} {outcome.hint}".strip(), "danger")
        else:
            self._say("The export stopped; nothing was written.", "danger")
            self._messages.tell_outcome(outcome, "the export")

    def _fill(self, result: ExportResult) -> None:
        self.sheet.clear()
        for problem in result.problems:
            item = QTreeWidgetItem(self.sheet, ["", "", problem])
            item.setIcon(0, icon("warning", "processed"))
        for note in result.notes:
            item = QTreeWidgetItem(self.sheet, ["", "", note])
            item.setIcon(0, icon("info", "text_2"))
        for path, size, note in result.files:
            QTreeWidgetItem(self.sheet, [path, shown_size(size), note])
        for place in range(self.sheet.topLevelItemCount()):
            row_item = self.sheet.topLevelItem(place)
            row_item.setToolTip(0, row_item.text(0))
            row_item.setToolTip(2, row_item.text(2))

    def _say(self, text: str, role: str = "secondary") -> None:
        self.state.setText(text)
        self.state.setProperty("role", role or "secondary")
        refresh_style(self.state)

    def _open_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(self._folder))


def shown_size(size: int) -> str:
    """Bytes as a person says them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"
