"""Annotations out of the database and edits into it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import ChangeSeries, Compound, Edit
from medapp.annotation.history import Kind, StoredStep
from medapp.errors import ProjectDamagedError, ProjectError
from medapp.store import codec, effort, revisions, tables
from medapp.store.database import Database
from medapp.store.series import change_series, now

log = logging.getLogger(__name__)

_BATCH_BYTES = 2 * 2**20  # keeps a transaction well under 50 ms
_BATCH_ROWS = 100


@dataclass(frozen=True, eq=False)
class JournalEntry:
    """One edit on its way to the disk."""

    series_id: str
    edit: Edit
    kind: Kind = "do"


def load(
    connection: Connection, series_id: str, origin: revisions.Origin | None = None
) -> tuple[Annotation, int, bool]:
    """The newest revision and every edit journalled since.

    Args:
        origin: Takes down which tiles came from which stored plane.

    Returns:
        The annotation, the number of the last edit in it, and False when a damaged revision was passed over.

    Raises:
        ProjectError: There is no such series.
    """
    annotation, seq, is_whole = _newest_sound(connection, series_id, origin)
    journal = tables.journal
    rows = connection.execute(
        select(journal.c.seq, journal.c.edit)
        .where(journal.c.series_id == series_id, journal.c.seq > seq)
        .order_by(journal.c.seq)
    )
    for number, data in rows:
        try:
            codec.decode_edit(data).apply(annotation)
        except (ProjectDamagedError, KeyError, ValueError):
            log.error("edit %d is damaged and was left out", number)
            is_whole = False
        seq = number
    return annotation, seq, is_whole


def _newest_sound(
    connection: Connection, series_id: str, origin: revisions.Origin | None
) -> tuple[Annotation, int, bool]:
    shape = connection.execute(
        select(tables.series.c.shape).where(tables.series.c.series_id == series_id)
    ).scalar_one_or_none()
    if shape is None:
        raise ProjectError("The project has no such series.", "Open the project again.")
    row, is_whole = revisions.newest(connection, series_id), True
    while row is not None:
        try:
            return revisions.annotation_from(connection, row, origin), int(row["journal_seq"]), is_whole
        except ProjectDamagedError:
            log.error("revision %d is damaged; the one before it is used", row["revision_id"])
            is_whole = False
            row = revisions.newest(connection, series_id, before=row["revision_id"])
    z, y, x = json.loads(shape)[:3]
    return Annotation(series_id, (z, y, x)), 0, is_whole


def append(connection: Connection, entry: JournalEntry, data: bytes, reader: str) -> int:
    """Add one encoded edit to the journal, and carry out what it changes on the series itself; returns its number."""
    result = connection.execute(
        insert(tables.journal).values(
            series_id=entry.series_id,
            kind=entry.kind,
            text=entry.edit.text,
            reader=reader,
            edit=data,
            created_at=now(),
        )
    )
    for change in _series_changes(entry.edit):
        change_series(connection, entry.series_id, change.after)
    return int(result.inserted_primary_key[0])  # type: ignore[index]


def stored_step(text: str, data: bytes | None) -> StoredStep | None:
    """A journalled edit for the undo stack; decoded when it is undone."""
    return StoredStep(text, len(data), partial(codec.decode_edit, data)) if data is not None else None


def _series_changes(edit: Edit) -> list[ChangeSeries]:
    if isinstance(edit, ChangeSeries):
        return [edit]
    return [change for part in edit.edits for change in _series_changes(part)] if isinstance(edit, Compound) else []


def unsaved(after: int = 0) -> Any:
    """A query for edits that no revision holds yet, newer than a number."""
    saved = (
        select(func.max(tables.revisions.c.journal_seq))
        .where(tables.revisions.c.series_id == tables.journal.c.series_id)
        .scalar_subquery()
    )
    return (
        select(tables.journal.c.series_id, tables.journal.c.created_at)
        .where(tables.journal.c.seq > after)
        .where(tables.journal.c.seq > func.coalesce(saved, 0))
        .order_by(tables.journal.c.seq)
    )


def store_planes(database: Database, planes: Iterable[tuple[str, bytes]]) -> None:
    """Keep planes by their hash, in short transactions; a row appears only when a revision names it."""
    for batch in _batches(planes):
        with database.write() as connection:
            for sha256, data in batch:
                connection.execute(insert(tables.blobs).prefix_with("OR IGNORE").values(sha256=sha256, data=data))


def prune_journal(
    database: Database, keep_steps: int = 1000, min_steps: int = 200, keep_bytes: int = 512 * 2**20
) -> None:
    """Drop the oldest edits, a few at a time; only to be called when revisions hold everything.

    The newest ``keep_steps`` stay for undo, fewer when they are large, but never fewer than ``min_steps``.
    """
    journal = tables.journal
    with database.read() as connection:
        rows: Sequence[Any] = connection.execute(
            select(journal.c.seq, func.length(journal.c.edit)).order_by(journal.c.seq.desc())
        ).all()
    total, surplus = 0, []
    for place, (seq, size) in enumerate(rows):
        total += size
        if place >= keep_steps or (place >= min_steps and total > keep_bytes):
            surplus.append(seq)
    for start in range(0, len(surplus), _BATCH_ROWS):
        numbers = surplus[start : start + _BATCH_ROWS]
        with database.write() as connection:
            effort.keep_facts(connection, numbers)
            connection.execute(delete(journal).where(journal.c.seq.in_(numbers)))


def _batches(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item[1])
        if size > _BATCH_BYTES or len(batch) >= _BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
