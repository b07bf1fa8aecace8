"""Channels, routes, silences, and the notices on their way."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "notice_setting",
        *_object(),
        *map(_text, ("kind", "name", "spec")),
        _big("created_at_us"),
        sa.Column("deleted_at_us", sa.BigInteger()),
        *_of_project("notice_setting"),
        sa.UniqueConstraint(
            "project_id", "kind", "name", name=op.f("uq_notice_setting_project_id_kind_name")
        ),
    )
    op.create_table(
        "notice_silence",
        *_object(),
        _text("match"),
        *map(_big, ("starts_at_us", "ends_at_us")),
        *map(_text, ("reason", "created_by")),
        _big("created_at_us"),
        *_of_project("notice_silence"),
    )
    op.create_index(
        "ix_notice_silence_project_id_ends_at_us", "notice_silence", ["project_id", "ends_at_us"]
    )
    op.create_table(
        "notice_alert",
        *map(_text, ("alert_id", "project_id", "change")),
        *_of_project("notice_alert", "alert_id"),
    )
    op.create_index(op.f("ix_notice_alert_project_id"), "notice_alert", ["project_id"])
    op.create_table(
        "notice_group",
        *_object(),
        *map(_text, ("route_id", "key")),
        _big("opened_at_us"),
        sa.Column("told_at_us", sa.BigInteger()),
        *map(_text, ("told", "named")),
        *_of_project("notice_group"),
    )
    op.create_index(op.f("ix_notice_group_project_id"), "notice_group", ["project_id"])
    _create_notice()


def _create_notice() -> None:
    op.create_table(
        "notice",
        *_object(),
        *map(_text, ("channel_id", "channel", "group_id", "state")),
        sa.Column("attempts", sa.Integer(), nullable=False),
        *map(_big, ("due_at_us", "created_at_us")),
        sa.Column("ended_at_us", sa.BigInteger()),
        *map(_text, ("problem", "remaining")),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        _big("tried_us"),
        sa.Column("may_pass", sa.Boolean(), nullable=False),
        _text("message"),
        *_of_project("notice"),
    )
    for columns in (
        ("state", "channel_id", "group_id"),
        ("channel_id", "group_id", "place"),
        ("project_id", "channel", "state"),
        ("project_id", "id"),
        ("ended_at_us",),
    ):
        op.create_index(f"ix_notice_{'_'.join(columns)}", "notice", list(columns))


def _object() -> tuple[sa.Column[str], sa.Column[int], sa.Column[str]]:
    return _text("id"), sa.Column("rev", sa.Integer(), nullable=False), _text("project_id")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _of_project(table: str, key: str = "id") -> tuple[sa.Constraint, ...]:
    return (
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f(f"fk_{table}_project_id")
        ),
        sa.PrimaryKeyConstraint(key, name=op.f(f"pk_{table}")),
    )
