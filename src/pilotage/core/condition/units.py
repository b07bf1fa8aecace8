"""Units of numbers: what may be added and compared, and what a product is measured in.

A unit is a product of powers of bases, so that ``cost / request_count`` is USD per request. Numbers
are kept in base units: seconds, USD, bytes; a ratio is 1 for all.
"""

from collections import Counter
from decimal import Decimal

from pilotage.core.duration import UNITS_US

Unit = tuple[tuple[str, int], ...]  # (base, power) in order of the bases; () is a ratio

RATIO: Unit = ()
SECONDS: Unit = (("s", 1),)
USD: Unit = (("USD", 1),)
BYTES: Unit = (("B", 1),)
REQUESTS: Unit = (("request", 1),)
TOKENS: Unit = (("token", 1),)
EVENTS: Unit = (("event", 1),)
REPLICAS: Unit = (("replica", 1),)
PER_SECOND: Unit = (("s", -1),)


def multiply(left: Unit, right: Unit) -> Unit:
    """Return the unit of a product."""
    powers = Counter(dict(left))
    for base, power in right:
        powers[base] += power
    return tuple(sorted((base, power) for base, power in powers.items() if power))


def divide(left: Unit, right: Unit) -> Unit:
    """Return the unit of a quotient."""
    return multiply(left, tuple((base, -power) for base, power in right))


REQUESTS_PER_SECOND = divide(REQUESTS, SECONDS)
TOKENS_PER_SECOND = divide(TOKENS, SECONDS)
USD_PER_REQUEST = divide(USD, REQUESTS)

# What may follow a number, and what it makes of it: the unit, and how much of its base one is.
SUFFIXES: dict[str, tuple[Unit, Decimal]] = {
    **{name: (SECONDS, Decimal(us) / 1_000_000) for name, us in UNITS_US.items()},
    "%": (RATIO, Decimal("0.01")),
    "USD": (USD, Decimal(1)),
    "$": (USD, Decimal(1)),
    "req": (REQUESTS, Decimal(1)),
    "req/s": (REQUESTS_PER_SECOND, Decimal(1)),
    "tokens": (TOKENS, Decimal(1)),
    "tokens/s": (TOKENS_PER_SECOND, Decimal(1)),
    "B": (BYTES, Decimal(1)),
    "kB": (BYTES, Decimal(10**3)),
    "MB": (BYTES, Decimal(10**6)),
    "GB": (BYTES, Decimal(10**9)),
    "KiB": (BYTES, Decimal(2**10)),
    "MiB": (BYTES, Decimal(2**20)),
    "GiB": (BYTES, Decimal(2**30)),
}
# Written in several sizes, so that a number alone would be a guess: 2 of what?
_NEEDS_SUFFIX = {SECONDS: "2s or 500ms", BYTES: "2GiB or 500MB"}
_NAMES = {"s": "seconds", "B": "bytes", "USD": "USD"}


def takes_bare(unit: Unit) -> bool:
    """Say whether a number without a unit can be meant in it."""
    return unit not in _NEEDS_SUFFIX


def give_example(unit: Unit) -> str:
    """Return how a number of a unit is written."""
    examples = {
        RATIO: "5% or 0.05",
        USD: "10 USD or $10",
        REQUESTS_PER_SECOND: "10 req/s",
        TOKENS_PER_SECOND: "10 tokens/s",
    }
    return (_NEEDS_SUFFIX | examples).get(unit, "10")


def format_unit(unit: Unit) -> str:
    """Write a unit: ``seconds``, ``USD/request``, ``ratio``."""
    if not unit:
        return "ratio"
    if len(unit) == 1 and unit[0][1] == 1:
        base = unit[0][0]
        return _NAMES.get(base, f"{base}s")
    above = "*".join(_format_power(base, power) for base, power in unit if power > 0)
    below = [_format_power(base, -power) for base, power in unit if power < 0]
    return "/".join([above or "1", *below])


def _format_power(base: str, power: int) -> str:
    return base if power == 1 else f"{base}^{power}"
