"""What budgets decide: their periods, which thresholds were crossed, what is left of a period."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from pilotage.finops.budgets.types import BudgetPer
from pilotage.finops.costs.types import DAILY, CostRow

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


class Spending(NamedTuple):
    """Nano-USD of a period up to today, and booked on its days to come.

    ``history`` is what came day by day on the whole days before today, since the first that had
    any: what a forecast goes by.
    """

    spent: int
    ahead: int
    history: dict[str, float]


def divide_spending(rows: Iterable[CostRow], first: str, today: str) -> Spending:
    """Divide costs by day into those of a period that began on ``first``, and what was before."""
    spent = ahead = 0
    daily: dict[str, float] = {}
    for row in rows:
        day = row.groups["day"]
        if day > today:
            ahead += row.cost_nano
        elif day >= first:
            spent += row.cost_nano
        came = [nano for kind, nano in row.by_kind.items() if kind in DAILY]
        if came and day < today:
            daily[day] = float(sum(came))
    days = list_days(min(daily), today) if daily else []
    return Spending(spent, ahead, {day: daily.get(day, 0.0) for day in days})


def list_days(since: str, until: str) -> list[str]:
    """Return the days from one to before another."""
    first, end = date.fromisoformat(since), date.fromisoformat(until)
    return [(first + timedelta(days=ahead)).isoformat() for ahead in range((end - first).days)]
