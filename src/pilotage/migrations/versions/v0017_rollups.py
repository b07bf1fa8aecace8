"""What calls add up to by minute, and the segments that hold each of them."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the tables."""
    key = ("project_id", "tenant_id", "alias", "arm", "version_id", "model")
    op.create_table(
        "rollup_cell",
        _text("level"),
        _number("at_us"),
        *map(_text, key),
        *map(_number, ("calls", "refusals", "errors", "tokens", "cost_nano")),
        sa.Column("cell", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "at_us", *key, name=op.f("pk_rollup_cell")),
    )
    op.create_table(
        "rollup_cursor",
        *map(_text, ("spool", "epoch")),
        _number("seq"),
        sa.PrimaryKeyConstraint("spool", "epoch", name=op.f("pk_rollup_cursor")),
    )
    op.create_table(
        "rollup_mark",
        _text("name"),
        _number("at_us"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rollup_mark")),
    )
    op.create_table(
        "gauge",
        _text("level"),
        _number("at_us"),
        *map(_text, ("project_id", "alias", "version_id", "name")),
        _number("readings"),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("total", "lowest", "highest")),
        sa.PrimaryKeyConstraint(
            "level", "at_us", "project_id", "alias", "version_id", "name", name=op.f("pk_gauge")
        ),
    )
    op.create_table(
        "call_segment",
        *map(_text, ("name", "project_id")),
        sa.Column("level", sa.Integer(), nullable=False),
        *map(
            _number,
            ("rows", "size_bytes", "first_at_us", "last_at_us", "created_at_us"),
        ),
        sa.Column("replaced_at_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_call_segment")),
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
