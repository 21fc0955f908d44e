"""Named versions carry a thumbnail."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("revisions", sa.Column("thumbnail", sa.LargeBinary()))
