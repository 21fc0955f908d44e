"""Region maps of slices in a project: inserted, never updated, so that each is a revision."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, RowMapping, func, insert, select

from medapp.errors import ProjectDamagedError, ProjectError, SaveFailedError
from medapp.store import codec, tables
from medapp.store.database import Database
from medapp.store.series import now

log = logging.getLogger(__name__)

_FACTS = (
    "series_id",
    "axis",
    "slice_index",
    "engine",
    "engine_id",
    "settings",
    "regions",
    "mattes",
    "mattes_sha256",
    "journal_seq",
)


@dataclass(frozen=True)
class RegionMapInfo:
    """What is known of one region map without its labels.

    Attributes:
        region_map_id: Grows with each; the newest one of a slice counts.
        slice_index, axis: The plane, and the axis it is perpendicular to.
        engine: As shown, such as ``region tree`` or ``SAM · vit_b``.
        engine_id: The model's id in the library; empty for the region tree.
        settings: How the engine was run: display window, thresholds, hash of the weights.
        regions: How many regions the map shows.
        mattes: How many accepted masks were painted in.
        mattes_sha256: Of those masks (``annotation.accepted.masks_sha256``); another hash says the map is out of date.
        journal_seq: Number of the newest edit of the series when they were painted in.
        reader: The person.
        created: ISO time with zone; only shown.
    """

    region_map_id: int
    series_id: str
    slice_index: int
    axis: int
    engine: str
    engine_id: str
    settings: dict[str, Any]
    regions: int
    mattes: int
    mattes_sha256: str
    journal_seq: int
    reader: str
    created: str


@dataclass(frozen=True, eq=False)
class RegionMapRevision(RegionMapInfo):
    """One region map.

    Attributes:
        labels: ``(H, W)`` int32, the number of the region of each pixel.
    """

    labels: NDArray[np.int32]


class RegionMapShelf:
    """What a ``Project`` knows of region maps.

    Attributes:
        mode: ``write``, ``read`` or ``worker``; nothing is changed in ``read``.
        reader: The person, kept with what is added.
    """

    mode: str
    reader: str
    _database: Database

    def add_region_map(
        self,
        series_id: str,
        slice_index: int,
        labels: NDArray[np.int32],
        *,
        axis: int = 0,
        engine: str,
        engine_id: str = "",
        settings: dict[str, Any] | None = None,
        mattes: int = 0,
        mattes_sha256: str = "",
        journal_seq: int = 0,
    ) -> int:
        """Keep a region map as the newest one of its plane; earlier ones stay. Returns its number.

        Args:
            labels: ``(H, W)`` whole numbers from 0.

        Raises:
            ProjectError: There is no such series or plane.
            SaveFailedError: The project cannot be written.
            ValueError: The labels do not have the plane's size.
        """
        if self.mode == "read":
            raise SaveFailedError("Not saved: the project is open read-only.", "Save a copy elsewhere.")
        labels = np.asarray(labels, dtype=np.int32)
        facts = {
            "series_id": series_id,
            "axis": int(axis),
            "slice_index": int(slice_index),
            "engine": engine,
            "engine_id": engine_id,
            "settings": json.dumps(settings or {}, sort_keys=True, ensure_ascii=False),
            "regions": int(np.count_nonzero(np.bincount(labels.ravel()))),
            "mattes": int(mattes),
            "mattes_sha256": mattes_sha256,
            "journal_seq": int(journal_seq),
        }
        data, sha256 = codec.pack({"region_map": facts}, [_smallest(labels)])
        values = {**facts, "reader": self.reader, "created_at": now(), "labels": data, "labels_sha256": sha256}
        with self._database.write() as connection:
            _check_plane(connection, series_id, slice_index, axis, labels.shape)
            result = connection.execute(insert(tables.region_maps).values(**values))
            return int(result.inserted_primary_key[0])  # type: ignore[index]

    def region_map(
        self, series_id: str, slice_index: int, axis: int = 0, engine_id: str | None = None
    ) -> RegionMapRevision | None:
        """The newest sound region map of a plane, or None when it has none.

        Args:
            engine_id: Only of this engine; None = of any.
        """
        table = tables.region_maps
        query = select(table).where(
            table.c.series_id == series_id, table.c.axis == axis, table.c.slice_index == slice_index
        )
        if engine_id is not None:
            query = query.where(table.c.engine_id == engine_id)
        with self._database.read() as connection:
            for row in connection.execute(query.order_by(table.c.region_map_id.desc())).mappings():
                try:
                    return region_map_from(row)
                except ProjectDamagedError:
                    log.error("region map %d is damaged; the one before it is used", row["region_map_id"])
        return None

    def load_region_map(self, region_map_id: int) -> RegionMapRevision:
        """The region map with this number.

        Raises:
            ProjectError: There is none.
            ProjectDamagedError: It is not what was saved.
        """
        table = tables.region_maps
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.region_map_id == region_map_id)).mappings().first()
        if row is None:
            raise ProjectError("The project has no such region map.", "Find the regions of the slice again.")
        return region_map_from(row)

    def region_maps(self, series_id: str) -> tuple[RegionMapInfo, ...]:
        """Every region map of a series without its labels, oldest first."""
        table = tables.region_maps
        columns = [column for column in table.c if column.name not in ("labels", "labels_sha256")]
        query = select(*columns).where(table.c.series_id == series_id).order_by(table.c.region_map_id)
        with self._database.read() as connection:
            return tuple(RegionMapInfo(**_info(row)) for row in connection.execute(query).mappings())

    def annotation_state(self, series_id: str) -> tuple[int, int]:
        """Numbers of the newest edit and the newest revision of a series: equal while its mattes are the same."""
        with self._database.read() as connection:
            journal, revisions = tables.journal.c, tables.revisions.c
            seq = connection.execute(select(func.max(journal.seq)).where(journal.series_id == series_id)).scalar()
            number = connection.execute(
                select(func.max(revisions.revision_id)).where(revisions.series_id == series_id)
            ).scalar()
        return int(seq or 0), int(number or 0)


def region_map_from(row: RowMapping) -> RegionMapRevision:
    """A row as a domain object, its labels and facts checked by their hash.

    Raises:
        ProjectDamagedError: It is not what was saved.
    """
    header, arrays = codec.unpack(row["labels"], row["labels_sha256"])
    if header.get("region_map") != {name: row[name] for name in _FACTS} or len(arrays) != 1 or arrays[0].ndim != 2:
        raise ProjectDamagedError(
            "A stored region map is damaged.", "Find the regions of the slice again; everything else is safe."
        )
    return RegionMapRevision(**_info(row), labels=arrays[0].astype(np.int32))


def find_damaged(connection: Connection) -> list[str]:
    """One line for every region map that is not what was saved."""
    found = []
    for row in connection.execute(select(tables.region_maps)).mappings():
        try:
            region_map_from(row)
        except ProjectDamagedError as error:
            found.append(f"region map {row['region_map_id']}: {error.message}")
    return found


def _info(row: RowMapping) -> dict[str, Any]:
    names = {field.name for field in fields(RegionMapInfo)}
    facts = {name: row[name] for name in names if name not in ("settings", "created")}
    try:
        settings = json.loads(row["settings"])
    except ValueError:  # damaged; ``check`` says so
        settings = {}
    return {**facts, "settings": settings, "created": row["created_at"]}


def _smallest(labels: NDArray[np.int32]) -> NDArray:
    highest = int(labels.max(initial=0))
    return labels.astype(np.uint8 if highest < 256 else np.uint16 if highest < 65536 else np.int32)


def _check_plane(connection: Connection, series_id: str, index: int, axis: int, shape: tuple[int, ...]) -> None:
    text = connection.execute(
        select(tables.series.c.shape).where(tables.series.c.series_id == series_id)
    ).scalar_one_or_none()
    if text is None:
        raise ProjectError("The project has no such series.", "Open the project again.")
    whole = [int(n) for n in json.loads(text)[:3]]
    if not (0 <= axis < 3 and 0 <= index < whole[axis]):
        raise ProjectError("The series has no such slice.", "Choose another slice.")
    expected = tuple(n for place, n in enumerate(whole) if place != axis)
    if shape != expected:
        raise ValueError(f"labels {shape} do not lie on the plane {expected}")
