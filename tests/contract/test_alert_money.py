"""Rules on costs and budgets, evaluated like all others."""

from typing import Any

import pytest

from alert_lab import AlertLab, open_lab
from pilotage.core.condition.parser import parse
from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.budgets.types import BudgetPer, BudgetSpec
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import CostKind, EntrySpec
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.rules import make_charge
from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock, parse_rfc3339
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.monitoring.alerts.rules import find_type
from pilotage.monitoring.alerts.spending import BudgetSource, CostSource, SpikeSource
from pilotage.monitoring.alerts.types import MetricType
from pilotage.monitoring.alerts.values import Wanted

NOON = parse_rfc3339("2026-06-10T12:00:00Z")
USD = 10**9


class Money:
    """A lab in which money is spent."""

    def __init__(self, lab: AlertLab, costs: CostService, budgets: BudgetService) -> None:
        self.lab = lab
        self._finops = FinopsService(lab.clock)
        self._costs = costs
        self._budgets = budgets

    async def spend(
        self,
        usd: float,
        **more: Any,  # noqa: ANN401
    ) -> None:
        """Book a cost of now."""
        now_us = self.lab.clock.now_us()
        spec = EntrySpec(
            kind=CostKind.COMPUTE,
            source=self.lab.clock.new_id("src"),
            start_us=now_us,
            end_us=now_us + 1,
            cost_nano=round(usd * USD),
            **more,
        )
        async with self.lab.db.write(self.lab.mine) as tx:
            await self._costs.add_entry(tx, spec)

    async def answer(
        self,
        calls: int,
        **more: Any,  # noqa: ANN401
    ) -> None:
        """Charge calls that ended now."""
        ended = [self.lab.call(call_id=self.lab.clock.new_id("call"), **more) for _ in range(calls)]
        async with self.lab.db.write(SYSTEM) as tx:
            place = await self._finops.get_place(tx, "gateway-0", "e")
            charges = [make_charge(one, "gateway-0") for one in ended]
            await self._finops.record(tx, place, place.seq + calls, charges)

    async def allow(
        self,
        name: str,
        amount: str,
        per: BudgetPer,
        **more: Any,  # noqa: ANN401
    ) -> None:
        """Set a budget."""
        async with self.lab.db.write(self.lab.mine) as tx:
            await self._budgets.create_budget(tx, name, BudgetSpec(amount=amount, per=per, **more))

    async def read(self, name: str, *by: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return what a metric is now."""
        wanted = Wanted(name, 0, by)
        async with self.lab.db.read(self.lab.mine) as tx:
            picture = await self.lab.values.read(tx, [wanted], self.lab.clock.now_us())
        return picture.found[wanted].get(self.lab.mine.project_id or "", {})


@pytest.fixture
def postgres_or_none() -> None:
    """Take SQLite: what is written is held by the suite of the store on both."""


@pytest.fixture
async def money(database: Database, clock: ManualClock) -> Money:
    clock.advance((NOON - clock.now_us()) / 1e6)
    lab = await open_lab(database, clock)
    identity = IdentityService(clock)

    async def find_tenant(tx: Tx, name: str) -> str:
        return (await identity.get_tenant(tx, name)).id

    async with database.write(lab.mine) as tx:
        await identity.create_tenant(tx, "acme")
    costs = CostService(clock)
    budgets = BudgetService(clock, costs, find_tenant)
    lab.add_sources(
        CostSource(costs, lab.names, clock),
        BudgetSource(budgets, lab.names, clock),
        SpikeSource(CostInsights(FinopsService(clock)), lab.names, clock),
    )
    return Money(lab, costs, budgets)


async def test_finance_is_told_when_a_day_costs_a_fifth_more_than_its_budget(money: Money) -> None:
    await money.lab.set_rule("overrun", "daily_cost > budget * 1.2", team="finance")
    await money.allow("daily", "10", BudgetPer.DAY)
    await money.spend(11)
    assert await money.lab.look(3) == []

    await money.spend(1.5)

    assert await money.lab.look(3) == [("overrun", "firing")]
    assert await money.lab.look(86_400) == [("overrun", "resolved")]


async def test_a_days_share_of_a_monthly_budget_is_its_budget_and_the_tightest_counts(
    money: Money,
) -> None:
    await money.allow("monthly", "300", BudgetPer.MONTH)
    assert await money.read("budget") == {(): 10.0}
    await money.allow("daily", "4", BudgetPer.DAY)
    money.lab.clock.advance(3)
    await money.spend(3)

    assert await money.read("budget") == {(): 4.0}
    assert await money.read("budget_used") == {(): 0.75}
    assert await money.read("monthly_cost") == {(): 3.0}


async def test_costs_and_budgets_of_a_tenant_have_its_name(money: Money) -> None:
    await money.allow("acme", "10", BudgetPer.DAY, tenant="acme")
    await money.lab.set_rule("half", 'budget_used{tenant="acme"} >= 50%')
    async with money.lab.db.read(money.lab.mine) as tx:
        tenant = await IdentityService(money.lab.clock).get_tenant(tx, "acme")

    await money.spend(5, tenant_id=tenant.id, alias="chat")

    assert await money.lab.look(3) == [("half", "firing")]
    assert await money.read("daily_cost", "tenant") == {(("tenant", "acme"),): 5.0}
    assert await money.read("daily_cost", "alias") == {(("alias", "chat"),): 5.0}
    assert await money.read("budget") == {}


async def test_the_budget_of_a_model_or_a_feature_warns_too(money: Money) -> None:
    await money.allow("search", "10", BudgetPer.DAY, feature="search")
    await money.allow("gpt", "10", BudgetPer.DAY, alias="chat", model="gpt")
    await money.lab.set_rule("feature", 'budget_used{feature!=""} > 90%')
    await money.lab.set_rule("model", 'budget_used{model="gpt", alias!=""} > 90%')

    await money.answer(95, feature="search", cost_nano=USD // 10)
    assert await money.lab.look(3) == [("feature", "firing")]
    await money.spend(30, alias="chat", model="gpt")

    assert await money.lab.look(3) == [("model", "firing")]
    assert await money.read("budget_used", "feature") == {(("feature", "search"),): 0.95}
    assert await money.read("budget_used") == {}


async def test_finance_is_told_while_the_day_runs_that_its_cost_stands_out(money: Money) -> None:
    await money.lab.set_rule("spike", "cost_spike >= 1", team="finance")
    for _ in range(13):
        await money.spend(10)
        money.lab.clock.advance(86_400)
    await money.spend(10)
    assert await money.read("cost_spike") == {}
    money.lab.clock.advance(86_400)
    await money.spend(14)

    assert await money.lab.look(31) == []
    assert await money.read("cost_spike") == {(): pytest.approx(14 / 15)}
    await money.spend(2)

    assert await money.lab.look(31) == [("spike", "firing")]
    async with money.lab.db.read(money.lab.mine) as tx:
        rule = await money.lab.service.get_rule(tx, "spike")
        insights = CostInsights(FinopsService(money.lab.clock))
        assert find_type(parse(rule.condition)) is MetricType.COST
        assert await insights.list_anomalies(tx) == []
    money.lab.clock.advance(86_400)
    async with money.lab.db.read(money.lab.mine) as tx:
        (mark,) = await insights.list_anomalies(tx)
    assert (mark.measure, mark.amount, mark.usual) == ("cost", 16 * USD, 10 * USD)
    assert await money.lab.look() == [("spike", "resolved")]


async def test_traffic_that_stands_out_is_a_metric_of_its_own(money: Money) -> None:
    for _ in range(14):
        await money.answer(30)
        money.lab.clock.advance(86_400)
    await money.answer(90)

    assert await money.read("traffic_spike") == {(): pytest.approx(90 / 50)}


async def test_what_calls_cost_by_hour_is_not_what_was_booked(money: Money) -> None:
    await money.spend(5)

    assert await money.read("hourly_cost") == {}
