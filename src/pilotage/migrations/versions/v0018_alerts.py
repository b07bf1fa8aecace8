"""Alert rules and what they found."""

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the tables."""
