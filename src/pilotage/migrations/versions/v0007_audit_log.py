"""The index of the audit log; the chain of hashes that it replaces leaves its length and head."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the index; what the log itself holds is written from the revisions, which all stay."""
    op.create_table(
        "audit_index",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=True),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("revision_seq", sa.BigInteger(), nullable=True),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_index")),
        sa.UniqueConstraint("revision_seq", name=op.f("uq_audit_index_revision_seq")),
    )
    op.create_index(op.f("ix_audit_index_at_us"), "audit_index", ["at_us"])
    for column in ("object_id", "actor", "event"):
        op.create_index(f"ix_audit_index_{column}_position", "audit_index", [column, "position"])
    op.create_table(
        "audit_block",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_block")),
        sa.UniqueConstraint(
            "gateway", "epoch", "first_seq", name=op.f("uq_audit_block_gateway_epoch_first_seq")
        ),
    )
    op.create_index(op.f("ix_audit_block_last_us"), "audit_block", ["last_us"])
    op.create_table(
        "audit_former",
        sa.Column("entries", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("head_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entries", name=op.f("pk_audit_former")),
    )
    op.execute(
        "INSERT INTO audit_former (entries, head_hash) "
        "SELECT position, hash FROM audit_entry ORDER BY position DESC LIMIT 1"
    )
    op.drop_table("audit_entry")
