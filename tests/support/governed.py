"""A project with people in several roles, and one model version that may change."""

from typing import Any, NamedTuple

import pytest

import stores
from pilotage.core.errors import PilotageError
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import (
    Approval,
    ApprovalAsk,
    DecisionKind,
    FreezeSpec,
    Subject,
    Verdict,
)
from pilotage.identity.service import IdentityService
from pilotage.identity.types import PrincipalKind, Role
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database, Tx

PROMOTE = "registry.version.promote:production"
PEOPLE = {
    "asks": (PrincipalKind.USER, (Role.ML_ENGINEER, Role.APPROVER)),
    "author": (PrincipalKind.USER, (Role.APPROVER,)),
    "approves": (PrincipalKind.USER, (Role.APPROVER,)),
    "also": (PrincipalKind.USER, (Role.APPROVER,)),
    "admin": (PrincipalKind.USER, (Role.ADMIN,)),
    "ops": (PrincipalKind.USER, (Role.ML_OPS,)),
    "nobody": (PrincipalKind.USER, ()),
    "robot": (PrincipalKind.SERVICE_ACCOUNT, (Role.APPROVER,)),
}
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


class World(NamedTuple):
    """The project; ``state`` is what an approval of the version is bound to."""

    db: Database
    clock: ManualClock
    service: GovernanceService
    identity: IdentityService
    project_id: str
    people: dict[str, str]
    state: dict[str, Any]

    def act(self, who: str, reason: str = "a test") -> Actor:
        """Return somebody in the project."""
        return Actor(principal_id=self.people[who], project_id=self.project_id, reason=reason)

    async def ask(self, who: str = "asks", **more: Any) -> Approval:  # noqa: ANN401
        """Ask for approval of the promotion."""
        asked: dict[str, Any] = {"action": PROMOTE, "subject": "ver_1", "reason": "June"} | more
        ask = ApprovalAsk(**asked)
        async with self.db.write(self.act(who)) as tx:
            return await self.service.approvals.request(tx, ask)

    async def vote(self, who: str, approval: Approval, verdict: Verdict) -> Approval:
        """Say something of a request."""
        async with self.db.write(self.act(who)) as tx:
            return await self.service.approvals.vote(tx, approval.id, verdict, "looked at it")

    async def approved(self, **more: Any) -> Approval:  # noqa: ANN401
        """Ask, and have somebody else approve."""
        return await self.vote("approves", await self.ask(**more), Verdict.APPROVE)

    async def require(self, tx: Tx, **more: Any) -> Approval:  # noqa: ANN401
        """Use the approval within a transaction."""
        names: dict[str, Any] = {"action": PROMOTE, "subject_id": "ver_1", "subject": "tiny@1.0.0"}
        return await self.service.require_approval(tx, **names | more)

    async def use(self, **more: Any) -> Approval:  # noqa: ANN401
        """Use the approval."""
        async with self.db.write(self.act("asks")) as tx:
            return await self.require(tx, **more)

    async def freeze(self, **more: Any) -> None:  # noqa: ANN401
        """Set a freeze that begins now and lasts a day."""
        now_us = self.clock.now_us()
        named: dict[str, Any] = {"starts_at_us": now_us, "ends_at_us": now_us + DAY_US} | more
        async with self.db.write(self.act("ops")) as tx:
            spec = FreezeSpec(**{"reason": "year end"} | named)
            await self.service.calendar.freeze(tx, "year-end", spec)

    async def record(self, tx: Tx, **more: Any) -> str:  # noqa: ANN401
        """Record that the traffic of an endpoint moved; return the decision's id."""
        change: dict[str, Any] = {
            "kind": DecisionKind.SPLIT,
            "subject_id": "end_1",
            "subject": "chat",
            "before": {"split": {"dep_1": 10_000}},
            "after": {"split": {"dep_2": 10_000}},
        }
        return (await self.service.record_change(tx, **change | more)).id

    async def refuse(self, **more: Any) -> PilotageError:  # noqa: ANN401
        """Return why the approval cannot be used."""
        with pytest.raises(PilotageError) as refused:
            await self.use(**more)
        return refused.value


async def make_world(database: Database, clock: ManualClock) -> World:
    """Make the project, its people and the version."""
    identity = IdentityService(clock)
    service = GovernanceService(clock, identity)
    project_id = str((await stores.make_projects(database, clock)).mine.project_id)
    people = {}
    async with database.write(SYSTEM) as tx:
        for name, (kind, roles) in PEOPLE.items():
            person = await identity.principals.create(tx, kind, name)
            people[name] = person.id
            for role in roles:
                await identity.principals.grant(tx, person.id, role, scope=project_id)
    state = {"stage": "staging"}

    async def describe(tx: Tx, name_or_id: str) -> Subject:
        return Subject(
            id="ver_1", name="tiny@1.0.0", state=dict(state), authors=frozenset({people["author"]})
        )

    service.approvals.register("registry.version.promote", describe)
    return World(database, clock, service, identity, project_id, people, state)
