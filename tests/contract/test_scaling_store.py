"""Scaling is kept with its history, on SQLite and on Postgres, and what is seen is told."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from msgspec.json import decode

import stores
from pilotage.core.errors import PilotageError
from pilotage.endpoints import store
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import (
    LONGEST_AWAKE_US,
    Deployment,
    Endpoint,
    Load,
    Provider,
    ReplicaState,
    ReplicaStatus,
    Scaling,
    UpstreamSpec,
)
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Actor, Database
from pilotage.kit.outbox import read_revisions
from pilotage.registry.service import RegistryService

SLEEPER = Scaling(min_replicas=0, max_replicas=3, idle_after_s=60, memory_bytes=1 << 30)


class SaidFleet:
    """Says of replicas what it is told to."""

    is_present = True
    has_reported = True

    def __init__(self) -> None:
        self.statuses: list[ReplicaStatus] = []
        self.loads: list[Load] = []

    async def set_desired(self, groups: Sequence[ReplicaGroup]) -> None:
        """Run nothing."""

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return what it was told."""
        return self.statuses

    def list_loads(self) -> Sequence[Load]:
        """Return what it was told."""
        return self.loads


@pytest.fixture
def fleet() -> SaidFleet:
    return SaidFleet()


@pytest.fixture
def service(clock: ManualClock, fleet: SaidFleet) -> EndpointService:
    return EndpointService(clock, IdentityService(clock), RegistryService(clock), fleet)


@pytest.fixture
async def mine(database: Database, clock: ManualClock) -> Actor:
    return (await stores.make_projects(database, clock)).mine


async def furnish(db: Database, actor: Actor, service: EndpointService) -> tuple[Endpoint, str]:
    """Make an endpoint with a version of ours and a model of an upstream."""
    spec = UpstreamSpec(provider=Provider.OPENAI, base_url="https://api.openai.com/v1")
    async with db.write(actor) as tx:
        endpoint = await service.create_endpoint(tx, "chat")
        await service.upstreams.create_upstream(tx, "openai", spec)
        made = await service.deploy_upstream(tx, "chat", "openai", "gpt-4o")
        ours = replace(
            made,
            id="dep_ours",
            model="tiny@1.0.0",
            upstream_id="",
            upstream_model="",
            engine="llamacpp",
        )
        await store.insert_deployment(tx, ours)
    return endpoint, ours.id


async def scale(
    db: Database,
    actor: Actor,
    service: EndpointService,
    scaling: Scaling,
    *,
    name: str = "1.0.0",
    rev: int | None = None,
) -> Deployment:
    async with db.write(actor) as tx:
        endpoint = await service.get_endpoint(tx, "chat")
        return await service.scaling.scale(tx, endpoint, name, scaling, rev)


async def test_scaling_is_kept_with_its_history_and_saying_it_twice_changes_nothing(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    _, ours = await furnish(database, mine, service)
    first = await scale(database, mine, service, SLEEPER, rev=1)
    same = await scale(database, mine, service, SLEEPER)
    assert (first.scaling, first.rev, same) == (SLEEPER, 2, first)
    async with database.read(mine) as tx:
        kept = [item for item in await store.list_deployments(tx) if item.id == ours]
        revisions = [
            item
            for item in await read_revisions(tx, 0, 1000)
            if item.event == "endpoints.deployment.scaled"
        ]
    assert kept == [first]
    (revision,) = revisions
    assert (revision.object_id, revision.rev) == (ours, 2)
    assert decode(revision.after)["scaling"]["max_replicas"] == 3
    assert decode(revision.before or "")["scaling"] == {}


async def test_what_cannot_be_scaled_so_is_refused(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    await furnish(database, mine, service)
    for wrong, code in (
        ({"scaling": Scaling(min_replicas=2)}, "invalid_request"),
        ({"rev": 7}, "precondition_failed"),
        ({"name": "gpt-4o"}, "conflict"),
        ({"name": "2.0.0"}, "not_found"),
    ):
        given = {"scaling": SLEEPER} | wrong
        with pytest.raises(PilotageError) as refused:
            await scale(database, mine, service, **given)
        assert refused.value.code == code


async def test_only_a_sleeper_is_kept_awake_and_time_is_never_taken_away(
    database: Database, service: EndpointService, mine: Actor, clock: ManualClock
) -> None:
    endpoint, ours = await furnish(database, mine, service)
    now_us = clock.now_us()

    async def keep(until_us: int) -> int:
        async with database.write(mine) as tx:
            kept = await service.scaling.keep_awake(tx, endpoint, ours, until_us)
        return kept.awake_until_us

    assert await keep(now_us + 100) == 0  # it never sleeps
    async with database.write(mine) as tx:
        upstream = await service.scaling.keep_awake(tx, endpoint, "gpt-4o", now_us + 100)
    assert upstream.awake_until_us == 0
    await scale(database, mine, service, SLEEPER)
    assert await keep(now_us + 100) == now_us + 100
    assert await keep(now_us + 50) == now_us + 100
    assert await keep(now_us + 9 * LONGEST_AWAKE_US) <= clock.now_us() + LONGEST_AWAKE_US


async def test_a_deployment_is_told_of_by_its_best_replica_those_it_shares_too(
    database: Database, service: EndpointService, fleet: SaidFleet, mine: Actor
) -> None:
    endpoint, ours = await furnish(database, mine, service)
    await scale(database, mine, service, SLEEPER)
    async with database.read(mine) as tx:
        deployment = await service.scaling.get(tx, endpoint, ours)
    fleet.loads = [Load(deployment_id=ours, wanted=0)]
    assert service.scaling.is_asleep(deployment)
    assert service.list_statuses() == {}

    fleet.loads = [Load(deployment_id=ours, wanted=2)]
    assert not service.scaling.is_asleep(deployment)
    failed = ReplicaStatus(replica_id="a.0", deployment_id="a", state=ReplicaState.FAILED)
    ready = ReplicaStatus(
        replica_id="a.1", deployment_id="a", state=ReplicaState.READY, shared_by=("a", ours)
    )
    fleet.statuses = [failed, ready]
    assert service.list_statuses() == {"a": ready, ours: ready}
    assert service.scaling.list_replicas() == [failed, ready]
    assert service.scaling.list_loads()[ours].wanted == 2
