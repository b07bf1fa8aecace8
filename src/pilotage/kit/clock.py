"""Time and randomness, given in where they are needed and taken only here."""

import os
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

from pilotage.core.ids import make_id


class Clock(Protocol):
    """Wall time in microseconds UTC, monotonic seconds for durations, new ids."""

    def now_us(self) -> int:
        """Return the wall time, in microseconds since 1970 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def new_id(self, prefix: str) -> str:
        """Return a fresh id of a kind."""
        ...


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # integers from here: a double loses microseconds
_NOISE_BYTES = 10
_NOISE_AT_ONCE = 256 * _NOISE_BYTES


class SystemClock:
    """The machine's clock and the kernel's random numbers."""

    def __init__(self) -> None:
        self._noise = b""
        self._used = 0

    def now_us(self) -> int:
        """Return the wall time, in microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()

    def new_id(self, prefix: str) -> str:
        """Return a fresh id of a kind."""
        if self._used == len(self._noise):
            self._noise, self._used = os.urandom(_NOISE_AT_ONCE), 0
        start = self._used
        self._used = start + _NOISE_BYTES
        return make_id(prefix, time.time_ns() // 1000, self._noise[start : self._used])


class ManualClock:
    """A clock that moves when told: the twin for tests and simulations."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self._start_us = now_us
        self._made = 0

    def now_us(self) -> int:
        """Return the time it was set to."""
        return self._now_us

    def monotonic_s(self) -> float:
        """Return the seconds it was advanced by."""
        return (self._now_us - self._start_us) / 1e6

    def new_id(self, prefix: str) -> str:
        """Return ids that count up, the same in every run."""
        self._made += 1
        return make_id(prefix, self._now_us, self._made.to_bytes(10, "big"))

    def advance(self, seconds: float) -> None:
        """Move forward (or, with a negative number, set the wall clock back)."""
        self._now_us += round(seconds * 1e6)


def to_datetime(at_us: int | None) -> datetime | None:
    """Return the UTC datetime of a time in microseconds; None stays None."""
    return None if at_us is None else _EPOCH + timedelta(microseconds=at_us)


def rfc3339(at_us: int) -> str:
    """Write a wall time in microseconds as RFC 3339 in UTC."""
    second, rest_us = divmod(at_us, 1_000_000)
    return f"{_write_second(second)}.{rest_us:06d}Z"


@lru_cache(256)
def _write_second(second: int) -> str:
    """Write what times of the same second have in common: they are written many at a time."""
    return (_EPOCH + timedelta(seconds=second)).isoformat().removesuffix("+00:00")


def parse_rfc3339(text: str) -> int:
    """Return the microseconds UTC of an RFC 3339 time; raise ValueError without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time needs an offset, for example {text}Z")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_time(text: str) -> int:
    """Return the microseconds UTC of an RFC 3339 time or of the beginning of a date in UTC.

    Raise ValueError for anything else.
    """
    is_date = len(text) == len("2026-01-31") and text.count("-") == 2
    try:
        return parse_rfc3339(f"{text}T00:00:00Z" if is_date else text)
    except OverflowError as beyond:
        raise ValueError(f"beyond the calendar: {text!r}") from beyond
