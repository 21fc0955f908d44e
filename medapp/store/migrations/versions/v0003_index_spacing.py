"""Volumes whose voxel size is known and whose place in the patient is not."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("series", sa.Column("index_spacing_mm", sa.Text()))
