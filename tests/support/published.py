"""A control plane without doors, and the Snapshots that it publishes."""

from pathlib import Path
from typing import NamedTuple

from pilotage.endpoints.backends.local import AbsentFleet
from pilotage.endpoints.service import EndpointService
from pilotage.finops.service import FinopsService
from pilotage.gateway.snapshots import SnapshotReader, SnapshotView
from pilotage.governance.service import GovernanceService
from pilotage.identity.service import IdentityService, NewKey
from pilotage.identity.types import DEFAULT
from pilotage.kit.clock import ManualClock
from pilotage.kit.crypto import Signer, open_signer
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.outbox import get_last_seq
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault
from pilotage.publisher.folder import SnapshotFolder
from pilotage.publisher.service import PublisherService
from pilotage.registry.artifacts.types import Inspection
from pilotage.registry.prompts.service import PromptService
from pilotage.registry.service import RegistryService
from pilotage.runtime.judging import TenantBoxes

CONTEXT = 2048
DAY_US = 86_400_000_000


class Plane(NamedTuple):
    """A control plane without doors: its services, its Snapshots and who acts."""

    db: Database
    clock: ManualClock
    folder: Path
    signer: Signer
    identity: IdentityService
    registry: RegistryService
    finops: FinopsService
    endpoints: EndpointService
    actor: Actor

    def open_publisher(self) -> PublisherService:
        """Open a publisher as a process that starts does."""
        return PublisherService(
            db=self.db,
            clock=self.clock,
            identity=self.identity,
            finops=self.finops,
            endpoints=self.endpoints,
            prompts=PromptService(
                self.clock, GovernanceService(self.clock, IdentityService(self.clock))
            ),
            letterboxes=TenantBoxes(Vault(open_root_keys(self.folder.with_name("root.key")))),
            folder=SnapshotFolder(self.folder, self.signer),
            context_tokens=CONTEXT,
            max_age_us=DAY_US,
        )

    def read(self) -> SnapshotView:
        """Return the Snapshot as a gateway that starts reads and verifies it."""
        return SnapshotReader(self.folder, self.signer.public).load(None)

    async def create_key(self, tenant: str = DEFAULT, ttl_us: int | None = None) -> NewKey:
        async with self.db.write(self.actor) as tx:
            return await self.identity.create_key(tx, tenant, "key", ttl_us)

    async def revoke_key(self, key_id: str) -> None:
        async with self.db.write(self.actor) as tx:
            await self.identity.revoke_key(tx, key_id)

    async def create_tenant(self, name: str) -> str:
        async with self.db.write(self.actor) as tx:
            return (await self.identity.create_tenant(tx, name)).id

    async def delete_tenant(self, name: str) -> None:
        async with self.db.write(self.actor) as tx:
            await self.identity.delete_tenant(tx, name)

    async def set_price(self, subject: str, at_us: int | None = None, usd: str = "1") -> None:
        async with self.db.write(self.actor) as tx:
            await self.finops.set_price(tx, subject, usd, usd, valid_from_us=at_us)

    async def serve(self, endpoint: str, *versions: str) -> None:
        """Make an endpoint and deploy versions on it; the first takes the traffic."""
        async with self.db.write(self.actor) as tx:
            await self.endpoints.create_endpoint(tx, endpoint)
            for version in versions:
                await self.endpoints.deploy(tx, endpoint, version)

    async def last_seq(self) -> int:
        async with self.db.read(SYSTEM) as tx:
            return await get_last_seq(tx)


async def open_plane(database: Database, clock: ManualClock, folder: Path) -> Plane:
    """Make the control plane, with a model that has two versions; ``folder`` takes its files."""
    identity, registry = IdentityService(clock), RegistryService(clock)
    made = Plane(
        db=database,
        clock=clock,
        folder=folder / "snapshots",
        signer=open_signer(folder / "keys" / "snapshot.key"),
        identity=identity,
        registry=registry,
        finops=FinopsService(clock),
        endpoints=EndpointService(clock, identity, registry, AbsentFleet()),
        actor=SYSTEM,
    )
    async with database.write(SYSTEM) as tx:
        project = await made.identity.create_project(tx, DEFAULT)
    made = made._replace(actor=Actor(principal_id="usr_1", project_id=project.id))
    async with database.write(made.actor) as tx:
        await made.identity.create_tenant(tx, DEFAULT)
        await registry.create_model(tx, "tiny")
        info = Inspection(
            architecture="llama",
            name=None,
            parameters=1,
            quantization="F32",
            context_length=512,
            file_bytes=1,
            license=None,
            has_chat_template=True,
            tensor_count=1,
            metadata_count=1,
        )
        await registry.add_artifact(tx, "ab" * 32, 1, info)
        for version in ("1.0.0", "2.0.0"):
            await registry.create_version(tx, "tiny", version, "ab" * 32)
    return made
