"""What is said of an endpoint beside its traffic."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the column; nothing is said of the endpoints that are there."""
    column = sa.Column("traits", sa.Text(), nullable=False, server_default="{}")
    op.add_column("endpoint", column)
