"""Which month can be closed."""

from pilotage.finops.rules import get_day


def find_due(now_us: int, after_us: int) -> str:
    """Return the last month whose end is so long ago that it is closed."""
    year, month = map(int, get_day(now_us - after_us)[:7].split("-"))
    return f"{year}-{month - 1:02}" if month > 1 else f"{year - 1:04}-12"
