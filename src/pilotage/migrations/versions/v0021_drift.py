"""Measures of calls, their frozen references, feedback, and who lets its texts be measured."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the tables; of nobody texts are measured or comments kept until somebody says so."""
    share = sa.Column("measure_share", sa.Integer(), nullable=False, server_default="0")
    op.add_column("tenant", share)
    keeps: sa.Column[bool] = sa.Column(
        "keeps_comments", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("tenant", keeps)
    answers = ("project_id", "alias", "version_id", "model")
    op.create_table(
        "measure_cell",
        *map(_text, (*answers, "measure")),
        _big("at_us"),
        sa.Column("held", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*answers, "measure", "at_us", name=op.f("pk_measure_cell")),
    )
    op.create_index("ix_measure_cell_at_us", "measure_cell", ["at_us"])
    op.create_table(
        "drift_reference",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, answers),
        sa.Column("is_automatic", sa.Boolean(), nullable=False),
        _big("frozen_at_us"),
        _text("frozen_by"),
        sa.Column("held", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_drift_reference_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_reference")),
        sa.UniqueConstraint(
            *answers, name=op.f("uq_drift_reference_project_id_alias_version_id_model")
        ),
    )
    place = ("call_id", "aspect", "tenant_id", "project_id")
    op.create_table(
        "feedback",
        *map(_text, (*place, "id", "key_id")),
        _big("at_us"),
        sa.Column("score", sa.BigInteger(), nullable=True),
        _text("label"),
        sa.Column("comment", sa.LargeBinary(), nullable=True),
        *map(_text, ("state", "alias", "version_id", "model")),
        *map(_big, ("taken_at_us", "due_us")),
        sa.Column("is_counted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint(*place, name=op.f("pk_feedback")),
    )
    op.create_index("ix_feedback_id", "feedback", ["id"])
    op.create_index("ix_feedback_state_due_us", "feedback", ["state", "due_us"])
    op.create_index("ix_feedback_state_at_us", "feedback", ["state", "at_us"])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
