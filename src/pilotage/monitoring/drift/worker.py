"""What works for drift: measures are counted with calls, and references freeze by themselves."""

from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.drift.rules import add_up
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import Cells
from pilotage.monitoring.rollups.worker import CallBatch

LOOK_EVERY_S = 60.0


class MeasureSink:
    """Counts the measures of calls in the transaction that counts the calls."""

    def __init__(self, service: DriftService) -> None:
        self._service = service
        self._cells: Cells = {}

    async def prepare(self, batch: CallBatch) -> None:
        """Add up what a batch of a spool holds."""
        self._cells = add_up((ended for _, ended in batch.ended), batch.measured)

    async def write(self, tx: Tx) -> None:
        """Write what was added up."""
        if self._cells:
            await self._service.record(tx, self._cells)


class ReferenceKeeper:
    """Freezes what is ripe and drops what is old."""

    def __init__(self, db: Database, service: DriftService) -> None:
        self._db = db
        self._service = service

    async def step(self) -> bool:
        """Look once; there is never more to do at once."""
        async with self._db.write(SYSTEM) as tx:
            await self._service.freeze_ripe(tx)
            await self._service.drop_old(tx)
        return False


def make_reference_worker(db: Database, service: DriftService) -> Worker:
    """Make the worker that looks after references."""
    return Worker("references", ReferenceKeeper(db, service).step, Wakeup(), LOOK_EVERY_S)
