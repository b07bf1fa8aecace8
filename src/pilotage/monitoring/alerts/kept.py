"""Readings kept for as long as reading them again would not pay."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from pilotage.kit.clock import Clock

SHARE_OF_TIME = 0.1  # that reading one thing again and again may take
BEAT_S = 0.5  # by how much looks may be too early
_FORGET_S = 120.0
Reading = TypeVar("Reading")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was read, when, and how long that took."""

    reading: Any
    at_s: float
    took_s: float


class Kept:
    """Readings by a key. Whoever reads within a transaction has its scope in the key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[Hashable, _Kept] = {}

    async def read(
        self, key: Hashable, usual_s: float, read: Callable[[], Awaitable[Reading]]
    ) -> Reading:
        """Return what was read up to ``usual_s`` ago, longer if reading takes long, or read it."""
        began_s = self._clock.monotonic_s()
        kept = self._kept.get(key)
        if kept is not None and 0 <= began_s - kept.at_s < find_age_s(usual_s, kept.took_s):
            found: Reading = kept.reading
            return found
        self._forget_old(began_s)
        found = await read()
        self._kept[key] = _Kept(found, began_s, self._clock.monotonic_s() - began_s)
        return found

    def _forget_old(self, now_s: float) -> None:
        """Drop what nobody has asked for lately."""
        for key, kept in list(self._kept.items()):
            if now_s - kept.at_s > 2 * max(_FORGET_S, kept.took_s / SHARE_OF_TIME):
                del self._kept[key]


def find_age_s(usual_s: float, took_s: float) -> float:
    """Return for how long a reading stands: as usual, or long enough to read rarely what costs."""
    return max(usual_s - BEAT_S, took_s / SHARE_OF_TIME)
