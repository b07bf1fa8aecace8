"""What was counted of rollouts, by step and by unit."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "rollout_watch",
        *map(_text, ("rollout_id", "project_id")),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        *map(_bytes, ("watched", "standing")),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_rollout_watch")),
    )
    op.create_table(
        "rollout_count",
        _text("rollout_id"),
        sa.Column("step", sa.Integer(), nullable=False),
        _text("project_id"),
        _bytes("held"),
        sa.PrimaryKeyConstraint("rollout_id", "step", name=op.f("pk_rollout_count")),
    )
    op.create_table(
        "rollout_unit",
        *map(_text, ("rollout_id", "unit", "project_id")),
        _bytes("held"),
        sa.PrimaryKeyConstraint("rollout_id", "unit", name=op.f("pk_rollout_unit")),
    )
    op.create_table(
        "rollout_answer",
        *map(_text, ("call_id", "tenant_id", "project_id")),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        _text("rollout_id"),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("is_candidate", sa.Boolean(), nullable=False),
        _text("unit"),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "tenant_id", name=op.f("pk_rollout_answer")),
    )
    op.create_index("ix_rollout_answer_rollout_id_at_us", "rollout_answer", ["rollout_id", "at_us"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)
