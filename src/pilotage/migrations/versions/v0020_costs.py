"""Compute, storage and network cost beside what calls cost."""

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Add the tables."""
