"""The loop of costs: hours of replicas and what was stored, closing months, budgets' thresholds."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.months.service import Months
from pilotage.finops.replicas.service import ReplicaCosts
from pilotage.finops.rules import get_day
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.worker import Wakeup, Worker

EVERY_S = 15.0
_LOG = logging.getLogger("pilotage.finops")


class CostKeeper:
    """Books what no call says, and closes months.

    ``measure_storage`` returns by project what ``book_storage`` takes, ``is_level`` whether the
    ledger has all calls that there are.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        replicas: ReplicaCosts,
        months: Months,
        budgets: BudgetService,
        measure_storage: Callable[[Tx], Awaitable[dict[str, tuple[int, int]]]],
        is_level: Callable[[], bool],
    ) -> None:
        self._db = db
        self._clock = clock
        self._replicas = replicas
        self._months = months
        self._budgets = budgets
        self._measure_storage = measure_storage
        self._is_level = is_level
        self._stored_on = ""

    async def step(self) -> bool:
        """Book what is due; never more to do at once."""
        await self._book()
        await self._mark_budgets()
        if self._is_level():
            await self._close_months()
        return False

    def make_worker(self) -> Worker:
        """Return the loop."""
        return Worker("costs", self.step, Wakeup(), EVERY_S)

    async def _book(self) -> None:
        today = get_day(self._clock.now_us())
        is_stored = self._stored_on == today
        async with self._db.read(SYSTEM) as tx:
            due = await self._replicas.list_due(tx)
            sizes = {} if is_stored else await self._measure_storage(tx)
        if due or not is_stored:
            async with self._db.write(SYSTEM) as tx:
                await self._replicas.book(tx, due)
                await self._replicas.book_storage(tx, sizes)
        self._stored_on = today

    async def _close_months(self) -> None:
        async with self._db.read(SYSTEM) as tx:
            due = await self._months.list_due(tx)
        for project_id in due:
            async with self._db.write(replace(SYSTEM, project_id=project_id)) as tx:
                for month in await self._months.close_due(tx):
                    _LOG.info("%s of project %s is closed", month.month, project_id)

    async def _mark_budgets(self) -> None:
        async with self._db.write(SYSTEM) as tx:
            marks = await self._budgets.mark_crossed(tx)
        for mark in marks:
            _LOG.warning(
                "budget %s: %d %% of it is spent in %s", mark.budget_id, mark.percent, mark.period
            )
