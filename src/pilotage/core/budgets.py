"""What a budget can be: an amount of USD, and percents of it at which it is marked."""

from collections.abc import Sequence

from pilotage.core.errors import PilotageError
from pilotage.core.money import MAX_CAP_NANO, parse_usd

_MOST_THRESHOLDS = 10
_HIGHEST_PERCENT = 1000


def check_budget(amount: str, thresholds: Sequence[int]) -> int:
    """Return a budget's amount in nano-USD; raise ``invalid_request`` for what can be none."""
    try:
        amount_nano = parse_usd(amount)
    except ValueError:
        amount_nano = 0
    if not 0 < amount_nano <= MAX_CAP_NANO:
        raise PilotageError(
            "invalid_request",
            f"amount: {amount[:40]!r} is no budget.",
            hint="Write decimal USD above 0 and up to 9000000, such as 500.",
            param="amount",
        )
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
    return amount_nano
