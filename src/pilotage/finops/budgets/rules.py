"""What budgets decide: their periods, which thresholds were crossed, what was spent."""

from collections.abc import Iterable
from typing import NamedTuple

from pilotage.finops.budgets.types import BudgetPer
from pilotage.finops.costs.types import DAILY, CostRow
from pilotage.finops.periods import Period, find_day, find_month, list_days


def find_period(per: BudgetPer, day: str) -> Period:
    """Return the period of a budget that a day belongs to."""
    return find_day(day) if per is BudgetPer.DAY else find_month(day)


def list_crossed(
    thresholds: Iterable[int], spent_nano: int, amount_nano: int, known: Iterable[int] = ()
) -> list[int]:
    """Return the thresholds that are reached and not known to be, in percent."""
    crossed = [percent for percent in thresholds if spent_nano * 100 >= percent * amount_nano]
    return sorted(set(crossed) - set(known))


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
