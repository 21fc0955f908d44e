"""Saved states of annotations: inserted, never updated, each tied to its parent by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import zstandard
from numpy.typing import NDArray
from sqlalchemy import Connection, RowMapping, func, insert, select

from medapp.annotation.annotation import Annotation
from medapp.annotation.matte import LAYERS, Matte
from medapp.annotation.sparse import SparseVolume
from medapp.errors import ProjectDamagedError, ProjectNewerError
from medapp.store import codec, tables
from medapp.store.series import now

CONTENT_VERSION = 1
_LIMIT = 256 * 2**20


# Matte, layer and slice of a loaded annotation to the hash it was stored under and the tiles it came as.
Origin = dict[tuple[str, str, int], tuple[str, dict[tuple[int, int], NDArray]]]


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


def content_of(
    annotation: Annotation, is_known: Callable[[str], bool] = lambda sha256: False, origin: Origin | None = None
) -> Content:
    """Encode an annotation.

    Args:
        is_known: Tells which planes are stored already; those are left out.
        origin: What ``annotation_from`` noted when it was loaded; planes that hold the same tiles still are not
            encoded again.
    """
    origin = origin or {}
    planes: dict[str, bytes] = {}
    mattes: list[dict[str, Any]] = []
    for matte in annotation:
        layers: dict[str, list[list[Any]]] = {}
        for layer in LAYERS:
            for z, tiles in sorted(_by_slice(matte.tiles(layer)).items()):
                sha256, before = origin.get((matte.matte_id, layer, z), ("", {}))
                if tiles.keys() != before.keys() or any(tiles[key] is not before[key] for key in tiles):
                    data, sha256 = codec.encode_plane(layer, [(*key, tile) for key, tile in tiles.items()])
                    if not is_known(sha256):
                        planes[sha256] = data
                layers.setdefault(layer, []).append([z, sha256])
        mattes.append({"id": matte.matte_id, "props": asdict(matte.props), "layers": layers})
    manifest = codec.canonical(
        {
            "version": CONTENT_VERSION,
            "shape": list(annotation.shape_zyx),
            "mattes": mattes,
            "marks": sorted(annotation.marks.items()),
            **({"depth_points": sorted(annotation.depth_points.items())} if annotation.depth_points else {}),
        }
    )
    return Content(manifest, hashlib.sha256(manifest).hexdigest(), planes)


def annotation_from(connection: Connection, row: RowMapping, origin: Origin | None = None) -> Annotation:
    """Decode a revision, checking every hash on the way.

    Args:
        origin: Takes down which tiles came from which stored plane.

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
    annotation.depth_points = {int(z): codec.points_from(rows) for z, rows in content.get("depth_points", [])}
    for entry in content["mattes"]:
        matte = Matte.with_props(entry["id"], annotation.shape_zyx, codec.props_from(entry["props"]))
        for layer, planes in entry["layers"].items():
            volume = matte.tiles(layer)
            stored = _stored_planes(connection, [sha256 for _, sha256 in planes])
            for place, sha256 in planes:
                for tile_row, tile_column, tile in codec.decode_plane(stored[sha256], sha256):
                    volume.put((int(place), tile_row, tile_column), tile)
            if origin is not None:
                tiles = _by_slice(volume)
                origin.update(
                    {(matte.matte_id, layer, int(z)): (sha256, tiles.get(int(z), {})) for z, sha256 in planes}
                )
        annotation.add(matte)
    return annotation


def _by_slice(volume: SparseVolume) -> dict[int, dict[tuple[int, int], NDArray]]:
    found: dict[int, dict[tuple[int, int], NDArray]] = {}
    for (z, tile_row, tile_column), tile in volume.tiles.items():
        found.setdefault(z, {})[tile_row, tile_column] = tile
    return found


def _stored_planes(connection: Connection, wanted: list[str]) -> dict[str, bytes]:
    """Planes by their hash, many in one query.

    Raises:
        ProjectDamagedError: One is missing.
    """
    found: dict[str, bytes] = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        query = select(tables.blobs.c.sha256, tables.blobs.c.data).where(tables.blobs.c.sha256.in_(part))
        found.update((sha256, data) for sha256, data in connection.execute(query))
    if not found.keys() >= set(wanted):
        raise _damaged()
    return found


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
