"""The database schema, forward only: alembic versions, and who may apply them when."""
