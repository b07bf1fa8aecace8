"""What limits there can be: of which measures, per which spans of time, of how much."""

import re
from decimal import Decimal

from pilotage.core.errors import PilotageError
from pilotage.core.money import MAX_CAP_NANO, format_usd, parse_usd

USD, TOKENS, REQUESTS, CONCURRENCY = "usd", "tokens", "requests", "concurrency"
CALENDAR = ("day", "month", "total")
PERIODS = {
    USD: CALENDAR,  # what a call costs is known when it ends: too late for a minute
    TOKENS: ("minute", *CALENDAR),
    REQUESTS: ("minute", *CALENDAR),
    CONCURRENCY: ("",),
}
_MOST_AT_ONCE = 100_000
_MOST_PER_MINUTE = 10**11  # buckets count in 60,000ths, exact in a double up to here
_MOST = 10**15
_COUNT = re.compile(r"(\d{1,16}(?:\.\d{1,9})?)([km]?)", re.ASCII | re.IGNORECASE)
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}


def check_amount(measure: str, text: str, per: str) -> int:
    """Return a limit's amount in nano-USD or as a number; raise ``invalid_request``."""
    if per not in PERIODS[measure]:
        known = [f"{measure}/{span}" for span in PERIODS[measure] if span]
        raise PilotageError(
            "invalid_request",
            f"There is no limit of {measure} per {per or 'nothing'}.",
            hint=f"There are: {', '.join(known)}." if known else "Leave it out: calls at once.",
            param="per",
        )
    try:
        amount = parse_usd(text) if measure == USD else parse_count(text)
    except ValueError as wrong:
        raise PilotageError("invalid_request", f"amount: {wrong}.", param="amount") from None
    if amount <= 0:
        raise PilotageError(
            "invalid_request",
            "A limit lets something through.",
            hint="Delete the limit to have none; revoke a key or undeploy a model to stop calls.",
            param="amount",
        )
    most = _find_most(measure, per)
    if amount > most:
        raise PilotageError(
            "invalid_request",
            f"A limit of {measure} is at most {format_amount(measure, most)}.",
            param="amount",
        )
    return amount


def check_downgrade(measure: str, per: str, endpoint: str, downgrade_to: str) -> None:
    """Raise ``invalid_request`` if calls over a limit cannot go to another endpoint."""
    if measure not in {USD, TOKENS} or per not in CALENDAR:
        raise PilotageError(
            "invalid_request",
            "Only limits of usd or tokens per day, month or total downgrade calls.",
            param="action",
        )
    if downgrade_to == endpoint:
        raise PilotageError(
            "invalid_request",
            f"Calls of {endpoint} cannot be downgraded to itself.",
            hint="Name another endpoint.",
            param="downgrade_to",
        )


def format_amount(measure: str, amount: int) -> str:
    """Write a limit's amount the way it can be set."""
    return format_usd(amount) if measure == USD else str(amount)


def parse_count(text: str) -> int:
    """Return a whole number such as ``60``, ``100k`` or ``1.5m``; raise ValueError."""
    found = _COUNT.fullmatch(text)
    number = Decimal(found[1]) * _FACTORS[found[2].lower()] if found else Decimal("0.5")
    if number != int(number):
        raise ValueError(f"{text[:40]!r} is no whole number such as 60, 100k or 1.5m")
    return int(number)


def _find_most(measure: str, per: str) -> int:
    if measure == USD:
        return MAX_CAP_NANO
    if measure == CONCURRENCY:
        return _MOST_AT_ONCE
    return _MOST_PER_MINUTE if per == "minute" else _MOST
