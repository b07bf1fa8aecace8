"""How answers are judged: measures and feedback counted with the calls, references, the routes."""

import difflib
from collections.abc import Collection, Mapping

from pilotage.audit.holds import HoldService
from pilotage.core.errors import PilotageError
from pilotage.core.samples import SAMPLE
from pilotage.endpoints.service import EndpointService
from pilotage.finops.service import FinopsService
from pilotage.identity.service import IdentityService
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.db import Database, Tx
from pilotage.kit.secrets import Vault
from pilotage.kit.worker import Worker
from pilotage.monitoring.drift.http import drift_routes
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.worker import MeasureSink, make_reference_worker
from pilotage.monitoring.quality.http import quality_routes
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.types import COMMENT
from pilotage.monitoring.quality.worker import FeedbackSink, make_feedback_worker
from pilotage.monitoring.rollups.service import CallSink
from pilotage.publisher.types import Boxes


class TenantBoxes:
    """What gateways seal comments and samples with, tenant by tenant."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def find(self, tx: Tx, tenant_ids: Collection[str]) -> Mapping[str, Boxes]:
        """Return the letterboxes of those tenants that have a key."""
        found = await self._vault.find_keys(tx, tenant_ids)
        return {
            tenant_id: Boxes(keys.make_letterbox(COMMENT), keys.make_letterbox(SAMPLE))
            for tenant_id, keys in found.items()
        }

    async def make(self, tx: Tx, tenant_ids: Collection[str]) -> None:
        """Give keys to tenants that have none."""
        for tenant_id in sorted(tenant_ids):
            await self._vault.get_keys(tx, tenant_id)


class Judging:
    """Drift and quality with everything that works on them."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        finops: FinopsService,
        identity: IdentityService,
        endpoints: EndpointService,
        vault: Vault,
        holds: HoldService,
    ) -> None:
        self.drift = DriftService(clock)
        self.quality = QualityService(clock, finops=finops, drift=self.drift, vault=vault)
        self.letterboxes = TenantBoxes(vault)
        self._db = db
        self._holds = holds
        self._clock = clock
        self._identity = identity
        self._endpoints = endpoints

    def make_sinks(self) -> list[CallSink]:
        """Return what listens to the calls as they are counted."""
        return [MeasureSink(self.drift), FeedbackSink(self.quality)]

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [
            *drift_routes(self.drift, self._check_endpoint),
            *quality_routes(self.quality, self._identity, self._check_endpoint),
        ]

    def make_workers(self) -> list[Worker]:
        """Return the workers."""
        return [
            make_reference_worker(self._db, self.drift),
            make_feedback_worker(self._db, self.quality, self._clock, self._holds.is_held),
        ]

    async def _check_endpoint(self, tx: Tx, name: str) -> None:
        """Raise ``not_found`` if there is no such endpoint now."""
        names = [endpoint.name for endpoint in await self._endpoints.list_endpoints(tx)]
        if name in names:
            return
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise PilotageError(
            "not_found",
            f"There is no endpoint {name[:80]!r}, and nothing is known of one.",
            hint=f"{meant}List them: pilotage endpoints list",
            param="endpoint",
        )
