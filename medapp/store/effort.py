"""What the journal tells of the work that each matte took, also when its oldest edits are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from medapp.errors import ProjectDamagedError
from medapp.store import codec, tables
from medapp.store.database import Database

BREAK_S = 60.0
"""A longer pause between two edits counts as this long: the person was elsewhere."""
_MERGES = ("Accept ", "Replace with ", "Subtract ")


@dataclass(frozen=True)
class MatteEffort:
    """What one matte on one slice took.

    Attributes:
        strokes: Edits of its voxels by hand, undone ones too: they took time.
        seconds: Between each of its edits and the one before, whatever that was on; pauses count as ``BREAK_S``.
        accepted: What was accepted into it, in order: ``alpha``, ``mask`` or ``region``.
        models: Titles of the models whose proposals were accepted, in order.
    """

    strokes: int
    seconds: float
    accepted: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def way(self) -> str:
        """How it came to be: ``alpha`` or ``masks`` of a matting model, else ``hand``."""
        return "alpha" if "alpha" in self.accepted else "masks" if "mask" in self.accepted else "hand"


@dataclass(frozen=True)
class _Fact:
    seq: int
    series_id: str
    matte_id: str
    slice_index: int | None
    kind: str
    text: str
    created_at: str


class EffortShelf:
    """What a ``Project`` knows of the work that went into its mattes."""

    _database: Database

    def efforts(self) -> dict[tuple[str, str, int], MatteEffort]:
        """Series, matte and slice (along z) to what it took; a matte that came ready-made is not there."""
        with self._database.read() as connection:
            facts = sorted((*_kept_facts(connection), *_journalled_facts(connection)), key=lambda fact: fact.seq)
        found: dict[tuple[str, str, int], list[tuple[_Fact, float]]] = {}
        before: datetime | None = None
        for fact in facts:
            at = _time(fact.created_at)
            gap = (at - before).total_seconds() if at is not None and before is not None else 0.0
            before = at or before
            if fact.matte_id and fact.slice_index is not None:
                key = (fact.series_id, fact.matte_id, fact.slice_index)
                found.setdefault(key, []).append((fact, min(max(gap, 0.0), BREAK_S)))
        return {key: _effort(rows) for key, rows in found.items()}


def keep_facts(connection: Connection, numbers: Iterable[int]) -> None:
    """Note what is to be known of edits that are about to leave the journal; in the transaction that drops them."""
    journal, table = tables.journal, tables.edit_facts
    wanted = list(numbers)
    for fact in _facts(connection, journal.c.seq.in_(wanted)):
        values = {name: getattr(fact, name) for name in _Fact.__dataclass_fields__}
        connection.execute(insert(table).prefix_with("OR IGNORE").values(**values))


def _kept_facts(connection: Connection) -> Iterator[_Fact]:
    for row in connection.execute(select(tables.edit_facts)).mappings():
        yield _Fact(**{name: row[name] for name in _Fact.__dataclass_fields__})


def _journalled_facts(connection: Connection) -> Iterator[_Fact]:
    yield from _facts(connection, tables.journal.c.seq > 0)


def _facts(connection: Connection, where: Any) -> Iterator[_Fact]:
    journal = tables.journal
    columns = (journal.c.seq, journal.c.series_id, journal.c.kind, journal.c.text, journal.c.created_at, journal.c.edit)
    for seq, series_id, kind, text, created_at, edit in connection.execute(select(*columns).where(where)):
        try:
            matte_id, slice_index = codec.edited_place(edit)
        except ProjectDamagedError:
            continue  # ``check`` says so
        yield _Fact(seq, series_id, matte_id, slice_index, kind, text, created_at)


def _effort(rows: list[tuple[_Fact, float]]) -> MatteEffort:
    strokes, accepted, models = 0, [], []
    for fact, _ in rows:
        if fact.kind != "do":
            continue
        if not fact.text.startswith(_MERGES):
            strokes += 1
            continue
        accepted.append("alpha" if " α from " in fact.text else "mask" if " mask " in fact.text else "region")
        if accepted[-1] != "region":
            models.append(fact.text.partition(" from ")[2].rpartition(", seed ")[0])
    return MatteEffort(strokes, sum(gap for _, gap in rows), tuple(accepted), tuple(models))


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def means(efforts: Iterable[MatteEffort]) -> Mapping[str, Any]:
    """``mattes``, ``strokes_per_matte`` and ``seconds_per_matte``; the means are None where there is no matte."""
    rows = tuple(efforts)
    count = len(rows)
    return {
        "mattes": count,
        "strokes_per_matte": round(sum(row.strokes for row in rows) / count, 1) if count else None,
        "seconds_per_matte": round(sum(row.seconds for row in rows) / count, 1) if count else None,
    }
