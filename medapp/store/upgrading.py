"""Bringing an older project's tables up to date; alembic is imported only here, and only when there is work."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from medapp.errors import ProjectDamagedError
from medapp.store import tables
from medapp.store.database import Database


def upgrade(database: Database, to: str = "head") -> None:
    """Run the migrations in one transaction: all of them or none.

    Foreign keys are off meanwhile, set before the transaction begins: SQLite rebuilds a table by dropping it, and with
    them on the drop cascades. They are checked before the commit.

    Raises:
        ProjectDamagedError: A reference would be broken; nothing was changed.
        SaveFailedError: The file cannot be written.
    """
    with database.write_without_foreign_keys() as connection:
        run(connection, to)
        connection.exec_driver_sql(f"PRAGMA user_version={tables.SCHEMA_VERSION if to == 'head' else int(to)}")
        if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
            raise ProjectDamagedError(
                "The project could not be brought up to date: a reference is broken. Nothing was changed.",
                "Open it with the medapp that wrote it, or send a report.",
            )


def run(connection: Connection, to: str = "head") -> None:
    """Run the migrations on an open transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
