"""The loop of costs: hours of replicas that are over, what was stored, thresholds of budgets."""

import logging
from collections.abc import Awaitable, Callable

from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.replicas.service import ReplicaCosts
from pilotage.finops.rules import get_day
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.worker import Wakeup, Worker

EVERY_S = 15.0
_LOG = logging.getLogger("pilotage.finops")


class CostKeeper:
    """Books what no call says. ``measure_storage`` returns bytes stored by project."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        replicas: ReplicaCosts,
        budgets: BudgetService,
        measure_storage: Callable[[Tx], Awaitable[dict[str, int]]],
    ) -> None:
        self._db = db
        self._clock = clock
        self._replicas = replicas
        self._budgets = budgets
        self._measure_storage = measure_storage
        self._stored_on = ""

    async def step(self) -> bool:
        """Book what is due; never more to do at once."""
        today = get_day(self._clock.now_us())
        async with self._db.write(SYSTEM) as tx:
            await self._replicas.book_replicas(tx)
            if self._stored_on != today:
                await self._replicas.book_storage(tx, await self._measure_storage(tx))
        self._stored_on = today
        async with self._db.write(SYSTEM) as tx:
            marks = await self._budgets.mark_crossed(tx)
        for mark in marks:
            _LOG.warning(
                "budget %s: %d %% of it is spent in %s", mark.budget_id, mark.percent, mark.period
            )
        return False

    def make_worker(self) -> Worker:
        """Return the loop."""
        return Worker("costs", self.step, Wakeup(), EVERY_S)
