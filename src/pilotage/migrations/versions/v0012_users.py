"""End users' names, sealed; entries that have them in plain words get tokens at the next start."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add a table, and note which entries of the ledger name users in plain words."""
    op.create_table(
        "user_label",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.LargeBinary(), nullable=False),
        sa.Column("key_number", sa.Integer(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "token", name=op.f("pk_user_label")),
    )
    op.execute(
        "INSERT INTO outbox_cursor (consumer, seq) "
        "SELECT 'finops.plain_users', MAX(seq) FROM ledger_entry HAVING MAX(seq) IS NOT NULL"
    )
