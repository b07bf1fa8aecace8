"""What hears of calls as they are counted, and counts those of rollouts with them."""

from pilotage.kit.db import Tx
from pilotage.monitoring.rollups.service import CallBatch
from pilotage.rollouts.measuring.service import Heard, MeasuringService, hear


class MeasuringSink:
    """Counts calls of rollouts in the transaction that moves the place in the spool."""

    def __init__(self, service: MeasuringService) -> None:
        self._service = service
        self._heard = Heard()

    async def prepare(self, batch: CallBatch) -> None:
        """Pick the calls that rollouts have dealt, and what was said of calls."""
        self._heard = hear(batch)

    async def write(self, tx: Tx) -> None:
        """Count what was picked."""
        await self._service.record(tx, self._heard)
