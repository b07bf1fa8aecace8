"""What calls add up to by minute, and the segments that hold each of them."""

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the tables."""
