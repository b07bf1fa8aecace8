"""Windows of the rollups up to now, as several metrics and rules need them at once."""

from collections.abc import Mapping

from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.monitoring.alerts.kept import Kept
from pilotage.monitoring.rollups.service import RollupService
from pilotage.monitoring.rollups.types import Cell, Counts, Dimension, Selection

_EVERYBODY = Selection()
_FRESHEST_S, _OLDEST_S = 1.0, 60.0
_READS_PER_WINDOW = 300  # so that a window of 5m is read every second, and one of 1h every 12 s


class Windows:
    """What the calls of a window add up to, in the projects that a transaction sees."""

    def __init__(self, rollups: RollupService, clock: Clock) -> None:
        self._rollups = rollups
        self._kept = Kept(clock)

    async def read_cells(
        self, tx: Tx, window_us: int, by: tuple[Dimension, ...], at_us: int
    ) -> Mapping[tuple[str, ...], Cell]:
        """Return cells by project and some dimensions."""
        span = (at_us - window_us, at_us + 1)
        return await self._kept.read(
            tx.actor.project_id,
            (Cell, window_us, by),
            _find_usual_s(window_us),
            lambda: self._rollups.read_cells(tx, _EVERYBODY, *span, (Dimension.PROJECT, *by)),
        )

    async def read_counts(
        self, tx: Tx, window_us: int, by: tuple[Dimension, ...], at_us: int
    ) -> Mapping[tuple[str, ...], Counts]:
        """Return plain sums by project and some dimensions, for much less work."""
        span = (at_us - window_us, at_us + 1)
        return await self._kept.read(
            tx.actor.project_id,
            (Counts, window_us, by),
            _find_usual_s(window_us),
            lambda: self._rollups.read_counts(tx, _EVERYBODY, *span, (Dimension.PROJECT, *by)),
        )


def _find_usual_s(window_us: int) -> float:
    """Return for how long a window stands: long ones change slowly."""
    return min(max(window_us / 1e6 / _READS_PER_WINDOW, _FRESHEST_S), _OLDEST_S)
