"""Region maps of slices, each a revision of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "region_maps",
        sa.Column("region_map_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("series_id", sa.String(), nullable=False),
        sa.Column("axis", sa.Integer(), nullable=False),
        sa.Column("slice_index", sa.Integer(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("engine_id", sa.String(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("regions", sa.Integer(), nullable=False),
        sa.Column("mattes", sa.Integer(), nullable=False),
        sa.Column("mattes_sha256", sa.String(), nullable=False),
        sa.Column("journal_seq", sa.Integer(), nullable=False),
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("labels", sa.LargeBinary(), nullable=False),
        sa.Column("labels_sha256", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.series_id"], name="fk_region_maps_series_id_series"),
        sa.PrimaryKeyConstraint("region_map_id", name="pk_region_maps"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_region_maps_series_id_axis_slice_index", "region_maps", ["series_id", "axis", "slice_index"])
