"""What keys are for, and when principals were seen."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add a table and two columns; what is there stays as free as it was."""
    op.create_table(
        "key_scope",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        _text("content"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_key_scope")),
        sa.UniqueConstraint("content", name=op.f("uq_key_scope_content")),
    )
    number = sa.Column("scope_number", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("api_key", number)
    op.add_column("principal", sa.Column("last_seen_at_us", sa.BigInteger(), nullable=True))
    op.execute("ALTER TABLE credential RENAME COLUMN last_used_us TO last_used_at_us")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
