"""How kept calls get to replays: taken from the spools, opened, and asked of deployments again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pilotage.audit.holds import HoldService
from pilotage.endpoints.service import EndpointService
from pilotage.gateway.arm_client import ArmClient, Question
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, duration_s
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Database, Tx
from pilotage.kit.operations import Operations
from pilotage.kit.secrets import Vault
from pilotage.kit.worker import Worker
from pilotage.registry.service import RegistryService
from pilotage.rollouts.replay.http import replay_routes
from pilotage.rollouts.replay.runner import ReplayRunner
from pilotage.rollouts.replay.service import ReplayService
from pilotage.rollouts.replay.types import Answer, Kept, Recorded
from pilotage.rollouts.samples.service import SampleService
from pilotage.rollouts.samples.worker import SampleReader, make_sample_worker
from pilotage.rollouts.shadows.http import comparison_routes
from pilotage.rollouts.shadows.service import ShadowService
from pilotage.rollouts.shadows.sink import ComparisonSink
from pilotage.runtime.in_process import open_plane_in_process

READY_WITHIN_S = 10.0
_SLOT = "replay"


class Replaying:
    """Samples and replays with everything that works on them."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        clock: Clock,
        db: Database,
        *,
        endpoints: EndpointService,
        registry: RegistryService,
        vault: Vault,
        holds: HoldService,
    ) -> None:
        keep_us = round(duration_s(settings.samples.keep) * 1e6)
        self.samples = SampleService(clock, vault, keep_us)
        self.service = ReplayService(clock, endpoints, registry)
        self.shadows = ShadowService()
        self.sink = ComparisonSink(self.shadows)
        answers = GatewayAnswers(settings, folder, clock)
        self._runner = ReplayRunner(db, self.service, KeptSamples(self.samples), answers)
        self._reader = SampleReader(
            db, folder.samples, self.samples, clock, holds.is_held, self.shadows.drop_old
        )

    def list_routes(self, operations: Operations) -> list[Route]:
        """List the routes of replays, samples and comparisons."""
        return [
            *replay_routes(self.service, self._runner, self.samples, operations),
            *comparison_routes(self.shadows),
        ]

    def make_worker(self) -> Worker:
        """Return the worker that takes samples."""
        return make_sample_worker(self._reader)

    async def close(self) -> None:
        """Close every file."""
        await self._reader.close()


class KeptSamples:
    """Samples, opened."""

    def __init__(self, samples: SampleService) -> None:
        self._samples = samples

    async def read(self, tx: Tx, alias: str, since_us: int, limit: int) -> Kept:
        """Return the newest calls of an endpoint, in the order of their ids."""
        found = await self._samples.list(tx, alias, since_us, limit)
        opened = await self._samples.open(tx, found)
        calls = [
            Recorded(id=one.id, tenant_id=one.tenant_id, texts=opened[one.id])
            for one in found
            if one.id in opened
        ]
        return Kept(calls, unopened=len(found) - len(calls))


class GatewayAnswers:
    """Asks through a data plane of this process, so that every answer is on record and priced.

    One replay at a time has it: the others wait.
    """

    def __init__(self, settings: Settings, folder: DataFolder, clock: Clock) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["ArmAsking"]:
        """Open a data plane for a while; raise ``not_ready`` if it has no Snapshot in time."""
        opened = open_plane_in_process(self._settings, self._folder, READY_WITHIN_S, _SLOT)
        async with self._one, opened as plane:
            yield ArmAsking(ArmClient(plane, self._clock))


class ArmAsking:
    """Asks single arms for replays."""

    def __init__(self, client: ArmClient) -> None:
        self._client = client

    def bound(
        self, project_id: str, tenant_id: str, alias: str, arm: str, body: dict[str, Any]
    ) -> int | None:
        """Return the most that a request may cost; None if the arm may not have it."""
        return self._client.bound(Question(project_id, tenant_id, alias, arm, body))

    async def ask(
        self, project_id: str, tenant_id: str, alias: str, arm: str, body: dict[str, Any]
    ) -> Answer:
        """Return what an arm answers."""
        told = await self._client.ask(Question(project_id, tenant_id, alias, arm, body))
        return Answer(
            text=told.text,
            is_refusal=told.is_refusal,
            code=told.code,
            cost_nano=told.cost_nano,
        )
