"""What works for drift: measures are counted with calls, and references freeze by themselves."""

import logging
from collections.abc import Collection

from pilotage.core.errors import PilotageError
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.drift.rules import add_up
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.types import AnswerKey, Cells, Measure
from pilotage.monitoring.rollups.service import CallBatch

LOOK_EVERY_S = 60.0
_LOG = logging.getLogger("pilotage.monitoring")


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
            await self._service.drop_old(tx)
        async with self._db.read(SYSTEM) as tx:
            unfrozen = await self._service.list_unfrozen(tx)
        for key, missing in unfrozen:
            try:
                await self._freeze(key, missing)
            except PilotageError as failed:  # others are frozen all the same
                _LOG.warning("no reference of %s and %s: %s", key.alias, key.model, failed)
        return False

    async def _freeze(self, key: AnswerKey, missing: Collection[Measure]) -> None:
        async with self._db.read(SYSTEM) as tx:
            ripe = await self._service.find_ripe(tx, key, missing)
        if ripe:
            async with self._db.write(SYSTEM) as tx:
                await self._service.freeze_ripe(tx, key, ripe)


def make_reference_worker(db: Database, service: DriftService) -> Worker:
    """Make the worker that looks after references."""
    return Worker("references", ReferenceKeeper(db, service).step, Wakeup(), LOOK_EVERY_S)
