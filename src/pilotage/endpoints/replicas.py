"""When replicas run: what the fleet says, handed to those who work out what it costs."""

from collections.abc import Mapping, Sequence

from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.rules import deployment_of
from pilotage.endpoints.types import Deployment, ReplicaState, ReplicaStatus
from pilotage.finops.costs.types import SeenReplica
from pilotage.finops.replicas.service import SEEN_EVERY_US, ReplicaCosts
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database

_RUNNING = frozenset({ReplicaState.STARTING, ReplicaState.READY, ReplicaState.STOPPING})


class ReplicaWatch:
    """Notes which replicas run whenever that changes, and now and then that they still do."""

    def __init__(self, db: Database, clock: Clock, fleet: Fleet, costs: ReplicaCosts) -> None:
        self._db = db
        self._clock = clock
        self._fleet = fleet
        self._costs = costs
        self._known: dict[str, SeenReplica] = {}  # a deployment that is gone still has a replica
        self._noted: list[SeenReplica] | None = None
        self._looked_us = 0
        self._noted_us = 0

    async def look(self, deployments: Sequence[Deployment], names: Mapping[str, str]) -> None:
        """Note what runs now; ``names`` is of endpoints, by id."""
        if not (self._fleet.is_present and self._fleet.has_reported):
            return  # others may run them, or nobody knows yet
        now_us = self._clock.now_us()
        by_id = {deployment.id: deployment for deployment in deployments}
        seen = []
        for status in self._fleet.list_statuses():
            if status.state in _RUNNING:
                found = self._identify(status, by_id, names)
                seen += [found] if found is not None else []
        self._known = {item.replica_id: item for item in seen}
        if seen != self._noted or now_us - self._noted_us >= SEEN_EVERY_US:
            async with self._db.write(SYSTEM) as tx:
                await self._costs.see(tx, seen, self._looked_us)
            self._noted, self._noted_us = seen, now_us
        self._looked_us = now_us

    def _identify(
        self,
        status: ReplicaStatus,
        deployments: Mapping[str, Deployment],
        names: Mapping[str, str],
    ) -> SeenReplica | None:
        deployment = deployments.get(deployment_of(status.replica_id))
        known = self._known.get(status.replica_id)
        if deployment is None:
            return known
        return SeenReplica(
            replica_id=status.replica_id,
            project_id=deployment.project_id,
            release=deployment.id,
            alias=names.get(deployment.endpoint_id, ""),
            version_id=deployment.version_id,
            model=deployment.model,
            pid=status.pid or (known.pid if known else 0),
            is_spot=status.is_spot,
        )
