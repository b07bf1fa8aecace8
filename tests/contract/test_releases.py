"""The release policy and the record of each change of traffic, on both databases."""

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.history import as_of
from pilotage.endpoints.routing import RoutingSpec, RuleSpec, ShadowSpec
from pilotage.endpoints.scheduled import ScheduledSplit
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Provider, UpstreamSpec
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import ApprovalAsk, FreezeSpec, Verdict
from pilotage.identity.service import IdentityService
from pilotage.identity.types import PrincipalKind, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import append_revision, get_last_seq
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.promotions import Promotions
from pilotage.registry.service import RegistryService
from pilotage.registry.types import Stage
from released import World

SHA = "ab" * 32
INFO = Inspection(
    architecture="llama",
    name="Tiny",
    parameters=100,
    quantization="Q8_0",
    context_length=2048,
    file_bytes=10,
    license="MIT",
    has_chat_template=True,
    tensor_count=2,
    metadata_count=3,
)
OVERLAP_S = 0.3  # in which whoever does not wait for another change would be done
CLOUD = UpstreamSpec(provider=Provider.OPENAI, base_url="https://api.openai.com/v1")


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> World:
    projects, identity = await stores.make_projects(database, clock), IdentityService(clock)
    scope = str(projects.mine.project_id)
    people = []
    async with database.write(SYSTEM) as tx:
        for name in ("ops", "approver"):
            made = await identity.principals.create(tx, PrincipalKind.USER, name)
            await identity.principals.grant(tx, made.id, Role.APPROVER, scope=scope)
            people.append(Actor(principal_id=made.id, project_id=scope, reason="a test"))
    governance = GovernanceService(clock, identity)
    registry = RegistryService(clock, governance)
    service = EndpointService(clock, identity, registry, AbsentFleet(), governance=governance)
    promotions = Promotions(clock, registry, governance, service.traffic.find_obstacle)
    world = World(
        database, clock, governance, identity, registry, service, promotions, people[0], people[1]
    )
    async with database.write(world.ops) as tx:
        await registry.create_model(tx, "tiny", "small")
        await registry.add_artifact(tx, SHA, 10, INFO)
        for version in ("1.0.0", "1.1.0"):
            await registry.create_version(tx, "tiny", version, SHA)
        await service.create_endpoint(tx, "chat")
    return world


async def test_every_change_has_a_record_of_before_and_after(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")
    await world.split(v1_0_0=90, v1_1_0=10)
    async with world.db.write(world.ops) as tx:
        await world.service.route(tx, "chat", RoutingSpec(fallbacks=["1.0.0"]))
        await world.service.route(tx, "chat", RoutingSpec(fallbacks=["1.0.0"]))
    async with world.db.write(world.ops) as tx:
        await world.service.undeploy(tx, "chat", "1.1.0", is_forced=True)
    async with world.db.write(world.ops) as tx:
        await world.service.delete_endpoint(tx, "chat", is_forced=True)

    made = await world.list_decisions()
    kinds = ["deploy", "deploy", "split", "route", "undeploy", "delete"]
    assert [str(item.kind) for item in made] == kinds
    assert [item.subject for item in made] == ["chat"] * 6
    shares = [item.after and item.after["shares"] for item in made]
    one, two = {"tiny@1.0.0": "100"}, {"tiny@1.0.0": "90", "tiny@1.1.0": "10"}
    assert shares == [one, one | {"tiny@1.1.0": "0"}, two, two, {"tiny@1.0.0": "0"}, None]
    for earlier, later in pairwise(made):
        assert later.before == earlier.after
    assert made[3].after["routing"]["fallbacks"] == ["tiny@1.0.0"]
    interventions = [kind for item in made for kind, _ in await world.list_facts(item)]
    assert interventions.count("intervention") == 2  # the two that cut traffic


async def test_a_record_names_what_came_what_it_rests_on_and_the_way_back(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")
    await world.split(v1_0_0=90, v1_1_0=10)

    first, _, last = await world.list_decisions()
    facts = dict(await world.list_facts(last))
    assert facts["version"] | {"version_id": ""} == {
        "side": "after",
        "version_id": "",
        "version": "tiny@1.1.0",
        "artifact_sha256": SHA,
    }
    assert facts["plan"]["way"] == "split"
    assert facts["rollback"]["command"] == "pilotage endpoints split chat tiny@1.0.0=100"
    assert len(last.evidence) == 2  # the scan of its file, and its licence
    assert "undeploy chat tiny@1.0.0 --force" in str(await world.list_facts(first))


async def test_an_upstream_that_serves_is_changed_on_record(world: World) -> None:
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.create_upstream(tx, "cloud", CLOUD)
        other = UpstreamSpec(provider=Provider.OPENAI, base_url="https://eu.example.org/v1")
        await world.service.upstreams.replace_upstream(tx, "cloud", other)
        assert tx.decisions == []
        await world.service.deploy_upstream(tx, "chat", "cloud", "gpt-4o")
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.replace_upstream(tx, "cloud", CLOUD)
        assert len(tx.decisions) == 1

    last = (await world.list_decisions())[-1]
    assert (last.kind, last.after["base_url"]) == ("upstream", CLOUD.base_url)


async def test_only_stages_that_may_serve_do(world: World) -> None:
    await world.set_policy(Stage.STAGING)
    with pytest.raises(PilotageError) as refused:
        await world.deploy()
    assert refused.value.code == "conflict"
    assert "tiny@1.0.0 is in development" in refused.value.detail
    assert "pilotage models promote tiny@1.0.0" in refused.value.hint

    await world.promote("tiny@1.0.0")
    await world.deploy()
    await world.deploy("1.1.0")  # it takes no traffic
    for change in (
        world.split(v1_0_0=90, v1_1_0=10),
        _route(world, RoutingSpec(fallbacks=["1.1.0"])),
    ):
        with pytest.raises(PilotageError, match=r"tiny@1\.1\.0 is in development") as refused:
            await change
        assert refused.value.code == "conflict"
    await world.promote("tiny@1.1.0")
    await world.split(v1_0_0=90, v1_1_0=10)
    assert await world.shares() == {"tiny@1.0.0": 9000, "tiny@1.1.0": 1000}


async def test_what_is_archived_serves_nowhere(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")
    async with world.db.write(world.ops) as tx:
        await world.promotions.promote(tx, "tiny@1.1.0", Stage.ARCHIVED)

    with pytest.raises(PilotageError, match=r"tiny@1\.1\.0 is in archived"):
        await world.split(v1_0_0=90, v1_1_0=10)


async def test_a_change_that_others_must_agree_to_is_exactly_the_one_they_saw(
    world: World,
) -> None:
    await world.set_policy(Stage.DEVELOPMENT, 1)
    await world.deploy()
    await world.deploy("1.1.0")
    assert await world.shares() == {}
    with pytest.raises(PilotageError) as refused:
        await world.split(v1_0_0=100)
    assert refused.value.code == "approval_required"
    assert "endpoints.traffic.split 'chat tiny@1.0.0=100'" in refused.value.hint

    await world.approve("endpoints.traffic.split", "chat 1.0.0=100")
    with pytest.raises(PilotageError) as refused:
        await world.split(v1_0_0=50, v1_1_0=50)
    assert refused.value.code == "approval_required"
    await world.split(v1_0_0=100)
    with pytest.raises(PilotageError):
        await world.split(v1_0_0=100)  # an approval is for once

    last = (await world.list_decisions())[-1]
    assert "approval" in dict(await world.list_facts(last))
    with pytest.raises(PilotageError) as refused:
        await _route(world, RoutingSpec(retries=3))
    assert refused.value.code == "approval_required"
    assert """endpoints.traffic.route 'chat {"retries":3}'""" in refused.value.hint
    await world.approve("endpoints.traffic.route", 'chat {"retries": 3, "fallbacks": []}')
    await _route(world, RoutingSpec(retries=3))


async def test_an_approval_of_a_routing_is_of_all_that_it_says(world: World) -> None:
    await world.set_policy(Stage.DEVELOPMENT, 1)
    await world.deploy()
    await world.deploy("1.1.0")
    wanted = RoutingSpec(
        policy="cheapest",
        rules=[RuleSpec(deployments=["1.0.0"], purposes=["it's urgent"], max_input=10)],
        retries=3,
        shadow=ShadowSpec(deployment="1.1.0", percent=Decimal("2.5"), daily_usd=Decimal(5)),
        regions=["eu"],
    )
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.create_upstream(tx, "cloud", CLOUD)
    with pytest.raises(PilotageError) as refused:
        await _route(world, wanted)
    words = shlex.split(refused.value.hint)

    await world.approve(*words[4:6])
    for other in (
        replace(wanted, policy="fastest"),
        replace(wanted, retries=2),
        replace(wanted, fallbacks=["1.1.0"], shadow=None),
        replace(wanted, rules=[RuleSpec(deployments=["1.0.0", "1.1.0"])], shadow=None),
        replace(wanted, regions=[]),
        RoutingSpec(),
    ):
        if other == RoutingSpec():
            await _route(world, other)  # it is so already
            continue
        with pytest.raises(PilotageError) as refused:
            await _route(world, other)
        assert refused.value.code == "approval_required"
    await _route(world, wanted)


@pytest.mark.parametrize(
    "text", ["chat", "chat retries 3", 'chat {"retries": 99}', 'chat {"fallbacks": ["9.9.9"]}']
)
async def test_a_routing_that_nobody_can_read_is_not_asked_for(world: World, text: str) -> None:
    with pytest.raises(PilotageError) as refused:
        await world.approve("endpoints.traffic.route", text)
    assert refused.value.code == "invalid_request"


async def test_who_made_a_version_does_not_agree_to_its_traffic(world: World) -> None:
    await world.deploy()
    made_by_ops = ("chat 1.0.0=100", 'chat {"fallbacks": ["1.0.0"]}')
    for action, subject in zip(("split", "route"), made_by_ops, strict=True):
        ask = ApprovalAsk(action=f"endpoints.traffic.{action}", subject=subject, reason="June")
        async with world.db.write(world.approver) as tx:
            asked = await world.governance.approvals.request(tx, ask)
        with pytest.raises(PilotageError) as refused:
            async with world.db.write(world.ops) as tx:
                await world.governance.approvals.vote(tx, asked.id, Verdict.APPROVE, "mine")
        assert refused.value.code == "permission_denied"


async def test_an_approval_does_not_come_back_with_the_traffic(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")
    await world.set_policy(Stage.DEVELOPMENT, 1)
    for shares in ("1.1.0=100", "1.1.0=100", "1.0.0=100"):
        await world.approve("endpoints.traffic.split", f"chat {shares}")
    await world.split(v1_1_0=100)
    await world.approve("endpoints.traffic.split", "chat 1.0.0=100")
    await world.split(v1_0_0=100)

    with pytest.raises(PilotageError) as refused:
        await world.split(v1_1_0=100)
    assert refused.value.code == "approval_required"


async def test_an_upstream_changes_as_the_traffic_it_takes_does(world: World) -> None:
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.create_upstream(tx, "cloud", CLOUD)
        await world.service.deploy_upstream(tx, "chat", "cloud", "gpt-4o")
        now_us = tx.now_us
        spec = FreezeSpec(
            reason="year end",
            starts_at_us=now_us,
            ends_at_us=now_us + 10**6,
            names=("chat",),
            override_role="approver",
        )
        await world.governance.calendar.freeze(tx, "year-end", spec)
    other = UpstreamSpec(provider=Provider.OPENAI, base_url="https://eu.example.org/v1")
    with pytest.raises(PilotageError) as refused:
        await _change_upstream(world, other)
    assert refused.value.code == "frozen"
    assert "calendar override year-end cloud" in refused.value.hint
    async with world.db.write(world.ops) as tx:
        await world.governance.calendar.override(tx, "year-end", "cloud", "an outage")
    await _change_upstream(world, other)

    world.clock.advance(2)
    await world.set_policy(Stage.DEVELOPMENT, 1)
    with pytest.raises(PilotageError) as refused:
        await _change_upstream(world, CLOUD)
    assert refused.value.code == "approval_required"
    action, subject = shlex.split(refused.value.hint)[4:6]
    assert (action, CLOUD.base_url in subject) == ("endpoints.upstream.change", True)
    await world.approve(action, subject)
    with pytest.raises(PilotageError):
        await _change_upstream(world, replace(CLOUD, max_connections=1))
    await _change_upstream(world, CLOUD)
    with pytest.raises(PilotageError):
        await _change_upstream(world, other)


async def test_an_upstream_does_not_leave_the_regions_of_who_uses_it(world: World) -> None:
    near = replace(CLOUD, location="eu-west1")
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.create_upstream(tx, "cloud", near)
        await world.service.deploy_upstream(tx, "chat", "cloud", "gpt-4o")
    await _route(world, RoutingSpec(regions=["eu"]))

    with pytest.raises(PilotageError, match=r"cloud/gpt-4o") as refused:
        await _change_upstream(world, replace(near, location="us-east1"))
    assert refused.value.code == "invalid_request"
    await _change_upstream(world, replace(near, location="eu-west3"))


async def test_an_upstream_without_traffic_needs_nobody(world: World) -> None:
    await world.set_policy(Stage.DEVELOPMENT, 1)
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.create_upstream(tx, "cloud", CLOUD)
        await world.service.deploy_upstream(tx, "chat", "cloud", "gpt-4o")
    await _change_upstream(world, replace(CLOUD, max_connections=1))
    with pytest.raises(PilotageError) as refused:
        await world.approve("endpoints.upstream.change", 'sky {"provider":"openai"}')
    assert refused.value.code in ("not_found", "invalid_request")


@pytest.mark.parametrize("is_disabled", [True, False])
async def test_only_who_could_still_approve_counts(world: World, is_disabled: bool) -> None:
    await world.deploy()
    await world.deploy("1.1.0")
    await world.set_policy(Stage.DEVELOPMENT, 1)
    await world.approve("endpoints.traffic.split", "chat 1.1.0=100")
    principals, who = world.identity.principals, world.approver.principal_id
    async with world.db.write(SYSTEM) as tx:
        if is_disabled:
            await principals.disable(tx, who)
        else:
            (held,) = await principals.list_bindings(tx, who)
            await principals.end_binding(tx, held.id)

    with pytest.raises(PilotageError, match="is no approver any more") as refused:
        await world.split(v1_1_0=100)
    assert refused.value.code == "approval_required"


@pytest.mark.parametrize("split", [{"1.0.0": "NaN"}, {"1.0.0": 99}, {"9.9.9": 100}, {}])
async def test_a_split_that_can_never_be_is_not_planned(
    world: World, split: dict[str, object]
) -> None:
    await world.deploy()
    world.governance.calendar.register("endpoints.traffic.split", ScheduledSplit(world.service))

    async with world.db.write(world.ops) as tx:
        with pytest.raises(PilotageError) as refused:
            await world.governance.calendar.schedule(
                tx, "endpoints.traffic.split", "chat", tx.now_us + 1, {"split": split}, "June"
            )
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(
    "text", ["chat", "chat 1.0.0", "chat =100", "chat 1.0.0=x", "chat 1.0.0=nan"]
)
async def test_a_split_that_nobody_can_read_is_not_asked_for(world: World, text: str) -> None:
    await world.deploy()
    with pytest.raises(PilotageError) as refused:
        await world.approve("endpoints.traffic.split", text)
    assert (refused.value.code, refused.value.param) == ("invalid_request", "subject")


async def test_a_freeze_holds_for_every_change_and_nothing_is_changed(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")
    async with world.db.write(world.ops) as tx:
        now_us = tx.now_us
        spec = FreezeSpec(reason="year end", starts_at_us=now_us, ends_at_us=now_us + 10**9)
        await world.governance.calendar.freeze(tx, "year-end", spec)
        before = await get_last_seq(tx)

    for change in (
        world.split(v1_0_0=90, v1_1_0=10),
        _route(world, RoutingSpec(retries=3)),
        _undeploy(world, "1.1.0"),
        _delete(world),
    ):
        with pytest.raises(PilotageError) as refused:
            await change
        assert refused.value.code == "frozen"
    async with world.db.read(world.ops) as tx:
        assert await get_last_seq(tx) == before


async def test_a_policy_is_replaced_once_for_each_revision(world: World) -> None:
    policies = world.service.traffic.policies
    async with world.db.read(world.ops) as tx:
        assert (await policies.get(tx)).rev == 0
    await world.set_policy(Stage.STAGING, 2)
    await world.set_policy(Stage.STAGING, 2)
    async with world.db.write(world.ops) as tx:
        assert (await policies.get(tx)).rev == 1
        for stage, approvals, rev, code in (
            (Stage.STAGING, 3, 0, "precondition_failed"),
            (Stage.ARCHIVED, 0, 1, "invalid_request"),
            (Stage.STAGING, 11, 1, "invalid_request"),
        ):
            with pytest.raises(PilotageError) as refused:
                await policies.replace(tx, stage, approvals, rev)
            assert refused.value.code == code


async def _route(world: World, spec: RoutingSpec) -> None:
    async with world.db.write(world.ops) as tx:
        await world.service.route(tx, "chat", spec)


async def _change_upstream(world: World, spec: UpstreamSpec) -> None:
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.replace_upstream(tx, "cloud", spec)


async def _undeploy(world: World, name: str) -> None:
    async with world.db.write(world.ops) as tx:
        await world.service.undeploy(tx, "chat", name)


async def _delete(world: World) -> None:
    async with world.db.write(world.ops) as tx:
        await world.service.delete_endpoint(tx, "chat", is_forced=True)


async def test_nothing_is_archived_while_traffic_moves_to_it(world: World) -> None:
    """Both look before they change: whoever is second sees what the first has made."""
    await world.deploy()
    await world.deploy("1.1.0")

    async def archive() -> None:
        async with world.db.write(world.ops) as tx:
            await world.promotions.promote(tx, "tiny@1.1.0", Stage.ARCHIVED)

    async def restore() -> None:
        async with world.db.write(world.ops) as tx:
            await world.promotions.promote(tx, "tiny@1.1.0", Stage.DEVELOPMENT)

    for _ in range(5):
        ended = await asyncio.gather(
            archive(), world.split(v1_0_0=50, v1_1_0=50), return_exceptions=True
        )
        refused = [item for item in ended if isinstance(item, PilotageError)]
        assert len(refused) == 1, ended
        if refused[0] is ended[1]:
            await restore()
        await world.split(v1_0_0=100)


async def test_nothing_is_undeployed_while_traffic_moves_to_it(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")

    async def move(tx: Tx) -> None:
        await world.service.split(tx, "chat", {"1.1.0": Decimal(100)})

    refused = await _overtake(world, move, _undeploy(world, "1.1.0"))

    assert refused is not None
    assert refused.code == "deployment_serves_traffic"
    assert await world.shares() == {"tiny@1.1.0": 10_000}


async def test_no_traffic_moves_to_what_is_undeployed_meanwhile(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")

    async def take_away(tx: Tx) -> None:
        await world.service.undeploy(tx, "chat", "1.1.0")

    refused = await _overtake(world, take_away, world.split(v1_1_0=100))

    assert refused is not None
    assert refused.code == "invalid_request"
    assert await world.shares() == {"tiny@1.0.0": 10_000}


async def test_a_version_is_deployed_or_deleted_never_both(world: World) -> None:
    registry, is_deployed = world.registry, world.service.is_deployed

    async def delete(tx: Tx) -> None:
        await registry.delete_version(tx, "tiny@1.1.0", is_deployed)

    async def delete_other() -> None:
        async with world.db.write(world.ops) as tx:
            await registry.delete_version(tx, "tiny@1.0.0", is_deployed)

    async def deploy(tx: Tx) -> None:
        await world.service.deploy(tx, "chat", "tiny@1.0.0")

    refused = await _overtake(world, delete, world.deploy("1.1.0"))
    assert refused is not None
    assert refused.code == "not_found"
    refused = await _overtake(world, deploy, delete_other())
    assert refused is not None
    assert "tiny@1.0.0 is deployed" in refused.detail


async def test_what_is_deleted_serves_nowhere(world: World) -> None:
    await world.deploy()
    await world.deploy("1.1.0")

    async def nobody_looks(_tx: Tx, _version_id: str) -> bool:
        return False

    async with world.db.write(world.ops) as tx:
        await world.registry.delete_version(tx, "tiny@1.1.0", nobody_looks)

    with pytest.raises(PilotageError, match=r"tiny@1\.1\.0 has been deleted") as refused:
        await world.split(v1_1_0=100)
    assert refused.value.hint == "Undeploy it: pilotage endpoints undeploy chat tiny@1.1.0"


async def test_the_past_is_told_of_a_split_whose_deployment_is_gone(world: World) -> None:
    await world.deploy()
    async with world.db.write(world.ops) as tx:
        endpoint = await world.service.get_endpoint(tx, "chat")
        (gone,) = endpoint.split
        await append_revision(tx, "endpoints.deployment.deleted", gone, 2, {"id": gone})

    async with world.db.read(world.ops) as tx:
        (chat,) = (await as_of(tx, tx.now_us)).endpoints
    assert [(arm.model, arm.points) for arm in chat.arms] == [("tiny@1.0.0", 10_000)]


async def test_an_upstream_is_deployed_or_deleted_never_both(world: World) -> None:
    async with world.db.write(world.ops) as tx:
        await world.service.upstreams.create_upstream(tx, "cloud", CLOUD)

    async def deploy(tx: Tx) -> None:
        await world.service.deploy_upstream(tx, "chat", "cloud", "gpt-4o")

    async def delete() -> None:
        async with world.db.write(world.ops) as tx:
            await world.service.upstreams.delete_upstream(tx, "cloud")

    refused = await _overtake(world, deploy, delete())

    assert refused is not None
    assert "cloud/gpt-4o is deployed" in refused.detail


async def _overtake(
    world: World, first: Callable[[Tx], Awaitable[None]], second: Coroutine[Any, Any, None]
) -> PilotageError | None:
    """Begin a change while another is made that is not committed yet; return what it came to."""
    async with world.db.write(world.ops) as tx:
        await first(tx)
        late = asyncio.create_task(second)
        await asyncio.wait({late}, timeout=OVERLAP_S)
    try:
        await late
    except PilotageError as refused:
        return refused
    return None
