"""An installation's control plane: every service, its routes and its workers, opened together."""

import asyncio
import logging
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pilotage.audit.open_log import OpenLog, open_log
from pilotage.core.errors import PilotageError
from pilotage.endpoints.files import ModelFiles
from pilotage.endpoints.http import endpoint_routes
from pilotage.endpoints.ports import Fleet
from pilotage.endpoints.service import EndpointService
from pilotage.endpoints.worker import FleetKeeper
from pilotage.finops.http import finops_routes
from pilotage.finops.limits import LimitService
from pilotage.finops.limits_http import limit_routes
from pilotage.finops.service import FinopsService
from pilotage.finops.users import Users
from pilotage.finops.users_http import user_routes
from pilotage.finops.worker import LedgerReader, make_ledger_worker
from pilotage.governance.service import GovernanceService
from pilotage.identity.http import identity_routes
from pilotage.identity.service import IdentityService
from pilotage.kit.acks import wait_served
from pilotage.kit.api import RawRoute, Route
from pilotage.kit.blobs_file import FileBlobs
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings, duration_s, resolve_secret
from pilotage.kit.crypto import Signer, open_signer
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import SYSTEM, Database, open_postgres, open_sqlite
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.fetch import JsonFetch
from pilotage.kit.idempotency import interrupt_keys
from pilotage.kit.operations import Operations
from pilotage.kit.operations_http import operation_routes
from pilotage.kit.resources import Background
from pilotage.kit.secrets import Vault
from pilotage.kit.spool_copy import SpoolCopies
from pilotage.kit.worker import Wakeup, Worker
from pilotage.migrations.run import prepare_schema
from pilotage.publisher.folder import SnapshotFolder
from pilotage.publisher.gateways_http import gateway_routes
from pilotage.publisher.http import publisher_routes
from pilotage.publisher.remote_http import remote_routes
from pilotage.publisher.remotes import RemoteGateways
from pilotage.publisher.seeds import LOOK_EVERY_S, SeedFile
from pilotage.publisher.service import PublisherService
from pilotage.publisher.worker import make_publisher
from pilotage.rollouts.measuring.service import MeasuringService
from pilotage.rollouts.measuring.sink import MeasuringSink
from pilotage.rollouts.past import CountedPast
from pilotage.rollouts.ports import Sources
from pilotage.runtime.alerting import Alerting
from pilotage.runtime.auditing import Auditing, open_audit_signer
from pilotage.runtime.backup.http import backup_routes
from pilotage.runtime.backup.service import Backups
from pilotage.runtime.costing import Costing
from pilotage.runtime.credentials import write_credentials
from pilotage.runtime.erasure import Erasure
from pilotage.runtime.exporting import Exporting
from pilotage.runtime.governing import Governing
from pilotage.runtime.judging import Judging
from pilotage.runtime.measuring import Measuring
from pilotage.runtime.notifying import Notifying
from pilotage.runtime.recording import Recording
from pilotage.runtime.registering import Registering
from pilotage.runtime.replaying import Replaying
from pilotage.runtime.rolling import Rolling
from pilotage.runtime.rotation import Rotation
from pilotage.runtime.secrets_http import erasure_routes, secret_routes
from pilotage.runtime.vault import label_plain_users, open_vault

VISIBLE_WITHIN_S = 2.0
SEEN_EVERY_S = 30.0  # until it is written when principals were last seen
_LOG = logging.getLogger("pilotage.runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A control plane that is open: what its doors need of it.

    ``wait_visible`` waits until every gateway slot serves a revision and returns the slots that do
    not in time. ``end_waits`` lets long polls go, so that a server can close. ``pages`` stand
    beside the API, not below its path.
    """

    db: Database
    identity: IdentityService
    routes: Sequence[Route]
    raw_routes: Sequence[RawRoute]
    wait_visible: Callable[[int], Awaitable[list[str]]]
    end_waits: Callable[[], Awaitable[None]]
    pages: Sequence[RawRoute] = ()


def open_snapshot_signer(folder: DataFolder) -> Signer:
    """Open (or make) the key that signs Snapshots."""
    return open_signer(folder.keys / "snapshot.key")


def open_database(settings: Settings, folder: DataFolder, clock: Clock) -> Database:
    """Open the database that the settings name."""
    if settings.database.url == "sqlite":
        return open_sqlite(folder.database, clock)
    password = resolve_secret(settings.database.password) if settings.database.password else ""
    return open_postgres(settings.database.url, password, clock)


@asynccontextmanager
async def open_installation(
    settings: Settings, folder: DataFolder, clock: Clock, fleet: Fleet
) -> AsyncIterator[Installation]:
    """Open the control plane of a data folder that this process holds, workers included."""
    async with AsyncExitStack() as stack:
        db = open_database(settings, folder, clock)
        stack.push_async_callback(db.close)
        await prepare_schema(db, settings, folder, clock)
        background = await stack.enter_async_context(Background())
        vault = await open_vault(db, settings, folder)
        log = await stack.enter_async_context(open_log(folder.audit, open_audit_signer(folder)))
        parts = _Parts(settings, folder, clock, fleet, db, background, log, vault)
        await _make_credentials(parts, folder)
        await parts.operations.recover()
        async with db.write(SYSTEM) as tx:
            await interrupt_keys(tx)
        await label_plain_users(db, parts.users)
        with suppress(PilotageError):  # the audit worker tries again, and says so
            await parts.audit.append_next()
        await parts.publisher.publish()
        for worker in parts.workers:
            background.start(worker.run(), worker.name)
        yield Installation(
            db=db,
            identity=parts.identity,
            routes=parts.routes,
            raw_routes=parts.raw_routes,
            wait_visible=parts.wait_visible,
            end_waits=parts.publisher.end_waits,
            pages=parts.exporting.list_pages(),
        )
        await parts.settle()


class _Parts:
    """The services of an installation and how they are wired."""

    def __init__(  # noqa: PLR0917 - whatever an installation is made of
        self,
        settings: Settings,
        folder: DataFolder,
        clock: Clock,
        fleet: Fleet,
        db: Database,
        background: Background,
        log: OpenLog,
        vault: Vault,
    ) -> None:
        signer = open_snapshot_signer(folder)
        blobs = FileBlobs(folder.blobs)
        blobs.drop_incomplete()
        self._folder = folder
        self.db = db
        self.vault = vault
        self.identity = IdentityService(
            clock, JsonFetch(EgressPolicy(settings.egress.allow, clock))
        )
        self.auditing = Auditing(settings, folder, clock, db, log)
        self.audit = self.auditing.service
        self.governance = GovernanceService(clock, self.identity)
        self.finops = FinopsService(clock)
        self.users = Users(vault)
        self.operations = Operations(db, clock, background)
        self.notifying = Notifying(settings, clock, db, background, self.identity)
        self.registering = Registering(db, clock, blobs, self.governance)
        self.registry = self.registering.service
        self.endpoints = EndpointService(
            clock,
            self.identity,
            self.registry,
            fleet,
            governance=self.governance,
            engines=tuple(settings.engines),
        )
        self.costing = self._make_costing(settings, clock, fleet)
        self.governing = Governing(
            db, clock, self.governance, self.identity, self.audit, open_audit_signer(folder)
        )
        self.governing.register(self.registry, self.endpoints)
        self.recording = Recording(
            settings, folder, clock, db, users=self.users, holds=self.auditing.holds
        )
        self._open_answers(settings, clock)
        self.erasure = self._make_erasure(settings)
        copies = SpoolCopies(folder.spool, settings.spool.segment_mb << 20)
        self.remotes = RemoteGateways(folder.run, copies, clock)
        self._open_measures(settings, clock)
        self.alerting = self._make_alerting(clock)
        self.exporting = self._make_exporting(settings, clock)
        self.publisher = self._make_publisher(settings, clock, signer)
        self.seeds = SeedFile(
            db, self.identity, self.finops, clock, spools=folder.spool, path=folder.seeds
        )
        self.routes = self._list_routes(clock, signer)
        self.raw_routes = self._list_raw_routes()
        self.ledger = self._make_ledger(settings, clock)
        self.workers = self._make_workers(settings, blobs, fleet)

    def _make_costing(self, settings: Settings, clock: Clock, fleet: Fleet) -> Costing:
        return Costing(
            self.db,
            clock,
            identity=self.identity,
            finops=self.finops,
            registry=self.registry,
            fleet=fleet,
            close_after_us=round(duration_s(settings.costs.close_after) * 1e6),
            is_level=lambda: self.ledger.is_level,
        )

    def _open_answers(self, settings: Settings, clock: Clock) -> None:
        """Open what looks at answers: drift and quality, samples and replays."""
        self.judging = Judging(
            self.db,
            clock,
            finops=self.finops,
            identity=self.identity,
            endpoints=self.endpoints,
            vault=self.vault,
            holds=self.auditing.holds,
        )
        self.replaying = Replaying(
            settings,
            self._folder,
            clock,
            self.db,
            endpoints=self.endpoints,
            registry=self.registry,
            vault=self.vault,
            holds=self.auditing.holds,
        )

    def _open_measures(self, settings: Settings, clock: Clock) -> None:
        """Open what counts calls, and the rollouts that are decided by it."""
        counts = MeasuringService()
        self.measuring = Measuring(
            settings,
            self._folder,
            clock,
            self.db,
            endpoints=self.endpoints,
            sinks=[
                self.recording.segments,
                *self.judging.make_sinks(),
                MeasuringSink(counts),
                self.replaying.sink,
            ],
        )
        self.rolling = Rolling(
            self.db,
            clock,
            governance=self.governance,
            registry=self.registry,
            endpoints=self.endpoints,
            sources=Sources(
                counts,
                self.replaying.shadows,
                CountedPast(self.measuring.rollups, self.costing.service, self.finops),
                self.remotes,
            ),
            holder=f"{platform.node()}:{self._folder.path.resolve()}",
        )

    def _make_exporting(self, settings: Settings, clock: Clock) -> Exporting:
        return Exporting(
            settings.telemetry,
            self._folder,
            clock,
            self.db,
            alerting=self.alerting,
            notices=self.notifying.service,
            finops=self.finops,
            list_workers=lambda: [*self.workers, *self.notifying.list_lanes()],
            list_readers=lambda: [
                ("ledger", self.ledger.health),
                ("rollups", self.measuring.health),
            ],
        )

    def _make_publisher(self, settings: Settings, clock: Clock, signer: Signer) -> PublisherService:
        return PublisherService(
            db=self.db,
            clock=clock,
            identity=self.identity,
            finops=self.finops,
            endpoints=self.endpoints,
            prompts=self.registering.prompts,
            letterboxes=self.judging.letterboxes,
            folder=SnapshotFolder(self._folder.snapshots, signer),
            context_tokens=settings.engine.context_tokens,
            max_age_us=round(duration_s(settings.snapshot.max_age) * 1e6),
        )

    def _list_routes(self, clock: Clock, signer: Signer) -> list[Route]:
        return [
            *identity_routes(self.identity, clock),
            *self.governing.list_routes(),
            *self.registering.list_routes(
                self.endpoints, self.operations, self._folder.gs, self._folder.path / "cache"
            ),
            *endpoint_routes(self.endpoints, self.operations),
            *self.rolling.list_routes(),
            *self.replaying.list_routes(self.operations),
            *finops_routes(self.finops, self.identity),
            *user_routes(self.users, self.identity),
            *self.costing.list_routes(),
            *limit_routes(LimitService(clock, self.identity, self.endpoints.get_endpoint)),
            *publisher_routes(self.publisher),
            *gateway_routes(self.identity, self.remotes, signer.public),
            *self.auditing.list_routes(),
            *self.recording.list_routes(self.identity),
            *self.measuring.list_routes(self.identity),
            *self.judging.list_routes(),
            *operation_routes(self.operations),
            *self._list_custody_routes(clock),
            *self.alerting.list_routes(),
            *self.exporting.list_routes(),
            *self.notifying.list_routes(),
        ]

    def _list_raw_routes(self) -> list[RawRoute]:
        return [
            *remote_routes(
                self.identity, self.publisher, self.remotes, self.seeds, self._folder.snapshots
            ),
            *self.governing.list_raw_routes(),
            *self.costing.list_raw_routes(),
        ]

    def _make_alerting(self, clock: Clock) -> Alerting:
        return Alerting(
            self.db,
            clock,
            identity=self.identity,
            registry=self.registry,
            rollups=self.measuring.rollups,
            infrastructure=self.measuring.infrastructure,
            costs=self.costing.service,
            budgets=self.costing.budgets,
            insights=self.costing.insights,
            drift=self.judging.drift,
            quality=self.judging.quality,
            notices=self.notifying.service,
            is_current=self.measuring.is_current,
        )

    def _make_ledger(self, settings: Settings, clock: Clock) -> LedgerReader:
        return LedgerReader(
            self.db,
            self._folder.spool,
            service=self.finops,
            users=self.users,
            clock=clock,
            retention_us=round(duration_s(settings.spool.retention) * 1e6),
            read_elsewhere=self._read_elsewhere,
        )

    def _read_elsewhere(self, spool: Path) -> int:
        """Return the last record of a spool that nobody but the ledger needs any more."""
        return min(self.auditing.sealed_until(spool), self.measuring.read_until(spool))

    def _make_erasure(self, settings: Settings) -> Erasure:
        return Erasure(
            settings,
            self._folder,
            identity=self.identity,
            users=self.users,
            quality=self.judging.quality,
            samples=self.replaying.samples,
            vault=self.vault,
            holds=self.auditing.holds,
        )

    async def wait_visible(self, seq: int) -> list[str]:
        """Wait until every gateway slot serves a revision; return those that do not within 2 s."""
        n = await self.publisher.wait_published(seq, VISIBLE_WITHIN_S)
        if n is None:
            return ["publisher"]
        here, apart = await asyncio.gather(
            wait_served(self._folder.spool, self._folder.run, n, VISIBLE_WITHIN_S),
            self.remotes.wait_served(n, VISIBLE_WITHIN_S),
        )
        return here + apart

    def _list_custody_routes(self, clock: Clock) -> list[Route]:
        """List the routes of backups, of keys at rest and of erasure."""
        backups = Backups(
            self.db,
            self._folder,
            clock,
            audit=self.audit,
            finops=self.finops,
            root_keys=self.vault.root.path,
            read_elsewhere=self._read_elsewhere,
        )
        rotation = Rotation(self.db, self.vault, self.users)
        return [
            *backup_routes(backups, self.operations, self.identity),
            *secret_routes(self.vault, rotation, self.operations, self.identity),
            *erasure_routes(self.erasure),
        ]

    async def settle(self) -> None:
        """Do what the workers would do next, once: nothing waits for the next start."""
        await self.publisher.publish()
        await self.auditing.settle()
        await self.ledger.close()
        await self.measuring.close()
        await self.recording.close()
        await self.replaying.close()
        self.remotes.close()

    async def _write_seen(self) -> bool:
        if self.identity.principals.has_seen:
            async with self.db.write(SYSTEM) as tx:
                await self.identity.principals.write_seen(tx)
        return False

    def _make_workers(self, settings: Settings, blobs: FileBlobs, fleet: Fleet) -> list[Worker]:
        bells = [Wakeup() for _ in range(4)]

        def ring(_: int) -> None:
            for bell in bells:
                bell.ring()

        self.db.on_commit.append(ring)
        keeper = FleetKeeper(
            self.db,
            ModelFiles(blobs, self.registry.artifacts, self._folder.run / "models"),
            fleet,
            settings.engine,
            os.cpu_count() or 1,
            watch=self.costing.watch,
        )
        return [
            make_publisher(self.publisher, bells[0]),
            *self.auditing.make_workers(bells[1]),
            keeper.make_worker(bells[2]),
            self.rolling.make_worker(bells[3]),
            make_ledger_worker(self.ledger, Wakeup()),
            self.costing.make_worker(),
            *self.measuring.make_workers(),
            *self.judging.make_workers(),
            self.recording.make_worker(),
            self.replaying.make_worker(),
            self.governing.make_worker(),
            self.registering.make_worker(),
            self.erasure.make_worker(),
            self.alerting.make_worker(),
            *self.exporting.make_workers(),
            *self.notifying.make_workers(),
            Worker("seeds", self.seeds.step, Wakeup(), LOOK_EVERY_S),
            Worker("sightings", self._write_seen, Wakeup(), SEEN_EVERY_S),
        ]


async def _make_credentials(parts: _Parts, folder: DataFolder) -> None:
    if folder.credentials.exists():
        return
    async with parts.db.write(SYSTEM) as tx:
        made = await parts.identity.bootstrap(tx)
        write_credentials(folder.credentials, admin=made.admin_credential, api_key=made.api_key)
