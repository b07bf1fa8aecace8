"""What budgets decide: their periods, which thresholds were crossed, what is left of a period."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

from pilotage.core.errors import PilotageError
from pilotage.core.money import MAX_CAP_NANO, parse_usd
from pilotage.finops.budgets.types import BudgetPer, BudgetSpec

_DAY_S = 86_400
_MOST_THRESHOLDS = 10
_HIGHEST_PERCENT = 1000


def check_budget(spec: BudgetSpec) -> int:
    """Return a budget's amount in nano-USD; raise ``invalid_request`` for what can be none."""
    try:
        amount = parse_usd(spec.amount)
    except ValueError:
        amount = 0
    if not 0 < amount <= MAX_CAP_NANO:
        raise PilotageError(
            "invalid_request",
            f"amount: {spec.amount[:40]!r} is no budget.",
            hint="Write decimal USD above 0 and up to 9000000, such as 500.",
            param="amount",
        )
    thresholds = spec.thresholds
    is_rising = list(thresholds) == sorted(set(thresholds))
    if not is_rising or not all(0 < percent <= _HIGHEST_PERCENT for percent in thresholds):
        raise PilotageError(
            "invalid_request",
            "Thresholds are percents that rise, from 1 to 1000.",
            hint="Write them as 50, 90, 100.",
            param="thresholds",
        )
    if len(thresholds) > _MOST_THRESHOLDS:
        raise PilotageError(
            "invalid_request",
            f"A budget has at most {_MOST_THRESHOLDS} thresholds.",
            hint="Name those at which somebody acts.",
            param="thresholds",
        )
    return amount


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
