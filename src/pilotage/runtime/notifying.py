"""How notices are wired: who is told of alerts, their routes, their workers."""

from pilotage.kit.api import Route
from pilotage.kit.clock import Clock
from pilotage.kit.config import Settings
from pilotage.kit.data_folder import DataFolder
from pilotage.kit.db import Database
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.notify.http import notify_routes
from pilotage.monitoring.notify.notices_http import notice_routes
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.worker import (
    NoticeDelivery,
    NoticeTeller,
    Sender,
    make_notifiers,
)


class Notifying:
    """Notices with the channels that they take."""

    def __init__(
        self,
        settings: Settings,
        folder: DataFolder,
        clock: Clock,
        db: Database,
        background: Background,
    ) -> None:
        self._clock = clock
        self.service = NotifyService(clock)
        egress = EgressPolicy(settings.egress.allow, clock)
        self._sender = Sender(make_notifiers(egress, clock, folder.path))
        self._bell = Wakeup()
        self._teller = NoticeTeller(db, self.service, clock, self._bell)
        self._delivery = NoticeDelivery(db, self.service, self._sender, background)

    def list_routes(self) -> list[Route]:
        """List the routes."""
        return [
            *notify_routes(self.service, self._sender, self._clock),
            *notice_routes(self.service),
        ]

    def make_workers(self) -> list[Worker]:
        """Return the workers that decide what is told, and that deliver it."""
        return [
            self._teller.make_worker(Wakeup()),
            self._delivery.make_worker(self._bell),
        ]
