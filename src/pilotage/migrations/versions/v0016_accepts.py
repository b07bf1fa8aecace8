"""Which class of data each upstream is accepted for, and who issues tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add a column and a table; every upstream is accepted for internal data, as it was."""
    accepts = sa.Column("accepts", sa.Text(), nullable=False, server_default="internal")
    op.add_column("upstream", accepts)
    op.create_table(
        "token_issuer",
        _text("id"),
        sa.Column("rev", sa.Integer(), nullable=False),
        *map(_text, ("name", "url", "audience", "parties", "algorithms")),
        *map(_text, ("subject_claim", "groups_claim", "roles")),
        sa.Column("skew_us", sa.BigInteger(), nullable=False),
        sa.Column("max_age_us", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_issuer")),
        sa.UniqueConstraint("name", name=op.f("uq_token_issuer_name")),
        sa.UniqueConstraint("url", name=op.f("uq_token_issuer_url")),
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
