"""Opening files: the first slice shows while the rest is still being read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QObject, Signal

from medapp.annotation.edits import AddMatte, one_edit
from medapp.annotation.labels import label_style
from medapp.annotation.matte import Matte
from medapp.progress import ProgressEvent
from medapp.requests import (
    FoundSeries,
    ImportMasksRequest,
    ImportRequest,
    ImportResult,
    MasksResult,
    Outcome,
    ReaderRequest,
    SampleRequest,
)
from medapp.scan.scan import Scan, Window
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Messages
from medapp.ui.session import Session

_NO_MODALITY = (".nii", ".nii.gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_LOOKED_AT = 2000  # entries of a folder; enough to know what it holds
UNKNOWN = "unknown"


class Opening(QObject):
    """Brings files, masks and the sample into the project.

    Signals:
        modality_needed: Paths whose format does not say the modality; answered with ``open_paths(paths, modality)``.
        problems_found: ``ImportResult`` with files that were refused or skipped.
    """

    modality_needed = Signal(list)
    problems_found = Signal(object)

    def __init__(
        self,
        document: Document,
        session: Session,
        bridge: JobBridge,
        background: Background,
        messages: Messages,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._session, self._bridge = document, session, bridge
        self._background, self._messages = background, messages
        self._answers: dict[str, str] = {}

    def open_paths(self, paths: list[str], modality: str | None = None) -> None:
        """Import files and folders; asks once per folder for the modality where the format has none."""
        projects = [p for p in paths if p.rstrip("/").endswith(".medapp")]
        if projects:
            self._session.open_project(Path(projects[0]))
            return
        if not paths:
            return
        folder = str(Path(paths[0]).parent if Path(paths[0]).is_file() else Path(paths[0]))
        if modality is not None:
            self._answers[folder] = modality
        elif folder in self._answers:
            modality = self._answers[folder]
        elif lacks_modality(paths):
            self.modality_needed.emit(paths)
            return
        known = None if modality in (None, UNKNOWN) else modality
        subject = Path(paths[0]).name if len(paths) == 1 else f"{len(paths)} files"
        self._import(lambda project: ImportRequest(project, tuple(paths), known), subject)

    def open_sample(self) -> None:
        """Add the bundled sample."""
        self._import(lambda project: SampleRequest(project), "Sample", is_sample=True)

    def import_masks(self, paths: list[str]) -> None:
        """Bring masks in as mattes of the open series."""
        project, annotation = self._document.project, self._document.annotation
        if project is None or annotation is None or not paths:
            return
        series_id = annotation.series_id

        def done(result: MasksResult) -> None:
            for note in result.notes:
                self._messages.say(note, kind="warning")
            if self._document.annotation is None or self._document.annotation.series_id != series_id:
                self._messages.say("Open the series again to import its masks.", kind="warning")
                return
            shape, start = self._document.annotation.shape_zyx, self._next_label()
            reader = self._document.settings.reader
            self._background.run(
                lambda: _mattes_of(result, shape, start, reader), self._add_mattes, self._messages.tell_error
            )

        self._bridge.submit(
            ImportMasksRequest(str(project.path), series_id, tuple(paths)),
            subject=f"{len(paths)} files",
            on_done=done,
            on_failed=lambda outcome: self._messages.tell_outcome(outcome, "the import of masks"),
        )

    def _add_mattes(self, mattes: list[Matte]) -> None:
        edit = one_edit([AddMatte(matte) for matte in mattes], f"Import {len(mattes)} mattes")
        if edit is not None and self._document.apply(edit, mark=None):
            self._document.set_active_matte(mattes[0].matte_id)
            count = len(mattes)
            self._messages.say(f"{count} {'matte was' if count == 1 else 'mattes were'} imported.")

    def _next_label(self) -> int:
        annotation = self._document.annotation
        return max((matte.label for matte in annotation), default=0) + 1 if annotation is not None else 1

    def _import(self, request: Callable[[str], ReaderRequest], subject: str, *, is_sample: bool = False) -> None:
        def start() -> None:
            project = self._document.project
            if project is None:
                return
            run = _ImportRun(self._document, project, is_sample=is_sample)

            def done(result: ImportResult) -> None:
                self._finish(run, result)

            def failed(outcome: Outcome) -> None:
                was_on_screen = run.is_on_screen
                run.give_up()
                self._messages.tell_outcome(outcome, "opening the images")
                self._document.reload_series_list()
                ids = [info.series_id for info in self._document.series_list]
                if was_on_screen and ids:
                    self._session.load_series(run.before if run.before in ids else ids[0])

            self._bridge.submit(
                request(str(project.path)),
                subject=subject,
                on_progress=run.on_progress,
                on_done=done,
                on_failed=failed,
            )

        self._session.with_project(start)

    def _finish(self, run: _ImportRun, result: ImportResult) -> None:
        document = self._document
        if document.project is not run.project:
            return
        document.reload_series_list()
        wanted = result.series_ids[:1] or result.already_there[:1]
        if run.is_sample:
            infos = [info for info in document.series_list if info.series_id in result.series_ids]
            infos.sort(key=lambda info: (info.modality != "CT", -info.shape[0]))
            wanted = tuple(info.series_id for info in infos[:1]) or wanted
        if wanted and (run.is_on_screen or run.came_too_fast or document.scan is None or not result.series_ids):
            self._session.load_series(wanted[0])
        else:
            run.give_up()
        if result.already_there and not result.series_ids:
            self._messages.say("These images are in the project already.")
        if not (result.series_ids or result.already_there or result.refused or result.skipped):
            self._messages.say("There is nothing in there that could be opened.", kind="warning")
        if result.refused or result.skipped:
            count = len(result.refused)
            opened = len(result.series_ids) + len(result.already_there)
            if count:
                first = result.refused[0]
                text = f"{count} {'file' if count == 1 else 'files'} could not be read"
                text += f"; {opened} series opened." if opened else f". {first[1]}"
                self._messages.say(
                    text,
                    kind="error" if not opened else "warning",
                    hint="" if opened else first[2],
                    details="\n".join(f"{Path(p).name}: {m} {h}" for p, m, h in result.refused),
                    actions=(("Show list", lambda: self.problems_found.emit(result)),),
                )
            elif not opened:
                self._messages.say(result.skipped[0][1], kind="warning")


class _ImportRun:
    """Shows the first series of one import while it arrives."""

    def __init__(self, document: Document, project: Any, *, is_sample: bool) -> None:
        self._document, self.project, self.is_sample = document, project, is_sample
        self._path = ""
        self._waits = True
        self.before = self._series_id

    @property
    def _series_id(self) -> str:
        return self._document.series.series_id if self._document.series is not None else ""

    @property
    def came_too_fast(self) -> bool:
        """It was read before its first slice could be shown, and nobody went to another series meanwhile."""
        return not self._path and self._series_id == self.before

    @property
    def is_on_screen(self) -> bool:
        return bool(self._path) and self._document.arriving_path == self._path

    def on_progress(self, event: ProgressEvent) -> None:
        found = event.detail.get("series")
        if isinstance(found, FoundSeries) and self._waits and (not self.is_sample or found.modality == "CT"):
            self._waits = False
            scan = map_partial(found)
            if scan is not None:
                self._path = found.voxel_path
                self._document.show_arriving(scan, self._path, found.first_slice, _window_of(found))
        arrived = event.detail.get("slice")
        if arrived and arrived[0] == self._path:
            self._document.note_slice(arrived[0], int(arrived[1]))
            if len(self._document.arrived_slices or ()) == 1:
                self._refine_window(int(arrived[1]))

    def _refine_window(self, z: int) -> None:
        """Without a window in the file, the first slice says what to look through."""
        scan = self._document.scan
        if scan is None or not self.is_on_screen or self._document.window.width > 1.0 or scan.is_colour:
            return
        low, high = (float(v) for v in np.percentile(scan.slice_values(z)[::2, ::2], (0.5, 99.5)))
        self._document.set_window((low + high) / 2, max(high - low, 1e-3))
        self._document.default_window = self._document.window

    def give_up(self) -> None:
        if self.is_on_screen:
            self._document.show_nothing()


def map_partial(found: FoundSeries) -> Scan | None:
    """A voxel file under way as a scan; None when it went away meanwhile."""
    try:
        stored = np.memmap(found.voxel_path, dtype=np.dtype(found.dtype), mode="r", shape=found.shape)
    except (OSError, ValueError):
        return None
    return Scan(
        stored=stored,
        modality=found.modality,
        unit=found.unit,
        kind="stack",
        slope=found.slope,
        intercept=found.intercept,
        is_inverted=found.is_inverted,
    )


def _window_of(found: FoundSeries) -> Window:
    if found.window_center is not None and found.window_width is not None:
        return Window(found.window_center, found.window_width)
    if len(found.shape) == 4:
        top = float(np.iinfo(np.dtype(found.dtype)).max)
        return Window(top / 2, top)
    return Window(0.5, 1.0)


def _entries(path: Path) -> Iterator[str]:
    if path.is_dir():
        for _, _, names in os.walk(path):
            yield from names
    else:
        yield path.name


def lacks_modality(paths: list[str]) -> bool:
    """True when a NIfTI file or a grey raster image may be among them."""
    return any(
        name.lower().endswith(_NO_MODALITY) for path in paths for name in islice(_entries(Path(path)), _LOOKED_AT)
    )


def _mattes_of(result: MasksResult, shape: tuple[int, int, int], first_label: int, reader: str) -> list[Matte]:
    import uuid

    mattes = []
    for offset, mask in enumerate(result.masks):
        with np.load(mask["path"]) as arrays:
            alpha = arrays["alpha"]
        Path(mask["path"]).unlink(missing_ok=True)
        label = int(mask["label"] or first_label + offset)
        style = label_style(label)
        matte = Matte(
            uuid.uuid4().hex,
            shape,
            str(mask["name"]),
            label,
            mask["colour"] or style.colour,
            style.letter,
            origin="import",
            reader=reader,
        )
        for z in range(shape[0]):
            patch = matte.make_patch("alpha", (z, 0, 0), alpha[z : z + 1])
            if patch is not None:
                matte.paste(patch)
        mattes.append(matte)
    return mattes
