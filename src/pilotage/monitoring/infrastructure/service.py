"""The verbs of gauges. Never commits: whoever opened the transaction does."""

from collections.abc import Mapping, Sequence

from pilotage.kit.db import Tx
from pilotage.monitoring.infrastructure import store
from pilotage.monitoring.infrastructure.rules import Readings
from pilotage.monitoring.infrastructure.types import GaugeKey, GaugeSeries, Spread
from pilotage.monitoring.rollups.rules import floor
from pilotage.monitoring.rollups.types import Keep, Level

FRESH_US = 30_000_000
_AS_USUAL = Keep()


class InfrastructureService:
    """What replicas and their machine are used to, now and before."""

    def __init__(self, keep: Keep = _AS_USUAL) -> None:
        self._keep = keep
        self._last: tuple[int, Readings] = (0, {})

    def note(self, at_us: int, readings: Readings) -> None:
        """Keep what was read at a time as what is now."""
        self._last = (at_us, readings)

    def get_now(self, at_us: int) -> Readings:
        """Return what was read last, nothing if that is too long ago to be now."""
        read_us, readings = self._last
        return readings if at_us - read_us <= FRESH_US else {}

    async def record(self, tx: Tx, at_us: int, spreads: Mapping[GaugeKey, Spread]) -> None:
        """Add what gauges were in the minute of a time, and forget what is old."""
        for level, keep_us in (
            (Level.MINUTE, self._keep.minutes_us),
            (Level.HOUR, self._keep.hours_us),
            (Level.DAY, self._keep.days_us),
        ):
            await store.add_spreads(tx, level, floor(at_us, level), spreads)
            await store.drop_old(tx, level, floor(tx.now_us - keep_us, level))

    async def read_series(
        self, tx: Tx, since_us: int, until_us: int, step: Level
    ) -> list[GaugeSeries]:
        """Return every gauge of the transaction's project by minute, hour or day."""
        found: dict[GaugeKey, list[tuple[int, Spread]]] = {}
        since_us = floor(since_us, step)
        for at_us, key, spread in await store.list_spreads(tx, step, since_us, until_us):
            found.setdefault(key, []).append((at_us, spread))
        return [GaugeSeries(key=key, points=found[key]) for key in sorted(found)]

    def list_now(self, project_id: str, at_us: int) -> Sequence[tuple[GaugeKey, float]]:
        """Return what a project's replicas are used to now; "" stands for the machine."""
        now = self.get_now(at_us)
        return sorted((key, value) for key, value in now.items() if key.project_id == project_id)
