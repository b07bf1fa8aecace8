"""Prompts, their versions and labels, and which of them a call was made of."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add three tables, and a column that says nothing of the calls that are there."""
    op.create_table(
        "prompt",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        _text("project_id"),
        _text("name"),
        _text("description"),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at_us", sa.BigInteger(), nullable=True),
        _key("prompt", "project_id", "project.id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_prompt_project_id_name")),
    )
    op.create_table(
        "prompt_version",
        _text("id"),
        _text("project_id"),
        _text("prompt_id"),
        _text("version"),
        _text("sha256"),
        _text("description"),
        _text("content"),
        _text("source_repository"),
        _text("source_commit"),
        _text("source_path"),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        _text("created_by"),
        sa.Column("deleted_at_us", sa.BigInteger(), nullable=True),
        _key("prompt_version", "project_id", "project.id"),
        _key("prompt_version", "prompt_id", "prompt.id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_version")),
        sa.UniqueConstraint(
            "prompt_id", "version", name=op.f("uq_prompt_version_prompt_id_version")
        ),
    )
    op.create_table(
        "prompt_label",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        _text("project_id"),
        _text("prompt_id"),
        _text("label"),
        _text("version_id"),
        sa.Column("changed_at_us", sa.BigInteger(), nullable=False),
        _text("changed_by"),
        _key("prompt_label", "project_id", "project.id"),
        _key("prompt_label", "prompt_id", "prompt.id"),
        _key("prompt_label", "version_id", "prompt_version.id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_label")),
        sa.UniqueConstraint("prompt_id", "label", name=op.f("uq_prompt_label_prompt_id_label")),
    )
    nothing = sa.text("''")
    op.add_column(
        "ledger_entry", sa.Column("prompt", sa.Text(), nullable=False, server_default=nothing)
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _key(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [target], name=op.f(f"fk_{table}_{column}"))
