"""Money: integer nano-USD inside, Decimal USD at the doors, never a float."""

from decimal import Decimal, InvalidOperation

NANO = 1_000_000_000
MAX_CAP_NANO = 9_000_000 * NANO  # the exact range of a double, which Valkey's Lua counts in
_MAX_USD = Decimal(2**63 - 1).scaleb(-9)  # what an int64 of nano-USD holds
_FINEST = Decimal("1e-9")


def parse_usd(text: str) -> int:
    """Return the nano-USD of a decimal text in USD; raise ValueError if it is none or too fine.

    The same for amounts beyond 64 bits, about 9 * 10^9 USD.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"not an amount in USD: {text[:40]!r}") from None
    if not amount.is_finite() or amount.copy_abs() > _MAX_USD:
        raise ValueError(f"not an amount in USD that can be counted: {text[:40]!r}")
    exact = amount.quantize(_FINEST)  # 19 digits at most, which every context holds
    if exact != amount:
        raise ValueError(f"not an amount in USD with at most 9 decimals: {text[:40]!r}")
    return int(exact.scaleb(9))


def format_usd(nano: int) -> str:
    """Write nano-USD as USD with 2 to 9 decimals, trailing zeros cut: ``0.000123``, ``12.50``."""
    sign, whole, fraction = "-" if nano < 0 else "", abs(nano) // NANO, abs(nano) % NANO
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


def divide_half_even(numerator: int, denominator: int) -> int:
    """Return a quotient rounded to the nearest integer, ties to even; ``denominator`` > 0."""
    quotient, remainder = divmod(numerator, denominator)
    twice = remainder * 2
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient
