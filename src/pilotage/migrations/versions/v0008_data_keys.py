"""Data keys: what of an owner is sealed with, wrapped by the root key."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "data_key",
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.Column("root", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("destroyed_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "number", name=op.f("pk_data_key")),
    )
    op.create_index(op.f("ix_data_key_root"), "data_key", ["root"])
