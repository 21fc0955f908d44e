"""What alembic runs for each upgrade; the connection comes from ``medapp.store.upgrading``."""

from alembic import context

from medapp.store import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()  # inside the transaction of the caller
