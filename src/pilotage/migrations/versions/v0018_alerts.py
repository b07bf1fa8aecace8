"""Alert rules and what they found."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "alert_rule",
        *_object(),
        *map(_text, ("condition", "severity", "metric_type")),
        *map(_text, ("team", "runbook", "summary", "labels")),
        _big("keep_firing_us"),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        *_life("alert_rule"),
    )
    op.create_table(
        "slo",
        *_object(),
        *map(_text, ("objective", "indicator", "alias")),
        _big("threshold_us"),
        *map(_text, ("team", "runbook")),
        *map(_big, ("min_bad", "min_total")),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        *_life("slo"),
    )
    op.create_table(
        "alert",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, ("project_id", "rule_id", "rule", "condition", "severity")),
        *map(_text, ("team", "runbook", "summary", "labels")),
        sa.Column("value", sa.Float()),
        _text("state"),
        _big("held_us"),
        sa.Column("gone_us", sa.BigInteger()),
        *map(_big, ("seen_us", "began_at_us")),
        sa.Column("fired_at_us", sa.BigInteger()),
        sa.Column("resolved_at_us", sa.BigInteger()),
        _text("series"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
        _of_project("alert"),
        sa.UniqueConstraint("series", name=op.f("uq_alert_series")),
    )
    op.create_index("ix_alert_project_id_state", "alert", ["project_id", "state", "id"])
    op.create_index("ix_alert_state", "alert", ["state", "id"])
    op.create_index("ix_alert_resolved_at_us", "alert", ["resolved_at_us"])


def _object() -> list[sa.Column[str] | sa.Column[int]]:
    """List the columns that every object begins with."""
    return [
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        _text("project_id"),
        _text("name"),
    ]


def _life(table: str) -> list[sa.schema.SchemaItem]:
    """List what every object ends with."""
    return [
        _big("created_at_us"),
        sa.Column("deleted_at_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        _of_project(table),
        sa.UniqueConstraint("project_id", "name", name=op.f(f"uq_{table}_project_id_name")),
    ]


def _of_project(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_project_id")
    return sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=name)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
