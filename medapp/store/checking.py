"""Looking at a whole project: what SQLite's own check cannot see is found by hashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from medapp.errors import MedappError
from medapp.store import codec, data_sets, region_maps, revisions, tables
from medapp.store.database import Database
from medapp.store.voxels import file_sha256


def find_problems(database: Database, voxels: Path, progress: Callable[[], None] = lambda: None) -> list[str]:
    """One line for every problem; empty when the project is sound.

    Args:
        progress: Called after each revision, edit batch and voxel file; may raise to stop.
    """
    found = [f"database: {line}" for line in database.problems(quick=False)]
    if found:
        return found
    with database.read() as connection:
        parents: dict[int, str] = {}
        for row in connection.execute(select(tables.revisions).order_by(tables.revisions.c.revision_id)).mappings():
            number = row["revision_id"]
            parents[number] = revisions.row_sha256(row)
            if row["parent_id"] is not None and parents.get(row["parent_id"]) != row["parent_sha256"]:
                found.append(f"revision {number}: its parent is not the one it was saved on")
            try:
                revisions.annotation_from(connection, row)
            except MedappError as error:
                found.append(f"revision {number}: {error.message}")
            progress()
        for seq, edit in connection.execute(select(tables.journal.c.seq, tables.journal.c.edit)):
            try:
                codec.decode_edit(edit)
            except MedappError as error:
                found.append(f"edit {seq}: {error.message}")
        found += region_maps.find_damaged(connection)
        found += data_sets.find_damaged(connection)
        columns = (tables.series.c.voxels_sha256, tables.series.c.padding_sha256, tables.series.c.alpha_sha256)
        names = {name for row in connection.execute(select(*columns)) for name in row if name}
    for name in sorted(names):
        path = voxels / name
        try:
            if file_sha256(path) != name:
                found.append(f"voxels {name[:12]}: the content has changed")
        except OSError:
            found.append(f"voxels {name[:12]}: the file is missing or cannot be read")
        progress()
    return found
