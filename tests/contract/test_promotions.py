"""Stages and their gates on both databases."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import ApprovalAsk, Decision, Fact, FactKind, FreezeSpec, Verdict
from pilotage.identity.service import IdentityService
from pilotage.identity.types import PrincipalKind, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.outbox import read_revisions
from pilotage.registry.artifacts.types import Inspection, Pickle
from pilotage.registry.gates import Check, GateResult, GateState
from pilotage.registry.promotions import Promotion, Promotions
from pilotage.registry.service import RegistryService
from pilotage.registry.types import EvidenceDraft, Stage

SHA, OTHER_SHA = "ab" * 32, "cd" * 32
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
DEVELOPMENT, STAGING, PRODUCTION, ARCHIVED = Stage
HELD = {"engineer": Role.ML_ENGINEER, "ops": Role.ML_OPS, "approver": Role.VIEWER}
TO_PRODUCTION = "registry.version.promote:production"


class World(NamedTuple):
    """A project with the model tiny, version 1.0.0, and people: an engineer, ops, an approver."""

    db: Database
    clock: ManualClock
    registry: RegistryService
    endpoints: EndpointService
    governance: GovernanceService
    service: Promotions
    project_id: str
    people: dict[str, str]

    def act(self, who: str = "ops", reason: str = "a test") -> Actor:
        return Actor(principal_id=self.people[who], project_id=self.project_id, reason=reason)

    async def promote(
        self, stage: Stage, ref: str = "tiny@1.0.0", who: str = "ops", reason: str = "a test"
    ) -> Promotion:
        async with self.db.write(self.act(who, reason)) as tx:
            return await self.service.promote(tx, ref, stage)

    async def refuse(self, stage: Stage, ref: str = "tiny@1.0.0", reason: str = "a test") -> str:
        """Return the code of the refusal; nothing may have changed."""
        before = await self.list_events()
        with pytest.raises(PilotageError) as refused:
            await self.promote(stage, ref, reason=reason)
        assert await self.list_events() == before
        return refused.value.code

    async def assess_approval(self) -> GateResult:
        """Return what is said of the approval for production, which uses up none."""
        async with self.db.read(self.act()) as tx:
            assessed = await self.service.assess(tx, "tiny@1.0.0", PRODUCTION)
        return assessed.results[-1]

    async def explain(self, stage: Stage, ref: str) -> str:
        """Return what a gate says that does not let a version through."""
        with pytest.raises(PilotageError) as refused:
            await self.promote(stage, ref)
        assert refused.value.code == "gate_failed"
        return refused.value.detail

    async def approve(self, ref: str = "tiny@1.0.0", by: str = "approver") -> str:
        ask = ApprovalAsk(action=TO_PRODUCTION, subject=ref, reason="June")
        async with self.db.write(self.act("ops")) as tx:
            asked = await self.governance.approvals.request(tx, ask)
        async with self.db.write(self.act(by)) as tx:
            await self.governance.approvals.vote(tx, asked.id, Verdict.APPROVE, "looked at it")
        return asked.id

    async def to_production(self, ref: str = "tiny@1.0.0") -> Promotion:
        await self.promote(STAGING, ref)
        await self.approve(ref)
        return await self.promote(PRODUCTION, ref)

    async def add(self, draft: EvidenceDraft, ref: str = "tiny@1.0.0") -> None:
        async with self.db.write(self.act("engineer")) as tx:
            await self.registry.add_evidence(tx, ref, draft)

    async def ask_for(self, stage: Stage, *checks: Check, approvals: int = 0) -> None:
        async with self.db.write(self.act()) as tx:
            await self.service.replace_policy(tx, stage, checks, approvals)

    async def stage_of(self, ref: str = "tiny@1.0.0") -> str:
        async with self.db.read(self.act()) as tx:
            return (await self.registry.get_version(tx, ref)).stage

    async def list_events(self) -> list[str]:
        async with self.db.read(SYSTEM) as tx:
            return [item.event for item in await read_revisions(tx, 0, 1000)]

    async def read_record(self, decision_id: str) -> tuple[Decision, Sequence[Fact]]:
        async with self.db.read(self.act()) as tx:
            decision = await self.governance.get_decision(tx, decision_id)
            return decision, await self.governance.decisions.list_facts(tx, decision_id)

    async def deploy(self, ref: str = "tiny@1.0.0") -> Deployment:
        async with self.db.write(self.act()) as tx:
            return await self.endpoints.deploy(tx, "chat", ref)


@pytest.fixture
async def world(database: Database, clock: ManualClock) -> World:
    projects = await stores.make_projects(database, clock)
    identity, people, scope = IdentityService(clock), {}, str(projects.mine.project_id)
    async with database.write(SYSTEM) as tx:
        for name, role in HELD.items():
            made = await identity.principals.create(tx, PrincipalKind.USER, name)
            people[name] = made.id
            for held in (role, Role.APPROVER):
                await identity.principals.grant(tx, made.id, held, scope=scope)
    governance = GovernanceService(clock, identity)
    registry = RegistryService(clock, governance)
    endpoints = EndpointService(clock, identity, registry, AbsentFleet(), governance=governance)
    service = Promotions(clock, registry, governance, endpoints.traffic.find_obstacle)
    world = World(
        database,
        clock,
        registry,
        endpoints,
        governance,
        service,
        str(projects.mine.project_id),
        people,
    )
    async with database.write(world.act("engineer")) as tx:
        await registry.create_model(tx, "tiny", "small")
        await registry.add_artifact(tx, SHA, 10, INFO)
        await registry.create_version(tx, "tiny", "1.0.0", SHA)
        await endpoints.create_endpoint(tx, "chat")
    return world


async def test_a_plain_version_comes_to_production_with_four_eyes_and_a_record(
    world: World,
) -> None:
    await world.promote(STAGING)
    assert await world.refuse(PRODUCTION) == "approval_required"
    approval_id = await world.approve()

    made = await world.promote(PRODUCTION, reason="passed in June")

    assert (made.before, made.version.stage) == (STAGING, PRODUCTION)
    decision, facts = await world.read_record(made.decision_id)
    assert (decision.kind, decision.subject) == ("promote", "tiny@1.0.0")
    assert (decision.before, decision.after) == ({"stage": "staging"}, {"stage": "production"})
    assert (decision.by, decision.reason) == (world.people["ops"], "passed in June")
    by_kind = {str(fact.kind): fact.content for fact in facts}
    assert by_kind["approval"]["approval_id"] == approval_id
    assert by_kind["version"]["artifact_sha256"] == SHA
    gates = [fact.content["name"] for fact in facts if fact.kind == "gate"]
    assert gates == ["artifact_size", "scan_format"]
    assert "promote tiny@1.0.0 staging" in by_kind["rollback"]["command"]


async def test_no_stage_is_skipped(world: World) -> None:
    allowed = {
        DEVELOPMENT: {STAGING, ARCHIVED},
        STAGING: {PRODUCTION, ARCHIVED},
        PRODUCTION: {STAGING, ARCHIVED},
        ARCHIVED: {DEVELOPMENT},
    }
    for now in (DEVELOPMENT, STAGING, PRODUCTION, ARCHIVED):
        if now is PRODUCTION:
            await world.approve()
        if now is not DEVELOPMENT:
            await world.promote(now)
        for wanted in set(Stage) - allowed[now]:
            assert await world.refuse(wanted) == "conflict"


async def test_going_back_needs_a_reason(world: World) -> None:
    await world.to_production()
    assert await world.refuse(STAGING, reason=" ") == "invalid_request"

    made = await world.promote(STAGING, reason="wrong answers")

    assert (await world.read_record(made.decision_id))[0].kind == "demote"
    await world.promote(ARCHIVED, reason="")
    assert await world.refuse(DEVELOPMENT, reason="") == "invalid_request"
    assert (await world.promote(DEVELOPMENT, reason="again")).version.stage == "development"


async def test_neither_the_requester_nor_the_author_approves(world: World) -> None:
    await world.promote(STAGING)
    for who in ("ops", "engineer"):
        with pytest.raises(PilotageError, match="cannot") as refused:
            await world.approve(by=who)
        assert refused.value.code == "permission_denied"
    assert await world.refuse(PRODUCTION) == "approval_required"


async def test_of_racing_operators_one_wins_and_the_others_learn_who(world: World) -> None:
    await world.promote(STAGING)
    await world.approve()

    won, lost = await stores.race(
        world.db, world.act("ops"), lambda tx: world.service.promote(tx, "tiny@1.0.0", PRODUCTION)
    )

    assert len(won) == 1
    assert len(lost) == 3
    for error in lost:
        assert isinstance(error, PilotageError)
        assert error.code == "conflict"
        assert "tiny@1.0.0 is in production already" in error.detail
        assert world.people["ops"] in error.detail
        assert won[0].decision_id in error.detail
    assert (await world.list_events()).count("registry.version.promoted") == 2


async def test_a_revision_that_is_not_what_was_read_is_refused(world: World) -> None:
    await world.promote(STAGING)
    with pytest.raises(PilotageError) as late:
        async with world.db.write(world.act()) as tx:
            await world.service.promote(tx, "tiny@1.0.0", ARCHIVED, 1)
    assert late.value.code == "precondition_failed"
    assert world.people["ops"] in late.value.detail


async def test_every_gate_that_did_not_pass_is_named_with_what_would_supply_it(
    world: World,
) -> None:
    await world.ask_for(
        STAGING,
        Check(name="latency_p95", max=Decimal(250)),
        Check(name="accuracy", min=Decimal("0.9")),
        Check(name="licence", allowed=("MIT",)),
        Check(name="card"),
    )
    await world.add(
        EvidenceDraft(
            kind="metric.performance", subject="latency_p95", value=Decimal("0.3"), unit="s"
        )
    )

    with pytest.raises(PilotageError) as refused:
        await world.promote(STAGING)

    error = refused.value
    assert error.code == "gate_failed"
    assert "latency_p95 failed (300 ms, asked for at most 250 ms)" in error.detail
    assert "accuracy could not be evaluated (asked for at least 0.9 ratio" in error.detail
    assert "licence" not in error.detail
    assert "pilotage models evidence add tiny@1.0.0 accuracy=VALUE" in error.hint
    assert "pilotage models card tiny@1.0.0" in error.hint
    async with world.db.read(world.act()) as tx:
        assessed = await world.service.assess(tx, "tiny@1.0.0", STAGING)
    assert not assessed.may_pass
    assert [result.state for result in assessed.results] == [
        GateState.PASSED,
        GateState.FAILED,
        GateState.NOT_EVALUATED,
        GateState.PASSED,
        GateState.NOT_EVALUATED,
    ]


async def test_what_is_assessed_is_what_a_promotion_asks(world: World) -> None:
    await world.promote(STAGING)
    ask = ApprovalAsk(action=TO_PRODUCTION, subject="tiny@1.0.0", reason="June", role="viewer")
    async with world.db.write(world.act("ops")) as tx:
        asked = await world.governance.approvals.request(tx, ask)
    async with world.db.write(world.act("approver")) as tx:
        await world.governance.approvals.vote(tx, asked.id, Verdict.APPROVE, "looked at it")

    assert "given by the role viewer" in (await world.assess_approval()).detail
    assert await world.refuse(PRODUCTION) == "approval_required"

    await world.approve()
    assert (await world.assess_approval()).has_passed
    await world.promote(ARCHIVED)
    await world.promote(DEVELOPMENT, reason="again")
    await world.promote(STAGING)
    assert "it has changed since" in (await world.assess_approval()).detail
    assert await world.refuse(PRODUCTION) == "approval_required"
    await world.approve()
    assert (await world.assess_approval()).has_passed
    assert (await world.promote(PRODUCTION)).version.stage == "production"


async def test_nobody_takes_off_the_mark_of_a_pickle(world: World) -> None:
    marked = replace(
        INFO,
        format="pickle",
        pickles=(Pickle("w.bin", OTHER_SHA, "protocol 2"),),
        pickle_reason="old",
    )
    async with world.db.write(world.act("engineer")) as tx:
        await world.registry.add_artifact(tx, OTHER_SHA, 10, marked)
        await world.registry.create_version(tx, "tiny", "3.0.0", OTHER_SHA)

    with pytest.raises(PilotageError) as claimed:
        await world.add(
            EvidenceDraft(kind="scan.format", subject="pickle", passed=True), "tiny@3.0.0"
        )
    with pytest.raises(PilotageError) as refused:
        await world.promote(STAGING, "tiny@3.0.0")

    assert (claimed.value.code, claimed.value.param) == ("invalid_request", "kind")
    assert "scan_format failed (1 pickles, let in: old)" in refused.value.detail
    assert "evidence add" not in refused.value.hint


def measured_accuracy(value: str) -> EvidenceDraft:
    return EvidenceDraft(kind="metric.performance", subject="accuracy", value=Decimal(value))


async def test_a_candidate_is_compared_with_the_version_in_the_stage(world: World) -> None:
    check = Check(name="not_worse", subject="accuracy", tolerance_percent=Decimal(1))
    await world.ask_for(STAGING, check)
    await world.add(measured_accuracy("0.90"))
    await world.promote(STAGING)
    async with world.db.write(world.act("engineer")) as tx:
        await world.registry.create_version(tx, "tiny", "1.1.0", SHA)

    assert await world.refuse(STAGING, "tiny@1.1.0") == "gate_failed"
    await world.add(measured_accuracy("0.88"), "tiny@1.1.0")
    assert await world.refuse(STAGING, "tiny@1.1.0") == "gate_failed"
    await world.add(measured_accuracy("0.895"), "tiny@1.1.0")
    assert (await world.promote(STAGING, "tiny@1.1.0")).version.stage == "staging"


async def test_taking_the_version_out_of_the_stage_leaves_it_what_is_compared_with(
    world: World,
) -> None:
    async with world.db.write(world.act("engineer")) as tx:
        for number in ("1.1.0", "1.2.0"):
            await world.registry.create_version(tx, "tiny", number, SHA)
    for ref, value in (("tiny@1.1.0", "0.90"), ("tiny@1.0.0", "0.80"), ("tiny@1.2.0", "0.85")):
        await world.add(measured_accuracy(value), ref)
    await world.ask_for(STAGING, Check(name="not_worse", subject="accuracy"))
    await world.promote(STAGING)
    await world.promote(STAGING, "tiny@1.1.0")

    assert "0.85 against 0.90" in await world.explain(STAGING, "tiny@1.2.0")
    await world.promote(ARCHIVED)
    await world.promote(ARCHIVED, "tiny@1.1.0")
    assert "0.85 against 0.90" in await world.explain(STAGING, "tiny@1.2.0")
    async with world.db.write(world.act("engineer")) as tx:
        await world.registry.delete_version(tx, "tiny@1.1.0", world.endpoints.is_deployed)
    assert "0.85 against 0.90" in await world.explain(STAGING, "tiny@1.2.0")

    await world.promote(DEVELOPMENT, reason="again")
    await world.ask_for(STAGING)
    await world.promote(STAGING)  # a lower version, but the last that came
    await world.ask_for(STAGING, Check(name="not_worse", subject="accuracy"))
    assert (await world.promote(STAGING, "tiny@1.2.0")).version.stage == "staging"


async def test_a_freeze_of_the_model_holds_for_its_stages(world: World) -> None:
    now_us = world.clock.now_us()
    spec = FreezeSpec(
        reason="year end", starts_at_us=now_us, ends_at_us=now_us + 10**9, names=("tiny",)
    )
    async with world.db.write(world.act()) as tx:
        await world.governance.calendar.freeze(tx, "year-end", spec)

    assert await world.refuse(STAGING) == "frozen"
    world.clock.advance(1001)
    assert (await world.promote(STAGING)).version.stage == "staging"


async def test_what_serves_traffic_is_neither_archived_nor_taken_below_the_policy(
    world: World,
) -> None:
    await world.to_production()
    await world.deploy()
    assert await world.refuse(ARCHIVED) == "conflict"
    await world.promote(STAGING)
    await world.approve()
    await world.promote(PRODUCTION)
    async with world.db.write(world.act()) as tx:
        await world.endpoints.traffic.policies.replace(tx, PRODUCTION, 0)

    assert await world.refuse(STAGING) == "conflict"

    async with world.db.write(world.act()) as tx:
        await world.endpoints.undeploy(tx, "chat", "tiny@1.0.0", is_forced=True)
    assert (await world.promote(ARCHIVED)).version.stage == "archived"


async def test_policies_are_replaced_with_their_history(world: World) -> None:
    async with world.db.read(world.act()) as tx:
        first = await world.service.get_policy(tx, PRODUCTION)
    assert (first.rev, first.approvals) == (0, 1)
    assert [check.name for check in first.checks] == ["artifact_size", "scan_format"]

    checks = (Check(name="accuracy", min=Decimal("0.9"), min_n=100), Check(name="card"))
    await world.ask_for(PRODUCTION, *checks, approvals=2)
    await world.ask_for(PRODUCTION, *checks, approvals=2)

    async with world.db.read(world.act()) as tx:
        second = await world.service.get_policy(tx, PRODUCTION)
    assert (second.rev, second.approvals, second.checks) == (1, 2, checks)
    assert (await world.list_events()).count("registry.gate_policy.changed") == 1
    for approvals, code in ((0, "invalid_request"), (11, "invalid_request")):
        with pytest.raises(PilotageError) as refused:
            await world.ask_for(PRODUCTION, approvals=approvals)
        assert refused.value.code == code
    with pytest.raises(PilotageError) as late:
        async with world.db.write(world.act()) as tx:
            await world.service.replace_policy(tx, PRODUCTION, checks, 3, 0)
    assert late.value.code == "precondition_failed"


async def test_another_project_has_its_own_gates_and_cannot_promote(world: World) -> None:
    other = replace(world.act(), project_id=(await _find_other(world)))
    await world.ask_for(STAGING, Check(name="card"))

    async with world.db.write(other) as tx:
        assert (await world.service.get_policy(tx, STAGING)).rev == 0
        with pytest.raises(PilotageError) as refused:
            await world.service.promote(tx, "tiny@1.0.0", STAGING)
    assert refused.value.code == "not_found"


async def _find_other(world: World) -> str:
    async with world.db.read(SYSTEM) as tx:
        return (await IdentityService(world.clock).get_project(tx, "other")).id


async def test_an_approval_does_not_come_back_with_the_stage(world: World) -> None:
    await world.promote(STAGING)
    await world.approve()
    await world.approve()
    await world.promote(PRODUCTION)
    await world.promote(STAGING, reason="wrong answers in German")

    assert await world.refuse(PRODUCTION) == "approval_required"
    await world.approve()
    assert (await world.promote(PRODUCTION)).version.stage == PRODUCTION


@pytest.mark.parametrize("subject", ["tiny", "tiny@1.0.0"])
async def test_one_override_of_a_version_or_its_model_is_enough(world: World, subject: str) -> None:
    async with world.db.write(world.act()) as tx:
        spec = FreezeSpec(
            reason="year end",
            starts_at_us=tx.now_us,
            ends_at_us=tx.now_us + 10**9,
            override_role="ml_ops",
        )
        await world.governance.calendar.freeze(tx, "year-end", spec)
    assert await world.refuse(STAGING) == "frozen"

    async with world.db.write(world.act()) as tx:
        await world.governance.calendar.override(tx, "year-end", subject, "outage 17")
    made = await world.promote(STAGING)

    _, facts = await world.read_record(made.decision_id)
    assert [fact.kind for fact in facts].count(FactKind.INTERVENTION) == 1
    assert await world.refuse(PRODUCTION) == "frozen"
