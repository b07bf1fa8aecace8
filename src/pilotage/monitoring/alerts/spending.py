"""Metrics of money: costs of the running hour, day and month, and budgets."""

from calendar import monthrange
from collections.abc import Iterable, Sequence
from functools import partial

from pilotage.core.condition.types import Labels
from pilotage.core.money import NANO
from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.budgets.types import Budget, BudgetPer, BudgetStatus
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import CostBy
from pilotage.finops.insights.service import CostInsights
from pilotage.kit.clock import Clock, to_datetime
from pilotage.kit.db import Tx
from pilotage.monitoring.alerts.kept import Kept
from pilotage.monitoring.alerts.names import Names
from pilotage.monitoring.alerts.values import Found, Wanted

READ_EVERY_S = 2.0
SPIKES_EVERY_S = 30.0
_SPIKES = {"cost_spike": "cost", "traffic_spike": "calls"}
_BUDGETS = ("budget", "budget_used")


class CostSource:
    """Answers ``hourly_cost``, ``daily_cost`` and ``monthly_cost``; nothing where nothing was."""

    def __init__(self, costs: CostService, names: Names, clock: Clock) -> None:
        self._read = {
            "hourly_cost": costs.hourly_cost,
            "daily_cost": costs.daily_cost,
            "monthly_cost": costs.monthly_cost,
        }
        self.names = frozenset(self._read)
        self._names = names
        self._kept = Kept(clock)

    async def read(self, tx: Tx, wanted: Sequence[Wanted], _: int) -> Found:
        """Return the values of some metrics in all projects."""
        await self._names.learn(tx)
        return {
            one: await self._kept.read(
                tx.actor.project_id, one, READ_EVERY_S, partial(self._sum_all, tx, one)
            )
            for one in wanted
        }

    async def _sum_all(self, tx: Tx, one: Wanted) -> dict[str, dict[Labels, float]]:
        return {name: await self._sum(tx, name, one) for name in self._names.list_projects(tx)}

    async def _sum(self, tx: Tx, project_id: str, one: Wanted) -> dict[Labels, float]:
        spent = await self._read[one.name](tx, project_id, [CostBy(name) for name in one.by])
        groups = [dict(labels) for labels in spent]
        await self._names.learn(tx, [group.get("version", "") for group in groups])
        named = (self._names.say_all(one.by, [group[name] for name in one.by]) for group in groups)
        return {labels: nano / NANO for labels, nano in zip(named, spent.values(), strict=True)}


class SpikeSource:
    """Answers ``cost_spike`` and ``traffic_spike``; nothing before two weeks are known."""

    def __init__(self, insights: CostInsights, names: Names, clock: Clock) -> None:
        self.names = frozenset(_SPIKES)
        self._insights = insights
        self._names = names
        self._kept = Kept(clock)

    async def read(self, tx: Tx, wanted: Sequence[Wanted], _: int) -> Found:
        """Return the values of some metrics in all projects."""
        await self._names.learn(tx)
        spikes = await self._kept.read(
            tx.actor.project_id, "spikes", SPIKES_EVERY_S, partial(self._measure, tx)
        )
        found: Found = {}
        for one in wanted:
            measure = _SPIKES[one.name]
            found[one] = {
                project_id: {(): of_project[measure]}
                for project_id, of_project in spikes.items()
                if measure in of_project
            }
        return found

    async def _measure(self, tx: Tx) -> dict[str, dict[str, float]]:
        projects = self._names.list_projects(tx)
        return {name: await self._insights.measure_spikes(tx, name) for name in projects}


class BudgetSource:
    """Answers ``budget`` and ``budget_used``, by whatever a budget is for."""

    def __init__(self, budgets: BudgetService, names: Names, clock: Clock) -> None:
        self.names = frozenset(_BUDGETS)
        self._budgets = budgets
        self._names = names
        self._kept = Kept(clock)

    async def read(self, tx: Tx, wanted: Sequence[Wanted], at_us: int) -> Found:
        """Return the values of some metrics in all projects."""
        await self._names.learn(tx)
        statuses = await self._kept.read(
            tx.actor.project_id, "budgets", READ_EVERY_S, lambda: self._budgets.list_statuses(tx)
        )
        return {one: self._find(one, statuses, at_us) for one in wanted}

    def _find(
        self, one: Wanted, statuses: Iterable[BudgetStatus], at_us: int
    ) -> dict[str, dict[Labels, float]]:
        """Return a metric by project; of several budgets of the same the tightest counts."""
        found: dict[str, dict[Labels, float]] = {}
        for status in statuses:
            budget = status.budget
            ids = list_scope(budget)
            if tuple(ids) != one.by:
                continue
            labels = self._names.say_all(one.by, list(ids.values()))
            values = found.setdefault(budget.project_id, {})
            if one.name == "budget":
                daily = find_daily_usd(budget, at_us)
                values[labels] = min(values.get(labels, daily), daily)
            else:
                values[labels] = max(values.get(labels, status.used), status.used)
        return found


def list_scope(budget: Budget) -> dict[str, str]:
    """Return whose costs a budget is for, by label in order; none for all of a project."""
    scope = {
        "alias": budget.alias,
        "feature": budget.feature,
        "model": budget.model,
        "tenant": budget.tenant_id,
    }
    return {name: value for name, value in scope.items() if value}


def find_daily_usd(budget: Budget, at_us: int) -> float:
    """Return what a budget allows for a day: of one for a month, the share of one of its days."""
    if budget.per is BudgetPer.DAY:
        return budget.amount_nano / NANO
    moment = to_datetime(at_us)
    if moment is None:
        raise ValueError("a time is needed")
    return budget.amount_nano / NANO / monthrange(moment.year, moment.month)[1]
