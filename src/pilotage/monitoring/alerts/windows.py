"""Windows of the rollups up to now, kept for as long as reading them again would not pay."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import Cell, Counts, Dimension, Selection

_EVERYBODY = Selection()
_FRESHEST_S, _OLDEST_S = 1.0, 60.0
_READS_PER_WINDOW = 300  # so that a window of 5m is read every second, and one of 1h every 12 s
_SHARE_OF_TIME = 0.1  # that reading a window again and again may take
_BEAT_S = 0.5  # by how much looks may be too early
Sum = TypeVar("Sum", Cell, Counts)
Sums = Mapping[tuple[str, ...], Sum]
_Key = tuple[str | None, type, int, tuple[Dimension, ...]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was read, when, and how long that took."""

    sums: Mapping[tuple[str, ...], Any]
    at_s: float
    took_s: float


class Windows:
    """What the calls of a window add up to in the projects that a transaction sees."""

    def __init__(self, rollups: RollupService, clock: Clock) -> None:
        self._rollups = rollups
        self._clock = clock
        self._kept: dict[_Key, _Kept] = {}

    async def read_cells(
        self, tx: Tx, window_us: int, by: tuple[Dimension, ...], at_us: int
    ) -> Sums[Cell]:
        """Return cells by project and some dimensions."""
        span = (at_us - window_us, at_us + 1)
        dimensions = (Dimension.PROJECT, *by)
        return await self._keep(
            (tx.actor.project_id, Cell, window_us, by),
            lambda: self._rollups.read_cells(tx, _EVERYBODY, *span, dimensions),
        )

    async def read_counts(
        self, tx: Tx, window_us: int, by: tuple[Dimension, ...], at_us: int
    ) -> Sums[Counts]:
        """Return plain sums by project and some dimensions, for much less work."""
        span = (at_us - window_us, at_us + 1)
        dimensions = (Dimension.PROJECT, *by)
        return await self._keep(
            (tx.actor.project_id, Counts, window_us, by),
            lambda: self._rollups.read_counts(tx, _EVERYBODY, *span, dimensions),
        )

    async def _keep(
        self,
        key: _Key,
        read: Callable[[], Awaitable[Mapping[tuple[str, ...], Sum]]],
    ) -> Mapping[tuple[str, ...], Sum]:
        began_s = self._clock.monotonic_s()
        kept = self._kept.get(key)
        if kept is not None and 0 <= began_s - kept.at_s < find_age_s(key[2], kept.took_s):
            return kept.sums
        self._forget_old(began_s)
        sums = await read()
        self._kept[key] = _Kept(sums, began_s, self._clock.monotonic_s() - began_s)
        return sums

    def _forget_old(self, now_s: float) -> None:
        """Drop windows that nobody has asked for lately."""
        for key, kept in list(self._kept.items()):
            if now_s - kept.at_s > 2 * max(_OLDEST_S, kept.took_s / _SHARE_OF_TIME):
                del self._kept[key]


def find_age_s(window_us: int, took_s: float) -> float:
    """Return for how long a window is not read again: long ones change slowly, or cost much."""
    usual_s = min(max(window_us / 1e6 / _READS_PER_WINDOW, _FRESHEST_S), _OLDEST_S)
    return max(usual_s - _BEAT_S, took_s / _SHARE_OF_TIME)
