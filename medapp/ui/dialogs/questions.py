"""Small questions: modality of files that do not say, the name of a version, a slice number."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtWidgets import QApplication, QLineEdit, QListWidget, QPlainTextEdit, QRadioButton, QSpinBox, QWidget

from medapp.requests import ImportResult
from medapp.ui.dialogs.sheet import Sheet
from medapp.ui.opening import UNKNOWN
from medapp.ui.widgets import field, wrapped

_MODALITIES = (
    ("CT", "CT, values in HU"),
    ("MR", "MR"),
    ("PT", "PET"),
    ("SM", "Stained tissue or cells under a microscope"),
    (UNKNOWN, "Something else, or not known: photographs"),
)


class ModalityQuestion(Sheet):
    """NIfTI and raster files do not say what made them; asked once per folder."""

    def __init__(self, parent: QWidget | None, paths: list[str], answer: Callable[[list[str], str], None]) -> None:
        super().__init__(parent, "What are these images?")
        self._paths, self._answer = paths, answer
        name = Path(paths[0]).name if len(paths) == 1 else f"{len(paths)} files"
        self.body.addWidget(
            wrapped(f"{name}: this format does not say which modality it holds. Presets and models depend on it.")
        )
        self.choices = []
        for value, text in _MODALITIES:
            choice = QRadioButton(text)
            choice.setProperty("value", value)
            self.choices.append(choice)
            self.body.addWidget(choice)
        guess = guessed_modality(paths)
        chosen = next(choice for choice in self.choices if choice.property("value") == guess)
        chosen.setChecked(True)
        chosen.setFocus()  # or Space would choose the first one
        self.add_button("Cancel", self.reject)
        self.add_button("Open", self._on_open, "primary")

    def _on_open(self) -> None:
        chosen = next(choice.property("value") for choice in self.choices if choice.isChecked())
        self.accept()
        self._answer(self._paths, chosen)


_GUESSES = {
    "SM": re.compile(r"patholog\w*|histo[lp]\w*|stain(s|ed|ing)?|smears?|h&e"),
    "CT": re.compile(r"ct|cta|cect|cbct|ldct|ndct|hu"),
    "MR": re.compile(r"mri?|mra|t[12](w|c|ce|gd)?|flair"),
    "PT": re.compile(r"pet|suv(bw)?|fdg"),
}


def guessed_modality(paths: Sequence[str]) -> str:
    """What the names of files and folders say, ``UNKNOWN`` where they say nothing or contradict each other.

    A name counts by its words: ``ct`` in ``lung_ct-3`` or ``ct01``, not in ``victor``. The file says more than its
    folders, and a folder nearer to it more than one farther up.
    """
    found = {_guess(path) for path in paths} - {UNKNOWN}
    return found.pop() if len(found) == 1 else UNKNOWN


def _guess(path: str) -> str:
    for part in reversed(re.split(r"[/\\]+", path.lower())):
        words = [word for word in re.split(r"[^a-z0-9&]+", part) if word]
        words += [word.rstrip("0123456789") for word in words]  # ct01
        kinds = {value for value, told in _GUESSES.items() if any(told.fullmatch(word) for word in words)}
        if len(kinds) == 1:
            return kinds.pop()
    return UNKNOWN


class VersionSheet(Sheet):
    """Name the present state."""

    def __init__(self, parent: QWidget | None, save: Callable[[str, str], None]) -> None:
        super().__init__(parent, "Save version")
        self._save = save
        self.body.addWidget(wrapped("Every stroke is saved already. A version is a state with a name to come back to."))
        self.name = QLineEdit()
        self.note = QPlainTextEdit()
        self.note.setMaximumHeight(80)
        self.note.setTabChangesFocus(True)
        self.body.addLayout(field("Name", self.name, 60))
        self.body.addLayout(field("Note", self.note, 60))
        self.add_button("Cancel", self.reject)
        self.ok = self.add_button("Save version", self._on_save, "primary")
        self.ok.setEnabled(False)
        self.name.textChanged.connect(lambda text: self.ok.setEnabled(bool(text.strip())))
        self.name.setFocus()

    def _on_save(self) -> None:
        self._save(self.name.text().strip(), self.note.toPlainText().strip())
        self.accept()


class SliceSheet(Sheet):
    """Go to a slice by its number."""

    def __init__(self, parent: QWidget | None, current: int, count: int, go: Callable[[int], None]) -> None:
        super().__init__(parent, "Go to slice", 320)
        self._go = go
        self.number = QSpinBox()
        self.number.setRange(1, count)
        self.number.setValue(current)
        self.number.selectAll()
        self.body.addLayout(field(f"1 to {count}", self.number, 90))
        self.add_button("Cancel", self.reject)
        self.add_button("Go", self._on_go, "primary")
        self.number.setFocus()

    def _on_go(self) -> None:
        self._go(self.number.value() - 1)
        self.accept()


class FilesSheet(Sheet):
    """Files that were refused or skipped, one line each."""

    def __init__(self, parent: QWidget | None, result: ImportResult) -> None:
        super().__init__(parent, "Files that were not opened", 620)
        self._list = QListWidget()
        self._list.setWordWrap(True)
        self._list.setAccessibleName("Files and reasons")
        lines = [f"{Path(path).name}: {message} {hint}".strip() for path, message, hint in result.refused]
        lines += [f"{Path(path).name}: set aside. {message}" for path, message in result.skipped]
        self._list.addItems(lines)
        self.body.addWidget(self._list)
        self.add_button("Copy", lambda: QApplication.clipboard().setText("\n".join(lines)))
        self.add_button("Close", self.accept, "primary")


class DetailsSheet(Sheet):
    """Notes of a series, in full."""

    def __init__(self, parent: QWidget | None, title: str, lines: list[str]) -> None:
        super().__init__(parent, title, 520)
        for text in lines or ["Nothing had to be repaired or assumed."]:
            shown = wrapped(f"• {text}", "")
            self.body.addWidget(shown)
        self.body.addStretch(1)
        self.add_button("Close", self.accept, "primary")
