"""What a damaged database still tells: series, edits and revisions that came after the backup."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select

from medapp.errors import MedappError
from medapp.store import codec, data_sets, region_maps, revisions, tables
from medapp.store.database import Database, driver

log = logging.getLogger(__name__)

_MISSES = 200  # unreadable rows in a row before giving up on a table


def salvage(damaged: Path, restored: Database) -> int:
    """Copy what is readable and newer than the backup from a damaged file into the restored one.

    The damaged file itself is not opened, as SQLite would change it: a copy beside nothing else is.

    Returns:
        How many edits came over.
    """
    with tempfile.TemporaryDirectory(prefix="medapp-salvage-") as folder:
        copy = Path(folder) / "damaged.sqlite"
        shutil.copyfile(damaged, copy)
        wal = damaged.with_name(damaged.name + "-wal")
        if wal.exists():
            shutil.copyfile(wal, copy.with_name(copy.name + "-wal"))
        connection = driver().connect(str(copy), isolation_level=None)
        connection.row_factory = driver().Row
        try:
            return _copy_all(connection, restored)
        finally:
            connection.close()


def _copy_all(source: Any, restored: Database) -> int:
    edits = 0
    with restored.write() as target:
        for row in _rows(source, target, tables.series, "number"):
            with _attempt(target):
                target.execute(insert(tables.series).values(**row))
                parts = _one(source, "series_parts", "series_id", row["series_id"])
                if parts:
                    target.execute(insert(tables.series_parts).values(**parts))
        for row in _rows(source, target, tables.journal, "seq"):
            with _attempt(target):
                codec.decode_edit(row["edit"])
                target.execute(insert(tables.journal).values(**row))
                edits += 1
        for row in _rows(source, target, tables.revisions, "revision_id"):
            with _attempt(target):
                _copy_revision(source, target, row)
        for row in _rows(source, target, tables.region_maps, "region_map_id"):
            with _attempt(target):
                target.execute(insert(tables.region_maps).values(**row))
                number = tables.region_maps.c.region_map_id == row["region_map_id"]
                region_maps.region_map_from(target.execute(select(tables.region_maps).where(number)).mappings().one())
        for row in _rows(source, target, tables.training_roles, "number"):
            with _attempt(target):
                target.execute(insert(tables.training_roles).values(**row))
        for row in _rows(source, target, tables.data_sets, "number"):
            with _attempt(target):
                target.execute(insert(tables.data_sets).values(**row))
                number = tables.data_sets.c.number == row["number"]
                data_sets.version_from(target.execute(select(tables.data_sets).where(number)).mappings().one())
    return edits


def _copy_revision(source: Any, target: Connection, row: dict[str, Any]) -> None:
    for sha256 in revisions.planes_of(row["content"]):
        known = target.execute(select(tables.blobs.c.sha256).where(tables.blobs.c.sha256 == sha256)).first()
        blob = None if known else _one(source, "blobs", "sha256", sha256)
        if blob:
            target.execute(insert(tables.blobs).values(**blob))
    target.execute(insert(tables.revisions).values(**row))
    number = tables.revisions.c.revision_id == row["revision_id"]
    revisions.annotation_from(target, target.execute(select(tables.revisions).where(number)).mappings().one())


def _rows(source: Any, target: Connection, table: Table, key: str) -> list[dict[str, Any]]:
    """Readable rows with a number above the newest one in the backup, one look-up each."""
    number = int(target.execute(select(func.max(table.c[key]))).scalar() or 0)
    found, misses = [], 0
    while misses < _MISSES:
        number += 1
        row = _one(source, table.name, key, number)
        misses = 0 if row else misses + 1
        if row:
            found.append(row)
    return found


def _one(source: Any, table: str, key: str, value: Any) -> dict[str, Any] | None:
    try:
        row = source.execute(f"SELECT * FROM {table} WHERE {key} = ?", (value,)).fetchone()
    except driver().Error:
        return None
    return dict(row) if row is not None else None


class _attempt:  # noqa: N801 - reads as a statement
    """A savepoint that is rolled back when the row cannot be used."""

    def __init__(self, connection: Connection) -> None:
        self._savepoint = connection.begin_nested()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None:
            self._savepoint.commit()
            return False
        self._savepoint.rollback()
        if isinstance(error, MedappError | ValueError | KeyError | TypeError) or "sqlalchemy" in type(error).__module__:
            log.warning("a row of the damaged database could not be used")
            return True
        return False
