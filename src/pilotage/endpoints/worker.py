"""Keeps the fleet told which replicas shall run, and notes which do."""

from pathlib import Path

from pilotage.endpoints import store
from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.replicas import ReplicaWatch
from pilotage.endpoints.rules import compile_replicas
from pilotage.kit.blobs_file import FileBlobs
from pilotage.kit.config import EngineSettings
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.worker import Wakeup, Worker


class FleetKeeper:
    """Load the deployments, decide what shall run, tell the fleet if that has changed."""

    def __init__(
        self,
        db: Database,
        blobs: FileBlobs,
        fleet: Fleet,
        settings: EngineSettings,
        cores: int,
        *,
        watch: ReplicaWatch,
    ) -> None:
        self._db = db
        self._watch = watch
        self._blobs = blobs
        self._fleet = fleet
        self._settings = settings
        self._threads = settings.threads or max(1, cores - 1)
        self._told: object = None

    async def step(self) -> bool:
        """Bring the fleet's orders up to date; never more to do at once."""
        async with self._db.read(SYSTEM) as tx:
            found = await store.list_deployments(tx)
            deployments = [item for item in found if not item.upstream_id]
            names = {
                endpoint.id: endpoint.name
                for endpoint in await store.list_endpoints(tx, "", 1_000_000)
            }
        await self._watch.look(deployments, names)
        paths: dict[str, Path | None] = {
            d.artifact_sha256: self._blobs.find(d.artifact_sha256) for d in deployments
        }
        desired = compile_replicas(
            deployments,
            {sha256: str(path) for sha256, path in paths.items() if path},
            names,
            threads=self._threads,
            slots=self._settings.slots,
            context_tokens=self._settings.context_tokens,
        )
        if desired != self._told:
            await self._fleet.set_desired(desired)
            self._told = desired
        return False

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the loop that keeps the fleet told."""
        return Worker("endpoints", self.step, wakeup)
