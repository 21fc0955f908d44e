"""Series marked as reference, what pruned edits cost, data set versions, and who trains and who judges."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column and the tables."""
    op.add_column("series", sa.Column("is_reference", sa.Boolean(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "edit_facts",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("series_id", sa.String(), nullable=False),
        sa.Column("matte_id", sa.String(), nullable=False),
        sa.Column("slice_index", sa.Integer()),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.series_id"], name="fk_edit_facts_series_id_series"),
        sa.PrimaryKeyConstraint("seq", name="pk_edit_facts"),
    )
    op.create_index("ix_edit_facts_series_id", "edit_facts", ["series_id"])
    op.create_table(
        "data_sets",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_data_sets"),
        sa.UniqueConstraint("name", name="uq_data_sets_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "training_roles",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_training_roles"),
        sa.UniqueConstraint("kind", "key", name="uq_training_roles_kind_key"),
        sqlite_autoincrement=True,
    )
