"""Approvals, freezes and ways through them, scheduled releases, decision records and facts."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add six tables; what is there stays."""
    _make_approvals()
    _make_calendar()
    _make_decisions()


def _make_approvals() -> None:
    op.create_table(
        "approval",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, ("project_id", "action", "subject_id", "subject", "subject_hash", "authors")),
        *map(_text, ("reason", "evidence")),
        sa.Column("needed", sa.Integer(), nullable=False),
        *map(_text, ("role", "requested_by")),
        *map(_time, ("requested_at_us", "expires_at_us")),
        *map(_text, ("state", "votes")),
        sa.Column("used_at_us", sa.BigInteger(), nullable=True),
        sa.Column("used_seq", sa.BigInteger(), nullable=True),
        _text("decision_id"),
        *_keys("approval"),
    )
    op.create_index("ix_approval_used_seq", "approval", ["used_seq"])
    op.create_index("ix_approval_subject", "approval", ["project_id", "action", "subject_id", "id"])
    op.create_index("ix_approval_state", "approval", ["project_id", "state", "id"])


def _make_calendar() -> None:
    op.create_table(
        "freeze",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, ("project_id", "name", "reason")),
        *map(_time, ("starts_at_us", "ends_at_us")),
        *map(_text, ("names", "repeat")),
        sa.Column("until_us", sa.BigInteger(), nullable=True),
        *map(_text, ("time_zone", "override_role", "created_by")),
        _time("created_at_us"),
        sa.Column("lifted_at_us", sa.BigInteger(), nullable=True),
        *_keys("freeze"),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_freeze_project_id_name")),
    )
    op.create_table(
        "freeze_override",
        *map(_text, ("id", "project_id", "freeze_id", "subject", "by", "role", "reason")),
        *map(_time, ("at_us", "expires_at_us")),
        sa.Column("used_at_us", sa.BigInteger(), nullable=True),
        sa.Column("used_seq", sa.BigInteger(), nullable=True),
        _text("decision_id"),
        *_keys("freeze_override"),
        sa.ForeignKeyConstraint(
            ["freeze_id"], ["freeze.id"], name=op.f("fk_freeze_override_freeze_id")
        ),
    )
    op.create_index("ix_freeze_override_used_seq", "freeze_override", ["used_seq"])
    op.create_index("ix_freeze_override_by", "freeze_override", ["freeze_id", "by", "subject"])
    op.create_table(
        "scheduled_release",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, ("project_id", "action", "subject_id", "subject", "arguments")),
        _time("at_us"),
        _text("requested_by"),
        _time("requested_at_us"),
        *map(_text, ("reason", "state")),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=True),
        *map(_text, ("outcome", "decision_id")),
        *_keys("scheduled_release"),
    )
    op.create_index("ix_scheduled_release_due", "scheduled_release", ["state", "at_us"])
    op.create_index("ix_scheduled_release_project", "scheduled_release", ["project_id", "id"])


def _make_decisions() -> None:
    op.create_table(
        "decision",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        _time("seq"),
        *map(_text, ("project_id", "kind", "subject_id", "subject", "before", "after")),
        *map(_text, ("evidence", "revisions", "reason", "by")),
        _time("at_us"),
        *_keys("decision"),
        sa.UniqueConstraint("seq", name=op.f("uq_decision_seq")),
    )
    op.create_index("ix_decision_project", "decision", ["project_id", "seq"])
    op.create_index("ix_decision_subject", "decision", ["subject_id", "seq"])
    op.create_table(
        "decision_fact",
        _text("decision_id"),
        sa.Column("number", sa.Integer(), nullable=False),
        _time("seq"),
        *map(_text, ("project_id", "kind", "content", "by")),
        _time("at_us"),
        *_keys("decision_fact", "decision_id", "number"),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decision.id"], name=op.f("fk_decision_fact_decision_id")
        ),
        sa.UniqueConstraint("seq", name=op.f("uq_decision_fact_seq")),
    )
    op.create_index("ix_decision_fact_kind", "decision_fact", ["project_id", "kind", "seq"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _time(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _keys(table: str, *columns: str) -> tuple[sa.Constraint, ...]:
    return (
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f(f"fk_{table}_project_id")
        ),
        sa.PrimaryKeyConstraint(*(columns or ("id",)), name=op.f(f"pk_{table}")),
    )
