"""The verbs of budgets. Never commits."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from pilotage.core.budgets import check_budget
from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.finops.budgets import store
from pilotage.finops.budgets.rules import (
    divide_spending,
    find_period,
    list_crossed,
)
from pilotage.finops.budgets.types import Budget, BudgetSpec, BudgetStatus, Mark
from pilotage.finops.costs.outlook import MOST_DAYS, forecast
from pilotage.finops.costs.rules import DAY_US
from pilotage.finops.costs.service import CostService, check_text
from pilotage.finops.costs.types import CostBy, CostRow, Span
from pilotage.finops.periods import list_remaining
from pilotage.finops.rules import get_day
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

CONFIDENCE = 0.9
PAGE = 1_000_000
_CHANGEABLE = ("amount_nano", "thresholds")
_SCOPE = ("per", "tenant_id", "alias", "model", "feature")
_DAYS = {CostBy.TENANT: "tenant_id", CostBy.ALIAS: "alias"} | {
    CostBy.MODEL: "model",
    CostBy.FEATURE: "feature",
}


class BudgetService:
    """Budgets of projects. ``find_payer_id`` is that of the identity service."""

    def __init__(
        self,
        clock: Clock,
        costs: CostService,
        find_payer_id: Callable[[Tx, str], Awaitable[str]],
    ) -> None:
        self._clock = clock
        self._costs = costs
        self._find_payer_id = find_payer_id

    async def create_budget(self, tx: Tx, name: str, spec: BudgetSpec) -> Budget:
        """Create a budget in the transaction's project; it counts from its period's start on.

        Raises ``already_exists`` if the name is taken, ``not_found`` for a tenant that is not
        there, ``invalid_request`` for what a budget cannot be.
        """
        check_name(name)
        values = await self._resolve(tx, spec)
        if await store.find_budget(tx, name):
            raise PilotageError(
                "already_exists", f"There is a budget {name!r} already.", param="name"
            )
        budget = Budget(
            id=self._clock.new_id("bud"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            created_at_us=tx.now_us,
            **values,
        )
        await store.insert_budget(tx, budget)
        await append_revision(tx, "finops.budget.created", budget.id, 1, budget)
        return budget

    async def get_budget(self, tx: Tx, name_or_id: str) -> Budget:
        """Return a living budget by name or id; raise ``not_found``."""
        budget = await store.find_budget(tx, name_or_id)
        if budget is None or budget.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no budget {name_or_id!r}.",
                hint="List them: pilotage budgets list",
                param="budget_name",
            )
        return budget

    async def list_budgets(
        self, tx: Tx, after: str = "", limit: int = PAGE, project_id: str | None = None
    ) -> Sequence[Budget]:
        """Return living budgets by name."""
        return await store.list_budgets(tx, after, limit, project_id)

    async def change_budget(
        self, tx: Tx, name_or_id: str, spec: BudgetSpec, expected_rev: int | None = None
    ) -> Budget:
        """Change a budget's amount or thresholds; what was marked in the period stays marked.

        Raise ``conflict`` if it would count something else, or of somebody else.
        """
        budget = await self.get_budget(tx, name_or_id)
        if expected_rev is not None and expected_rev != budget.rev:
            raise _changed(budget)
        wanted = await self._resolve(tx, spec)
        for name in _SCOPE:
            if wanted[name] != getattr(budget, name):
                raise PilotageError(
                    "conflict",
                    f"Budget {budget.name!r} counts something else: its "
                    f"{name.removesuffix('_id')} never changes.",
                    hint="Set one of another name.",
                    param=name.removesuffix("_id"),
                )
        after = {name: wanted[name] for name in _CHANGEABLE}
        before = {name: getattr(budget, name) for name in _CHANGEABLE}
        if after == before:
            return budget
        if not await store.change_budget(tx, budget, **after):
            raise _changed(budget)
        await append_revision(tx, "finops.budget.changed", budget.id, budget.rev + 1, after, before)
        return replace(budget, rev=budget.rev + 1, **after)

    async def delete_budget(self, tx: Tx, name_or_id: str) -> None:
        """Delete a budget: it compares nothing from then on."""
        budget = await self.get_budget(tx, name_or_id)
        name = f"{budget.name}~{budget.id}"
        if not await store.change_budget(tx, budget, name=name, deleted_at_us=tx.now_us):
            raise _changed(budget)
        gone = {"id": budget.id, "name": budget.name}
        await append_revision(tx, "finops.budget.deleted", budget.id, budget.rev + 1, gone, budget)

    async def get_status(self, tx: Tx, budget: Budget) -> BudgetStatus:
        """Return a budget against what was spent in the period that runs now."""
        today = get_day(tx.now_us)
        period, first, after = find_period(budget.per, today)
        back = (date.fromisoformat(today) - timedelta(days=MOST_DAYS)).isoformat()
        rows = await self._list_days(tx, budget, min(back, first), after)
        spent_nano, ahead_nano, history = divide_spending(rows, first, today)
        expected = forecast(
            history, spent_nano + ahead_nano, list_remaining(tx.now_us, after), CONFIDENCE
        )
        return BudgetStatus(
            budget=budget,
            period=period,
            spent_nano=spent_nano,
            used=spent_nano / budget.amount_nano,
            expected_nano=round(expected.expected) if expected else None,
            low_nano=round(expected.low) if expected else None,
            high_nano=round(expected.high) if expected else None,
            marks=await store.list_marks(tx, budget, period),
        )

    async def list_statuses(
        self, tx: Tx, project_id: str | None = None, after: str = "", limit: int = PAGE
    ) -> list[BudgetStatus]:
        """Return every living budget against what was spent, by name."""
        budgets = await store.list_budgets(tx, after, limit, project_id)
        return [await self.get_status(tx, budget) for budget in budgets]

    async def mark_crossed(self, tx: Tx) -> list[Mark]:
        """Note which thresholds were crossed since the last look, each once a period.

        For a day after its end a period is looked at, too: its last hours are booked then.
        """
        made = []
        for budget in await store.list_budgets(tx):
            first_us = max(tx.now_us - DAY_US, budget.created_at_us)
            days = (get_day(first_us), get_day(tx.now_us))
            for period in sorted({find_period(budget.per, day) for day in days}):
                made += await self._mark_period(tx, budget, *period)
        return made

    async def _mark_period(
        self, tx: Tx, budget: Budget, period: str, first: str, after: str
    ) -> list[Mark]:
        """Note which thresholds were crossed in a period, by what was spent up to today."""
        rows = await self._list_days(tx, budget, first, after)
        spent_nano = divide_spending(rows, first, get_day(tx.now_us)).spent
        known = {mark.percent for mark in await store.list_marks(tx, budget, period)}
        made = []
        for percent in list_crossed(budget.thresholds, spent_nano, budget.amount_nano, known):
            mark = Mark(
                budget_id=budget.id,
                project_id=budget.project_id,
                period=period,
                percent=percent,
                at_us=tx.now_us,
                spent_nano=spent_nano,
            )
            await store.insert_mark(tx, mark)
            made.append(mark)
        return made

    async def _list_days(self, tx: Tx, budget: Budget, since: str, until: str) -> Sequence[CostRow]:
        only = [(by, getattr(budget, name)) for by, name in _DAYS.items() if getattr(budget, name)]
        span = Span(since=since, until=until, project_id=budget.project_id, only=tuple(only))
        return await self._costs.sum_costs(tx, [CostBy.DAY], span)

    async def _resolve(self, tx: Tx, spec: BudgetSpec) -> dict[str, Any]:
        for name in ("alias", "model", "feature"):
            check_text(getattr(spec, name), name)
        return {
            "amount_nano": check_budget(spec.amount, spec.thresholds),
            "per": spec.per,
            "tenant_id": await self._find_payer(tx, spec.tenant),
            "alias": spec.alias,
            "model": spec.model,
            "feature": spec.feature,
            "thresholds": spec.thresholds,
        }

    async def _find_payer(self, tx: Tx, tenant: str) -> str:
        """Return whose costs count, "" for all of them together."""
        if not tenant:
            return ""
        payer_id = await self._find_payer_id(tx, tenant)
        if not payer_id:
            raise PilotageError(
                "invalid_request",
                "A budget is of a tenant, or of all costs together.",
                hint="Leave the tenant out, or name one.",
                param="tenant",
            )
        return payer_id


def _changed(budget: Budget) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"Budget {budget.name!r} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )
