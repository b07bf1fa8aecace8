"""How numbers come about: who counts calls, who looks at replicas and their machine, the routes."""

import os
from collections.abc import Sequence
from pathlib import Path

from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.types import ReplicaState
from pilotage.identity.service import IdentityService
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Database, Tx
from pilotage.kit.machine import (
    Gpus,
    read_cpu_s,
    read_memory,
    read_process_cpu_s,
    read_process_memory,
)
from pilotage.kit.spool_consumer import SpoolHealth
from pilotage.kit.worker import Worker
from pilotage.monitoring.infrastructure.http import infrastructure_routes
from pilotage.monitoring.infrastructure.service import InfrastructureService
from pilotage.monitoring.infrastructure.types import GpuUse, MachineUse, ProcessUse, Replica
from pilotage.monitoring.infrastructure.worker import (
    InfrastructureSampler,
    make_infrastructure_worker,
)
from pilotage.monitoring.rollups.http import metric_routes
from pilotage.monitoring.rollups.service import CallSink, RollupService
from pilotage.monitoring.rollups.types import Keep
from pilotage.monitoring.rollups.worker import RollupReader, make_rollup_worker

_FOREVER_PAGE = 1_000_000


class Measuring:
    """Rollups and gauges with everything that works on them."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        clock: Clock,
        db: Database,
        *,
        endpoints: EndpointService,
        sinks: Sequence[CallSink] = (),
    ) -> None:
        kept = settings.metrics
        keep = Keep(
            minutes_us=round(duration_s(kept.keep_minutes) * 1e6),
            hours_us=round(duration_s(kept.keep_hours) * 1e6),
            days_us=round(duration_s(kept.keep_days) * 1e6),
        )
        self.rollups = RollupService(keep)
        self.infrastructure = InfrastructureService(keep)
        self._clock = clock
        self._endpoints = endpoints
        self._gpus: Gpus | None = None
        self._reader = RollupReader(db, folder.spool, self.rollups, clock, sinks=sinks)
        self._sampler = InfrastructureSampler(
            db, self.infrastructure, self._list_replicas, self._look
        )

    def read_until(self, spool: Path) -> int:
        """Return the last record of a spool that is needed no more."""
        return self._reader.read_until(spool)

    @property
    def health(self) -> SpoolHealth:
        """How the reading of spools goes."""
        return self._reader.health

    def is_current(self) -> bool:
        """Say whether every call that had ended at the last look is counted.

        Those of spools that have been held up for long are left out.
        """
        return self._reader.is_current

    def list_routes(self, identity: IdentityService) -> list[Route]:
        """List the routes of metrics."""
        return [
            *metric_routes(self.rollups, identity, self._clock),
            *infrastructure_routes(self.infrastructure, self._clock),
        ]

    def make_workers(self) -> list[Worker]:
        """Return the workers."""
        return [make_rollup_worker(self._reader), make_infrastructure_worker(self._sampler)]

    async def close(self) -> None:
        """Write what was read, and close every file."""
        await self._reader.close()
        await self._sampler.write()
        if self._gpus is not None:
            self._gpus.close()

    async def _list_replicas(self, tx: Tx) -> list[Replica]:
        endpoints = await self._endpoints.list_endpoints(tx, "", _FOREVER_PAGE)
        names = {endpoint.id: endpoint.name for endpoint in endpoints}
        deployments = {item.id: item for item in await self._endpoints.list_deployments(tx)}
        found = []
        for status in self._endpoints.scaling.list_replicas():
            served = next((deployments[one] for one in status.serves if one in deployments), None)
            if served is None or served.endpoint_id not in names:
                continue
            found.append(
                Replica(
                    project_id=served.project_id,
                    alias=names[served.endpoint_id],
                    version_id=served.version_id,
                    is_ready=status.state is ReplicaState.READY,
                    pid=status.pid,
                )
            )
        return found

    def _look(self, pids: Sequence[int]) -> MachineUse:
        if self._gpus is None:
            self._gpus = Gpus()
        memory = read_memory()
        processes = {}
        for pid in pids:
            cpu_s, memory_bytes = read_process_cpu_s(pid), read_process_memory(pid)
            if cpu_s is not None and memory_bytes is not None:
                processes[pid] = ProcessUse(cpu_s=cpu_s, memory_bytes=memory_bytes)
        return MachineUse(
            at_s=self._clock.monotonic_s(),
            cores=os.cpu_count() or 1,
            cpu_s=read_cpu_s(),
            memory_total_bytes=memory.total if memory else 0,
            memory_used_bytes=memory.used if memory else 0,
            processes=processes,
            gpus=tuple(
                GpuUse(
                    busy=gpu.busy,
                    used_bytes=gpu.used_bytes,
                    total_bytes=gpu.total_bytes,
                    pids=gpu.pids,
                )
                for gpu in self._gpus.read()
            ),
        )
