"""The verbs of scaling: how many replicas deployments have, and what is seen of them.

Nothing here moves traffic, so neither the calendar nor approvals stand in the way: more replicas
are what one wants at once while something burns. Never commits.
"""

from collections.abc import Mapping, Sequence

from pilotage.core.errors import PilotageError
from pilotage.endpoints import store
from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.rules import ASLEEP, describe_state, is_named, pick_status
from pilotage.endpoints.scaling_rules import check_scaling
from pilotage.endpoints.types import (
    LONGEST_AWAKE_US,
    Deployment,
    Endpoint,
    Load,
    ReplicaStatus,
    Scaling,
)
from pilotage.kit.db import Tx
from pilotage.kit.outbox import append_revision


class ScalingService:
    """Sets how many replicas there shall be, and says how many there are."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def get(self, tx: Tx, endpoint: Endpoint, name: str) -> Deployment:
        """Return a deployment that has replicas; raise ``not_found``, ``conflict`` for others."""
        deployment = await self._find(tx, endpoint, name)
        if deployment.upstream_id:
            raise PilotageError(
                "conflict",
                f"{deployment.model} is a model of an upstream: it has no replicas here.",
                hint="Scale a version of the registry, or change the upstream's limits.",
            )
        return deployment

    async def scale(
        self,
        tx: Tx,
        endpoint: Endpoint,
        deployment_name: str,
        scaling: Scaling,
        expected_rev: int | None = None,
    ) -> Deployment:
        """Replace the scaling of a deployment; replicas that shall be others are replaced."""
        deployment = await self.get(tx, endpoint, deployment_name)
        if expected_rev is not None and expected_rev != deployment.rev:
            raise PilotageError(
                "precondition_failed",
                f"{deployment.model} is at revision {deployment.rev}, not {expected_rev}.",
                hint="Read it again and decide anew.",
            )
        if check_scaling(scaling) == deployment.scaling:
            return deployment
        await self._change(tx, deployment, scaling=scaling)
        return await self.get(tx, endpoint, deployment.id)

    async def keep_awake(
        self, tx: Tx, endpoint: Endpoint, deployment_name: str, until_us: int
    ) -> Deployment:
        """Wake a deployment up and let it not fall asleep before a time; never takes time away.

        One that never sleeps stays as it is.
        """
        deployment = await self._find(tx, endpoint, deployment_name)
        until_us = min(until_us, tx.now_us + LONGEST_AWAKE_US)
        if until_us <= deployment.awake_until_us or not deployment.can_wake:
            return deployment
        await self._change(tx, deployment, awake_until_us=until_us)
        return await self.get(tx, endpoint, deployment.id)

    def list_replicas(self) -> Sequence[ReplicaStatus]:
        """Return what was last seen of every replica."""
        return self._fleet.list_statuses()

    def list_loads(self) -> Mapping[str, Load]:
        """Return what was last asked, by deployment."""
        return {load.deployment_id: load for load in self._fleet.list_loads()}

    def is_asleep(self, deployment: Deployment) -> bool:
        """Say whether a deployment has no replica because nobody calls: it wakes when they do."""
        seen = [item for item in self.list_replicas() if deployment.id in item.serves]
        return describe_state(deployment, seen, self.list_loads().get(deployment.id)) == ASLEEP

    def find_status(self) -> Mapping[str, ReplicaStatus]:
        """Return the replica that tells most of each deployment: one that is ready, if any is."""
        by_deployment: dict[str, list[ReplicaStatus]] = {}
        for status in self._fleet.list_statuses():
            for deployment_id in status.serves:
                by_deployment.setdefault(deployment_id, []).append(status)
        return {key: pick_status(found) for key, found in by_deployment.items()}

    async def _find(self, tx: Tx, endpoint: Endpoint, name: str) -> Deployment:
        for deployment in await store.list_deployments(tx, endpoint.id):
            if is_named(deployment, name):
                return deployment
        raise PilotageError("not_found", f"{endpoint.name!r} has no deployment {name!r}.")

    async def _change(self, tx: Tx, deployment: Deployment, **values: object) -> None:
        if not await store.change_deployment(tx, deployment, **values):
            raise PilotageError("precondition_failed", f"{deployment.model} has changed meanwhile.")
        before = {name: getattr(deployment, name) for name in values}
        await append_revision(
            tx, "endpoints.deployment.scaled", deployment.id, deployment.rev + 1, values, before
        )
