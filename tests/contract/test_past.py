"""What was in production at any moment, on both databases: equal to a model that remembers it all.

The model is what a careful person would write down: after each step the arms of each endpoint and
the stage of each version, each with who did it and when.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

import stores
from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.history import as_of
from pilotage.endpoints.past import Past
from pilotage.endpoints.service import EndpointService
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import ApprovalAsk, Verdict
from pilotage.identity.service import IdentityService
from pilotage.identity.types import PrincipalKind, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.registry.promotions import Promotions
from pilotage.registry.service import RegistryService
from pilotage.registry.types import Stage, VersionDetails

STEPS = 12
BLOCK = 500  # histories that share a database
ENDPOINTS = ("alpha", "beta")
TO_PRODUCTION = "registry.version.promote:production"
Shares = dict[str, int]
Step = Callable[[Tx], Awaitable[None]]
Seen = tuple[dict[str, Shares], dict[str, tuple[str, int]]]


class World(NamedTuple):
    """Services on one database; each history has a project of its own."""

    db: Database
    clock: ManualClock
    identity: IdentityService
    governance: GovernanceService
    registry: RegistryService
    endpoints: EndpointService
    promotions: Promotions


@pytest.fixture
def world(database: Database, clock: ManualClock) -> World:
    identity = IdentityService(clock)
    governance = GovernanceService(clock, identity)
    registry = RegistryService(clock, governance)
    endpoints = EndpointService(clock, identity, registry, AbsentFleet(), governance=governance)
    promotions = Promotions(clock, registry, governance, endpoints.traffic.find_obstacle)
    return World(database, clock, identity, governance, registry, endpoints, promotions)


@dataclass(slots=True)
class Model:
    """What is so now: shares by endpoint and model, and stages by version, with when they began."""

    shares: dict[str, Shares] = field(default_factory=dict)
    placed: dict[str, list[str]] = field(default_factory=dict)
    stages: dict[str, tuple[str, int]] = field(default_factory=dict)

    def copy(self) -> Seen:
        return {name: dict(arms) for name, arms in self.shares.items()}, dict(self.stages)


class History:
    """Random steps in one project, and what the model said after each."""

    def __init__(self, world: World, seed: int, people: tuple[str, str]) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.model = Model()
        self.seen: list[tuple[int, Seen]] = []
        self.operator, self.approver = people
        self.made = 0
        self.actor = SYSTEM

    async def live(self, project: str, *, is_quick: bool) -> None:
        """Make a project and take the steps, some of them in the same microsecond.

        The quick way commits once: each step is a transaction in all but that.
        """
        async with self.world.db.write(SYSTEM) as tx:
            made = await self.world.identity.create_project(tx, project)
            for who, role in ((self.operator, Role.ML_OPS), (self.approver, Role.APPROVER)):
                await self.world.identity.principals.grant(tx, who, role, scope=made.id)
        self.actor = Actor(principal_id=self.operator, project_id=made.id, reason="step")
        db, actor = self.world.db, self.actor
        async with db.write(actor) as outer:
            for step in self.list_steps(STEPS if is_quick else 0):
                now_us = self.world.clock.now_us()
                tx = replace(outer, now_us=now_us, written=[], stamps=[], decisions=[])
                await self.take(tx, step)
        for step in self.list_steps(0 if is_quick else STEPS):
            async with db.write(actor) as tx:
                await self.take(tx, step)

    async def take(self, tx: Tx, step: Step) -> None:
        """Take a step and keep what the model says then."""
        await step(tx)
        self.seen.append((tx.now_us, self.model.copy()))

    def list_steps(self, count: int) -> Iterator[Step]:
        """Choose steps, and let time go on before each."""
        steps: list[Step] = [
            *(self.create_version, self.create_endpoint, self.deploy, self.deploy),
            *(self.split, self.split, self.undeploy, self.delete_endpoint),
            *(self.promote, self.promote, self.promote, self.archive, self.delete_version),
        ]
        first = [self.create_version, self.create_endpoint]
        for number in range(count):
            self.world.clock.advance(self.random.choice((0, 0.000001, 1, 3600)))
            yield first[number] if number < len(first) else self.random.choice(steps)

    async def create_version(self, tx: Tx) -> None:
        if not self.made:
            await self.world.registry.create_model(tx, "tiny")
        self.made += 1
        details = VersionDetails(base_model="tiny")
        made = await self.world.registry.create_version(
            tx, "tiny", f"1.{self.made}.0", None, details=details
        )
        self.model.stages[made.ref] = ("development", tx.now_us)

    async def create_endpoint(self, tx: Tx) -> None:
        free = [name for name in ENDPOINTS if name not in self.model.shares]
        if free:
            name = self.random.choice(free)
            await self.world.endpoints.create_endpoint(tx, name)
            self.model.shares[name], self.model.placed[name] = {}, []

    async def deploy(self, tx: Tx) -> None:
        """Put an upstream's model on an endpoint; the first takes all the traffic."""
        if not self.model.shares:
            return
        name = self.random.choice(sorted(self.model.shares))
        upstreams = await self.world.endpoints.upstreams.list_upstreams(tx)
        if not upstreams:
            from pilotage.endpoints.types import Provider, UpstreamSpec

            spec = UpstreamSpec(provider=Provider.OPENAI, base_url="https://api.openai.com/v1")
            await self.world.endpoints.upstreams.create_upstream(tx, "cloud", spec)
        model = f"m{len(self.model.placed[name])}-{self.random.randrange(10**6)}"
        made = await self.world.endpoints.deploy_upstream(tx, name, "cloud", model)
        self.model.placed[name].append(made.model)
        if not self.model.shares[name]:
            self.model.shares[name] = {made.model: FULL_WEIGHT}

    async def split(self, tx: Tx) -> None:
        name = self.choose(lambda name: bool(self.model.placed[name]))
        if name is None:
            return
        some = self.random.sample(
            self.model.placed[name], self.random.randint(1, len(self.model.placed[name]))
        )
        cuts = sorted(self.random.randint(0, FULL_WEIGHT) for _ in some[1:])
        points = [b - a for a, b in zip([0, *cuts], [*cuts, FULL_WEIGHT], strict=True)]
        percents = {model: Decimal(p) / 100 for model, p in zip(some, points, strict=True)}
        await self.world.endpoints.split(tx, name, percents)
        self.model.shares[name] = {m: p for m, p in zip(some, points, strict=True) if p}

    async def undeploy(self, tx: Tx) -> None:
        name = self.choose(lambda name: bool(self.model.placed[name]))
        if name is None:
            return
        model = self.random.choice(self.model.placed[name])
        await self.world.endpoints.undeploy(tx, name, model, is_forced=True)
        self.model.placed[name].remove(model)
        if model in self.model.shares[name]:
            self.model.shares[name] = {}

    async def delete_endpoint(self, tx: Tx) -> None:
        name = self.choose(lambda _: self.random.random() < 0.5)
        if name is not None:
            await self.world.endpoints.delete_endpoint(tx, name, is_forced=True)
            del self.model.shares[name], self.model.placed[name]

    async def promote(self, tx: Tx) -> None:
        """Go on by one stage, from production back to staging, from the archive to the start."""
        if not self.model.stages:
            return
        ref = self.random.choice(sorted(self.model.stages))
        onward = {
            "development": Stage.STAGING,
            "staging": Stage.PRODUCTION,
            "production": Stage.STAGING,
            "archived": Stage.DEVELOPMENT,
        }
        stage = onward[self.model.stages[ref][0]]
        if stage is Stage.PRODUCTION:
            await self.approve(tx, ref)
        await self.move(tx, ref, stage)

    async def archive(self, tx: Tx) -> None:
        living = [ref for ref, (stage, _) in self.model.stages.items() if stage != "archived"]
        if living:
            await self.move(tx, self.random.choice(sorted(living)), Stage.ARCHIVED)

    async def delete_version(self, tx: Tx) -> None:
        idle = [ref for ref, (stage, _) in self.model.stages.items() if stage != "production"]
        if idle:
            ref = self.random.choice(sorted(idle))
            await self.world.registry.delete_version(tx, ref, self.world.endpoints.is_deployed)
            del self.model.stages[ref]

    async def move(self, tx: Tx, ref: str, stage: Stage) -> None:
        await self.world.promotions.promote(tx, ref, stage)
        self.model.stages[ref] = (stage, tx.now_us)

    async def approve(self, tx: Tx, ref: str) -> None:
        approvals = self.world.governance.approvals
        ask = ApprovalAsk(action=TO_PRODUCTION, subject=ref, reason="it is time")
        asked = await approvals.request(tx, ask)
        by = Actor(principal_id=self.approver, project_id=tx.project_id, reason="looked")
        other = Tx(**{name: getattr(tx, name) for name in Tx.__dataclass_fields__} | {"actor": by})
        await approvals.vote(other, asked.id, Verdict.APPROVE, "looked at it")

    def choose(self, fits: Callable[[str], bool]) -> str | None:
        names = [name for name in sorted(self.model.shares) if fits(name)]
        return self.random.choice(names) if names else None

    def say(self, at_us: int) -> Seen:
        """Return what the model said at a moment."""
        before = [seen for when, seen in self.seen if when <= at_us]
        return before[-1] if before else ({}, {})

    def list_moments(self) -> list[int]:
        """Return moments before, at, between and after the steps."""
        times = [when for when, _ in self.seen]
        chosen = self.random.sample(times, 3)
        between = self.random.randint(times[0], times[-1])
        return [times[0] - 1, *chosen, chosen[0] - 1, between, times[-1], times[-1] + 1]


def read(past: Past) -> Seen:
    """Return of an answer what the model knows."""
    shares = {item.name: {arm.model: arm.points for arm in item.arms} for item in past.endpoints}
    return shares, {item.ref: (str(item.stage), item.change.at_us) for item in past.versions}


def check_records(past: Past) -> None:
    """Every arm has a record that names it, every promotion to production an approval."""
    for item in past.endpoints:
        assert not item.arms or (item.split and item.split.decision_id.startswith("dec_"))
    for version in past.versions:
        if version.stage is Stage.PRODUCTION:
            assert version.change.decision_id.startswith("dec_")
            (approval,) = version.change.approvals
            assert len(approval.approved_by) == 1
            assert approval.approved_by[0] != approval.requested_by == version.change.by


async def check_histories(world: World, count: int, first: int = 0) -> int:
    """Live so many histories and ask each at several moments; return how many were asked."""
    asked = 0
    async with world.db.write(SYSTEM) as tx:
        people = [
            (await world.identity.principals.create(tx, PrincipalKind.USER, name)).id
            for name in ("operator", "approver")
        ]
    for seed in range(first, first + count):
        history = History(world, seed, (people[0], people[1]))
        await history.live(f"p{seed}", is_quick=seed % 10 != 0)
        world.clock.advance(1)
        async with world.db.read(history.actor) as tx:
            for at_us in history.list_moments():
                past = await as_of(tx, at_us, has_all=True)
                assert read(past) == history.say(at_us), (seed, at_us)
                check_records(past)
                asked += 1
    return asked


async def test_the_past_is_what_a_careful_person_wrote_down(world: World) -> None:
    assert await check_histories(world, 12) == 12 * 8


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_past_of_a_hundred_histories(world: World) -> None:
    assert await check_histories(world, 100) == 100 * 8


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(10_000 // BLOCK))
async def test_the_past_of_ten_thousand_histories(world: World, block: int) -> None:
    assert await check_histories(world, BLOCK, block * BLOCK) == BLOCK * 8


async def test_only_what_ever_left_development_is_listed_unless_asked(world: World) -> None:
    await check_histories(world, 1)
    projects = await stores.make_projects(world.db, world.clock)
    async with world.db.write(projects.mine) as tx:
        await world.registry.create_model(tx, "tiny")
        for version in ("1.0.0", "2.0.0"):
            details = VersionDetails(base_model="tiny")
            await world.registry.create_version(tx, "tiny", version, None, details=details)
        await world.promotions.promote(tx, "tiny@2.0.0", Stage.STAGING)

    async with world.db.read(projects.mine) as tx:
        past = await as_of(tx, tx.now_us)
        everything = await as_of(tx, tx.now_us, has_all=True)

    assert [item.ref for item in past.versions] == ["tiny@2.0.0"]
    assert past.versions[0].change.reason == "a test"
    assert [item.ref for item in everything.versions] == ["tiny@1.0.0", "tiny@2.0.0"]
    async with world.db.read(projects.other) as tx:
        other = await as_of(tx, tx.now_us, has_all=True)
    assert (other.endpoints, other.versions, other.seq) == ((), (), 0)


async def test_the_future_is_not_told(world: World) -> None:
    projects = await stores.make_projects(world.db, world.clock)
    async with world.db.read(projects.mine) as tx:
        with pytest.raises(PilotageError) as refused:
            await as_of(tx, tx.now_us + 1)
    assert (refused.value.code, refused.value.param) == ("invalid_request", "at")


async def test_no_query_reads_the_whole_history(world: World) -> None:
    await check_histories(world, 3)
    statements: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:  # noqa: ANN401
        statements.append((statement, parameters))

    engine = world.db.engine.sync_engine
    projects = await stores.make_projects(world.db, world.clock)
    async with world.db.write(projects.mine) as tx:
        sa.event.listen(engine, "before_cursor_execute", note)
        try:
            await as_of(tx, tx.now_us, has_all=True)
            await as_of(tx, tx.now_us)
        finally:
            sa.event.remove(engine, "before_cursor_execute", note)
        asked = list(statements)
        if tx.dialect == "postgresql":
            await tx.conn.execute(sa.text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in asked:
            plan = await explain(tx, statement, parameters)
            assert "SCAN revision" not in plan.replace("SCAN revision USING", ""), plan
            assert "Seq Scan on revision" not in plan, plan
    assert asked


async def explain(tx: Tx, statement: str, parameters: Any) -> str:  # noqa: ANN401 - the driver's own
    """Return how the database would run a statement."""
    word = "EXPLAIN QUERY PLAN" if tx.dialect == "sqlite" else "EXPLAIN"
    rows = await tx.conn.exec_driver_sql(f"{word} {statement}", parameters)
    return "\n".join(" ".join(map(str, row)) for row in rows)
