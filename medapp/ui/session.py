"""Keeps the open project: opening, journal, what the window remembers, loading series, closing."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal

from medapp import paths, settings
from medapp.annotation.annotation import Annotation
from medapp.errors import MedappError, ProjectLockedError, SaveFailedError
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.messages import Message, Messages

if TYPE_CHECKING:
    from medapp.annotation.edits import Edit
    from medapp.store.journal import JournalWriter
    from medapp.store.project import Project, SeriesInfo

log = logging.getLogger(__name__)

_VIEW_DELAY_MS = 400
_KEPT_ANNOTATIONS = 8


class Session(QObject):
    """The life of the open project around the ``Document``.

    There is no save prompt: a project exists from the first image on, and every edit goes to the journal at once.
    """

    project_opened = Signal()
    busy_changed = Signal(bool)

    _journal_saved = Signal(int, int)
    _journal_failed = Signal(object, int)

    def __init__(
        self, document: Document, background: Background, messages: Messages, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._background, self._messages = document, background, messages
        self._journal: JournalWriter | None = None
        self._annotations: OrderedDict[str, Annotation] = OrderedDict()
        self._views: dict[str, Any] = {}
        self._ticket = 0
        self._is_opening = False
        self._edit_count = self._copied_count = 0  # edits made, and how many of them a copy elsewhere holds
        self._view_timer = QTimer(self, singleShot=True, interval=_VIEW_DELAY_MS)
        self._view_timer.timeout.connect(self._keep_view)
        self._journal_saved.connect(self._on_journal_saved, Qt.ConnectionType.QueuedConnection)
        self._journal_failed.connect(self._on_journal_failed, Qt.ConnectionType.QueuedConnection)
        document.edit_made.connect(self._on_edit_made)
        document.open_requested.connect(self.load_series)
        document.settings_changed.connect(self._on_settings_changed)
        for signal in (
            document.position_changed,
            document.window_changed,
            document.tool_changed,
            document.active_matte_changed,
            document.compare_changed,
        ):
            signal.connect(self._view_timer.start)

    # ------------------------------------------------------------------------------------------------------ projects

    @property
    def is_opening(self) -> bool:
        """A project is being opened or made."""
        return self._is_opening

    def new_project(self, then: Callable[[], None] | None = None, name: str = "") -> None:
        """Make a project where projects live, with the date as its name, and open it."""
        name = name or time.strftime("Project %Y-%m-%d %H.%M.%S")
        self._open(lambda project_class, reader: project_class.create(paths.projects_dir() / name, reader), then)

    def open_project(self, path: Path, then: Callable[[], None] | None = None) -> None:
        """Open a project at its last stroke; read-only when another window has it."""

        def work(project_class: type[Project], reader: str) -> Project:
            try:
                return project_class.open(path, reader=reader)
            except ProjectLockedError as error:
                project = project_class.open(path, mode="read", reader=reader)
                project.warnings = (*project.warnings, f"{error.message} It is open here for reading only.")
                return project

        self._open(work, then)

    def with_project(self, then: Callable[[], None]) -> None:
        """Call back as soon as there is a project that can be written."""
        if self._document.project is not None and not self._document.is_read_only:
            then()
        elif self._is_opening:
            QTimer.singleShot(50, self, lambda: self.with_project(then))
        else:
            self.new_project(then)

    def _open(self, work: Callable[[type[Project], str], Project], then: Callable[[], None] | None) -> None:
        if self._is_opening:
            return
        self._is_opening = True
        self.busy_changed.emit(True)
        reader = self._document.settings.reader
        limit = self._document.settings.undo_memory_mb * 2**20
        old_project, old_journal = self._document.project, self._journal

        def open_on_thread() -> tuple[Project, Any, dict[str, Any]]:
            from medapp.store.journal import JournalWriter  # noqa: F401 - loaded here, so that it never stalls a click
            from medapp.store.project import Project

            if old_journal is not None and (unsaved := self.finish_saving(old_journal)):
                edits = "1 edit is" if unsaved == 1 else f"{unsaved} edits are"
                raise SaveFailedError(
                    f"{edits} not saved yet, so this project stays open.", "Retry, or save a copy elsewhere."
                )
            project = work(Project, reader)
            try:
                state = project.view_state()
                history = project.history(limit_bytes=limit)
            except BaseException:
                project.close()
                raise
            if old_journal is not None:
                old_journal.close()
            if old_project is not None:
                old_project.close()
            return project, history, state

        def done(result: tuple[Project, Any, dict[str, Any]]) -> None:
            self._is_opening = False
            self.busy_changed.emit(False)
            self._adopt(*result)
            if then is not None:
                then()

        def failed(error: MedappError) -> None:
            self._is_opening = False
            self.busy_changed.emit(False)
            self._messages.tell_error(error)

        self._background.run(open_on_thread, done, failed)

    def _adopt(self, project: Project, history: Any, state: dict[str, Any]) -> None:
        from medapp.store.journal import JournalWriter

        document = self._document
        self._annotations.clear()
        self._views = dict(state.get("series", {}))
        self._journal = None
        document.set_project(project, is_read_only=project.is_read_only)
        document.history = history
        document.history_changed.emit()
        if not project.is_read_only:
            self._journal = JournalWriter(project, self._journal_saved.emit, self._journal_failed.emit)
        document.set_save_state("saved", "" if project.recovered is None else time.strftime("%H:%M:%S"))
        self._messages.show_banner("save", None)
        read_only = Message("This project is open for reading only. Nothing you do here is kept.", "warning")
        self._messages.show_banner("read-only", read_only if project.is_read_only else None)
        for warning in project.warnings:
            self._messages.say(warning, kind="warning")
        if project.recovered is not None:
            count, at = project.recovered.count, project.recovered.at[11:16]
            self._messages.say(f"Recovered {count} {'stroke' if count == 1 else 'strokes'} from {at}.")
        document.change_settings(recent_projects=document.settings.with_recent(project.path).recent_projects)
        if state.get("tool"):
            document.set_tool(str(state["tool"]))
        ids = [info.series_id for info in document.series_list]
        wanted = state.get("series_id", "")
        if wanted in ids:
            self.load_series(wanted, compare_mode=str(state.get("compare_mode", "single")))
        elif ids:
            self.load_series(ids[0])
        self.project_opened.emit()

    # -------------------------------------------------------------------------------------------------------- series

    def load_series(self, series_id: str, compare_mode: str = "") -> None:
        """Bring a series on screen; the newest wish wins."""
        document = self._document
        info, project = document.info(series_id), document.project
        if info is None or project is None:
            return
        restored = _pair_of(document.series_list, info) if info.kind == "trust" else None
        if restored is not None:  # a trust map is looked at over its restoration
            info, series_id, compare_mode = restored, restored.series_id, "trust overlay"
        self._ticket += 1
        ticket = self._ticket
        self._remember_view()
        original_id = info.source_id or series_id
        derived = [d for d in document.derived_of(original_id) if d.shape[0] == info.shape[0] and d.kind != "trust"]
        processed_info = info if info.source_id is not None else (derived[-1] if derived else None)
        trust_info = _pair_of(document.series_list, processed_info) if processed_info is not None else None
        annotation = self._annotations.get(original_id)
        journal = self._journal

        def load() -> tuple[Any, ...]:
            from medapp.scan.intensity import starting_window

            scan = project.scan(series_id)
            original = scan if original_id == series_id else project.scan(original_id)
            processed = scan if info.source_id is not None else None
            if processed is None and processed_info is not None:
                processed = project.scan(processed_info.series_id)
            trust = project.scan(trust_info.series_id) if trust_info is not None else None
            found = annotation
            if found is None:
                if journal is not None:
                    journal.flush()
                found = project.annotation(original_id)
            shown = scan if info.kind == "trust" else original  # a spread has a range of its own
            return scan, original, processed, trust, found, starting_window(shown)

        def done(result: tuple[Any, ...]) -> None:
            if ticket != self._ticket or document.project is not project:
                return
            scan, original, processed, trust, found, window = result
            found = self._annotations.setdefault(original_id, found)
            self._annotations.move_to_end(original_id)
            while len(self._annotations) > _KEPT_ANNOTATIONS:
                self._annotations.popitem(last=False)
            document.show_series(
                info,
                scan,
                original,
                found,
                processed=processed,
                processed_info=processed_info,
                trust=trust,
                window=window,
                value_range=(window.center - window.width / 2, window.center + window.width / 2),
                view=self._view_of(series_id, original_id, scan.shape == original.shape),
            )
            if compare_mode and processed is not None:
                document.set_compare(compare_mode)
            self._find_range(series_id, scan)

        self._background.run(load, done, self._messages.tell_error)

    def _view_of(self, series_id: str, original_id: str, is_same_grid: bool) -> dict[str, Any] | None:
        """What was kept of a series when it was last on screen, else of its original."""
        kept = self._views.get(series_id)
        if kept is None and original_id in self._views:
            left_out = () if is_same_grid else ("position_zyx",)
            kept = {key: value for key, value in self._views[original_id].items() if key not in left_out}
        return kept

    def _find_range(self, series_id: str, scan: Any) -> None:
        def work() -> tuple[float, float]:
            from medapp.scan.intensity import value_range

            return value_range(scan)

        def done(found: tuple[float, float]) -> None:
            if self._document.series is not None and self._document.series.series_id == series_id:
                self._document.value_range = found

        self._background.run(work, done, self._messages.tell_error)

    def list_labels(self, then: Callable[[dict[str, str]], None]) -> None:
        """What is annotated on each original, by series id; read in the background."""
        document, project, journal = self._document, self._document.project, self._journal
        if project is None:
            return
        here = {series_id: names_of(annotation) for series_id, annotation in self._annotations.items()}
        wanted = [i.series_id for i in document.series_list if i.source_id is None and i.series_id not in here]

        def work() -> dict[str, str]:
            if journal is not None:
                journal.flush()
            return {series_id: names_of(project.annotation(series_id)) for series_id in wanted}

        self._background.run(work, lambda found: then({**found, **here}), self._messages.tell_error)

    # ------------------------------------------------------------------------------------------------------- keeping

    def _on_edit_made(self, kind: Any, series_id: str, edit: Edit) -> None:
        if self._journal is None:
            return
        self._document.set_save_state("saving")
        self._remember_view()
        self._edit_count += 1
        self._journal.submit(series_id, edit, kind, self._view_state())

    def _on_journal_saved(self, _number: int, _count: int) -> None:
        if self._journal is not None and self._journal.pending == 0:
            self._document.set_save_state("saved", time.strftime("%H:%M:%S"))
            self._messages.show_banner("save", None)

    def _on_journal_failed(self, error: MedappError, waiting: int) -> None:
        reason = error.message.removeprefix("Not saved: ").rstrip(".")
        self._document.set_save_state("not saved", reason)
        kept = f"Your last {waiting} edits are kept in memory." if waiting != 1 else "Your last edit is kept in memory."
        if waiting:
            self._messages.show_banner("save", Message(f"Not saved: {reason}. {kept}", "error", error.hint))

    def retry_saving(self) -> None:
        """Try again to write what is kept in memory."""
        if self._journal is not None:
            self._document.set_save_state("saving")
            self._journal.retry()

    def finish_saving(self, journal: JournalWriter | None = None) -> int:
        """Wait for what is being saved; returns how many edits would be lost if the project were closed now."""
        journal = journal or self._journal
        if journal is None or not journal.pending:
            return 0
        if self._copied_count == self._edit_count:
            return 0
        journal.retry()
        journal.flush()
        return journal.pending

    def save_copy(self, path: Path, then: Callable[[], None] = lambda: None) -> None:
        """Write the whole project elsewhere, edits that could not be saved here included."""
        journal, project, count = self._journal, self._document.project, self._edit_count
        if project is None:
            return

        def done(copied: Path) -> None:
            self._copied_count = max(self._copied_count, count)
            self._messages.say(f"A copy of the project is in {copied.name}.")
            then()

        def work() -> Path:
            return journal.save_copy(path) if journal is not None else project.save_copy(path)

        self._background.run(work, done, self._messages.tell_error)

    def save_version(self, name: str, note: str) -> None:
        """Name the present state of the open series."""
        journal, project, annotation = self._journal, self._document.project, self._document.annotation
        if journal is None or project is None or annotation is None:
            return
        future = journal.call(lambda: project.save_revision(annotation.series_id, name=name, note=note))
        self._background.run(
            future.result,
            lambda _number: self._messages.say(f"Version “{name}” is saved."),
            self._messages.tell_error,
        )

    def _remember_view(self) -> None:
        if self._document.series is not None:
            view = self._document.view_state()
            kept = {k: view[k] for k in ("position_zyx", "window", "is_inverted", "active_matte")}
            self._views[self._document.series.series_id] = kept

    def _view_state(self) -> dict[str, Any]:
        return {**self._document.view_state(), "series": self._views}

    def _keep_view(self) -> None:
        if self._journal is not None and self._document.series is not None:
            self._remember_view()
            self._journal.submit_view_state(self._view_state())

    def _on_settings_changed(self) -> None:
        if self._document.project is not None:
            self._document.project.reader = self._document.settings.reader
        try:
            settings.save(self._document.settings)
        except OSError:
            self._messages.say("The settings could not be written; they hold until you quit.", kind="warning")

    def close(self) -> None:
        """Save what is waiting and close the project; the window is already gone from the screen."""
        journal, project, self._journal = self._journal, self._document.project, None
        with contextlib.suppress(MedappError):
            if journal is not None:
                self._remember_view()
                journal.submit_view_state(self._view_state())
                journal.close()
        with contextlib.suppress(MedappError):
            if project is not None:
                project.close()


def names_of(annotation: Annotation) -> str:
    """The labels of an annotation in one line."""
    return ", ".join(f"{matte.letter} {matte.name}" for matte in annotation)


def _pair_of(rows: Sequence[SeriesInfo], info: SeriesInfo) -> SeriesInfo | None:
    """The trust map of a restoration, or the restoration of a trust map."""
    pair, is_trust = info.provenance.get("pair"), info.kind == "trust"
    if not pair or info.kind == "depth":
        return None
    found = (row for row in rows if row.provenance.get("pair") == pair and (row.kind == "trust") != is_trust)
    return next(found, None)
