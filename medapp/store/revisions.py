"""Saved states of annotations: inserted, never updated, each tied to its parent by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import zstandard
from sqlalchemy import Connection, RowMapping, func, insert, select

from medapp.annotation.annotation import Annotation
from medapp.annotation.matte import LAYERS, Matte
from medapp.errors import ProjectDamagedError, ProjectNewerError
from medapp.store import codec, tables
from medapp.store.series import now

CONTENT_VERSION = 1
_LIMIT = 256 * 2**20


@dataclass(frozen=True)
class Revision:
    """One saved state.

    Attributes:
        revision_id: Grows with each; the order of revisions, whatever the clock says.
        parent_id: The state before it, or None for the first.
        reader: The person.
        origin: ``person``, or model + version + weights hash.
        name: Given with Ctrl+S; None for a state saved along the way.
        created: ISO time with zone; only shown.
        thumbnail: PNG of a named version, or None.
    """

    revision_id: int
    series_id: str
    parent_id: int | None
    reader: str
    origin: str
    name: str | None
    note: str
    created: str
    content_sha256: str
    thumbnail: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Content:
    """An annotation as rows: the manifest, its hash, and the planes it names."""

    manifest: bytes
    sha256: str
    planes: dict[str, bytes]


def content_of(annotation: Annotation, is_known: Callable[[str], bool] = lambda sha256: False) -> Content:
    """Encode an annotation.

    Args:
        is_known: Tells which planes are stored already; those are left out.
    """
    planes: dict[str, bytes] = {}
    mattes: list[dict[str, Any]] = []
    for matte in annotation:
        layers: dict[str, list[list[Any]]] = {}
        for layer in LAYERS:
            by_slice: dict[int, list[Any]] = {}
            for (z, row, column), tile in matte.tiles(layer).tiles.items():
                by_slice.setdefault(z, []).append((row, column, tile))
            for z in sorted(by_slice):
                data, sha256 = codec.encode_plane(layer, by_slice[z])
                layers.setdefault(layer, []).append([z, sha256])
                if sha256 not in planes and not is_known(sha256):
                    planes[sha256] = data
        mattes.append({"id": matte.matte_id, "props": asdict(matte.props), "layers": layers})
    manifest = codec.canonical(
        {
            "version": CONTENT_VERSION,
            "shape": list(annotation.shape_zyx),
            "mattes": mattes,
            "marks": sorted(annotation.marks.items()),
        }
    )
    return Content(manifest, hashlib.sha256(manifest).hexdigest(), planes)


def annotation_from(connection: Connection, row: RowMapping) -> Annotation:
    """Decode a revision, checking every hash on the way.

    Raises:
        ProjectDamagedError: Manifest or a plane is not what was saved.
    """
    manifest = _manifest(row["content"])
    if hashlib.sha256(manifest).hexdigest() != row["content_sha256"]:
        raise _damaged()
    content = json.loads(manifest)
    if content["version"] > CONTENT_VERSION:
        raise ProjectNewerError("A revision was saved by a newer medapp.", "Open the project with that medapp.")
    z, y, x = content["shape"]
    annotation = Annotation(row["series_id"], (z, y, x))
    annotation.marks = {int(place): str(mark) for place, mark in content["marks"]}
    for entry in content["mattes"]:
        matte = Matte.with_props(entry["id"], annotation.shape_zyx, codec.props_from(entry["props"]))
        for layer, planes in entry["layers"].items():
            volume = matte.tiles(layer)
            for place, sha256 in planes:
                data = connection.execute(
                    select(tables.blobs.c.data).where(tables.blobs.c.sha256 == sha256)
                ).scalar_one_or_none()
                if data is None:
                    raise _damaged()
                for tile_row, tile_column, tile in codec.decode_plane(data, sha256):
                    volume.put((int(place), tile_row, tile_column), tile)
        annotation.add(matte)
    return annotation


def planes_of(content: bytes) -> set[str]:
    """Hashes of the planes that a revision names.

    Raises:
        ProjectDamagedError: The manifest cannot be read.
    """
    mattes = json.loads(_manifest(content))["mattes"]
    return {sha256 for matte in mattes for planes in matte["layers"].values() for _, sha256 in planes}


def newest(connection: Connection, series_id: str, before: int | None = None) -> RowMapping | None:
    """The newest revision row of a series, by its number; with ``before``, the newest one below that number."""
    query = select(tables.revisions).where(tables.revisions.c.series_id == series_id)
    if before is not None:
        query = query.where(tables.revisions.c.revision_id < before)
    query = query.order_by(tables.revisions.c.revision_id.desc()).limit(1)
    return connection.execute(query).mappings().one_or_none()


def insert_revision(
    connection: Connection,
    series_id: str,
    content: Content,
    journal_seq: int,
    reader: str,
    origin: str,
    name: str | None,
    note: str,
    thumbnail: bytes | None = None,
) -> int:
    """Add a revision on top of the newest one; its planes must be stored already."""
    parent = newest(connection, series_id)
    values = {
        "series_id": series_id,
        "parent_id": parent["revision_id"] if parent is not None else None,
        "journal_seq": journal_seq,
        "reader": reader,
        "origin": origin,
        "name": name,
        "note": note,
        "created_at": now(),
        "content": zstandard.ZstdCompressor(level=3).compress(content.manifest),
        "content_sha256": content.sha256,
        "parent_sha256": row_sha256(parent) if parent is not None else None,
        "thumbnail": thumbnail,
    }
    result = connection.execute(insert(tables.revisions).values(**values))
    return int(result.inserted_primary_key[0])  # type: ignore[index]


def row_sha256(row: RowMapping) -> str:
    """The hash of a revision row, which its child carries: a changed or missing ancestor shows."""
    facts = [
        row[name]
        for name in (
            "revision_id",
            "series_id",
            "parent_id",
            "journal_seq",
            "reader",
            "origin",
            "name",
            "note",
            "created_at",
            "content_sha256",
            "parent_sha256",
        )
    ]
    return hashlib.sha256(codec.canonical(facts)).hexdigest()


def revision_from(row: RowMapping) -> Revision:
    """A row as a domain object."""
    return Revision(
        row["revision_id"],
        row["series_id"],
        row["parent_id"],
        row["reader"],
        row["origin"],
        row["name"],
        row["note"],
        row["created_at"],
        row["content_sha256"],
        row["thumbnail"],
    )


def last_seq(connection: Connection) -> int:
    """Number of the newest journalled edit, 0 when there is none."""
    return int(connection.execute(select(func.max(tables.journal.c.seq))).scalar() or 0)


def _manifest(content: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=_LIMIT)
    except zstandard.ZstdError as error:
        raise _damaged() from error


def _damaged() -> ProjectDamagedError:
    return ProjectDamagedError(
        "A saved revision is damaged.", "Open an earlier revision, or the newest backup of the project."
    )
