"""From what the fleet says to booked hours, and budgets' thresholds, by the workers themselves."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

import stores
from pilotage.endpoints.launch import ReplicaSpec
from pilotage.endpoints.replicas import ReplicaWatch
from pilotage.endpoints.types import Deployment, ReplicaState, ReplicaStatus
from pilotage.finops.budgets.service import BudgetService
from pilotage.finops.budgets.types import BudgetSpec
from pilotage.finops.costs.service import CostService
from pilotage.finops.costs.types import CostKind, Resource
from pilotage.finops.costs.worker import CostKeeper
from pilotage.finops.replicas.service import ReplicaCosts
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
        self.statuses: list[ReplicaStatus] = []

    async def set_desired(self, replicas: Sequence[ReplicaSpec]) -> None:
        """Run nothing."""

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return what it was told."""
        return self.statuses


def status(state: ReplicaState, pid: int = 0) -> ReplicaStatus:
    return ReplicaStatus(replica_id="dep_a.0", deployment_id="dep_a", state=state, pid=pid)


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


async def make_keeper(
    db: Database, clock: ManualClock, costs: CostService, replicas: ReplicaCosts, project_id: str
) -> CostKeeper:
    async def find_tenant_id(_: Tx, name: str) -> str:
        return name

    async def measure(_: Tx) -> dict[str, int]:
        return {project_id: 1 << 30}

    budgets = BudgetService(clock, costs, find_tenant_id)
    return CostKeeper(db, clock, replicas=replicas, budgets=budgets, measure_storage=measure)


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
    assert [(entry.day, entry.cost_nano) for entry in entries] == [
        ("2026-03-09", 24 * 10**9 + 210_000),
        ("2026-03-10", 24 * 10**9 + 210_000),
    ]
    assert [mark.percent for mark in found.marks] == [50, 90, 100]
    assert sum("% of it is spent" in line for line in caplog.messages) == 3


async def no_tenant(_: Tx, name: str) -> str:
    return name
