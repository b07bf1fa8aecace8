"""Calls that are kept to be replayed, and what replays found."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Add the tables; of nobody calls are kept until somebody says so."""
    share = sa.Column("sample_share", sa.Integer(), nullable=False, server_default="0")
    op.add_column("tenant", share)
    names = ("id", "project_id", "tenant_id", "alias", "call_id", "version_id", "model")
    op.create_table(
        "call_sample",
        *map(_text, names),
        _big("at_us"),
        sa.Column("letter", sa.LargeBinary(), nullable=False),
        _big("due_us"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_sample")),
    )
    op.create_index("ix_call_sample_tenant_id", "call_sample", ["tenant_id"])
    op.create_index("ix_call_sample_due_us", "call_sample", ["due_us"])
    op.create_index(
        "ix_call_sample_project_id_alias_id", "call_sample", ["project_id", "alias", "id"]
    )
    op.create_table(
        "call_sample_place",
        _text("spool"),
        _text("epoch"),
        _big("seq"),
        sa.PrimaryKeyConstraint("spool", "epoch", name=op.f("pk_call_sample_place")),
    )
    _create_comparisons()
    _create_replays()


def _create_comparisons() -> None:
    answers = ("project_id", "alias", "rollout", "baseline", "candidate")
    op.create_table(
        "comparison",
        *map(_text, answers),
        _big("at_us"),
        sa.Column("held", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*answers, "at_us", name=op.f("pk_comparison")),
    )
    op.create_index("ix_comparison_at_us", "comparison", ["at_us"])


def _create_replays() -> None:
    op.create_table(
        "replay",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, ("project_id", "alias", "baseline_id", "candidate_id", "version_id")),
        *map(_text, ("hash", "report", "evidence_id")),
        _big("created_at_us"),
        _text("created_by"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_replay_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replay")),
    )
    op.create_index("ix_replay_project_id_alias_id", "replay", ["project_id", "alias", "id"])


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)


def _big(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)
