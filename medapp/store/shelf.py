"""The series of a project: rows, voxel files, thumbnails, where they came from."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, select, update

from medapp.errors import ProjectError, SaveFailedError
from medapp.scan.scan import Scan, SourceInfo
from medapp.store import codec, tables
from medapp.store.database import Database
from medapp.store.series import SeriesInfo, SeriesKind, change_series, info_from, now, scan_columns, series_query
from medapp.store.voxels import VoxelWriter, open_voxels


class SeriesShelf:
    """What a ``Project`` knows of its series.

    Attributes:
        mode: ``write``, ``read`` or ``worker``; nothing is changed in ``read``.
        reader: The person, kept with what is added.
    """

    mode: str
    reader: str
    _database: Database
    _voxels: Path

    def series(self, include_trashed: bool = False) -> tuple[SeriesInfo, ...]:
        """Every series in the order it came in."""
        query = series_query().order_by(tables.series.c.number)
        if not include_trashed:
            query = query.where(tables.series.c.trashed_at.is_(None))
        with self._database.read() as connection:
            return tuple(info_from(row) for row in connection.execute(query).mappings())

    def series_info(self, series_id: str) -> SeriesInfo:
        """One series.

        Raises:
            ProjectError: There is no such series.
        """
        with self._database.read() as connection:
            row = connection.execute(series_query().where(tables.series.c.series_id == series_id)).mappings().first()
        if row is None:
            raise ProjectError("The project has no such series.", "It may have been removed; open the project again.")
        return info_from(row)

    def find_series(self, series_key: str) -> str | None:
        """The series with that key that is not in the trash, or None: what an import meets again."""
        query = (
            select(tables.series.c.series_id)
            .where(tables.series.c.series_key == series_key)
            .where(tables.series.c.trashed_at.is_(None))
            .order_by(tables.series.c.number)
        )
        with self._database.read() as connection:
            return connection.execute(query).scalars().first() if series_key else None

    def scan(self, series_id: str) -> Scan:
        """The series with its voxels mapped read-only; a derived one carries the headers of its source.

        Raises:
            ProjectError: There is no such series.
            ProjectDamagedError: Its voxel file is missing or damaged.
        """
        info = self.series_info(series_id)
        with self._database.read() as connection:
            row = connection.execute(
                select(tables.series.c.padding_sha256, tables.series.c.alpha_sha256).where(
                    tables.series.c.series_id == series_id
                )
            ).one()
        padding, alpha = row
        return Scan(
            stored=open_voxels(self._voxels, info.voxels_sha256, info.shape, info.dtype),
            geometry=info.geometry,
            modality=info.modality,
            unit=info.unit,
            kind=info.scan_kind,
            slope=info.slope,
            intercept=info.intercept,
            pixel_spacing_mm=info.in_plane_spacing_mm if info.spacing_mm is None else None,
            index_spacing_mm=info.spacing_mm if info.geometry is None else None,
            notes=info.notes,
            windows=info.windows,
            is_inverted=info.is_inverted,
            padding=open_voxels(self._voxels, padding, info.shape[:3], np.bool_) if padding else None,
            alpha=open_voxels(self._voxels, alpha, info.shape[:3], np.uint16) if alpha else None,
            series_key=info.series_key,
            source=self.source(series_id),
        )

    def source(self, series_id: str) -> SourceInfo:
        """Where a series came from, with its DICOM headers; a derived one answers for its source."""
        with self._database.read() as connection:
            wanted: str | None = series_id
            while wanted is not None:
                row = connection.execute(
                    select(tables.series.c.source_id, tables.series_parts.c.source)
                    .outerjoin(tables.series_parts, tables.series_parts.c.series_id == tables.series.c.series_id)
                    .where(tables.series.c.series_id == wanted)
                ).first()
                if row is None:
                    break
                if row.source is not None:
                    return codec.decode_source(row.source)
                wanted = row.source_id
        return SourceInfo()

    def new_voxel_file(self, shape: tuple[int, ...], dtype: Any) -> VoxelWriter:
        """A voxel file to fill; the window may look at its slices while they are written."""
        self._must_write()
        return VoxelWriter(self._voxels, shape, dtype)

    def add_series(
        self,
        scan: Scan,
        *,
        thumbnail: bytes | NDArray[np.uint8] | None = None,
        import_id: str | None = None,
        title: str = "",
        group: str | None = None,
        problems: Sequence[str] = (),
    ) -> str:
        """Copy a scan into the project; returns its series id."""
        writer = self._written(scan.stored)
        return self.add_scan_with_voxels(
            scan, writer, thumbnail=thumbnail, import_id=import_id, title=title, group=group, problems=problems
        )

    def add_scan_with_voxels(
        self,
        scan: Scan,
        writer: VoxelWriter,
        *,
        thumbnail: bytes | NDArray[np.uint8] | None = None,
        import_id: str | None = None,
        title: str = "",
        group: str | None = None,
        problems: Sequence[str] = (),
    ) -> str:
        """Add a scan whose voxels were written already (``scan.stored`` is not read); commits the writer."""
        self._must_write()
        columns = {
            **scan_columns(scan),
            "kind": "original",
            "title": title or scan.source.description or scan.modality or "Image",
            "group_name": group if group is not None else self.patient_group(scan.source.patient_id),
            "problems": json.dumps(list(problems), ensure_ascii=False),
            "import_id": import_id,
            "padding_sha256": self._aside(scan.padding, np.bool_),
            "alpha_sha256": self._aside(scan.alpha, np.uint16),
        }
        return self._insert_series(columns, writer, thumbnail, codec.encode_source(scan.source))

    def add_derived(
        self,
        source_id: str,
        voxels: VoxelWriter | NDArray,
        provenance: dict[str, Any],
        kind: SeriesKind = "restored",
        title: str = "",
        unit: str | None = None,
        *,
        slope: float = 1.0,
        intercept: float = 0.0,
        modality: str | None = None,
        thumbnail: bytes | NDArray[np.uint8] | None = None,
        notes: Sequence[str] = (),
        problems: Sequence[str] = (),
        like: Scan | None = None,
    ) -> str:
        """Add a series made from another one; the source is never changed.

        Args:
            voxels: A filled writer, or the voxels; ``value = voxels * slope + intercept`` in ``unit``.
            provenance: How it was made: model, version, weights hash, strength, settings.
            unit, modality: The source's unless given.
            like: Gives place, spacings, windows, inversion and padding where they are not the source's; on a grid
                that is finer in-plane, or the source's own.

        Raises:
            ValueError: The voxels do not lie on that grid, or it has another number of slices than the source.
        """
        self._must_write()
        writer = voxels if isinstance(voxels, VoxelWriter) else self._written(voxels)
        source = self.series_info(source_id)
        grid = source.shape[:3] if like is None else like.shape[:3]
        if writer.shape[:3] != grid or grid[0] != source.shape[0]:
            writer.discard()
            raise ValueError(f"derived voxels {writer.shape} do not lie on the grid {grid} of a source {source.shape}")
        with self._database.read() as connection:
            row = (
                connection.execute(select(tables.series).where(tables.series.c.series_id == source_id)).mappings().one()
            )
        kept = (
            "scan_kind",
            "affine_zyx",
            "pixel_spacing_mm",
            "index_spacing_mm",
            "windows",
            "is_inverted",
            "padding_sha256",
        )
        place = dict(row)
        if like is not None:
            place |= {**scan_columns(like), "padding_sha256": self._aside(like.padding, np.bool_)}
        columns = {
            **{name: place[name] for name in kept},
            "group_name": row["group_name"],
            "source_id": source_id,
            "kind": kind,
            "title": title or f"{source.title} · {kind}",
            "modality": modality if modality is not None else source.modality,
            "unit": unit if unit is not None else source.unit,
            "slope": float(slope),
            "intercept": float(intercept),
            "notes": json.dumps(list(notes), ensure_ascii=False),
            "problems": json.dumps(list(problems), ensure_ascii=False),
            "provenance": json.dumps(provenance, ensure_ascii=False),
            "series_key": "",
        }
        return self._insert_series(columns, writer, thumbnail, None)

    def set_series(self, series_id: str, **changes: Any) -> None:
        """Change ``state``, ``included``, ``is_reference``, ``group``, ``title``, ``problems`` or ``is_trashed``."""
        self._must_write()
        with self._database.write() as connection:
            change_series(connection, series_id, changes)

    def set_reference(self, series_id: str, is_reference: bool) -> None:
        """Mark a series as what a restored one should look like: restoration models are retrained from it.

        Raises:
            ProjectError: There is no such series.
            SaveFailedError: The project cannot be written.
        """
        self.series_info(series_id)
        self.set_series(series_id, is_reference=is_reference)

    def set_thumbnail(self, series_id: str, thumbnail: bytes | NDArray[np.uint8]) -> None:
        """Give a series another thumbnail."""
        self._must_write()
        parts = tables.series_parts
        with self._database.write() as connection:
            connection.execute(update(parts).where(parts.c.series_id == series_id).values(thumbnail=png(thumbnail)))

    def trash_series(self, series_id: str) -> None:
        """Move a series to the trash; nothing is deleted."""
        self.set_series(series_id, is_trashed=True)

    def restore_series(self, series_id: str) -> None:
        """Take a series out of the trash."""
        self.set_series(series_id, is_trashed=False)

    @property
    def project_id(self) -> str:
        """Tells this project from others; no identifier of a patient."""
        return hashlib.sha256(b"project\0" + self.secret()).hexdigest()[:16]

    def secret(self) -> bytes:
        """The project's key for aliases, mapped UIDs and date shifts; never exported."""
        with self._database.read() as connection:
            return (meta(connection, "salt") or "").encode()

    def patient_group(self, patient_id: str) -> str:
        """A name for a patient that tells nothing about the id; the same for the same id within the project."""
        if not patient_id.strip():
            return ""
        with self._database.read() as connection:
            salt = meta(connection, "salt") or ""
        return "P-" + hashlib.sha256(f"{salt}\0{patient_id.strip()}".encode()).hexdigest()[:8]

    def _insert_series(
        self,
        columns: dict[str, Any],
        writer: VoxelWriter,
        thumbnail: bytes | NDArray[np.uint8] | None,
        source: bytes | None,
    ) -> str:
        series_id = uuid.uuid4().hex
        sha256 = writer.sha256 or writer.commit()
        values: dict[str, Any] = {
            "provenance": "{}",
            "state": "new",
            "included": True,
            "reader": self.reader,
            "created_at": now(),
            "shape": json.dumps(list(writer.shape)),
            "dtype": writer.dtype.str,
            "voxels_sha256": sha256,
            "series_id": series_id,
            **columns,
        }
        with self._database.write() as connection:
            connection.execute(insert(tables.series).values(**values))
            connection.execute(
                insert(tables.series_parts).values(series_id=series_id, thumbnail=png(thumbnail), source=source)
            )
        return series_id

    def _written(self, voxels: NDArray) -> VoxelWriter:
        writer = self.new_voxel_file(voxels.shape, voxels.dtype)
        for z in range(voxels.shape[0]):
            writer.array[z] = voxels[z]
        return writer

    def _aside(self, volume: NDArray | None, dtype: Any) -> str | None:
        """Keep a padding mask or an image's own alpha as a voxel file."""
        return self._written(volume.astype(dtype, copy=False)).commit() if volume is not None else None

    def _must_write(self) -> None:
        if self.mode == "read":
            raise SaveFailedError("Not saved: the project is open read-only.", "Save a copy elsewhere.")


def png(thumbnail: bytes | NDArray[np.uint8] | None) -> bytes | None:
    """A thumbnail as PNG, whatever form it came in."""
    return codec.encode_png(thumbnail) if isinstance(thumbnail, np.ndarray) else thumbnail


def meta(connection: Connection, key: str) -> str | None:
    """A fact about the project, or None."""
    return connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == key)).scalar_one_or_none()


def set_meta(connection: Connection, key: str, value: str) -> None:
    """Note a fact about the project."""
    connection.execute(insert(tables.meta).prefix_with("OR REPLACE").values(key=key, value=value))
