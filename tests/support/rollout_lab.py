"""A project with an endpoint, a baseline, a candidate, and rollouts that measure what is told."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

import stores
from pilotage.core.gates.pairs import Pairs
from pilotage.core.gates.types import Units, Weight
from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import Deployment, Endpoint, ReplicaState, ReplicaStatus
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import ApprovalAsk, Decision, DecisionKind, Verdict
from pilotage.identity.service import IdentityService
from pilotage.identity.types import PrincipalKind, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.service import RegistryService
from pilotage.registry.types import Stage
from pilotage.rollouts import store
from pilotage.rollouts.ports import Sources
from pilotage.rollouts.service import RolloutService
from pilotage.rollouts.steering import Steering
from pilotage.rollouts.types import (
    Ask,
    GateSpec,
    Known,
    Look,
    Measured,
    Measurement,
    PlanSpec,
    Rollout,
    StepSpec,
    Streak,
    Tally,
)
from pilotage.rollouts.worker import RolloutRunner

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
ERRORS_ONLY: dict[str, GateSpec | None] = dict.fromkeys(("lost", "latency", "slow", "cost"))
STEPS = (StepSpec(weight="10%", at_least="1m"), StepSpec(weight="50%", at_least="1m"))


class ToldFleet(AbsentFleet):
    """Runs nothing, and says of replicas what it is told."""

    is_present = True
    has_reported = True

    def __init__(self) -> None:
        self.states: dict[str, ReplicaState] = {}

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return what it was told, a replica for each deployment."""
        return [
            ReplicaStatus(replica_id=f"{name}.0", deployment_id=name, state=state)
            for name, state in self.states.items()
        ]


class ToldMeasuring:
    """Measures what it is told: units and bad units of the gate ``error``, at the step's weight."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.portions = 0  # that are left to forget
        self.units, self.bad, self.probed = Units(), Units(), True
        self.streak = Streak()
        self.breaks: Exception | None = None

    async def begin(self, tx: Tx, rollout: Rollout, known: Known) -> None:
        """Remember it."""
        assert tx.project_id == rollout.project_id
        assert not known.taken
        self.begun.append(rollout.id)

    async def read(self, tx: Tx, rollout: Rollout, now_us: int) -> Measured:
        """Return what it was told, of the whole rollout and of the step."""
        assert tx.now_us == now_us
        if self.breaks is not None:
            raise self.breaks
        weight = Weight(rollout.weight, 10_000 - rollout.weight)
        counted = {weight: self.units}
        tally = Tally(units=counted, bad={weight: self.bad}, probed=self.probed)
        tallies = {gate.name: tally for gate in rollout.plan.gates}
        first_seen = counted if 0 < rollout.weight < 10_000 else {}
        measurement = Measurement(
            whole=tallies, step=tallies, first_seen=first_seen, streak=self.streak
        )
        return Measured(measurement=measurement)

    async def end(self, tx: Tx, rollout: Rollout) -> None:
        """Remember it."""
        assert tx.project_id == rollout.project_id
        self.ended.append(rollout.id)

    async def forget(self, tx: Tx, rollout: Rollout) -> bool:
        """Forget a portion of one that has ended."""
        assert tx.project_id == rollout.project_id
        assert rollout.progress.has_ended
        self.portions -= 1
        return self.portions >= 0


class ToldCopies:
    """Compares answers as it is told."""

    def __init__(self) -> None:
        self.marks: dict[int, int] = {}

    async def read_marks(self, tx: Tx, alias: str, rollout_id: str, baseline_id: str) -> Pairs:
        """Return the differences that it was told."""
        assert tx.project_id
        assert (alias, rollout_id[:4], baseline_id[:4]) == ("chat", "rol_", "dep_")
        return self.marks


class ToldPast:
    """Knows what it is told."""

    def __init__(self) -> None:
        self.known = Known()
        self.cost_nano = 1_500_000
        self.unpriced: set[str] = set()  # models
        self.breaks: Exception | None = None
        self.added_up = 0  # times

    async def has_price(self, tx: Tx, deployment: Deployment, provider: str) -> bool:
        """Return what it was told."""
        assert tx.project_id == deployment.project_id
        assert provider == ""
        return deployment.model not in self.unpriced

    async def find_known(self, tx: Tx, endpoint: str, arm: str) -> Known:
        """Return what it was told."""
        assert tx.project_id
        assert endpoint == "chat"
        assert arm
        return self.known

    async def find_cost(self, tx: Tx, rollout: Rollout) -> int:
        """Return what it was told."""
        assert tx.project_id == rollout.project_id
        self.added_up += 1
        if self.breaks is not None:
            raise self.breaks
        return self.cost_nano


class ToldGateways:
    """Knows the gateways that it is told of."""

    def __init__(self) -> None:
        self.outdated: list[str] = []

    def list_outdated(self) -> list[str]:
        """Return those that it was told."""
        return self.outdated


@dataclass
class Lab:
    """An endpoint ``chat`` whose traffic is on tiny@1.0.0, and tiny@1.1.0 beside it."""

    db: Database
    clock: ManualClock
    governance: GovernanceService
    endpoints: EndpointService
    service: RolloutService
    steering: Steering
    fleet: ToldFleet
    measuring: ToldMeasuring
    copies: ToldCopies
    past: ToldPast
    gateways: ToldGateways
    ops: Actor
    approver: Actor
    _runners: dict[str, RolloutRunner] = field(default_factory=dict)

    async def start(self, *, actor: Actor | None = None, **more: Any) -> Rollout:  # noqa: ANN401
        """Begin a rollout in two steps whose only gate is ``error``."""
        plan = PlanSpec(**{"steps": STEPS, "gates": ERRORS_ONLY} | more)
        ask = Ask(endpoint="chat", candidate="tiny@1.1.0", plan=plan, reason="June")
        async with self.db.write(actor or self.ops) as tx:
            return await self.service.start(tx, ask)

    async def step(self, seconds: float = 1.0, *, holder: str = "here") -> Rollout:
        """Let time pass, looked after by a server, and its worker look; return the newest."""
        async with self.db.write(self.ops) as tx:
            until_us = tx.now_us + round(seconds * 1e6)
            for rollout in await store.list_running(tx):
                await store.take_lease(tx, rollout, holder, until_us)
        self.clock.advance(seconds)
        await self.runner(holder).step()
        return await self.newest()

    def runner(self, holder: str = "here") -> RolloutRunner:
        """Return what looks at rollouts on a server."""
        if holder not in self._runners:
            made = RolloutRunner(self.db, self.service, self.endpoints, holder)
            self._runners[holder] = made
        return self._runners[holder]

    @contextmanager
    def count_writes(self) -> Iterator[list[Actor]]:
        """Yield the list of those who have opened a write since."""
        write, writes = self.db.write, list[Actor]()

        def count(actor: Actor) -> AbstractAsyncContextManager[Tx]:
            writes.append(actor)
            return write(actor)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.db, "write", count)
            yield writes

    async def newest(self) -> Rollout:
        """Return the newest rollout."""
        async with self.db.read(self.ops) as tx:
            return (await self.service.list(tx, limit=1))[0]

    async def see(self, state: ReplicaState, model: str = "tiny@1.1.0") -> None:
        """Say what is seen of an arm: of the candidate, unless the baseline is named."""
        async with self.db.read(self.ops) as tx:
            there = await self.endpoints.list_deployments(tx)
        arm = next(item for item in there if item.model == model)
        self.fleet.states[arm.id] = state

    def measure(self, candidate: tuple[int, int], baseline: tuple[int, int]) -> None:
        """Say how many units were bad, of how many, of each arm."""
        self.measuring.bad = Units(candidate[0], baseline[0])
        self.measuring.units = Units(candidate[1], baseline[1])

    async def endpoint(self) -> Endpoint:
        """Return the endpoint as it is."""
        async with self.db.read(self.ops) as tx:
            return await self.endpoints.get_endpoint(tx, "chat")

    async def shares(self) -> dict[str, int]:
        """Return the split by model, shares of nothing left out."""
        async with self.db.read(self.ops) as tx:
            endpoint = await self.endpoints.get_endpoint(tx, "chat")
            names = {d.id: d.model for d in await self.endpoints.list_deployments(tx, endpoint)}
        return {names[arm]: points for arm, points in endpoint.split.items() if points}

    async def looks(self) -> list[Look]:
        """Return the looks that were kept, oldest first."""
        async with self.db.read(self.ops) as tx:
            newest = (await self.service.list(tx, limit=1))[0]
            return list(reversed(await self.service.list_looks(tx, newest, "", 1000)))

    async def decision(self) -> Decision:
        """Return the one decision that rollouts have made so far."""
        async with self.db.read(self.ops) as tx:
            (found,) = await self.governance.list_decisions(tx, kinds=(DecisionKind.ROLLOUT,))
        return found

    async def facts(self, kind: str = "") -> list[dict[str, Any]]:
        """Return what the record of the rollout says, of one kind or all."""
        decision = await self.decision()
        async with self.db.read(self.ops) as tx:
            facts = await self.governance.decisions.list_facts(tx, decision.id)
        return [fact.content for fact in facts if kind in ("", fact.kind)]

    async def approve(self, action: str, subject: str) -> None:
        """Let the second person agree to something."""
        approvals = self.governance.approvals
        async with self.db.write(self.ops) as tx:
            asked = await approvals.request(
                tx, ApprovalAsk(action=action, subject=subject, reason="now")
            )
        async with self.db.write(self.approver) as tx:
            await approvals.vote(tx, asked.id, Verdict.APPROVE, "looked at it")

    async def need_approvals(self, count: int = 1) -> None:
        """Let changes of traffic need the word of others."""
        async with self.db.write(self.approver) as tx:
            policies = self.endpoints.traffic.policies
            await policies.replace(tx, Stage.DEVELOPMENT, count)


async def open_lab(db: Database, clock: ManualClock) -> Lab:
    """Make the project and what is in it; both arms are ready."""
    projects, identity = await stores.make_projects(db, clock), IdentityService(clock)
    scope = str(projects.mine.project_id)
    people = []
    async with db.write(SYSTEM) as tx:
        for name in ("ops", "approver"):
            made = await identity.principals.create(tx, PrincipalKind.USER, name)
            await identity.principals.grant(tx, made.id, Role.APPROVER, scope=scope)
            people.append(Actor(principal_id=made.id, project_id=scope, reason="a test"))
    governance = GovernanceService(clock, identity)
    registry, fleet = RegistryService(clock, governance), ToldFleet()
    endpoints = EndpointService(clock, identity, registry, fleet, governance=governance)
    measuring, copies, past = ToldMeasuring(), ToldCopies(), ToldPast()
    gateways = ToldGateways()
    sources = Sources(measuring, copies, past, gateways)
    service = RolloutService(clock, governance, registry, endpoints, sources)
    lab = Lab(
        db=db,
        clock=clock,
        governance=governance,
        endpoints=endpoints,
        service=service,
        steering=Steering(service, governance, endpoints),
        fleet=fleet,
        measuring=measuring,
        copies=copies,
        past=past,
        gateways=gateways,
        ops=people[0],
        approver=people[1],
    )
    async with db.write(lab.ops) as tx:
        await registry.create_model(tx, "tiny", "small")
        for number, version in enumerate(("1.0.0", "1.1.0")):
            sha256 = f"{number}" * 64
            await registry.add_artifact(tx, sha256, 10, replace(INFO, name=version))
            await registry.create_version(tx, "tiny", version, sha256)
        await endpoints.create_endpoint(tx, "chat")
        for version in ("1.0.0", "1.1.0"):
            await endpoints.deploy(tx, "chat", f"tiny@{version}")
    for model in ("tiny@1.0.0", "tiny@1.1.0"):
        await lab.see(ReplicaState.READY, model)
    return lab


def split(**shares: int) -> dict[str, Decimal]:
    """Return percentages by model: ``v1_0_0=90``."""
    return {
        "tiny@" + name.removeprefix("v").replace("_", "."): Decimal(share)
        for name, share in shares.items()
    }
