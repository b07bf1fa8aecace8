"""Channels, routes, silences, and the notices on their way."""

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the tables."""
