"""The tables of a project's database."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

APPLICATION_ID = 0x6D656461  # "meda"
SCHEMA_VERSION = 5
HEAD_REVISION = "0005"
REVISIONS = ("0001", "0002", "0003", "0004", "0005")  # every alembic revision that this medapp knows, oldest first

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Facts about the project: app version, reader, clean close, view state. One row each.
meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)

# One row a series; voxels lie in files named by their hash.
series = Table(
    "series",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("series_id", String, nullable=False, unique=True),
    Column("source_id", String, ForeignKey("series.series_id")),
    Column("kind", String, nullable=False),
    Column("title", Text, nullable=False),
    Column("modality", String),
    Column("unit", String, nullable=False),
    Column("scan_kind", String, nullable=False),
    Column("shape", Text, nullable=False),
    Column("dtype", String, nullable=False),
    Column("slope", Float, nullable=False),
    Column("intercept", Float, nullable=False),
    Column("affine_zyx", Text),
    Column("pixel_spacing_mm", Text),
    Column("index_spacing_mm", Text),
    Column("windows", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("problems", Text, nullable=False),
    Column("is_inverted", Boolean, nullable=False),
    Column("voxels_sha256", String, nullable=False),
    Column("padding_sha256", String),
    Column("alpha_sha256", String),
    Column("state", String, nullable=False),
    Column("included", Boolean, nullable=False),
    Column("is_reference", Boolean, nullable=False, server_default=text("0")),
    Column("group_name", Text, nullable=False),
    Column("reader", Text, nullable=False),
    Column("provenance", Text, nullable=False),
    Column("series_key", Text, nullable=False),
    Column("import_id", String),
    Column("created_at", String, nullable=False),
    Column("trashed_at", String),
    Index("ix_series_series_key", "series_key"),
    sqlite_autoincrement=True,
)

# What is large or private, kept apart so that listing stays quick.
series_parts = Table(
    "series_parts",
    metadata,
    Column("series_id", String, ForeignKey("series.series_id"), primary_key=True),
    Column("thumbnail", LargeBinary),
    Column("source", LargeBinary),
)

# Every edit, durable before the status bar says "saved".
journal = Table(
    "journal",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("series_id", String, ForeignKey("series.series_id"), nullable=False),
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("reader", Text, nullable=False),
    Column("edit", LargeBinary, nullable=False),
    Column("created_at", String, nullable=False),
    Index("ix_journal_series_id_seq", "series_id", "seq"),
    sqlite_autoincrement=True,
)

# What is known of edits that have left the journal: enough to tell what a matte cost.
edit_facts = Table(
    "edit_facts",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("series_id", String, ForeignKey("series.series_id"), nullable=False),
    Column("matte_id", String, nullable=False),
    Column("slice_index", Integer),
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", String, nullable=False),
    Index("ix_edit_facts_series_id", "series_id"),
)

# Frozen choices of what trains and what judges: inserted, never updated.
data_sets = Table(
    "data_sets",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("name", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("reader", Text, nullable=False),
    Column("created_at", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("sha256", String, nullable=False),
    sqlite_autoincrement=True,
)

# Which patient groups and series train and which judge; a role once given stays.
training_roles = Table(
    "training_roles",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False),
    Column("role", String, nullable=False),
    UniqueConstraint("kind", "key"),
    sqlite_autoincrement=True,
)

# Slices of mattes by the hash of their content; shared between revisions.
blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# Saved states: inserted, never updated. Their order is revision_id; the clock is only shown.
revisions = Table(
    "revisions",
    metadata,
    Column("revision_id", Integer, primary_key=True, autoincrement=True),
    Column("series_id", String, ForeignKey("series.series_id"), nullable=False),
    Column("parent_id", Integer, ForeignKey("revisions.revision_id")),
    Column("journal_seq", Integer, nullable=False),
    Column("reader", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("name", Text),
    Column("note", Text, nullable=False),
    Column("created_at", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("content_sha256", String, nullable=False),
    Column("parent_sha256", String),
    Column("thumbnail", LargeBinary),
    Index("ix_revisions_series_id_revision_id", "series_id", "revision_id"),
    sqlite_autoincrement=True,
)

# Regions of slices for networks that attend within regions: inserted, never updated, the newest one counts.
region_maps = Table(
    "region_maps",
    metadata,
    Column("region_map_id", Integer, primary_key=True, autoincrement=True),
    Column("series_id", String, ForeignKey("series.series_id"), nullable=False),
    Column("axis", Integer, nullable=False),
    Column("slice_index", Integer, nullable=False),
    Column("engine", Text, nullable=False),
    Column("engine_id", String, nullable=False),
    Column("settings", Text, nullable=False),
    Column("regions", Integer, nullable=False),
    Column("mattes", Integer, nullable=False),
    Column("mattes_sha256", String, nullable=False),
    Column("journal_seq", Integer, nullable=False),
    Column("reader", Text, nullable=False),
    Column("created_at", String, nullable=False),
    Column("labels", LargeBinary, nullable=False),
    Column("labels_sha256", String, nullable=False),
    Index("ix_region_maps_series_id_axis_slice_index", "series_id", "axis", "slice_index"),
    sqlite_autoincrement=True,
)

# The task queue, so that it survives a restart.
jobs = Table(
    "jobs",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("job", Text, nullable=False),
)
