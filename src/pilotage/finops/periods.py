"""Days and months in UTC, as costs are counted by."""

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

_DAY_S = 86_400


class Period(NamedTuple):
    """A day or a month: what it is called, its first day, and the first day after it."""

    name: str
    first: str
    after: str


def find_day(day: str) -> Period:
    """Return a day as a period of its own."""
    return Period(day, day, (date.fromisoformat(day) + timedelta(days=1)).isoformat())


def find_month(day: str) -> Period:
    """Return the month of a day."""
    first = date.fromisoformat(day).replace(day=1)
    after = (first + timedelta(days=31)).replace(day=1)
    return Period(day[:7], first.isoformat(), after.isoformat())


def list_days(since: str, until: str) -> list[str]:
    """Return the days from one to before another."""
    first, end = date.fromisoformat(since), date.fromisoformat(until)
    return [(first + timedelta(days=ahead)).isoformat() for ahead in range((end - first).days)]


def list_remaining(now_us: int, until: str) -> dict[str, float]:
    """Return the days until before another, each with the part of it that is left."""
    now = datetime.fromtimestamp(now_us / 1e6, UTC)
    gone_s = now.hour * 3600 + now.minute * 60 + now.second
    remaining = dict.fromkeys(list_days(now.date().isoformat(), until), 1.0)
    return remaining | {now.date().isoformat(): 1 - gone_s / _DAY_S}
