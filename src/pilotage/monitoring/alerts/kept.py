"""Readings kept for as long as reading them again would not pay."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pilotage.kit.clock import Clock

SHARE_OF_TIME = 0.1  # that reading again and again may take, all readings of a scope together
BEAT_S = 0.5  # by how much looks may be too early
MOST_OF_PROJECT = 32  # readings that are kept for whoever sees one project only
_FORGET_S = 120.0
Reading = TypeVar("Reading")


@dataclass(slots=True)
class _Kept:
    """What was read, when, and how long that took; ``lock`` is held while it is read."""

    usual_s: float
    asked_s: float
    reading: Any = None
    at_s: float | None = None
    took_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def load(self) -> float:
        """The share of time that it takes to be read as often as usual."""
        return self.took_s / self.usual_s


class Kept:
    """Readings by the scope of the transaction that they are read in, and a key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scopes: dict[str | None, dict[Hashable, _Kept]] = {}

    async def read(
        self,
        scope: str | None,
        key: Hashable,
        usual_s: float,
        read: Callable[[], Awaitable[Reading]],
    ) -> Reading:
        """Return what was read up to ``usual_s`` ago, longer if reading takes long, or read it.

        Several who ask at once read once.
        """
        one = self._find(scope, key, usual_s)
        if not self._is_fresh(scope, one):
            async with one.lock:
                if not self._is_fresh(scope, one):
                    began_s = self._clock.monotonic_s()
                    self._forget_old(began_s)
                    one.reading = await read()
                    one.at_s, one.took_s = began_s, self._clock.monotonic_s() - began_s
        found: Reading = one.reading
        return found

    def _find(self, scope: str | None, key: Hashable, usual_s: float) -> _Kept:
        now_s = self._clock.monotonic_s()
        kept = self._scopes.setdefault(scope, {})
        if scope is not None and key not in kept and len(kept) >= MOST_OF_PROJECT:
            del kept[min(kept, key=lambda name: kept[name].asked_s)]
        one = kept.setdefault(key, _Kept(usual_s, now_s))
        one.asked_s = now_s
        return one

    def _is_fresh(self, scope: str | None, one: _Kept) -> bool:
        if one.at_s is None:
            return False
        age_s = self._clock.monotonic_s() - one.at_s
        if not 0 <= age_s < one.usual_s - BEAT_S:
            loads = [other.load for other in self._scopes.get(scope, {}).values()]
            return 0 <= age_s < one.took_s / find_level(loads, SHARE_OF_TIME)
        return True

    def _forget_old(self, now_s: float) -> None:
        """Drop what nobody has asked for lately."""
        for scope, kept in list(self._scopes.items()):
            for key, one in list(kept.items()):
                if now_s - one.asked_s > _FORGET_S:
                    del kept[key]
            if not kept:
                del self._scopes[scope]


def find_level(loads: Iterable[float], share: float) -> float:
    """Return up to which load each reading is read as often as usual, so that all fit in a share.

    What takes little is spared; what takes more than the level is read as rarely as that needs
    (max-min fairness).
    """
    left, rising = share, sorted(loads)
    for place, load in enumerate(rising):
        level = left / (len(rising) - place)
        if load > level:
            return level
        left -= load
    return share
