"""Alembic's entry: runs the versions on the connection that the runner opened."""

from alembic import context

from pilotage.migrations.tables import get_metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=get_metadata(),
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
