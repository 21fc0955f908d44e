"""The first format: series, journal, revisions, jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "meta",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )
    op.create_table(
        "series",
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=True),
        sa.Column("series_id", sa.String(), nullable=False),
        sa.Column("source_id", sa.String()),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("modality", sa.String()),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("scan_kind", sa.String(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("dtype", sa.String(), nullable=False),
        sa.Column("slope", sa.Float(), nullable=False),
        sa.Column("intercept", sa.Float(), nullable=False),
        sa.Column("affine_zyx", sa.Text()),
        sa.Column("pixel_spacing_mm", sa.Text()),
        sa.Column("windows", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("problems", sa.Text(), nullable=False),
        sa.Column("is_inverted", sa.Boolean(), nullable=False),
        sa.Column("voxels_sha256", sa.String(), nullable=False),
        sa.Column("padding_sha256", sa.String()),
        sa.Column("alpha_sha256", sa.String()),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("included", sa.Boolean(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("series_key", sa.Text(), nullable=False),
        sa.Column("import_id", sa.String()),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("trashed_at", sa.String()),
        sa.PrimaryKeyConstraint("number", name="pk_series"),
        sa.UniqueConstraint("series_id", name="uq_series_series_id"),
        sa.ForeignKeyConstraint(["source_id"], ["series.series_id"], name="fk_series_source_id_series"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_series_series_key", "series", ["series_key"])
    op.create_table(
        "series_parts",
        sa.Column("series_id", sa.String(), nullable=False),
        sa.Column("thumbnail", sa.LargeBinary()),
        sa.Column("source", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("series_id", name="pk_series_parts"),
        sa.ForeignKeyConstraint(["series_id"], ["series.series_id"], name="fk_series_parts_series_id_series"),
    )
    op.create_table(
        "journal",
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=True),
        sa.Column("series_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("edit", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_journal"),
        sa.ForeignKeyConstraint(["series_id"], ["series.series_id"], name="fk_journal_series_id_series"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_journal_series_id_seq", "journal", ["series_id", "seq"])
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_blobs"),
    )
    op.create_table(
        "revisions",
        sa.Column("revision_id", sa.Integer(), nullable=False, autoincrement=True),
        sa.Column("series_id", sa.String(), nullable=False),
        sa.Column("parent_id", sa.Integer()),
        sa.Column("journal_seq", sa.Integer(), nullable=False),
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("content_sha256", sa.String(), nullable=False),
        sa.Column("parent_sha256", sa.String()),
        sa.PrimaryKeyConstraint("revision_id", name="pk_revisions"),
        sa.ForeignKeyConstraint(["series_id"], ["series.series_id"], name="fk_revisions_series_id_series"),
        sa.ForeignKeyConstraint(["parent_id"], ["revisions.revision_id"], name="fk_revisions_parent_id_revisions"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_revisions_series_id_revision_id", "revisions", ["series_id", "revision_id"])
    op.create_table(
        "jobs",
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_jobs"),
    )
