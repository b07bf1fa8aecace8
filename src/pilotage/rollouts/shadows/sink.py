"""Takes comparisons out of the spools, each exactly once, with the calls."""

from collections.abc import Mapping

from pilotage.kit.db import Tx
from pilotage.monitoring.rollups.service import CallBatch
from pilotage.rollouts.shadows.rules import Place, count
from pilotage.rollouts.shadows.service import ShadowService
from pilotage.rollouts.shadows.types import Held


class ComparisonSink:
    """Counts what frames say of pairs of answers."""

    def __init__(self, service: ShadowService) -> None:
        self._service = service
        self._found: Mapping[Place, Held] = {}

    async def prepare(self, batch: CallBatch) -> None:
        """Add a batch up."""
        self._found = count(batch.compared)

    async def write(self, tx: Tx) -> None:
        """Write what it adds up to."""
        if self._found:
            await self._service.record(tx, self._found)
