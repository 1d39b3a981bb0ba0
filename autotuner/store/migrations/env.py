"""Runs migrations on the connection, and inside the transaction, that `autotuner.store.migrate` hands over."""

from alembic import context

from autotuner.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
)
context.run_migrations()
