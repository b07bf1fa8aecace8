"""The loop that looks at the replicas and their machine."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.infrastructure.rules import add_readings, measure
from pilotage.monitoring.infrastructure.service import InfrastructureService
from pilotage.monitoring.infrastructure.types import GaugeKey, MachineUse, Replica, Spread
from pilotage.monitoring.rollups.rules import floor
from pilotage.monitoring.rollups.types import Level

EVERY_S = 5.0
ListReplicas = Callable[[Tx], Awaitable[Sequence[Replica]]]
LookAtMachine = Callable[[Sequence[int]], MachineUse]
"""Look at the machine and at some processes; called in a thread."""


class InfrastructureSampler:
    """Reads every gauge at each look and writes what they were minute by minute.

    A process that is killed loses the readings of less than a minute.
    """

    def __init__(
        self,
        db: Database,
        service: InfrastructureService,
        list_replicas: ListReplicas,
        look: LookAtMachine,
    ) -> None:
        self._db = db
        self._service = service
        self._list_replicas = list_replicas
        self._look = look
        self._before: MachineUse | None = None
        self._minute_us = 0
        self._spreads: dict[GaugeKey, Spread] = {}

    async def step(self) -> bool:
        """Look once; never more to do at once."""
        async with self._db.read(SYSTEM) as tx:
            replicas = await self._list_replicas(tx)
            now_us = tx.now_us
        seen = await asyncio.to_thread(self._look, [one.pid for one in replicas if one.pid])
        if floor(now_us, Level.MINUTE) != self._minute_us:
            await self.write()
            self._minute_us = floor(now_us, Level.MINUTE)
        readings = measure(replicas, self._before, seen)
        self._service.note(now_us, readings)
        add_readings(self._spreads, readings)
        self._before = seen
        return False

    async def write(self) -> None:
        """Write what was read of this minute."""
        if self._spreads:
            async with self._db.write(SYSTEM) as tx:
                await self._service.record(tx, self._minute_us, self._spreads)
            self._spreads = {}


def make_infrastructure_worker(sampler: InfrastructureSampler) -> Worker:
    """Make the worker."""
    return Worker("infrastructure", sampler.step, Wakeup(), EVERY_S)
