"""Upstreams and their deployments, routing of endpoints, settings of tenants and keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a table, and columns whose defaults leave what is there as it was."""
    op.create_table(
        "upstream",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rev", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("proxy", sa.Text(), nullable=False),
        sa.Column("ca_file", sa.Text(), nullable=False),
        sa.Column("max_connections", sa.Integer(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_upstream_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upstream")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_upstream_project_id_name")),
    )
    _add(
        "deployment",
        sa.Column("upstream_id", sa.Text(), nullable=False, server_default=sa.text("''")),
    )
    _add(
        "deployment",
        sa.Column("upstream_model", sa.Text(), nullable=False, server_default=sa.text("''")),
    )
    op.create_index(op.f("ix_deployment_upstream_id"), "deployment", ["upstream_id"], unique=False)
    _add("endpoint", sa.Column("routing", sa.Text(), nullable=False, server_default="{}"))
    _add("endpoint", sa.Column("regions", sa.Text(), nullable=False, server_default="[]"))
    _add("tenant", sa.Column("time_zone", sa.Text(), nullable=False, server_default="UTC"))
    _add("tenant", sa.Column("regions", sa.Text(), nullable=False, server_default="[]"))
    _add("tenant", sa.Column("features", sa.Text(), nullable=False, server_default="[]"))
    _add("tenant", sa.Column("data_class", sa.Text(), nullable=False, server_default="internal"))
    _add("tenant", sa.Column("shows", sa.Boolean(), nullable=False, server_default=sa.true()))
    _add("tenant", sa.Column("log_share", sa.Integer(), nullable=False, server_default="0"))
    _add(
        "api_key",
        sa.Column("may_name_users", sa.Boolean(), nullable=False, server_default=sa.false()),
    )


def _add(table: str, column: sa.Column[object]) -> None:
    op.add_column(table, column)
