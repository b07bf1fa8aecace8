"""A project with an endpoint, two versions and two people who move its traffic."""

from decimal import Decimal
from typing import NamedTuple

from pilotage.endpoints.service import EndpointService
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import ApprovalAsk, Decision, Verdict
from pilotage.identity.service import IdentityService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import Actor, Database
from pilotage.registry.promotions import Promotions
from pilotage.registry.service import RegistryService
from pilotage.registry.types import Stage


class World(NamedTuple):
    """A project with the endpoint chat, two versions of tiny in development, and two people."""

    db: Database
    clock: ManualClock
    governance: GovernanceService
    identity: IdentityService
    registry: RegistryService
    service: EndpointService
    promotions: Promotions
    ops: Actor
    approver: Actor

    async def deploy(self, version: str = "1.0.0") -> None:
        async with self.db.write(self.ops) as tx:
            await self.service.deploy(tx, "chat", f"tiny@{version}")

    async def split(self, **shares: int) -> None:
        percents = {name.replace("v", "").replace("_", "."): n for name, n in shares.items()}
        async with self.db.write(self.ops) as tx:
            await self.service.split(tx, "chat", {k: Decimal(n) for k, n in percents.items()})

    async def promote(self, ref: str) -> None:
        async with self.db.write(self.ops) as tx:
            await self.promotions.promote(tx, ref, Stage.STAGING)

    async def set_policy(self, stage: Stage, approvals: int = 0) -> None:
        async with self.db.write(self.approver) as tx:
            await self.service.traffic.policies.replace(tx, stage, approvals)

    async def approve(self, action: str, subject: str) -> None:
        approvals = self.governance.approvals
        async with self.db.write(self.ops) as tx:
            asked = await approvals.request(
                tx, ApprovalAsk(action=action, subject=subject, reason="now")
            )
        async with self.db.write(self.approver) as tx:
            await approvals.vote(tx, asked.id, Verdict.APPROVE, "looked at it")

    async def list_decisions(self) -> list[Decision]:
        async with self.db.read(self.ops) as tx:
            found = await self.governance.list_decisions(tx)
            return [item for item in found if item.kind not in ("promote", "archive")]

    async def shares(self) -> dict[str, int]:
        async with self.db.read(self.ops) as tx:
            endpoint = await self.service.get_endpoint(tx, "chat")
            names = {d.id: d.model for d in await self.service.list_deployments(tx, endpoint)}
        return {names[arm]: points for arm, points in endpoint.split.items()}

    async def list_facts(self, decision: Decision) -> list[tuple[str, dict[str, object]]]:
        async with self.db.read(self.ops) as tx:
            facts = await self.governance.decisions.list_facts(tx, decision.id)
        return [(str(fact.kind), fact.content) for fact in facts]
