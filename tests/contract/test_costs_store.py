"""Costs on both databases: lines beside the ledger, entries, and what they say."""

import asyncio
from dataclasses import replace

import pytest

import stores
from cost_calls import ALL, DAY_US, HOUR_US, LUMP, NOON, charge, put
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.usage import Usage
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import (
    CostBy,
    CostKind,
    EntrySpec,
    Resource,
    Share,
    Span,
)
from pilotage.finops.insights.service import CostInsights
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import ManualClock, parse_rfc3339
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.outbox import read_revisions


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def finops(clock: ManualClock) -> FinopsService:
    return FinopsService(clock)


@pytest.fixture
def costs(clock: ManualClock) -> CostService:
    return CostService(clock)


@pytest.fixture
def insights(finops: FinopsService) -> CostInsights:
    return CostInsights(finops)


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


# lines


async def test_a_line_grows_with_its_calls_and_each_call_counts_once(
    database: Database, finops: FinopsService, costs: CostService, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id
    await put(database, finops, charge("a", mine), charge("b", mine, tenant_id="ten_b"))
    await put(database, finops, charge("a", mine), charge("c", mine, cost_nano=7))

    async with database.read(projects.mine) as tx:
        rows = await costs.sum_costs(tx, [CostBy.TENANT], ALL)
        lines = await costs.list_lines(tx, ALL)
    async with database.read(projects.other) as tx:
        others = await costs.sum_costs(tx, [], ALL)
    assert [(r.groups["tenant"], r.calls, r.tokens, r.cost_nano) for r in rows] == [
        ("ten_a", 2, 2400, 1007),
        ("ten_b", 1, 1200, 1000),
    ]
    assert len(lines) == 2
    assert others == []


async def test_a_reversed_charge_leaves_the_lines_and_the_ledger_equal(
    database: Database,
    finops: FinopsService,
    costs: CostService,
    insights: CostInsights,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    mine = projects.mine.project_id
    await put(database, finops, charge("a", mine), charge("b", mine, cost_nano=9))
    clock.advance(40 * 86_400)
    async with database.write(projects.mine) as tx:
        await finops.reverse_charge(tx, "a")
        await finops.reverse_charge(tx, "a")

    async with database.read(projects.mine) as tx:
        by_month = await costs.sum_costs(tx, [CostBy.MONTH], ALL)
        lines = await costs.list_lines(tx, ALL)
        found = await insights.check(tx, ALL.since, ALL.until)
    assert [(r.groups["month"], r.cost_nano) for r in by_month] == [
        ("2026-03", 1009),
        ("2026-04", -1000),
    ]
    assert [line.corrects for line in lines] == ["", "2026-03"]
    assert found.ledger_nano == found.lines_nano == 9


async def test_costs_of_now_are_by_labels(
    database: Database, finops: FinopsService, costs: CostService, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id
    assert mine is not None
    await put(
        database,
        finops,
        charge("old", mine, at_us=NOON - 2 * HOUR_US, cost_nano=5),
        charge("now", mine, at_us=NOON + 1, cost_nano=7),
        charge("month", mine, at_us=NOON - 48 * HOUR_US, cost_nano=11, alias="other"),
    )
    async with database.write(projects.mine) as tx:
        await costs.add_entry(tx, LUMP)

    async with database.read(SYSTEM) as tx:
        assert await costs.hourly_cost(tx, mine) == {(): 7}
        assert await costs.daily_cost(tx, mine) == {(): 512}
        assert await costs.monthly_cost(tx, mine, [CostBy.ALIAS]) == {
            (("alias", ""),): 500,
            (("alias", "chat"),): 12,
            (("alias", "other"),): 11,
        }
        assert await costs.daily_cost(tx, projects.other.project_id or "") == {}


async def test_days_and_months_to_come_are_not_those_of_today(
    database: Database, costs: CostService, projects: stores.Projects
) -> None:
    day = 24 * HOUR_US
    mine = projects.mine.project_id or ""
    async with database.write(projects.mine) as tx:
        for days, nano in ((0, 1), (1, 20), (60, 300)):
            start_us = NOON + days * day
            spec = replace(LUMP, source=f"{days}", start_us=start_us, end_us=start_us + 1)
            await costs.add_entry(tx, replace(spec, cost_nano=nano))

    async with database.read(SYSTEM) as tx:
        assert await costs.daily_cost(tx, mine) == {(): 1}
        assert await costs.monthly_cost(tx, mine) == {(): 21}


# entries


async def test_a_bill_of_a_month_counts_on_all_of_its_days(
    database: Database, costs: CostService, insights: CostInsights, projects: stores.Projects
) -> None:
    month = replace(
        LUMP,
        start_us=parse_rfc3339("2026-03-01T00:00:00Z"),
        end_us=parse_rfc3339("2026-04-01T00:00:00Z"),
        cost_nano=31 * 10**10 + 7,
    )
    async with database.write(projects.mine) as tx:
        made = await costs.add_entry(tx, month)

    async with database.read(projects.mine) as tx:
        by_day = await costs.sum_costs(tx, [CostBy.DAY], ALL)
        today = await costs.daily_cost(tx, projects.mine.project_id or "")
        (listed,) = await costs.list_entries(tx)
        (week,) = await costs.list_shares(tx, Span(since="2026-03-08", until="2026-03-15"))
        anomalies = await insights.list_anomalies(tx)
    amounts = [row.cost_nano for row in by_day]
    assert len(amounts) == 31
    assert sum(amounts) == month.cost_nano
    assert max(amounts) - min(amounts) <= 1
    assert today == {(): amounts[9]}
    assert listed == made
    assert week.counted_nano == sum(amounts[7:14])
    assert anomalies == []


async def test_what_is_booked_for_days_to_come_is_not_foretold_again(
    database: Database,
    finops: FinopsService,
    costs: CostService,
    insights: CostInsights,
    projects: stores.Projects,
) -> None:
    """Calls of a dollar a day, and a licence of the month that was booked at its beginning."""
    mine, dollar = projects.mine.project_id, 10**9
    days = [NOON - ago * DAY_US for ago in range(25)]
    calls = [charge(f"c{day}", mine, at_us=day, cost_nano=dollar) for day in days]
    await put(database, finops, *calls)
    month = replace(
        LUMP,
        start_us=parse_rfc3339("2026-03-01T00:00:00Z"),
        end_us=parse_rfc3339("2026-04-01T00:00:00Z"),
        cost_nano=3_100 * dollar,
    )
    async with database.write(projects.mine) as tx:
        await costs.add_entry(tx, month)

    async with database.read(projects.mine) as tx:
        outlook = await insights.get_outlook(tx)
    assert outlook.spent_nano == 1_010 * dollar  # of ten days
    assert outlook.expected_nano == 3_100 * dollar + 31.5 * dollar


async def test_processes_that_add_to_the_same_lines_lose_nothing(
    database: Database, finops: FinopsService, costs: CostService, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id

    async def write(name: str) -> None:
        for number in range(10):
            await put(database, finops, charge(f"{name}{number}", mine), spool=name)

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(write(name))
    async with database.read(projects.mine) as tx:
        (row,) = await costs.sum_costs(tx, [], ALL)
    assert (row.calls, row.cost_nano) == (30, 30_000)


async def test_what_is_to_come_is_taken_back_on_its_own_day(
    database: Database, costs: CostService, projects: stores.Projects
) -> None:
    june = parse_rfc3339("2026-06-01T00:00:00Z")
    async with database.write(projects.mine) as tx:
        made = await costs.add_entry(tx, replace(LUMP, start_us=june, end_us=june + 1))
        gone = await costs.reverse_entry(tx, made.id)

    assert gone.shares == (Share(day="2026-06-01", cost_nano=-500),)


async def test_a_quantity_costs_what_its_resource_does(
    database: Database, costs: CostService, projects: stores.Projects
) -> None:
    network = replace(LUMP, cost_nano=0, quantity=103_500_000)
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError) as unpriced:
            await costs.price_quantity(tx, network)
        await costs.set_price(tx, Resource.NETWORK, "*", "0.12", valid_from_us=0)
        found = await costs.price_quantity(tx, network)
        with pytest.raises(PilotageError) as odd:
            await costs.price_quantity(tx, replace(network, kind=CostKind.OTHER))

    assert "pilotage cost price network" in (unpriced.value.hint or "")
    assert (found.cost_nano, found.unit, found.unit_price) == (12_420_000_000, "GiB", "0.12")
    assert odd.value.param == "cost_usd"


async def test_a_source_is_booked_once_and_taken_back_once(
    database: Database, costs: CostService, projects: stores.Projects, clock: ManualClock
) -> None:
    async with database.write(projects.mine) as tx:
        made = await costs.add_entry(tx, LUMP)
        with pytest.raises(PilotageError) as twice:
            await costs.add_entry(tx, LUMP)
    async with database.write(projects.other) as tx:
        await costs.add_entry(tx, LUMP)
    async with database.write(projects.mine) as tx:
        gone = await costs.reverse_entry(tx, made.id)
        again = await costs.reverse_entry(tx, made.id)
        with pytest.raises(PilotageError) as circle:
            await costs.reverse_entry(tx, gone.id)
    clock.advance(30 * 86_400)
    async with database.write(projects.mine) as tx:
        other = await costs.add_entry(tx, replace(LUMP, source="next"))
        late = await costs.reverse_entry(tx, other.id)

    async with database.read(projects.mine) as tx:
        (total,) = await costs.sum_costs(tx, [], ALL)
        events = {r.event for r in await read_revisions(tx, 0, 100)}
    assert twice.value.code == "already_exists"
    assert circle.value.code == "conflict"
    assert gone.shares == (Share(day="2026-03-10", cost_nano=-500),)
    assert again == gone
    assert late.shares == (Share(day="2026-04-09", cost_nano=-500, corrects="2026-03"),)
    assert (total.cost_nano, total.by_kind) == (0, {"network": 0})
    assert {"finops.cost.booked", "finops.cost.reversed"} <= events


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        (replace(LUMP, kind=CostKind.CALLS), "kind"),
        (replace(LUMP, end_us=LUMP.start_us), "end"),
        (replace(LUMP, cost_nano=2 * 10**18), "cost_usd"),
        (replace(LUMP, end_us=NOON + 1200 * 24 * HOUR_US), "end"),
    ],
)
async def test_what_cannot_be_booked_is_refused(
    database: Database,
    costs: CostService,
    projects: stores.Projects,
    spec: EntrySpec,
    param: str,
) -> None:
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await costs.add_entry(tx, spec)

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


# what costs say


async def test_a_release_is_compared_with_the_others_of_its_endpoint(
    database: Database, finops: FinopsService, insights: CostInsights, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id
    shadow = {"flags": [Flag.SHADOW.value], "cost_nano": 40}
    await put(
        database,
        finops,
        charge("a", mine, cost_nano=300),
        charge("b", mine, cost_nano=100, outcome=Outcome.UPSTREAM_CUT),
        charge("c", mine, **shadow),
        charge("d", mine, arm="dep_b", cost_nano=150),
        charge("e", mine, arm="dep_c", alias="else", cost_nano=9_999),
    )

    async with database.read(projects.mine) as tx:
        found = await insights.get_release_cost(tx, "dep_a", ALL.since, ALL.until)
        alone = await insights.get_release_cost(tx, "dep_c", ALL.since, ALL.until)
        with pytest.raises(PilotageError) as unknown:
            await insights.get_release_cost(tx, "dep_x", ALL.since, ALL.until)
    assert (found.calls, found.calls_nano, found.shadow_nano) == (2, 400, 40)
    assert (found.total_nano, found.failed_nano, found.rollback_nano) == (440, 100, 140)
    assert (found.baseline_calls, found.baseline_nano, found.excess_nano) == (1, 300, 100)
    assert (alone.baseline_nano, alone.excess_nano) == (None, None)
    assert unknown.value.code == "not_found"


async def test_others_are_compared_between_the_first_and_the_last_day_of_a_release(
    database: Database, finops: FinopsService, insights: CostInsights, projects: stores.Projects
) -> None:
    mine, day = projects.mine.project_id, 24 * HOUR_US
    await put(
        database,
        finops,
        charge("dear", mine, arm="dep_b", cost_nano=9_999, at_us=NOON - 3 * day),
        charge("a", mine, cost_nano=100, at_us=NOON - 2 * day),
        charge("same", mine, arm="dep_b", cost_nano=150, at_us=NOON - day),
        charge("b", mine, cost_nano=100),
    )

    async with database.read(projects.mine) as tx:
        found = await insights.get_release_cost(tx, "dep_a", "0001-01-01", "9999-12-31")
    assert (found.baseline_calls, found.baseline_nano, found.excess_nano) == (1, 300, -100)


async def test_copies_for_nobody_were_not_routed(
    database: Database, finops: FinopsService, insights: CostInsights, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id
    async with database.write(projects.mine) as tx:
        small = await finops.set_price(tx, "small", "1", "1", valid_from_us=0)
        large = await finops.set_price(tx, "large", "10", "10", valid_from_us=0)
    copy = {"flags": [Flag.SHADOW.value], "model": "large", "price_id": large.id}
    await put(
        database,
        finops,
        charge("a", mine, model="small", price_id=small.id),
        charge("b", mine, **copy),
    )

    async with database.read(projects.mine) as tx:
        savings = await insights.list_savings(tx, ALL.since, ALL.until)
        models = await insights.list_model_costs(tx, ALL.since, ALL.until)
    assert [item for item in savings if item.way == "routing"] == []
    assert [row.model for row in models] == ["small"]


async def test_savings_are_measured_on_the_usage_there_was(
    database: Database, finops: FinopsService, insights: CostInsights, projects: stores.Projects
) -> None:
    mine = projects.mine.project_id
    async with database.write(projects.mine) as tx:
        small = await finops.set_price(tx, "small", "1", "1", cache_read="0.1", valid_from_us=0)
        large = await finops.set_price(tx, "large", "10", "10", valid_from_us=0)
    usage = Usage(input=500, cache_read=500)
    await put(
        database,
        finops,
        charge("a", mine, model="small", price_id=small.id, usage=usage, cost_nano=550_000),
        charge("b", mine, model="large", price_id=large.id, usage=usage, cost_nano=10_000_000),
        charge("c", mine, model="gone", price_id="prc_gone"),
    )

    async with database.read(projects.mine) as tx:
        routing, caching, other = await insights.list_savings(tx, ALL.since, ALL.until)
        (named, *_) = await insights.list_savings(tx, ALL.since, ALL.until, "small")
        with pytest.raises(PilotageError) as unknown:
            await insights.list_savings(tx, ALL.since, ALL.until, "nothing")
        models = await insights.list_model_costs(tx, ALL.since, ALL.until, "chat")
    assert (routing.way, routing.subject, routing.reference) == ("routing", "chat", "large")
    assert (routing.with_nano, routing.without_nano) == (10_550_000, 20_000_000)
    assert (routing.saved_nano, routing.unpriced) == (9_450_000, 1)
    assert (caching.subject, caching.saved_nano) == ("large", 0)
    assert (other.subject, other.saved_nano) == ("small", 450_000)
    assert named.saved_nano == 1_100_000 - 10_550_000
    assert unknown.value.code == "not_found"
    assert [(row.model, row.nano_per_call) for row in models] == [
        ("gone", 1000),
        ("small", 550_000),
        ("large", 10_000_000),
    ]


async def test_an_outlook_takes_a_week_and_a_spike_two(
    database: Database,
    finops: FinopsService,
    insights: CostInsights,
    projects: stores.Projects,
) -> None:
    mine, day = projects.mine.project_id, 24 * HOUR_US
    dollar = 1_000_000_000
    async with database.read(projects.mine) as tx:
        before = await insights.get_outlook(tx)
    await put(
        database,
        finops,
        *[
            charge(
                f"c{ago}",
                mine,
                at_us=NOON - ago * day,
                cost_nano=(100 if ago == 2 else 10 + ago % 2) * dollar,
            )
            for ago in range(25)
        ],
    )

    async with database.read(projects.mine) as tx:
        after = await insights.get_outlook(tx)
        (spike,) = await insights.list_anomalies(tx)
    assert (before.expected_nano, before.days) == (None, 0)
    assert after.days == 24
    assert after.spent_nano < (after.low_nano or 0) <= (after.expected_nano or 0)
    assert (spike.measure, spike.day, spike.amount) == ("cost", "2026-03-08", 100 * dollar)
