"""Endpoints, their upstreams and their routing on both databases."""

from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from msgspec import to_builtins
from msgspec.json import decode

import stores
from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import FULL_WEIGHT, Routing
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.routing import RoutingSpec, RuleSpec, ShadowSpec
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment, Endpoint, Provider, UpstreamSpec
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Actor, Database, Tx
from pilotage.kit.outbox import Revision, read_revisions
from pilotage.registry.service import RegistryService

OPENAI = UpstreamSpec(
    provider=Provider.OPENAI,
    base_url="https://api.openai.com/v1",
    secret="env:KEY",
    location="us",
)


@pytest.fixture
def service(clock: ManualClock) -> EndpointService:
    return EndpointService(clock, IdentityService(clock), RegistryService(clock), AbsentFleet())


@pytest.fixture
async def projects(database: Database, clock: ManualClock) -> stores.Projects:
    return await stores.make_projects(database, clock)


@pytest.fixture
def mine(projects: stores.Projects) -> Actor:
    return projects.mine


async def furnish(db: Database, actor: Actor, service: EndpointService) -> list[Deployment]:
    """Make an endpoint with three models of an upstream; the first takes the traffic."""
    async with db.write(actor) as tx:
        await service.upstreams.create_upstream(tx, "openai", OPENAI)
        await service.create_endpoint(tx, "chat")
        return [
            await service.deploy_upstream(tx, "chat", "openai", model)
            for model in ("gpt-4o-mini", "gpt-4o", "o3")
        ]


async def read_all(db: Database, actor: Actor) -> list[Revision]:
    async with db.read(actor) as tx:
        return list(await read_revisions(tx, 0, 1000))


async def route(
    db: Database, actor: Actor, service: EndpointService, spec: RoutingSpec
) -> Endpoint:
    async with db.write(actor) as tx:
        return await service.route(tx, "chat", spec)


# upstreams


async def test_an_upstream_is_kept_changed_and_deleted_with_its_history(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    other = UpstreamSpec(provider=Provider.ANTHROPIC, base_url="https://b/", max_connections=9)
    async with database.write(mine) as tx:
        made = await service.upstreams.create_upstream(tx, "main", OPENAI)
    async with database.write(mine) as tx:
        changed = await service.upstreams.replace_upstream(tx, "main", other, 1)
        same = await service.upstreams.replace_upstream(tx, made.id, other)
    async with database.write(mine) as tx:
        await service.upstreams.delete_upstream(tx, "main")
        again = await service.upstreams.create_upstream(tx, "main", OPENAI)

    assert (changed.id, changed.rev, changed.base_url) == (made.id, 2, "https://b")
    assert (changed.provider, changed.secret, changed.max_connections) == (
        Provider.ANTHROPIC,
        "",
        9,
    )
    assert same == changed
    assert again.id != made.id
    history = [(r.event, r.object_id, r.rev) for r in await read_all(database, mine)]
    assert history == [
        ("endpoints.upstream.created", made.id, 1),
        ("endpoints.upstream.changed", made.id, 2),
        ("endpoints.upstream.deleted", made.id, 3),
        ("endpoints.upstream.created", again.id, 1),
    ]
    async with database.read(mine) as tx:
        assert list(await service.upstreams.list_upstreams(tx)) == [again]
        with pytest.raises(PilotageError, match="no upstream"):
            await service.upstreams.get_upstream(tx, made.id)


async def test_a_change_of_an_old_revision_is_refused(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    async with database.write(mine) as tx:
        await service.upstreams.create_upstream(tx, "main", OPENAI)
    with pytest.raises(PilotageError) as refused:
        async with database.write(mine) as tx:
            await service.upstreams.replace_upstream(tx, "main", OPENAI, 7)

    assert refused.value.code == "precondition_failed"


async def test_one_of_several_creators_of_a_name_wins(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    won, lost = await stores.race(
        database, mine, lambda tx: service.upstreams.create_upstream(tx, "main", OPENAI)
    )

    assert (len(won), len(lost)) == (1, 3)


async def test_an_upstream_belongs_to_a_project(
    database: Database, service: EndpointService, projects: stores.Projects
) -> None:
    await furnish(database, projects.mine, service)

    async with database.write(projects.other) as tx:
        assert list(await service.upstreams.list_upstreams(tx)) == []
        await service.create_endpoint(tx, "chat")
        with pytest.raises(PilotageError, match="no upstream 'openai'"):
            await service.deploy_upstream(tx, "chat", "openai", "gpt-4o")
        with pytest.raises(PilotageError, match="no upstream"):
            await service.upstreams.delete_upstream(tx, "openai")
        await service.upstreams.create_upstream(tx, "openai", OPENAI)


async def test_an_upstream_in_use_stays(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    await furnish(database, mine, service)
    async with database.write(mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await service.upstreams.delete_upstream(tx, "openai")
        await service.delete_endpoint(tx, "chat", is_forced=True)
        await service.upstreams.delete_upstream(tx, "openai")

    assert (refused.value.code, refused.value.detail) == (
        "conflict",
        "openai/gpt-4o-mini is deployed.",
    )


# deployments


async def test_a_model_of_an_upstream_is_deployed_once_and_the_first_takes_all(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    deployments = await furnish(database, mine, service)
    async with database.write(mine) as tx:
        with pytest.raises(PilotageError) as twice:
            await service.deploy_upstream(tx, "chat", "openai", "gpt-4o")
        with pytest.raises(PilotageError, match="no model of an upstream"):
            await service.deploy_upstream(tx, "chat", "openai", "no such")
        endpoint = await service.get_endpoint(tx, "chat")
        there = await service.list_deployments(tx, endpoint)

    assert twice.value.code == "already_exists"
    assert endpoint.split == {deployments[0].id: FULL_WEIGHT}
    assert list(there) == deployments
    assert [item.model for item in there] == ["openai/gpt-4o-mini", "openai/gpt-4o", "openai/o3"]
    assert {(item.version_id, item.artifact_sha256, item.engine) for item in there} == {
        ("", "", "")
    }


# routing


async def test_routing_is_kept_with_its_history(
    database: Database, service: EndpointService, mine: Actor, clock: ManualClock
) -> None:
    mini, big, spare = await furnish(database, mine, service)
    async with database.write(mine) as tx:
        tenant = await IdentityService(clock).create_tenant(tx, "acme")
    spec = RoutingSpec(
        policy="fastest",
        rules=[RuleSpec(deployments=["gpt-4o-mini"], tenants=[tenant.id], purposes=["größer"])],
        fallbacks=["gpt-4o"],
        shadow=ShadowSpec(deployment="o3", percent=Decimal("0.01"), daily_usd=Decimal(5)),
        regions=["us"],
    )
    routed = await route(database, mine, service, spec)
    same = await route(database, mine, service, spec)
    async with database.read(mine) as tx:
        shown = await service.get_endpoint(tx, "chat")

    assert shown == routed == same
    assert shown.regions == ("us",)
    assert shown.routing.fallbacks == [big.id]
    assert shown.routing.rules[0].arms == [mini.id]
    assert shown.routing.rules[0].tenants == ["acme"]
    assert shown.routing.shadow is not None
    assert shown.routing.shadow.arm == spare.id
    last = [item for item in await read_all(database, mine) if item.object_id == shown.id][-1]
    assert (last.event, last.rev) == ("endpoints.endpoint.routed", shown.rev)
    assert decode(last.after, type=dict)["regions"] == ["us"]
    before = decode(last.before or "", type=dict)
    assert (before["routing"], before["regions"]) == (to_builtins(Routing()), [])


async def test_a_rule_for_an_unknown_tenant_is_refused(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    await furnish(database, mine, service)
    with pytest.raises(PilotageError, match="no tenant 'nobody'"):
        await route(
            database,
            mine,
            service,
            RoutingSpec(rules=[RuleSpec(deployments=["o3"], tenants=["nobody"])]),
        )


async def test_a_split_respects_regions_and_the_shadow(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    elsewhere = UpstreamSpec(provider=Provider.VERTEX, base_url="https://v", location="eu")
    await furnish(database, mine, service)
    async with database.write(mine) as tx:
        await service.upstreams.create_upstream(tx, "vertex", elsewhere)
        await service.deploy_upstream(tx, "chat", "vertex", "gemini")
    shadow = ShadowSpec(deployment="o3", percent=Decimal(1), daily_usd=Decimal(1))
    await route(database, mine, service, RoutingSpec(regions=["us"], shadow=shadow))

    async with database.write(mine) as tx:
        with pytest.raises(PilotageError) as outside:
            await service.split(tx, "chat", {"gemini": Decimal(100)})
        with pytest.raises(PilotageError) as shadowed:
            await service.split(tx, "chat", {"o3": Decimal(100)})
        after = await service.split(tx, "chat", {"gpt-4o": Decimal(100)})

    assert "vertex/gemini runs in eu, outside the regions us" in outside.value.detail
    assert (shadowed.value.code, "--no-shadow" in shadowed.value.hint) == ("conflict", True)
    assert sum(after.split.values()) == FULL_WEIGHT


async def test_what_routing_names_goes_only_by_force_and_never_the_last_of_a_rule(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    await furnish(database, mine, service)
    rules = [RuleSpec(deployments=["gpt-4o-mini"], data_classes=["restricted"])]
    await route(database, mine, service, RoutingSpec(rules=rules, fallbacks=["gpt-4o", "o3"]))

    async with database.write(mine) as tx:
        with pytest.raises(PilotageError, match="names openai/gpt-4o"):
            await service.undeploy(tx, "chat", "gpt-4o")
        await service.undeploy(tx, "chat", "gpt-4o", is_forced=True)
        left = await service.get_endpoint(tx, "chat")
    with pytest.raises(PilotageError, match=r"Rule 1 leaves its calls to openai/gpt-4o-mini"):
        async with database.write(mine) as tx:
            await service.undeploy(tx, "chat", "gpt-4o-mini", is_forced=True)
    async with database.write(mine) as tx:
        assert (await service.get_endpoint(tx, "chat")).split == left.split
        await service.delete_endpoint(tx, "chat", is_forced=True)
        assert list(await service.list_deployments(tx)) == []

    assert len(left.routing.fallbacks) == 1
    assert left.split


async def test_one_of_several_routings_from_the_same_revision_wins(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    await furnish(database, mine, service)
    async with database.read(mine) as tx:
        rev = (await service.get_endpoint(tx, "chat")).rev
    won, lost = await stores.race(
        database, mine, lambda tx: service.route(tx, "chat", RoutingSpec(retries=3), rev)
    )

    assert (len(won), len(lost)) == (1, 3)
    assert won[0].rev == rev + 1


# rollouts


async def test_a_rollout_moves_traffic_and_nobody_else_does_meanwhile(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    baseline, candidate, third = await furnish(database, mine, service)
    dealt = {baseline.id: 9_500, candidate.id: 500}
    elsewhere = UpstreamSpec(provider=Provider.ANTHROPIC, base_url="https://b/")
    async with database.write(mine) as tx:
        assert await service.admit_rollout(tx, baseline.endpoint_id, candidate.id) == 0
        moved = await service.shift(tx, baseline.endpoint_id, dealt, "rol_1/0", "session")
        again = await service.shift(tx, baseline.endpoint_id, dealt, "rol_1/0", "session")

    assert (moved.split, moved.rollout, moved.unit) == (dealt, "rol_1/0", "session")
    assert again.rev == moved.rev
    refused: list[Callable[[Tx], Awaitable[object]]] = [
        lambda tx: service.split(tx, "chat", {"o3": Decimal(100)}),
        lambda tx: service.route(tx, "chat", RoutingSpec(retries=3)),
        lambda tx: service.undeploy(tx, "chat", candidate.id, is_forced=True),
        lambda tx: service.delete_endpoint(tx, "chat", is_forced=True),
        lambda tx: service.admit_rollout(tx, baseline.endpoint_id, third.id),
        lambda tx: service.shift(tx, baseline.endpoint_id, dealt, "rol_2/0", "session"),
        lambda tx: service.upstreams.replace_upstream(tx, "openai", elsewhere),
    ]
    for change in refused:
        with pytest.raises(PilotageError, match="rollout rol_1 moves the traffic") as caught:
            async with database.write(mine) as tx:
                await change(tx)
        assert caught.value.code == "conflict"
        assert "pilotage rollout rollback rol_1" in (caught.value.hint or "")
    async with database.write(mine) as tx:
        await service.undeploy(tx, "chat", third.id)
        back = await service.shift(tx, baseline.endpoint_id, {baseline.id: 10_000}, "", "")
        await service.undeploy(tx, "chat", candidate.id)
    assert (back.split, back.rollout, back.unit) == ({baseline.id: 10_000}, "", "")
    last = [item for item in await read_all(database, mine) if item.event.endswith(".split")][-1]
    assert decode(last.before or b"") == {"split": dealt, "rollout": "rol_1/0", "unit": "session"}


async def test_a_candidate_without_a_share_cannot_be_taken_from_its_rollout(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    baseline, candidate, _ = await furnish(database, mine, service)
    async with database.write(mine) as tx:
        split = {baseline.id: 10_000, candidate.id: 0}
        await service.shift(tx, baseline.endpoint_id, split, "rol_1/-1", "call")
    with pytest.raises(PilotageError, match="rollout rol_1"):
        async with database.write(mine) as tx:
            await service.undeploy(tx, "chat", candidate.id)


async def test_what_a_rollout_cannot_deal_is_refused_before_it_begins(
    database: Database, service: EndpointService, mine: Actor
) -> None:
    baseline, candidate, _ = await furnish(database, mine, service)
    shadow = ShadowSpec(deployment="gpt-4o", percent=Decimal(1), daily_usd=Decimal(1))
    for spec, problem in (
        (RoutingSpec(policy="cheapest"), "weights decide nothing"),
        (RoutingSpec(shadow=shadow), "may take no traffic itself"),
    ):
        await route(database, mine, service, spec)
        with pytest.raises(PilotageError, match=problem):
            async with database.write(mine) as tx:
                await service.admit_rollout(tx, baseline.endpoint_id, candidate.id)
    async with database.write(mine) as tx:
        endpoint_id = baseline.endpoint_id
        assert not await service.admit_rollout(tx, endpoint_id, candidate.id, is_shadow=True)
    await route(database, mine, service, RoutingSpec(regions=["us"]))
    for split, code in (
        ({baseline.id: 9_000}, "invalid_request"),
        ({baseline.id: 10_001, candidate.id: -1}, "invalid_request"),
        ({"dep_gone": 10_000}, "conflict"),
    ):
        with pytest.raises(PilotageError) as caught:
            async with database.write(mine) as tx:
                await service.shift(tx, baseline.endpoint_id, split, "rol_1/0", "call")
        assert caught.value.code == code
