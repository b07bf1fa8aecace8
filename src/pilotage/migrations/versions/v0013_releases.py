"""Policies of gates and of releases; an index by which the past is found."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add two tables and an index; what is there stays."""
    op.create_table(
        "gate_policy",
        *_begin(),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("checks", sa.Text(), nullable=False),
        *_end("gate_policy"),
        sa.UniqueConstraint("project_id", "stage", name=op.f("uq_gate_policy_project_id_stage")),
    )
    op.create_table(
        "release_policy",
        *_begin(),
        sa.Column("serve_from_stage", sa.Text(), nullable=False),
        *_end("release_policy"),
        sa.UniqueConstraint("project_id", name=op.f("uq_release_policy_project_id")),
    )
    op.create_index(
        "ix_revision_past", "revision", ["project_id", "event", "at_us", "object_id", "seq"]
    )


def _begin() -> tuple[sa.Column[str], sa.Column[int], sa.Column[str]]:
    return (
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
    )


def _end(table: str) -> tuple[sa.Column[int] | sa.Column[str] | sa.Constraint, ...]:
    return (
        sa.Column("approvals", sa.Integer(), nullable=False),
        sa.Column("changed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f(f"fk_{table}_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )
