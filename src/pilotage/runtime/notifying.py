"""How notices are wired: who is told of alerts, their routes, their workers."""

from pilotage.identity.service import IdentityService
from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.notify.http import notify_routes
from pilotage.monitoring.notify.notices_http import notice_routes
from pilotage.monitoring.notify.sender import Sender, make_notifiers
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.worker import NoticeDelivery, NoticeTeller


class Notifying:
    """Notices with the channels that they take."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        db: Database,
        background: Background,
        identity: IdentityService,
    ) -> None:
        self._clock = clock
        self._db = db
        self._identity = identity
        self.service = NotifyService(clock)
        egress = EgressPolicy(settings.egress.allow, clock)
        notifiers = make_notifiers(settings.channels, egress, clock, self._name_project)
        self._sender = Sender(notifiers)
        self._bell = Wakeup()
        self._teller = NoticeTeller(db, self.service, clock, self._bell)
        self._delivery = NoticeDelivery(db, self.service, self._sender, background)

    async def _name_project(self, project_id: str) -> str:
        async with self._db.read(SYSTEM) as tx:
            return (await self._identity.get_project(tx, project_id)).name

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [
            *notify_routes(self.service, self._sender, self._clock),
            *notice_routes(self.service, self._name_project),
        ]

    def list_lanes(self) -> list[Worker]:
        """Return the workers of single projects and channels that there are now."""
        return [*self._teller.list_workers(), *self._delivery.list_workers()]

    def make_workers(self) -> list[Worker]:
        """Return the workers that decide what is told, and that deliver it."""
        return [
            self._teller.make_worker(Wakeup()),
            self._delivery.make_worker(self._bell),
        ]
