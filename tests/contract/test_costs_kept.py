"""Hours of replicas, prices of resources and budgets, on both databases."""

from dataclasses import replace

import pytest

import stores
from cost_calls import ALL, HOUR_US, LUMP, NOON, charge, put
from pilotage.core.errors import PilotageError
from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.budgets.types import BudgetPer, BudgetSpec
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import (
    CostBy,
    CostKind,
    Resource,
    SeenReplica,
)
from pilotage.finops.replicas.service import ReplicaCosts
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database, Tx


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
def replicas(clock: ManualClock, costs: CostService) -> ReplicaCosts:
    return ReplicaCosts(clock, costs)


@pytest.fixture
def budgets(clock: ManualClock, costs: CostService) -> BudgetService:
    async def find_tenant_id(_: Tx, name: str) -> str:
        return f"ten_{name}"

    return BudgetService(clock, costs, find_tenant_id)


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


# replicas


def make_replica(projects: stores.Projects, pid: int = 0) -> SeenReplica:
    return SeenReplica(
        replica_id="dep_a.0",
        project_id=projects.mine.project_id or "",
        release="dep_a",
        alias="chat",
        version_id="ver_a",
        model="tiny@1.0.0",
        pid=pid,
    )


async def test_hours_of_a_replica_are_booked_once_busy_apart_from_idle(
    database: Database,
    finops: FinopsService,
    costs: CostService,
    replicas: ReplicaCosts,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    mine = projects.mine.project_id
    assert mine is not None
    seen = make_replica(projects)
    async with database.write(projects.mine) as tx:
        await costs.set_price(tx, Resource.COMPUTE, "*", "3.60", valid_from_us=0)
        await costs.set_price(tx, Resource.COMPUTE, "chat", "0.71", valid_from_us=0)
        await costs.set_price(tx, Resource.STORAGE, "*", "0.02", valid_from_us=0)
        await replicas.see(tx, [seen])
    started = replace(seen, pid=7)
    for _ in range(120):
        clock.advance(60)
        async with database.write(SYSTEM) as tx:
            await replicas.see(tx, [started], clock.now_us() - 60_000_000)
    ten_minutes = charge("a", mine, at_us=NOON + HOUR_US // 2, duration_us=HOUR_US // 6)
    await put(database, finops, ten_minutes)
    clock.advance(1_000)
    async with database.write(SYSTEM) as tx:
        await replicas.see(tx, [], clock.now_us() - 400_000_000)
        first = await replicas.book(tx, await replicas.list_due(tx))
    clock.advance(HOUR_US / 1e6)
    async with database.write(SYSTEM) as tx:
        second = await replicas.book(tx, await replicas.list_due(tx))
        third = await replicas.book(tx, await replicas.list_due(tx))
        stored = await replicas.book_storage(tx, {mine: (730 << 30, 0)})
        again = await replicas.book_storage(tx, {mine: (730 << 30, 0)})

    async with database.read(projects.mine) as tx:
        entries = await costs.list_entries(tx)
    ran = [(e.kind, e.quantity, e.cost_nano) for e in entries if e.kind is not CostKind.STORAGE]
    assert ran[:2] == [
        (CostKind.COMPUTE, 166_667, 118_333_570),
        (CostKind.IDLE, 833_333, 591_666_430),
    ]
    assert sum(quantity for _, quantity, _ in ran) == 2_000_000 + 166_667  # 2 h and 600 s
    assert (first, second, third) == (3, 1, 0)
    assert (stored, again) == (1, 0)
    assert entries[-1].cost_nano == 24 * 20_000_000
    assert {entry.release for entry in entries} == {"dep_a", ""}


async def test_another_process_is_another_run(
    database: Database, replicas: ReplicaCosts, projects: stores.Projects, clock: ManualClock
) -> None:
    seen = make_replica(projects, pid=7)
    async with database.write(SYSTEM) as tx:
        await replicas.see(tx, [seen])
    clock.advance(100)
    async with database.write(SYSTEM) as tx:
        await replicas.see(tx, [replace(seen, pid=8)], NOON + 90_000_000)
        times = await replicas.list_times(tx, 0, clock.now_us() + 1)

    assert [(t.pid, t.seen_us - NOON, t.end_us is None) for t in times] == [
        (7, 90_000_000, False),
        (8, 100_000_000, True),
    ]


async def test_one_that_starts_anew_while_nobody_looked_did_not_run_on(
    database: Database, replicas: ReplicaCosts, projects: stores.Projects, clock: ManualClock
) -> None:
    seen = make_replica(projects, pid=7)
    async with database.write(SYSTEM) as tx:
        await replicas.see(tx, [seen])
    clock.advance(8 * 3600)
    async with database.write(SYSTEM) as tx:
        await replicas.see(tx, [replace(seen, pid=0)])
        times = await replicas.list_times(tx, 0, clock.now_us() + 1)

    ran_us = [(time.seen_us - time.start_us, time.end_us is None) for time in times]
    assert ran_us == [(0, False), (0, True)]


async def test_storage_of_days_without_a_server_is_booked_when_one_runs(
    database: Database,
    costs: CostService,
    replicas: ReplicaCosts,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    sizes = {projects.mine.project_id or "": (730 << 30, 0)}
    async with database.write(projects.mine) as tx:
        await costs.set_price(tx, Resource.STORAGE, "*", "1", valid_from_us=0)
    for days in (0, 3):
        clock.advance(days * 86_400)
        async with database.write(SYSTEM) as tx:
            assert await replicas.book_storage(tx, sizes) == 1

    async with database.read(projects.mine) as tx:
        by_day = await costs.sum_costs(tx, [CostBy.DAY], ALL)
    dollar = 10**9
    assert [(row.groups["day"][-2:], row.cost_nano) for row in by_day] == [
        (f"{day:02}", 24 * dollar) for day in (9, 10, 11, 12)
    ]


async def test_storage_is_not_booked_of_the_time_when_there_was_none(
    database: Database,
    costs: CostService,
    replicas: ReplicaCosts,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    """A day's storage, a month without any, and half a day of it again."""
    mine = projects.mine.project_id or ""
    async with database.write(projects.mine) as tx:
        await costs.set_price(tx, Resource.STORAGE, "*", "1", valid_from_us=0)
    async with database.write(SYSTEM) as tx:
        await replicas.book_storage(tx, {mine: (730 << 30, 0)})
    clock.advance(30 * 86_400)
    stored_us = clock.now_us()  # at noon
    async with database.write(SYSTEM) as tx:
        assert await replicas.book_storage(tx, {}) == 0
        assert await replicas.book_storage(tx, {mine: (730 << 30, stored_us)}) == 0
    clock.advance(86_400)
    async with database.write(SYSTEM) as tx:
        assert await replicas.book_storage(tx, {mine: (730 << 30, stored_us)}) == 1

    async with database.read(projects.mine) as tx:
        by_day = await costs.sum_costs(tx, [CostBy.DAY], ALL)
    assert [(row.groups["day"], row.cost_nano) for row in by_day] == [
        ("2026-03-09", 24 * 10**9),
        ("2026-04-09", 12 * 10**9),
    ]


@pytest.mark.parametrize(
    ("kind", "subject", "price", "param"),
    [
        (Resource.COMPUTE, "*", "much", "price"),
        (Resource.COMPUTE, "*", "-1", "price"),
        (Resource.STORAGE, "chat", "1", "subject"),
        (Resource.COMPUTE, "", "1", "subject"),
    ],
)
async def test_what_is_no_price_of_a_resource_is_refused(
    database: Database,
    costs: CostService,
    projects: stores.Projects,
    kind: Resource,
    subject: str,
    price: str,
    param: str,
) -> None:
    async with database.write(projects.mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await costs.set_price(tx, kind, subject, price)

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


# budgets


async def test_a_budget_marks_each_threshold_once_a_period(
    database: Database,
    finops: FinopsService,
    budgets: BudgetService,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    mine = projects.mine.project_id
    async with database.write(projects.mine) as tx:
        made = await budgets.create_budget(
            tx, "search", BudgetSpec(amount="0.000001", per=BudgetPer.DAY, tenant="a")
        )
        await budgets.create_budget(tx, "all", BudgetSpec(amount="5"))
    await put(
        database,
        finops,
        charge("a", mine, cost_nano=500),
        charge("b", mine, tenant_id="ten_b", cost_nano=10_000),
    )
    marks = []
    for cost in (0, 0, 450):
        if cost:
            await put(database, finops, charge("c", mine, cost_nano=cost))
        async with database.write(SYSTEM) as tx:
            marks.append([mark.percent for mark in await budgets.mark_crossed(tx)])

    async with database.read(projects.mine) as tx:
        status = await budgets.get_status(tx, made)
        names = [item.name for item in await budgets.list_statuses(tx)]
    clock.advance(86_400)
    async with database.read(projects.mine) as tx:
        tomorrow = await budgets.get_status(tx, made)
    assert marks == [[50], [], [90]]
    assert (status.spent_nano, status.used, status.period) == (950, 0.95, "2026-03-10")
    assert [mark.percent for mark in status.marks] == [50, 90]
    assert status.expected_nano is None
    assert names == ["all", "search"]
    assert (tomorrow.spent_nano, tomorrow.marks) == (0, [])


async def test_what_is_booked_after_a_period_crosses_its_thresholds(
    database: Database,
    costs: CostService,
    budgets: BudgetService,
    projects: stores.Projects,
    clock: ManualClock,
) -> None:
    daily = BudgetSpec(amount="0.0000005", per=BudgetPer.DAY)
    async with database.write(projects.mine) as tx:
        await budgets.create_budget(tx, "old", daily)
    clock.advance(13 * 3600)  # it is the next day
    async with database.write(projects.mine) as tx:
        await budgets.create_budget(tx, "new", daily)
        await costs.add_entry(tx, replace(LUMP, kind=CostKind.COMPUTE))
    marks = []
    for days in (0, 0, 1):
        clock.advance(days * 86_400)
        async with database.write(SYSTEM) as tx:
            found = await budgets.mark_crossed(tx)
            marks.append([(mark.period, mark.percent) for mark in found])

    assert marks == [[("2026-03-10", percent) for percent in (50, 90, 100)], [], []]


async def test_a_budget_is_changed_and_deleted_and_counts_what_it_counts(
    database: Database, budgets: BudgetService, projects: stores.Projects
) -> None:
    async with database.write(projects.mine) as tx:
        made = await budgets.create_budget(tx, "search", BudgetSpec(amount="5"))
        changed = await budgets.change_budget(tx, "search", BudgetSpec(amount="6"), 1)
        same = await budgets.change_budget(tx, made.id, BudgetSpec(amount="6"))
        with pytest.raises(PilotageError) as stale:
            await budgets.change_budget(tx, "search", BudgetSpec(amount="7"), 1)
        with pytest.raises(PilotageError) as other:
            await budgets.change_budget(tx, "search", BudgetSpec(amount="6", alias="chat"))
        with pytest.raises(PilotageError) as taken:
            await budgets.create_budget(tx, "search", BudgetSpec(amount="5"))
        await budgets.delete_budget(tx, "search")
        with pytest.raises(PilotageError) as gone:
            await budgets.get_budget(tx, "search")
        await budgets.create_budget(tx, "search", BudgetSpec(amount="5"))

    assert (changed.rev, changed.amount_nano, same) == (2, 6 * 10**9, changed)
    codes = [refused.value.code for refused in (stale, other, taken, gone)]
    assert codes == ["precondition_failed", "conflict", "already_exists", "not_found"]
