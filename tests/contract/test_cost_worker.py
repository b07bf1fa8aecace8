"""From what the fleet says to booked hours, and budgets' thresholds, by the workers themselves."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

import stores
from pilotage.endpoints.backends.local import Seen, SupervisedFleet
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.replicas import ReplicaWatch
from pilotage.endpoints.types import Deployment, Load, ReplicaState, ReplicaStatus
from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.budgets.types import BudgetSpec
from pilotage.finops.chargeback.rules import make_rows
from pilotage.finops.chargeback.types import Names
from pilotage.finops.costs.rules import DAY_US
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import CostKind, Resource
from pilotage.finops.costs.worker import CostKeeper
from pilotage.finops.months.service import Months
from pilotage.finops.replicas.service import ReplicaCosts
from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock, parse_rfc3339
from pilotage.kit.db import SYSTEM, Database, Tx

NOON = parse_rfc3339("2026-03-10T12:00:00Z")
DEPLOYMENT = Deployment(
    id="dep_a",
    rev=1,
    project_id="",
    endpoint_id="end_a",
    version_id="ver_a",
    model="tiny@1.0.0",
    artifact_sha256="ab",
    engine="llamacpp",
    context_tokens=0,
    created_at_us=0,
    deleted_at_us=None,
)


class SaidFleet:
    """Says of replicas what it is told to."""

    def __init__(self) -> None:
        self.is_present = True
        self.has_reported = False
        self.statuses: list[ReplicaStatus] = []

    async def set_desired(self, groups: Sequence[ReplicaGroup]) -> None:
        """Run nothing."""

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return what it was told."""
        return self.statuses

    def list_loads(self) -> Sequence[Load]:
        """Return nothing: nobody calls."""
        return ()


def status(state: ReplicaState, pid: int = 0, *, is_spot: bool = False) -> ReplicaStatus:
    return ReplicaStatus(
        replica_id="dep_a.0", deployment_id="dep_a", state=state, pid=pid, is_spot=is_spot
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


async def test_a_replicas_life_becomes_its_cost(database: Database, clock: ManualClock) -> None:
    projects = await stores.make_projects(database, clock)
    mine = projects.mine.project_id or ""
    fleet, costs = SaidFleet(), CostService(clock)
    replicas = ReplicaCosts(clock, costs)
    watch = ReplicaWatch(database, clock, fleet, replicas)
    deployment = [replace(DEPLOYMENT, project_id=mine)]
    async with database.write(projects.mine) as tx:
        await costs.set_price(tx, Resource.COMPUTE, "*", "1", valid_from_us=0)

    async def look(seconds: float, *statuses: ReplicaStatus) -> None:
        clock.advance(seconds)
        fleet.statuses = list(statuses)
        await watch.look(deployment, {"end_a": "chat"})

    await look(0)  # the fleet has not said anything yet
    fleet.has_reported = True
    await look(0, status(ReplicaState.STARTING))
    await look(5, status(ReplicaState.READY, 7))
    for _ in range(3):
        await look(300, status(ReplicaState.READY, 7))
    deployment.clear()  # it is undeployed, and its calls have their time
    await look(1, status(ReplicaState.STOPPING))
    await look(1)
    fleet.is_present = False
    await look(1)
    async with database.read(SYSTEM) as tx:
        (time,) = await replicas.list_times(tx, 0, clock.now_us())

    keeper = await make_keeper(database, clock, costs, replicas, mine)
    clock.advance(3 * 3600)
    assert await keeper.step() is False
    await keeper.step()
    async with database.read(projects.mine) as tx:
        entries = await costs.list_entries(tx)
    assert (time.pid, time.alias, time.release) == (7, "chat", "dep_a")
    assert time.end_us is not None
    assert 905 <= (time.end_us - time.start_us) / 1e6 <= 907
    assert [entry.kind for entry in entries] == [CostKind.IDLE]
    assert entries[0].cost_nano == pytest.approx(906 / 3600 * 1e9, rel=0.01)


async def test_a_control_process_that_comes_back_waits_for_the_fleet_to_speak(
    database: Database, clock: ManualClock
) -> None:
    projects = await stores.make_projects(database, clock)
    fleet, replicas = SaidFleet(), ReplicaCosts(clock, CostService(clock))
    deployment = [replace(DEPLOYMENT, project_id=projects.mine.project_id or "")]
    fleet.has_reported = True
    fleet.statuses = [status(ReplicaState.READY, 7)]
    await ReplicaWatch(database, clock, fleet, replicas).look(deployment, {})
    clock.advance(600)
    fleet.has_reported = False
    fleet.statuses = []

    again = ReplicaWatch(database, clock, fleet, replicas)
    await again.look(deployment, {})
    fleet.has_reported = True
    fleet.statuses = [status(ReplicaState.READY, 7)]
    await again.look(deployment, {})

    async with database.read(SYSTEM) as tx:
        (time,) = await replicas.list_times(tx, 0, clock.now_us() + 1)
    assert time.end_us is None
    assert time.seen_us - time.start_us == 600_000_000


@pytest.mark.parametrize(
    ("is_spot", "category", "cost"),
    [(True, "Dynamic", Decimal("0.21")), (False, "Standard", Decimal("0.71"))],
)
async def test_what_the_supervisor_says_of_its_machine_is_in_the_price(
    database: Database, clock: ManualClock, is_spot: bool, category: str, cost: Decimal
) -> None:
    projects = await stores.make_projects(database, clock)
    costs = CostService(clock)
    replicas = ReplicaCosts(clock, costs)
    keeper = await make_keeper(database, clock, costs, replicas, "")
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    fleet = SupervisedFleet(reader, writer)
    watch = ReplicaWatch(database, clock, fleet, replicas)
    deployment = [replace(DEPLOYMENT, project_id=projects.mine.project_id or "")]
    async with database.write(projects.mine) as tx:
        await costs.set_price(
            tx, Resource.COMPUTE, "chat", "0.71", spot_price="0.21", valid_from_us=0
        )

    ready = status(ReplicaState.READY, 7, is_spot=is_spot)
    with theirs:
        theirs.sendall(msgspec.json.encode(Seen(statuses=[ready])) + b"\n")
    await fleet.listen()
    writer.close()
    await writer.wait_closed()
    for _ in range(61):
        await watch.look(deployment, {"end_a": "chat"})
        clock.advance(60)
    clock.advance(600)
    await keeper.step()

    async with database.read(projects.mine) as tx:
        (entry,) = await costs.list_entries(tx)
    names = Names(account="", tenants={}, upstreams={}, is_closed=False)
    (row,) = make_rows([], [entry], {}, names)
    assert (row["PricingCategory"], row["BilledCost"]) == (category, cost)
    assert str(row["SkuPriceId"]).endswith("/spot") == is_spot


async def make_keeper(
    db: Database, clock: ManualClock, costs: CostService, replicas: ReplicaCosts, project_id: str
) -> CostKeeper:
    async def measure(_: Tx) -> dict[str, tuple[int, int]]:
        return {project_id: (1 << 30, 0)}

    months = Months(FinopsService(clock), IdentityService(clock), 3 * DAY_US)
    budgets = BudgetService(clock, costs, no_tenant)
    return CostKeeper(
        db,
        clock,
        replicas=replicas,
        months=months,
        budgets=budgets,
        measure_storage=measure,
        is_level=lambda: True,
    )


async def test_the_keeper_says_what_was_crossed_once(
    database: Database, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    projects = await stores.make_projects(database, clock)
    mine = projects.mine.project_id or ""
    costs = CostService(clock)
    keeper = await make_keeper(database, clock, costs, ReplicaCosts(clock, costs), mine)
    async with database.write(projects.mine) as tx:
        await costs.set_price(tx, Resource.STORAGE, "*", "730", valid_from_us=0)
        budgets = BudgetService(clock, costs, no_tenant)
        await budgets.create_budget(tx, "disk", BudgetSpec(amount="40"))

    await keeper.step()
    await keeper.step()
    clock.advance(86_400)
    await keeper.step()

    async with database.read(projects.mine) as tx:
        entries = await costs.list_entries(tx)
        (found,) = await budgets.list_statuses(tx)
    assert [(entry.shares[0].day, entry.cost_nano) for entry in entries] == [
        ("2026-03-09", 24 * 10**9 + 210_000),
        ("2026-03-10", 24 * 10**9 + 210_000),
    ]
    assert [mark.percent for mark in found.marks] == [50, 90, 100]
    assert sum("% of it is spent" in line for line in caplog.messages) == 3


async def no_tenant(_: Tx, name: str) -> str:
    return name
