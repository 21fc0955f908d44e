"""The one door to a project: series, voxels, annotations, the journal, what the window remembers."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import case, delete, insert, select

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import Edit
from medapp.annotation.history import History, Kind
from medapp.errors import ProjectError, SaveFailedError
from medapp.store import codec, keeping, opening, revisions, tables
from medapp.store.checking import find_problems
from medapp.store.data_sets import DataSetCase, DataSetShelf, DataSetVersion
from medapp.store.database import Database, explained
from medapp.store.effort import EffortShelf, MatteEffort
from medapp.store.keeping import JournalEntry
from medapp.store.lock import WriterLock
from medapp.store.region_maps import RegionMapInfo, RegionMapRevision, RegionMapShelf
from medapp.store.revisions import Revision
from medapp.store.series import SeriesInfo
from medapp.store.shelf import SeriesShelf, meta, png, set_meta
from medapp.store.voxels import VoxelWriter, sweep

__all__ = [
    "DataSetCase",
    "DataSetVersion",
    "JournalEntry",
    "MatteEffort",
    "Project",
    "Recovered",
    "RegionMapInfo",
    "RegionMapRevision",
    "Revision",
    "SeriesInfo",
    "VoxelWriter",
]

log = logging.getLogger(__name__)

Mode = Literal["write", "read", "worker"]


@dataclass(frozen=True)
class Recovered:
    """Edits that came back after a crash: how many, and when the last one was made (ISO time)."""

    count: int
    at: str


class Project(SeriesShelf, RegionMapShelf, DataSetShelf, EffortShelf):
    """A project folder ``name.medapp``: ``project.sqlite`` and immutable ``voxels/<sha256>``.

    Made by ``create`` or ``open``; usable as a context manager. Calls may come from several threads.

    Attributes:
        path: The folder.
        mode: ``write`` = the window, one at a time; ``read`` = nothing is changed; ``worker`` = a worker process that
            adds series and region maps while the window holds the lock.
        reader: The person, written into revisions.
        recovered: Edits that a crash had left behind, or None.
        warnings: What the user should be told once after opening, one line each.
    """

    def __init__(self, path: Path, database: Database, mode: Mode, reader: str, lock: WriterLock | None) -> None:
        self.path, self.mode, self.reader = path, mode, reader
        self.recovered: Recovered | None = None
        self.warnings: tuple[str, ...] = ()
        self._database, self._lock = database, lock
        self._voxels = path / "voxels"
        self._backup: threading.Thread | None = None
        self._is_closed = False

    # --------------------------------------------------------------------------------------------- opening, closing

    @classmethod
    def create(cls, path: Path, reader: str = "") -> Project:
        """Make a new project and open it for writing.

        Args:
            path: The folder; ``.medapp`` is added when it is not there.

        Raises:
            ProjectError: There is a project already.
            SaveFailedError: The folder cannot be written.
        """
        path = Path(path)
        path = path if path.suffix == ".medapp" else path.with_name(path.name + ".medapp")
        opening.make(path, reader)
        return cls.open(path, reader=reader)

    @classmethod
    def open(cls, path: Path, mode: Mode = "write", reader: str = "", take_over: bool = False) -> Project:
        """Open a project; after a crash everything that was acknowledged is there.

        In a folder that cannot be written it opens read-only and says so in ``warnings``.

        Args:
            take_over: Take the writer's lock even from a window that may be alive.

        Raises:
            ProjectLockedError: Another window has it open for writing.
            ProjectNewerError: A newer medapp wrote it.
            ProjectDamagedError: It is damaged and there is no good backup.
            ProjectError: There is no project.
        """
        path = Path(path)
        if not (path / opening.DATABASE).exists() and not opening.backups(path):
            raise ProjectError("There is no medapp project in this folder.", "Choose a folder that ends in .medapp.")
        warnings: tuple[str, ...] = ()
        lock: WriterLock | None = None
        try:
            lock = WriterLock(path / opening.LOCK, take_over) if mode == "write" else None
        except SaveFailedError:
            mode, warnings = "read", ("The project can only be read: its folder is read-only or its disk is full.",)
        try:
            database, more = opening.open_database(path, mode)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        project = cls(path, database, mode, reader, lock)
        project.warnings = (*warnings, *more)
        try:
            if mode == "write":
                project._begin_session()
        except BaseException:
            database.close()
            if lock is not None:
                lock.release()
            raise
        return project

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_read_only(self) -> bool:
        """Nothing can be changed here."""
        return self.mode == "read"

    @property
    def name(self) -> str:
        """The folder's name without its ending."""
        return self.path.stem

    @property
    def cache_dir(self) -> Path:
        """A folder for what can be made again: region trees, previews, masks under way."""
        folder = self.path / "cache"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise explained(error) from error
        return folder

    def _begin_session(self) -> None:
        with self._database.read() as connection:
            clean = int(meta(connection, "clean_seq") or 0)
            rows = connection.execute(keeping.unsaved(clean)).all()
            was_open = meta(connection, "is_open") == "1"
        if was_open and rows:
            self.recovered = Recovered(len(rows), rows[-1].created_at)
        with self._database.write() as connection:
            set_meta(connection, "is_open", "1")
        sweep(self._voxels)  # a worker may have been killed although the window was closed in peace
        if was_open:
            self._backup = threading.Thread(
                target=opening.back_up, args=(self._database, self.path), name="backup", daemon=True
            )
            self._backup.start()

    def close(self) -> None:
        """Save what was painted as revisions, mark the project as cleanly closed, keep a backup.

        On a full disk it closes all the same: the journal holds every stroke, and the next start says so.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self.mode == "write":
                if self._backup is not None:
                    self._backup.join()
                for series_id in self.unsaved_series():
                    self.save_revision(series_id)
                with self._database.write() as connection:
                    set_meta(connection, "clean_seq", str(revisions.last_seq(connection)))
                    set_meta(connection, "is_open", "0")
                keeping.prune_journal(self._database)
                opening.back_up(self._database, self.path)
        except SaveFailedError as error:
            log.warning("closed without a revision: %s", error.message)
        finally:
            self._database.close()
            if self._lock is not None:
                self._lock.release()

    # -------------------------------------------------------------------------------------------------- annotations

    def annotation(self, series_id: str) -> Annotation:
        """The mattes of a series as they were left: the newest revision and every edit journalled since."""
        with self._database.read() as connection:
            annotation, _, is_whole = keeping.load(connection, series_id)
        if not is_whole:
            self._warn("Part of a saved annotation is damaged; the newest sound state was opened.")
        return annotation

    def journal(self, series_id: str, edit: Edit, kind: Kind = "do") -> int:
        """Make one edit durable; returns its number. The window goes through ``JournalWriter`` instead.

        Args:
            edit: As it is applied: for ``undo`` the reversed one, which ``History.undo`` hands out.

        Raises:
            SaveFailedError: It is not saved; keep it and try again.
        """
        return self.journal_many([JournalEntry(series_id, edit, kind)])[0]

    def journal_many(
        self, entries: Sequence[JournalEntry], view_state: dict[str, Any] | None = None
    ) -> tuple[int, ...]:
        """Make several edits, and what the window remembers, durable in one transaction: all of them or none."""
        self._must_write()
        encoded = [codec.encode_edit(entry.edit) for entry in entries]
        numbers = []
        with self._database.write() as connection:
            for entry, data in zip(entries, encoded, strict=True):
                numbers.append(keeping.append(connection, entry, data, self.reader))
            if view_state is not None:
                set_meta(connection, "view_state", json.dumps(view_state))
        return tuple(numbers)

    def save_revision(
        self,
        series_id: str,
        name: str | None = None,
        note: str = "",
        origin: str = "person",
        thumbnail: bytes | NDArray[np.uint8] | None = None,
    ) -> int:
        """Keep the state of a series as a revision; returns its number. Earlier revisions stay as they are.

        What is saved is what was journalled: a window calls it through ``JournalWriter.call``.

        Args:
            name: For a named version (Ctrl+S).
            origin: ``person``, or model + version + weights hash.
        """
        self._must_write()
        with self._database.read() as connection:
            loaded: revisions.Origin = {}
            annotation, seq, _ = keeping.load(connection, series_id, loaded)
            known = set(connection.execute(select(tables.blobs.c.sha256)).scalars())
        content = revisions.content_of(annotation, known.__contains__, loaded)
        keeping.store_planes(self._database, content.planes.items())
        with self._database.write() as connection:
            return revisions.insert_revision(
                connection, series_id, content, seq, self.reader, origin, name, note, png(thumbnail)
            )

    def revisions(self, series_id: str) -> tuple[Revision, ...]:
        """Every saved state of a series, oldest first."""
        table = tables.revisions
        query = select(table).where(table.c.series_id == series_id).order_by(table.c.revision_id)
        with self._database.read() as connection:
            return tuple(revisions.revision_from(row) for row in connection.execute(query).mappings())

    def load_revision(self, revision_id: int) -> Annotation:
        """The annotation as it was saved.

        Raises:
            ProjectError: There is no such revision.
            ProjectDamagedError: Its content is not what was saved.
        """
        table = tables.revisions
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.revision_id == revision_id)).mappings().first()
            if row is None:
                raise ProjectError("The project has no such revision.", "Choose another one from the list.")
            return revisions.annotation_from(connection, row)

    def history(self, limit_bytes: int = 512 * 2**20, min_steps: int = 200) -> History:
        """Undo and redo as they were left, across restarts."""
        history = History(limit_bytes, min_steps)
        journal = tables.journal
        data = case((journal.c.kind == "do", journal.c.edit), else_=None)
        query = select(journal.c.kind, journal.c.series_id, journal.c.text, data).order_by(journal.c.seq)
        with self._database.read() as connection:
            history.replay(
                (kind, series_id, keeping.stored_step(text, edit))
                for kind, series_id, text, edit in connection.execute(query)
            )
        return history

    def unsaved_series(self) -> tuple[str, ...]:
        """Series with journalled edits that no revision holds yet."""
        with self._database.read() as connection:
            return tuple(dict.fromkeys(row[0] for row in connection.execute(keeping.unsaved())))

    # ------------------------------------------------------------------------------------- what the window remembers

    def view_state(self) -> dict[str, Any]:
        """Series, slice, tool, window... as last written; empty at first."""
        with self._database.read() as connection:
            text = meta(connection, "view_state")
        return json.loads(text) if text else {}

    def set_view_state(self, state: dict[str, Any]) -> None:
        """Remember what the window shows."""
        self._must_write()
        with self._database.write() as connection:
            set_meta(connection, "view_state", json.dumps(state))

    def load_jobs(self) -> list[dict[str, Any]]:
        """The task queue as last saved."""
        with self._database.read() as connection:
            rows = connection.execute(select(tables.jobs.c.job).order_by(tables.jobs.c.position)).scalars()
            return [json.loads(text) for text in rows]

    def save_jobs(self, jobs: Iterable[dict[str, Any]]) -> None:
        """Replace the saved task queue."""
        self._must_write()
        rows = [{"position": place, "job": json.dumps(job)} for place, job in enumerate(jobs)]
        with self._database.write() as connection:
            connection.execute(delete(tables.jobs))
            if rows:
                connection.execute(insert(tables.jobs), rows)

    # ------------------------------------------------------------------------------------------------ safety

    def check(self, progress: Callable[[], None] = lambda: None) -> list[str]:
        """Look at everything: the database, every revision's hashes, every voxel file; one line a problem."""
        return find_problems(self._database, self._voxels, progress)

    def save_copy(self, path: Path, pending: Sequence[JournalEntry] = ()) -> Path:
        """Write the whole project elsewhere, with edits that could not be saved here; returns the new folder.

        Raises:
            SaveFailedError: The copy cannot be written.
        """
        path = Path(path)
        path = path if path.suffix == ".medapp" else path.with_name(path.name + ".medapp")
        opening.copy_to(self._database, self.path, path)
        if pending:
            database, _ = opening.open_database(path, "worker")
            copy = Project(path, database, "worker", self.reader, None)
            try:
                for entry in pending:
                    copy.journal_many([entry])
            finally:
                database.close()
        return path

    def _warn(self, line: str) -> None:
        if line not in self.warnings:
            self.warnings = (*self.warnings, line)
