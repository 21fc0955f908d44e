"""Making, opening, backing up and copying a project's files; what happens when they are damaged."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Literal

from sqlalchemy import insert

from medapp.errors import MedappError, ProjectDamagedError, ProjectError, ProjectNewerError
from medapp.store import tables
from medapp.store.database import Database, driver, explained, is_network_drive, sync_folder

log = logging.getLogger(__name__)

DATABASE = "project.sqlite"
LOCK = "project.lock"
BACKUPS = "backups"
_KEEP = 3
_BACKUP = re.compile(r"^(\d{6})\.sqlite$")


def make(path: Path, reader: str) -> None:
    """Make an empty project folder.

    Raises:
        ProjectError: There is a project already.
        SaveFailedError: The folder cannot be written.
    """
    if (path / DATABASE).exists() or backups(path):
        raise ProjectError("There is a project in this folder already.", "Open it, or choose another name.")
    try:
        (path / "voxels").mkdir(parents=True, exist_ok=True)
        beside = path / f".{DATABASE}-{uuid.uuid4().hex}"
        connection = driver().connect(str(beside))
        connection.execute(f"PRAGMA application_id={tables.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={tables.SCHEMA_VERSION}")
        connection.close()
        database = Database(beside, on_network=True)
        try:
            with database.write() as session:
                tables.metadata.create_all(session)
                session.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
                session.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (tables.HEAD_REVISION,))
                facts = {"salt": secrets.token_hex(16), "reader": reader, "clean_seq": "0", "is_open": "0"}
                session.execute(insert(tables.meta), [{"key": k, "value": v} for k, v in facts.items()])
        finally:
            database.close()
        beside.replace(path / DATABASE)
        sync_folder(path)
    except OSError as error:
        raise explained(error) from error


def open_database(path: Path, mode: Literal["write", "read", "worker"]) -> tuple[Database, tuple[str, ...]]:
    """The database of a project and what the user should be told once.

    Raises:
        ProjectNewerError: A newer medapp wrote it.
        ProjectDamagedError: It is damaged and no backup is good.
    """
    warnings: list[str] = []
    on_network = is_network_drive(path)
    if on_network:
        warnings.append("The project is on a network drive: saving is slower, and only one computer may write.")
    if mode == "read":
        return _open_to_read(path, on_network), tuple(warnings)
    database = Database(path / DATABASE, "write", on_network)
    try:
        if not (path / DATABASE).exists():
            raise _damaged()
        _check_kind(database)
        if mode == "write":
            problems = database.problems()
            if problems:
                raise _damaged()
            _bring_up_to_date(database, path)
    except ProjectDamagedError:
        database.close()
        if mode != "write":
            raise
        warnings.append(_restore(path, on_network))
        database = Database(path / DATABASE, "write", on_network)
        _check_kind(database)
        _bring_up_to_date(database, path)
    except BaseException:
        database.close()
        raise
    return database, tuple(warnings)


def _open_to_read(path: Path, on_network: bool) -> Database:
    """Open without changing anything, also on a medium that cannot be written and for a project of an older format.

    Where the file cannot be read as it lies (edits still in the write-ahead log of a read-only folder, an older
    format), a temporary copy is opened.
    """
    database = Database(path / DATABASE, "read", on_network)
    try:
        _check_kind(database)
    except (ProjectNewerError, ProjectDamagedError):
        database.close()
        raise
    except ProjectError:
        database.close()
        if _has_wal(path):
            return _temporary_copy(path, None)
        database = Database(path / DATABASE, "immutable", on_network)
        _check_kind(database)
    if int(database.pragma("user_version")) == tables.SCHEMA_VERSION:
        return database
    try:
        return _temporary_copy(path, database)
    finally:
        database.close()


def _temporary_copy(path: Path, source: Database | None) -> Database:
    folder = tempfile.TemporaryDirectory(prefix="medapp-read-")
    copy = Path(folder.name) / DATABASE
    try:
        if source is not None:
            source.backup_to(copy)
        else:  # SQLite itself refuses to open it here, so nothing else can be writing
            for ending in ("", "-wal"):
                shutil.copyfile(path / f"{DATABASE}{ending}", copy.with_name(f"{DATABASE}{ending}"))
        database = Database(copy, "write", temporary=folder)
    except BaseException:
        folder.cleanup()
        raise
    try:
        _check_kind(database)
        if int(database.pragma("user_version")) != tables.SCHEMA_VERSION:
            from medapp.store.upgrading import upgrade

            upgrade(database)
    except BaseException:
        database.close()
        raise
    return database


def _damaged() -> ProjectDamagedError:
    return ProjectDamagedError("The project's database is damaged.", "Open it for writing: the newest backup is used.")


def _check_kind(database: Database) -> None:
    try:
        application, version = int(database.pragma("application_id")), int(database.pragma("user_version"))
    except MedappError as error:
        if isinstance(error, ProjectDamagedError):
            raise
        raise ProjectError("The project cannot be opened.", error.hint) from error
    if application != tables.APPLICATION_ID:
        raise ProjectDamagedError("The file is not a medapp project, or it is damaged.", "Choose another folder.")
    if version > tables.SCHEMA_VERSION:
        raise ProjectNewerError(
            f"The project was written by a newer medapp (format {version}; this one knows {tables.SCHEMA_VERSION}).",
            f"Update medapp to a version that knows project format {version}. Nothing was changed.",
        )
    with database.read() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found not in tables.REVISIONS:
        raise ProjectNewerError(
            "The project went through a migration that this medapp does not know.",
            "Open it with the medapp that wrote it. Nothing was changed.",
        )


def _bring_up_to_date(database: Database, path: Path) -> None:
    if int(database.pragma("user_version")) == tables.SCHEMA_VERSION:
        return
    from medapp.store.upgrading import upgrade  # brings alembic, which opening does not need

    back_up(database, path, must_work=True)
    upgrade(database)


def _has_wal(path: Path) -> bool:
    wal = path / f"{DATABASE}-wal"
    return wal.exists() and wal.stat().st_size > 0


# ------------------------------------------------------------------------------------------------------------ backups


def backups(path: Path) -> list[Path]:
    """Backups, newest first; their numbers give the order, not the clock."""
    folder = path / BACKUPS
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _BACKUP.match(p.name)), reverse=True)


def back_up(database: Database, path: Path, must_work: bool = False) -> None:
    """Keep a copy of a sound database; the three newest stay. Failing to is logged, and fatal only when it must work.

    Raises:
        SaveFailedError: It must work and does not.
    """
    try:
        folder = path / BACKUPS
        folder.mkdir(exist_ok=True)
        there = backups(path)
        number = int(there[0].stem) + 1 if there else 1
        database.backup_to(folder / f"{number:06d}.sqlite")
        for old in backups(path)[_KEEP:]:
            old.unlink(missing_ok=True)
    except (OSError, MedappError) as error:
        if must_work:
            raise explained(error) if isinstance(error, OSError) else error from error
        log.warning("no backup was made: %s", type(error).__name__)


def _restore(path: Path, on_network: bool) -> str:
    """Put the newest good backup in the place of a damaged database, which is kept aside.

    Raises:
        ProjectDamagedError: No backup is good.
    """
    for backup in backups(path):
        database = Database(backup, "immutable")
        try:
            _check_kind(database)
            sound = not database.problems(quick=False)
        except MedappError:
            sound = False
        finally:
            database.close()
        if sound:
            break
    else:
        raise ProjectDamagedError(
            "The project's database is damaged and there is no good backup.",
            "The file is untouched; keep a copy of it.",
        )
    aside = uuid.uuid4().hex[:8]
    try:
        beside = path / f".{DATABASE}-{uuid.uuid4().hex}"
        database = Database(backup, "immutable")
        try:
            database.backup_to(beside)
        finally:
            database.close()
        for ending in ("", "-wal", "-shm"):
            old = path / f"{DATABASE}{ending}"
            if old.exists():
                old.replace(path / f"damaged-{aside}.sqlite{ending}")
        beside.replace(path / DATABASE)
        sync_folder(path)
    except OSError as error:
        raise explained(error) from error
    log.warning("the database was damaged; opened backup %s", backup.stem)
    edits = _salvaged(path / f"damaged-{aside}.sqlite", path, on_network)
    line = "The database was damaged. The newest good backup was opened"
    line += f", and {edits} newer edits were read from the damaged file" if edits else ""
    return f"{line}; the damaged file is kept as damaged-{aside}.sqlite."


def _salvaged(damaged: Path, path: Path, on_network: bool) -> int:
    if not damaged.exists():
        return 0
    from medapp.store.salvage import salvage  # rarely needed

    database = Database(path / DATABASE, "write", on_network)
    try:
        _check_kind(database)
        _bring_up_to_date(database, path)
        return salvage(damaged, database)
    except (MedappError, OSError) as error:
        log.warning("nothing could be read from the damaged file: %s", type(error).__name__)
        return 0
    finally:
        database.close()


def copy_to(database: Database, path: Path, target: Path) -> None:
    """Write a whole project into another folder: the database by the backup API, voxel files by link or copy.

    Raises:
        ProjectError: There is a project already.
        SaveFailedError: The copy cannot be written.
    """
    if (target / DATABASE).exists():
        raise ProjectError("There is a project in this folder already.", "Choose another name.")
    try:
        (target / "voxels").mkdir(parents=True, exist_ok=True)
        for file in (path / "voxels").iterdir():
            goal = target / "voxels" / file.name
            if file.name.startswith("partial-") or goal.exists():
                continue
            try:
                os.link(file, goal)
            except OSError:
                beside = goal.with_name(f".{goal.name}-{uuid.uuid4().hex}")
                shutil.copyfile(file, beside)
                with beside.open("rb+") as written:
                    os.fsync(written.fileno())
                beside.replace(goal)
        database.backup_to(target / DATABASE)
        sync_folder(target)
    except OSError as error:
        raise explained(error) from error
