"""How many replicas deployments have, until when they stay awake, what is put on their model."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Add three columns; every deployment keeps its one replica, and serves a whole model."""
    scaling = sa.Column("scaling", sa.Text(), nullable=False, server_default="{}")
    op.add_column("deployment", scaling)
    awake = sa.Column("awake_until_us", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("deployment", awake)
    adapter = sa.Column("adapter_sha256", sa.Text(), nullable=False, server_default="")
    op.add_column("deployment", adapter)
