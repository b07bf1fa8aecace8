"""The retention worker: deletes the versions whose time is over, or notes what keeps them."""

from dataclasses import replace

from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.worker import Wakeup, Worker
from pilotage.registry.datasets.service import DatasetService

LOOK_EVERY_S = 600.0
_RETENTION = replace(SYSTEM, reason="the time it was kept for is over")


def make_retention_worker(db: Database, service: DatasetService) -> Worker:
    """Return the worker; each step takes one version in a transaction of its own."""

    async def step() -> bool:
        async with db.write(_RETENTION) as tx:
            return await service.delete_due(tx) is not None

    return Worker("retention", step, Wakeup(), LOOK_EVERY_S)
