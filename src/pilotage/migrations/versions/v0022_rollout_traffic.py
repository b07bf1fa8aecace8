"""The step of a rollout that an endpoint's split belongs to, and what its coin is tossed for."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the columns; no endpoint has a rollout."""
    for name in ("rollout", "unit"):
        column = sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("''"))
        op.add_column("endpoint", column)
