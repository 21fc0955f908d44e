"""Series as domain objects, and the rows they are kept in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, RowMapping, select, update

from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan, Window
from medapp.store import tables

SeriesKind = Literal["original", "restored", "filtered", "synthetic", "depth", "trust"]
STATES = ("new", "in work", "done", "flagged", "reviewed")


@dataclass(frozen=True, eq=False)
class SeriesInfo:
    """What is known of a series without its voxels: one row of the library and of Curate.

    Attributes:
        series_id: Unique in the project.
        source_id: The series it was derived from; None for an original.
        kind: ``original``, ``restored``, ``filtered``, ``synthetic``, ``depth`` or ``trust``.
        title: Shown in the tree; may hold what the file's description says.
        shape: ``(Z, Y, X)`` or ``(Z, Y, X, 3)``.
        dtype: Of the stored voxels; ``value = stored * slope + intercept`` in ``unit``.
        spacing_mm: ``(z, y, x)``, or None where lengths are unknown; may be known without ``geometry``.
        in_plane_spacing_mm: ``(y, x)``, or None.
        scan_kind: ``scan``, ``stack`` or ``image``.
        notes: What was repaired, split, dropped or assumed on import.
        problems: What needs a look, one line each.
        state: ``new``, ``in work``, ``done``, ``flagged`` or ``reviewed``.
        included: Takes part in export.
        group: Patient group for splits; holds no identifier in clear unless a person typed one.
        reader: Who imported or made it.
        provenance: How a derived series was made; empty for an original.
        series_key: Tells one part of a series from its siblings; the same file gives the same key.
        created: ISO time with zone; shown, never used for order.
        is_trashed: In the trash, not in the tree.
        thumbnail: PNG, or None.
        is_reference: A person marked it as what a restored series should look like.
    """

    series_id: str
    source_id: str | None
    kind: SeriesKind
    title: str
    modality: str | None
    unit: str
    shape: tuple[int, ...]
    dtype: str
    slope: float
    intercept: float
    spacing_mm: tuple[float, float, float] | None
    in_plane_spacing_mm: tuple[float, float] | None
    geometry: Geometry | None
    scan_kind: Literal["scan", "stack", "image"]
    windows: tuple[Window, ...]
    is_inverted: bool
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    state: str
    included: bool
    group: str
    reader: str
    provenance: dict[str, Any]
    series_key: str
    import_id: str | None
    created: str
    is_trashed: bool
    voxels_sha256: str
    thumbnail: bytes | None = field(default=None, repr=False)
    is_reference: bool = False

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """``(Z, Y, X)``, colour left out."""
        return self.shape[0], self.shape[1], self.shape[2]

    @property
    def is_colour(self) -> bool:
        """True for RGB images."""
        return len(self.shape) == 4


def info_from(row: RowMapping) -> SeriesInfo:
    """A row of ``series`` (with its thumbnail) as a domain object."""
    affine = json.loads(row["affine_zyx"]) if row["affine_zyx"] else None
    geometry = Geometry(np.array(affine, dtype=np.float64)) if affine else None
    pixel = json.loads(row["pixel_spacing_mm"]) if row["pixel_spacing_mm"] else None
    index: list[float] | None = json.loads(row["index_spacing_mm"]) if row["index_spacing_mm"] else None
    spacing = geometry.spacing_mm if geometry else (index[0], index[1], index[2]) if index else None
    in_plane = spacing[1:] if spacing else (pixel[0], pixel[1]) if pixel else None
    return SeriesInfo(
        series_id=row["series_id"],
        source_id=row["source_id"],
        kind=row["kind"],
        title=row["title"],
        modality=row["modality"],
        unit=row["unit"],
        shape=tuple(json.loads(row["shape"])),
        dtype=row["dtype"],
        slope=row["slope"],
        intercept=row["intercept"],
        spacing_mm=spacing,
        in_plane_spacing_mm=in_plane,
        geometry=geometry,
        scan_kind=row["scan_kind"],
        windows=tuple(Window(*values) for values in json.loads(row["windows"])),
        is_inverted=bool(row["is_inverted"]),
        notes=tuple(json.loads(row["notes"])),
        problems=tuple(json.loads(row["problems"])),
        state=row["state"],
        included=bool(row["included"]),
        group=row["group_name"],
        reader=row["reader"],
        provenance=json.loads(row["provenance"]),
        series_key=row["series_key"],
        import_id=row["import_id"],
        created=row["created_at"],
        is_trashed=row["trashed_at"] is not None,
        voxels_sha256=row["voxels_sha256"],
        thumbnail=row.get("thumbnail"),
        is_reference=bool(row["is_reference"]),
    )


def scan_columns(scan: Scan) -> dict[str, Any]:
    """The columns of ``series`` that say how stored voxels are to be read."""
    geometry, pixel, index = scan.geometry, scan.pixel_spacing_mm, scan.index_spacing_mm
    return {
        "modality": scan.modality,
        "unit": scan.unit,
        "scan_kind": scan.kind,
        "slope": float(scan.slope),
        "intercept": float(scan.intercept),
        "affine_zyx": json.dumps(geometry.affine_zyx.tolist()) if geometry is not None else None,
        "pixel_spacing_mm": json.dumps([float(v) for v in pixel]) if pixel is not None else None,
        "index_spacing_mm": json.dumps([float(v) for v in index]) if index is not None else None,
        "windows": json.dumps([[float(w.center), float(w.width), w.name] for w in scan.windows]),
        "notes": json.dumps(list(scan.notes), ensure_ascii=False),
        "is_inverted": bool(scan.is_inverted),
        "series_key": scan.series_key,
    }


def now() -> str:
    """The time as text with its zone; only ever shown."""
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")


def series_query() -> Any:
    """Rows for ``info_from``."""
    return select(tables.series, tables.series_parts.c.thumbnail).outerjoin(
        tables.series_parts, tables.series_parts.c.series_id == tables.series.c.series_id
    )


def change_series(connection: Connection, series_id: str, changes: dict[str, Any]) -> None:
    """Change fields of a series.

    Raises:
        ValueError: There is no such field, or no such state.
    """
    columns: dict[str, Any] = {}
    for name, value in changes.items():
        match name:
            case "state":
                if value not in STATES:
                    raise ValueError(f"unknown state {value}")
                columns["state"] = value
            case "included" | "is_reference":
                columns[name] = bool(value)
            case "group":
                columns["group_name"] = str(value)
            case "title":
                columns["title"] = str(value)
            case "problems":
                columns["problems"] = json.dumps(list(value), ensure_ascii=False)
            case "is_trashed":
                columns["trashed_at"] = now() if value else None
            case _:
                raise ValueError(f"a series has no {name} that could be changed")
    if columns:
        connection.execute(update(tables.series).where(tables.series.c.series_id == series_id).values(**columns))
