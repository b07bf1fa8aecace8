"""The verbs of gauges. Never commits: whoever opened the transaction does."""

from collections.abc import Mapping, Sequence

from pilotage.kit.db import Tx
from pilotage.monitoring.infrastructure import store
from pilotage.monitoring.infrastructure.rules import Readings
from pilotage.monitoring.infrastructure.types import GaugeKey, GaugeSeries, Spread
from pilotage.monitoring.rollups.rules import floor
from pilotage.monitoring.rollups.types import Keep, Level

_AS_USUAL = Keep()


class InfrastructureService:
    """What replicas and their machine are used to, now and before.

    ``now`` is what was read last; it is empty until something was.
    """

    def __init__(self, keep: Keep = _AS_USUAL) -> None:
        self.now: Readings = {}
        self._keep = keep

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

    def list_now(self, project_id: str) -> Sequence[tuple[GaugeKey, float]]:
        """Return what was read last of a project's replicas; "" stands for the machine."""
        return sorted((key, value) for key, value in self.now.items() if key[0] == project_id)
