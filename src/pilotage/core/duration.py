"""Durations as people write them: ``100ms``, ``30s``, ``5m``, ``24h``, ``7d``, ``1h30m``."""

import re

UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
MAX_US = 36_500 * UNITS_US["d"]  # a century: sums with a time stay within tables and calendars
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)


def parse_duration_us(text: str) -> int:
    """Return microseconds; raise ValueError, naming the form, for anything that is no duration."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"not a duration: {text[:40]!r} (write 100ms, 30s, 5m, 24h, 7d or 1h30m)")
    exact = sum(float(number) * UNITS_US[unit] for number, unit in _PART.findall(text))
    if exact > MAX_US:
        raise ValueError(f"too long a duration: {text[:40]!r} (at most 36500d)")
    return round(exact)


def format_duration(microseconds: int) -> str:
    """Write microseconds, not negative, in the largest units that fit: ``90m`` is ``1h30m``.

    What is finer than a millisecond becomes decimals of it: ``1.5ms``.
    """
    parts, rest = [], microseconds
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, UNITS_US[unit])
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        parts.append(f"{rest / UNITS_US['ms']:g}ms")
    return "".join(parts)
