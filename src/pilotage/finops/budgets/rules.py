"""What budgets decide: their periods, which thresholds were crossed, what is left of a period."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from pilotage.finops.budgets.types import BudgetPer

_DAY_S = 86_400


def find_period(per: BudgetPer, day: str) -> tuple[str, str, str]:
    """Return the name of the period of a day, its first day, and the first day after it."""
    first = date.fromisoformat(day)
    if per is BudgetPer.DAY:
        return day, day, (first + timedelta(days=1)).isoformat()
    first = first.replace(day=1)
    after = (first + timedelta(days=31)).replace(day=1)
    return day[:7], first.isoformat(), after.isoformat()


def list_crossed(
    thresholds: Iterable[int], spent_nano: int, amount_nano: int, known: Iterable[int] = ()
) -> list[int]:
    """Return the thresholds that are reached and not known to be, in percent."""
    crossed = [percent for percent in thresholds if spent_nano * 100 >= percent * amount_nano]
    return sorted(set(crossed) - set(known))


def list_remaining(now_us: int, until: str) -> dict[str, float]:
    """Return the days until before another, each with the part of it that is left."""
    now = datetime.fromtimestamp(now_us / 1e6, UTC)
    today = now.date()
    gone = now.hour * 3600 + now.minute * 60 + now.second
    remaining = {today.isoformat(): 1 - gone / _DAY_S}
    end = date.fromisoformat(until)
    following: Sequence[date] = [
        today + timedelta(days=ahead) for ahead in range(1, (end - today).days)
    ]
    return remaining | {day.isoformat(): 1.0 for day in following}


def list_days(since: str, until: str) -> list[str]:
    """Return the days from one to before another."""
    first, end = date.fromisoformat(since), date.fromisoformat(until)
    return [(first + timedelta(days=ahead)).isoformat() for ahead in range((end - first).days)]
