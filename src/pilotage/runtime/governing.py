"""How governance is wired: what can be approved and scheduled, its routes, its worker."""

from pilotage.audit.service import AuditService
from pilotage.endpoints.scheduled import ScheduledSplit
from pilotage.endpoints.service import EndpointService
from pilotage.governance.bundling import Bundles
from pilotage.governance.calendar_http import calendar_raw_routes, calendar_routes
from pilotage.governance.decisions_http import decision_raw_routes, decision_routes
from pilotage.governance.http import approval_routes
from pilotage.governance.service import GovernanceService
from pilotage.governance.worker import ReleaseMaker
from pilotage.identity.service import IdentityService
from pilotage.kit.api import RawRoute, Route
from pilotage.kit.clock import Clock
from pilotage.kit.crypto import Signer
from pilotage.kit.db import Database
from pilotage.kit.worker import Wakeup, Worker
from pilotage.registry.promotions import Promotions
from pilotage.registry.promotions_http import promotion_routes
from pilotage.registry.scheduled import ScheduledPromotion
from pilotage.registry.service import RegistryService


class Governing:
    """Governance with everything that it is about."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        service: GovernanceService,
        identity: IdentityService,
        audit: AuditService,
        signer: Signer,
    ) -> None:
        self._db = db
        self._clock = clock
        self._service = service
        self._identity = identity
        self._bundles = Bundles(db, service.decisions, audit, signer)
        self._stage_routes: list[Route] = []

    def register(self, registry: RegistryService, endpoints: EndpointService) -> None:
        """Say what can be approved, and what can be planned ahead."""
        promotions = Promotions(
            self._clock, registry, self._service, endpoints.traffic.find_obstacle
        )
        calendar = self._service.calendar
        calendar.register("endpoints.traffic.split", ScheduledSplit(endpoints))
        calendar.register("registry.version.promote", ScheduledPromotion(registry, promotions))
        self._stage_routes = promotion_routes(promotions)

    def list_routes(self) -> list[Route]:
        """List the routes for people."""
        return [
            *self._stage_routes,
            *approval_routes(self._service.approvals),
            *calendar_routes(self._service.calendar),
            *decision_routes(self._service.decisions, self._identity),
        ]

    def list_raw_routes(self) -> list[RawRoute]:
        """List the routes of pages, bundles and calendars."""
        return [
            *calendar_raw_routes(self._service.calendar, self._identity),
            *decision_raw_routes(self._service.decisions, self._identity, self._bundles),
        ]

    def make_worker(self) -> Worker:
        """Return the worker that makes scheduled releases."""
        return ReleaseMaker(self._db, self._service, self._identity).make_worker(Wakeup())
