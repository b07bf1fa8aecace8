"""Durations as people write them: ``100ms``, ``30s``, ``5m``, ``24h``, ``7d``, ``1h30m``."""

import re

UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")


def parse_duration_us(text: str) -> int:
    """Return microseconds; raise ValueError, naming the form, for anything that is no duration."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"not a duration: {text!r} (write 100ms, 30s, 5m, 24h, 7d or 1h30m)")
    return round(sum(float(number) * UNITS_US[unit] for number, unit in _PART.findall(text)))


def format_duration(microseconds: int) -> str:
    """Write microseconds in the largest units that leave nothing over: ``90m`` is ``1h30m``."""
    if microseconds < UNITS_US["ms"]:
        return f"{microseconds / UNITS_US['ms']:g}ms"
    parts, rest = [], microseconds
    for unit, size in sorted(UNITS_US.items(), key=lambda item: -item[1]):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
