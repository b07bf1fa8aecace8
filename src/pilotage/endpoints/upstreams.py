"""The verbs of upstreams: providers' APIs that deployments may name. Never commits."""

from collections.abc import Sequence
from typing import Any

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_name
from pilotage.endpoints import store
from pilotage.endpoints.rules import check_upstream
from pilotage.endpoints.traffic import Traffic
from pilotage.endpoints.types import Upstream, UpstreamSpec
from pilotage.governance.service import GovernanceService
from pilotage.governance.types import DecisionKind
from pilotage.kit.clock import Clock
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision

EVERYTHING = 1_000_000


class UpstreamService:
    """Upstreams of projects; a change of one that has deployments is a change of traffic."""

    def __init__(self, clock: Clock, governance: GovernanceService, traffic: Traffic) -> None:
        self._clock = clock
        self._traffic = traffic
        self._governance = governance

    async def create_upstream(self, tx: Tx, name: str, spec: UpstreamSpec) -> Upstream:
        """Create an upstream in the transaction's project.

        Raise ``already_exists`` if the name is taken, ``invalid_request`` for what it cannot be.
        """
        check_name(name)
        checked = check_upstream(spec)
        if await store.find_upstream(tx, name):
            raise PilotageError(
                "already_exists", f"There is an upstream {name!r} already.", param="name"
            )
        upstream = Upstream(
            id=self._clock.new_id("ups"),
            rev=1,
            project_id=tx.project_id,
            name=name,
            created_at_us=tx.now_us,
            **_values(checked),
        )
        await store.insert_upstream(tx, upstream)
        await append_revision(tx, "endpoints.upstream.created", upstream.id, 1, upstream)
        return upstream

    async def get_upstream(self, tx: Tx, name_or_id: str) -> Upstream:
        """Return a living upstream by name or id; raise ``not_found``."""
        upstream = await store.find_upstream(tx, name_or_id)
        if upstream is None or upstream.deleted_at_us is not None:
            raise PilotageError(
                "not_found",
                f"There is no upstream {name_or_id!r}.",
                hint="List them: pilotage upstreams list",
                param="upstream",
            )
        return upstream

    async def hold_upstream(self, tx: Tx, name_or_id: str, *, to_change: bool = False) -> Upstream:
        """Return a living upstream as it stays until this transaction ends."""
        found = await self.get_upstream(tx, name_or_id)
        await store.hold_upstreams(tx, [found.id], to_change=to_change)
        return await self.get_upstream(tx, found.id)

    async def list_upstreams(
        self, tx: Tx, after: str = "", limit: int = EVERYTHING
    ) -> Sequence[Upstream]:
        """Return living upstreams by name."""
        return await store.list_upstreams(tx, after, limit)

    async def replace_upstream(
        self, tx: Tx, name_or_id: str, spec: UpstreamSpec, expected_rev: int | None = None
    ) -> Upstream:
        """Replace what is said of an upstream; its name stays."""
        upstream = await self.hold_upstream(tx, name_or_id, to_change=True)
        if expected_rev is not None and expected_rev != upstream.rev:
            raise _changed(upstream)
        after, before = _values(check_upstream(spec)), _values(upstream)
        if after == before:
            return upstream
        await self._traffic.check_upstream(tx, upstream, UpstreamSpec(**after))
        if not await store.replace_upstream(tx, upstream, UpstreamSpec(**after)):
            raise _changed(upstream)
        await append_revision(
            tx, "endpoints.upstream.changed", upstream.id, upstream.rev + 1, after, before
        )
        if await store.list_deployments_of(tx, upstream.id):
            await self._governance.record_change(
                tx,
                kind=DecisionKind.UPSTREAM,
                subject_id=upstream.id,
                subject=upstream.name,
                before=before,
                after=after,
            )
        return await self.get_upstream(tx, upstream.id)

    async def delete_upstream(self, tx: Tx, name_or_id: str) -> None:
        """Delete an upstream; refused while a model of it is deployed."""
        upstream = await self.hold_upstream(tx, name_or_id, to_change=True)
        deployed = await store.list_deployments_of(tx, upstream.id)
        if deployed:
            raise PilotageError(
                "conflict",
                f"{deployed[0].model} is deployed.",
                hint="Undeploy the upstream's models first: pilotage endpoints undeploy",
            )
        if not await store.mark_upstream_deleted(tx, upstream, f"{upstream.name}~{upstream.id}"):
            raise _changed(upstream)
        await append_revision(
            tx,
            "endpoints.upstream.deleted",
            upstream.id,
            upstream.rev + 1,
            {"id": upstream.id, "name": upstream.name},
            upstream,
        )


def _values(spec: UpstreamSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in UpstreamSpec.__dataclass_fields__}


def _changed(upstream: Upstream) -> PilotageError:
    return PilotageError(
        "precondition_failed",
        f"Upstream {upstream.name!r} has changed meanwhile.",
        hint="Read it again and decide anew.",
    )
