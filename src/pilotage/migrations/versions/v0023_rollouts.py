"""Rollouts, and the looks at them that are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "rollout",
        _text("id"),
        _number("rev"),
        *map(_text, ("project_id", "endpoint_id", "endpoint", "baseline_id", "baseline")),
        *map(_text, ("candidate_id", "candidate", "plan", "state")),
        _number("step"),
        *map(_big, ("since_us", "began_us")),
        sa.Column("has_passed", sa.Boolean(), nullable=False),
        _number("weight"),
        *map(_text, ("said", "reason", "fingerprint", "decision_id", "created_by")),
        _big("created_at_us"),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=True),
        sa.Column("lease_holder", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.Column("lease_until_us", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("is_settled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_rollout_project_id")),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["endpoint.id"], name=op.f("fk_rollout_endpoint_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout")),
    )
    op.create_index("ix_rollout_endpoint_id", "rollout", ["endpoint_id"])
    op.create_index("ix_rollout_state", "rollout", ["state"])
    op.create_index("ix_rollout_is_settled", "rollout", ["is_settled"])
    op.create_table(
        "rollout_look",
        *map(_text, ("id", "rollout_id", "project_id")),
        _big("at_us"),
        *map(_number, ("step", "weight")),
        _text("judged"),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_rollout_look_rollout_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_look")),
    )
    op.create_index("ix_rollout_look_rollout_id_id", "rollout_look", ["rollout_id", "id"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
