"""Features of calls, their frozen references, and feedback."""

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the tables."""
