"""Limits, what the ledger knows of their counters, and who and what a call was for."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add two tables, and columns that say nothing of the calls that are there."""
    op.create_table(
        "call_limit",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("per", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("downgrade_to", sa.Text(), nullable=False),
        sa.Column("on_store_loss", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_call_limit_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_limit")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_call_limit_project_id_name")),
    )
    op.create_table(
        "counter_total",
        sa.Column("counter", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("forget_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("counter", "gateway", "epoch", name=op.f("pk_counter_total")),
    )
    for name in ("user", "feature", "upstream_id", "flags"):
        nothing = sa.text("''")
        op.add_column(
            "ledger_entry", sa.Column(name, sa.Text(), nullable=False, server_default=nothing)
        )
