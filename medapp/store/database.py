"""The SQLite file: which library opens it, with which settings, and what its errors mean to a person."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError as SqlDatabaseError
from sqlalchemy.pool import NullPool, QueuePool

from medapp.errors import MedappError, ProjectDamagedError, ProjectError, SaveFailedError

log = logging.getLogger(__name__)

SAFE_WAL = (3, 51, 3)  # older ones can corrupt a WAL database when two processes write and checkpoint at once
Access = Literal["write", "read", "immutable"]

_NETWORK = {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "davfs", "ncpfs"}


def driver() -> Any:
    """The DB-API module that opens projects: the newer of pysqlite3 and the standard library's."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    return dbapi2 if dbapi2.sqlite_version_info >= sqlite3.sqlite_version_info else sqlite3


def is_network_drive(folder: Path) -> bool:
    """True when a folder lies on a drive of another computer, as far as this system tells."""
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.kernel32.GetDriveTypeW(str(folder.resolve().anchor)) == 4)  # DRIVE_REMOTE
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    target, best, kind = str(folder.resolve()), "", ""
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind in _NETWORK or kind.startswith(("fuse.sshfs", "fuse.s3", "fuse.rclone", "fuse.gvfs", "fuse.glusterfs"))


class Database:
    """One project's SQLite file.

    Every transaction that writes starts with BEGIN IMMEDIATE: a deferred one fails at once when it upgrades, whatever
    the timeout. ``synchronous=FULL`` makes a commit survive a power cut.

    Attributes:
        path: The file.
        access: ``immutable`` reads a file that nobody can change (a read-only medium).
        temporary: A folder that goes when the database is closed.
        uses_wal: False on a network drive or with an old SQLite, which get a rollback journal.
    """

    def __init__(self, path: Path, access: Access = "write", on_network: bool = False, temporary: Any = None) -> None:
        self.path, self.access, self.temporary = path, access, temporary
        module = driver()
        self.uses_wal = not on_network and module.sqlite_version_info >= SAFE_WAL
        address = f"file:{quote(str(path.resolve()))}"
        query = {"write": "mode=rw", "read": "mode=ro", "immutable": "mode=ro&immutable=1"}[access]

        def connect() -> Any:
            return module.connect(f"{address}?{query}", uri=True, timeout=5.0, check_same_thread=False)

        pool = NullPool if access == "immutable" else QueuePool
        self.engine: Engine = create_engine("sqlite://", module=module, creator=connect, poolclass=pool)
        event.listen(self.engine, "connect", self._on_connect)
        event.listen(self.engine, "begin", _on_begin)

    def _on_connect(self, connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        run = connection.execute
        run("PRAGMA busy_timeout=5000")
        run("PRAGMA foreign_keys=ON")
        run("PRAGMA cell_size_check=ON")
        run("PRAGMA trusted_schema=OFF")
        if self.access == "write":
            run("PRAGMA journal_mode=" + ("WAL" if self.uses_wal else "DELETE"))
            run("PRAGMA synchronous=" + ("FULL" if self.uses_wal else "EXTRA"))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end, or leaves nothing behind.

        Raises:
            SaveFailedError: Disk full, no permission, or another process is in the way.
            ProjectDamagedError: The file is damaged.
        """
        with self._translated(), self.engine.connect() as connection:
            connection = connection.execution_options(medapp_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def write_without_foreign_keys(self) -> Iterator[Connection]:
        """The same for migrations: the switch only works before a transaction begins."""
        with self._translated(), self.engine.connect() as connection:
            handle = connection.connection.driver_connection
            assert handle is not None
            handle.execute("PRAGMA foreign_keys=OFF")
            try:
                connection = connection.execution_options(medapp_writes=True)
                with connection.begin():
                    yield connection
            finally:
                handle.execute("PRAGMA foreign_keys=ON")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view of the file."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SqlDatabaseError as error:
            raise explained(error.orig or error) from error

    def pragma(self, name: str) -> Any:
        """The value of a PRAGMA."""
        with self.read() as connection:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    def problems(self, quick: bool = True) -> list[str]:
        """What SQLite's own check finds; empty when the file is sound."""
        try:
            with self.engine.connect() as connection:
                pragma = "quick_check(5)" if quick else "integrity_check(5)"
                rows = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA {pragma}")]
                if rows == ["ok"] and not quick:
                    rows += [f"foreign key: {row}" for row in connection.exec_driver_sql("PRAGMA foreign_key_check")]
        except SqlDatabaseError as error:
            return [str(error.orig)]
        return [row for row in rows if row != "ok"]

    def backup_to(self, target: Path) -> None:
        """Copy the file by SQLite's backup API, whole or not at all.

        Raises:
            SaveFailedError: The copy cannot be written.
        """
        beside = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        try:
            source = self.engine.raw_connection()
            try:
                copy = driver().connect(str(beside))
                try:
                    source.driver_connection.backup(copy, pages=1024)  # type: ignore[union-attr]
                    copy.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
                finally:
                    copy.close()
            finally:
                source.close()
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(target)
            sync_folder(target.parent)
        except (driver().Error, OSError) as error:
            beside.unlink(missing_ok=True)
            raise explained(error) from error

    def close(self) -> None:
        """Let go of the file."""
        self.engine.dispose()
        if self.temporary is not None:
            self.temporary.cleanup()
            self.temporary = None


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("medapp_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, where the system allows it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explained(error: BaseException) -> MedappError:
    """What an error of SQLite or of the file system means to a person; holds no path."""
    if isinstance(error, OSError) and not isinstance(error, driver().Error):
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT if hasattr(errno, "EDQUOT") else -1):
            return _disk_full()
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _read_only()
        return SaveFailedError("Not saved: the drive does not answer.", "Check the drive, then Retry, or save a copy.")
    text = str(error).lower()
    if "full" in text:
        return _disk_full()
    if "readonly" in text or "read-only" in text:
        return _read_only()
    if "malformed" in text or "not a database" in text or "corrupt" in text or "encrypted" in text:
        return ProjectDamagedError(
            "The project's database is damaged.", "Close and open the project: the newest good backup is used then."
        )
    if "locked" in text or "busy" in text:
        return SaveFailedError("Not saved: another program is writing to the project.", "Retry in a moment.")
    if "disk i/o" in text or "unable to open" in text:
        return SaveFailedError("Not saved: the drive does not answer.", "Check the drive, then Retry, or save a copy.")
    log.error("unexpected database error: %s", type(error).__name__)
    return ProjectError("The project's database refused an operation; nothing was changed.", "Retry, or save a copy.")


def _disk_full() -> MedappError:
    return SaveFailedError("Not saved: the disk is full.", "Free some space and Retry, or save a copy elsewhere.")


def _read_only() -> MedappError:
    return SaveFailedError("Not saved: the folder is read-only.", "Save a copy elsewhere, or allow writing and Retry.")
