"""Data set versions: frozen choices of what a model is retrained from, and who judges it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import zstandard
from sqlalchemy import Connection, RowMapping, func, insert, select

from medapp.errors import ProjectDamagedError, ProjectError, SaveFailedError
from medapp.store import codec, tables
from medapp.store.database import Database
from medapp.store.series import now

DataSetKind = Literal["matting", "restoration"]
Role = Literal["training", "hold-out"]
STEMS: Mapping[DataSetKind, str] = {"matting": "mattes", "restoration": "references"}
_FORMAT = 1
_LIMIT = 256 * 2**20


@dataclass(frozen=True)
class DataSetCase:
    """One thing that trains or judges: the matte of a thing on a slice, or a reference slice.

    Attributes:
        series_id: The series of the values.
        slice_index: Along z.
        group: Patient group; patients without one count by series.
        role: ``training`` or ``hold-out``.
        voxels_sha256: Of the series' voxel file.
        revision_id, content_sha256: The frozen revision of the mattes; 0 and empty where there are none.
        matte_ids: The mattes of one thing, of several readers where there are several; all accepted mattes of the slice
            for a reference.
        readers: Of the mattes, in the same order.
    """

    series_id: str
    slice_index: int
    group: str
    role: Role
    voxels_sha256: str
    revision_id: int = 0
    content_sha256: str = ""
    matte_ids: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSetVersion:
    """A frozen data set of a project.

    Attributes:
        name: Such as ``mattes-2``; unique in the project.
        created: ISO time with zone; only shown.
        sha256: Of its content: the same cases give the same hash.
    """

    name: str
    kind: DataSetKind
    reader: str
    created: str
    sha256: str
    cases: tuple[DataSetCase, ...]

    def of(self, role: Role) -> tuple[DataSetCase, ...]:
        """The cases of one role."""
        return tuple(case for case in self.cases if case.role == role)

    @property
    def groups(self) -> tuple[str, ...]:
        """Patient groups, sorted."""
        return tuple(sorted({case.group for case in self.cases}))


class DataSetShelf:
    """What a ``Project`` knows of its data set versions.

    Attributes:
        mode: ``write``, ``read`` or ``worker``; nothing is changed in ``read``.
        reader: The person, kept with what is added.
    """

    mode: str
    reader: str
    _database: Database

    def data_sets(self, kind: DataSetKind) -> tuple[str, ...]:
        """Names of the versions of one kind, oldest first."""
        table = tables.data_sets
        query = select(table.c.name).where(table.c.kind == kind).order_by(table.c.number)
        with self._database.read() as connection:
            return tuple(connection.execute(query).scalars())

    def data_set(self, name: str) -> DataSetVersion:
        """The version with this name.

        Raises:
            ProjectError: There is none.
            ProjectDamagedError: It is not what was frozen.
        """
        table = tables.data_sets
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.name == name)).mappings().first()
        if row is None:
            raise ProjectError("The project has no such data set version.", "Choose another one, or freeze a new one.")
        return version_from(row)

    def training_roles(self, kind: DataSetKind) -> dict[str, Role]:
        """``group:<name>`` and ``series:<id>`` to the role that each has had since it was first in a version."""
        table = tables.training_roles
        with self._database.read() as connection:
            rows = connection.execute(select(table.c.key, table.c.role).where(table.c.kind == kind)).all()
        return {str(row.key): row.role for row in rows}

    def add_data_set(self, kind: DataSetKind, cases: Sequence[DataSetCase]) -> DataSetVersion:
        """Freeze cases as the next version, with the roles of their groups and series; one transaction.

        The newest version is returned instead when it holds the same cases.

        Raises:
            SaveFailedError: The project cannot be written.
            ValueError: A group or series would get another role than it has.
        """
        if self.mode == "read":
            raise SaveFailedError("Not saved: the project is open read-only.", "Save a copy elsewhere.")
        content = _content(kind, cases)
        sha256 = hashlib.sha256(content).hexdigest()
        newest = self.data_sets(kind)[-1:]
        if newest and (version := self.data_set(newest[0])).sha256 == sha256:
            return version
        table = tables.data_sets
        with self._database.write() as connection:
            _add_roles(connection, kind, cases)
            count = connection.execute(select(func.count()).where(table.c.kind == kind)).scalar() or 0
            name = f"{STEMS[kind]}-{count + 1}"
            values = {
                "name": name,
                "kind": kind,
                "reader": self.reader,
                "created_at": now(),
                "content": zstandard.ZstdCompressor(level=3).compress(content),
                "sha256": sha256,
            }
            connection.execute(insert(table).values(**values))
        return self.data_set(name)


def version_from(row: RowMapping) -> DataSetVersion:
    """A row as a domain object, checked by its hash.

    Raises:
        ProjectDamagedError: It is not what was frozen.
    """
    damaged = ProjectDamagedError("A data set version is damaged.", "Choose another version, or freeze a new one.")
    try:
        content = zstandard.ZstdDecompressor().decompress(row["content"], max_output_size=_LIMIT)
    except zstandard.ZstdError as error:
        raise damaged from error
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        raise damaged
    cases = tuple(_case(entries) for entries in json.loads(content)["cases"])
    return DataSetVersion(row["name"], row["kind"], row["reader"], row["created_at"], row["sha256"], cases)


def find_damaged(connection: Connection) -> list[str]:
    """One line for every data set version that is not what was frozen."""
    found = []
    for row in connection.execute(select(tables.data_sets)).mappings():
        try:
            version_from(row)
        except ProjectDamagedError as error:
            found.append(f"data set {row['name']}: {error.message}")
    return found


def _case(entries: dict[str, Any]) -> DataSetCase:
    values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in entries.items()}
    return DataSetCase(**values)


def _content(kind: DataSetKind, cases: Sequence[DataSetCase]) -> bytes:
    ordered = sorted(cases, key=lambda case: (case.series_id, case.slice_index, case.matte_ids))
    return codec.canonical({"format": _FORMAT, "kind": kind, "cases": [asdict(case) for case in ordered]})


def _add_roles(connection: Connection, kind: DataSetKind, cases: Sequence[DataSetCase]) -> None:
    table = tables.training_roles
    rows = connection.execute(select(table.c.key, table.c.role).where(table.c.kind == kind)).all()
    known: dict[str, str] = {row.key: row.role for row in rows}
    for case in cases:
        for key in (f"group:{case.group}", f"series:{case.series_id}"):
            if known.setdefault(key, "") == "":
                known[key] = case.role
                connection.execute(insert(table).values(kind=kind, key=key, role=case.role))
            elif known[key] != case.role:
                raise ValueError(f"a {key.split(':')[0]} would change from {known[key]} to {case.role}")
