"""Keeps the fleet told of which deployments replicas shall run, and notes which do."""

import logging
from collections.abc import Mapping, Sequence

from pilotage.endpoints import store
from pilotage.endpoints.files import ModelFiles
from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.replicas import ReplicaWatch
from pilotage.endpoints.rules import compile_groups
from pilotage.endpoints.sharing_rules import find_spoilers, list_dedicated, share_replicas
from pilotage.endpoints.types import Deployment, Endpoint
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.engine_settings import EngineSettings
from pilotage.kit.worker import Wakeup, Worker

_LOG = logging.getLogger("pilotage.endpoints")


class FleetKeeper:
    """Load the deployments, decide what shall run, tell the fleet if that has changed."""

    def __init__(
        self,
        db: Database,
        files: ModelFiles,
        fleet: Fleet,
        settings: EngineSettings,
        cores: int,
        *,
        watch: ReplicaWatch,
    ) -> None:
        self._db = db
        self._watch = watch
        self._files = files
        self._fleet = fleet
        self._settings = settings
        self._threads = settings.threads or max(1, cores - 1)
        self._told: Sequence[ReplicaGroup] | None = None
        self._apart: set[str] = set()  # until they are gone, or this process is

    async def step(self) -> bool:
        """Bring the fleet's orders up to date; never more to do at once."""
        async with self._db.read(SYSTEM) as tx:
            found = await store.list_deployments(tx)
            deployments = [item for item in found if not item.upstream_id]
            endpoints = await store.list_endpoints(tx, "", 1_000_000)
            paths = await self._files.find(tx, deployments)
        names = {endpoint.id: endpoint.name for endpoint in endpoints}
        await self._watch.look(deployments, names)
        groups = compile_groups(
            deployments,
            paths,
            names,
            threads=self._threads,
            slots=self._settings.slots,
            context_tokens=self._settings.context_tokens,
        )
        desired = self._share(groups, {item.id: item for item in deployments}, endpoints)
        if desired != self._told:
            await self._fleet.set_desired(desired)
            self._told = desired
        return False

    def _share(
        self,
        groups: Sequence[ReplicaGroup],
        deployments: Mapping[str, Deployment],
        endpoints: Sequence[Endpoint],
    ) -> list[ReplicaGroup]:
        dedicated = list_dedicated(endpoints)
        self._apart &= deployments.keys()
        shared = share_replicas(groups, deployments, dedicated, self._apart)
        spoilers = find_spoilers(shared, deployments, self._fleet.list_statuses())
        if not spoilers:
            return shared
        self._apart |= spoilers
        _LOG.warning("replicas that crash are tried without %s", ", ".join(sorted(spoilers)))
        return share_replicas(groups, deployments, dedicated, self._apart)

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the loop that keeps the fleet told."""
        return Worker("endpoints", self.step, wakeup)
