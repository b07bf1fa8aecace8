"""The verbs of months: which are due to be closed, and closing them. Never commits."""

from collections.abc import Sequence

from pilotage.core.usage import Rates
from pilotage.finops.costs import store as cost_store
from pilotage.finops.costs.types import CostBy, CostKind, Span
from pilotage.finops.months import store
from pilotage.finops.months.rules import find_due
from pilotage.finops.months.types import ClosedMonth
from pilotage.finops.periods import find_month
from pilotage.finops.rules import get_day
from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

_FIRST_DAY = "0001-01-01"


class Months:
    """Months of projects; each is closed ``after_us`` after its end."""

    def __init__(self, finops: FinopsService, identity: IdentityService, after_us: int) -> None:
        self._finops = finops
        self._identity = identity
        self._after_us = after_us

    async def list_due(self, tx: Tx) -> list[str]:
        """Return the projects with a month to close: the one they were made in, or a later one.

        Until then, what a new project cost elsewhere before can be booked on its own days.
        """
        due, last = find_due(tx.now_us, self._after_us), await store.list_last(tx)
        return [
            project.id
            for project in await self._identity.list_projects(tx)
            if last.get(project.id, "") < due and get_day(project.created_at_us)[:7] <= due
        ]

    async def close_due(self, tx: Tx) -> list[ClosedMonth]:
        """Close the months of the transaction's project that are due, and return them.

        Those in which nothing cost anything are closed with a later one. Nothing that is written
        from then on counts to them.
        """
        due = find_due(tx.now_us, self._after_us)
        last = (await store.hold_costs(tx)).get(tx.project_id, "")
        if last >= due:
            return []
        since = _find_days(last)[1] if last else _FIRST_DAY
        span = Span(since=since, until=_find_days(due)[1])
        sums = {due: [0, 0]}
        for row in await cost_store.sum_costs(tx, [CostBy.MONTH, CostBy.KIND], span):
            is_entry = row.groups["kind"] != CostKind.CALLS
            sums.setdefault(row.groups["month"], [0, 0])[is_entry] += row.cost_nano
        closed = []
        for month, (calls_nano, entries_nano) in sorted(sums.items()):
            made = ClosedMonth(
                project_id=tx.project_id,
                month=month,
                closed_at_us=tx.now_us,
                calls_nano=calls_nano,
                entries_nano=entries_nano,
            )
            await store.insert_month(tx, made, await self._find_rates(tx, month))
            await append_revision(
                tx, "finops.month.closed", f"{made.project_id}/{made.month}", 1, made
            )
            closed.append(made)
        return closed

    async def list_months(
        self, tx: Tx, after: str = "", limit: int = 10_000
    ) -> Sequence[ClosedMonth]:
        """Return the months that were closed, in order."""
        return await store.list_months(tx, after, limit)

    async def find_closing(self, tx: Tx, month: str) -> ClosedMonth | None:
        """Return the closing that closed a month: its own or a later one's; None if it is open."""
        return await store.find_closing(tx, month)

    async def list_rates(self, tx: Tx, month: str) -> dict[str, Rates]:
        """Return the rates that a closed month's calls were priced at, by price id."""
        return await store.list_rates(tx, month)

    async def _find_rates(self, tx: Tx, month: str) -> dict[str, Rates]:
        since, until = _find_days(month)
        days = await cost_store.list_price_days(tx, Span(since=since, until=until))
        return await self._finops.find_rates_on(tx, days)


def _find_days(month: str) -> tuple[str, str]:
    _, first, after = find_month(f"{month}-01")
    return first, after
