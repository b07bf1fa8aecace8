"""A project whose alerts are told at a webhook, on a database, step by step."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import stores
from channel_files import make_sender, put_file
from hook_server import HookServer
from notified import make_alert
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Actor, Database
from pilotage.kit.resources import Background
from pilotage.monitoring.alerts.types import AlertChange
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.types import (
    ChannelKind,
    ChannelSpec,
    Notice,
    NoticeState,
    RouteSpec,
)
from pilotage.monitoring.notify.worker import NoticeDelivery, NoticeTeller

S = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A project whose alerts are told at a webhook."""

    db: Database
    clock: ManualClock
    service: NotifyService
    projects: stores.Projects
    hooks: HookServer
    background: Background
    folder: Path

    @property
    def mine(self) -> Actor:
        return self.projects.mine

    def make_delivery(self, limit_s: float = 5.0) -> NoticeDelivery:
        sender = make_sender(self.folder, self.clock, limit_s=limit_s)
        return NoticeDelivery(self.db, self.service, sender, self.background)

    async def make_channel(self, name: str = "hook", url: str = "") -> None:
        secret = put_file(self.folder, "signed with this", project_id=self.mine.project_id or "")
        spec = ChannelSpec(
            kind=ChannelKind.WEBHOOK, url=url or self.hooks.url, secret=f"file:{secret}"
        )
        async with self.db.write(self.mine) as tx:
            await self.service.channels.create(tx, name, spec)

    async def make_route(self, name: str = "all", *channels: str, **match: str) -> None:
        spec = RouteSpec(
            channels=channels or ("hook",), match=match, settle_us=0, interval_us=30 * S
        )
        async with self.db.write(self.mine) as tx:
            await self.service.routes.create(tx, name, spec)

    async def take(self, *changes: AlertChange) -> None:
        async with self.db.write(SYSTEM) as tx:
            for change in changes:
                await self.service.take(tx, change)

    async def fire(
        self, alert_id: str = "alt_1", rule: str = "slow", alias: str = "chat"
    ) -> AlertChange:
        """Let an alert fire, and tell of it; return it."""
        project_id = self.mine.project_id or ""
        now_us = self.clock.now_us()
        alert = make_alert(alert_id, rule, at_us=now_us, project_id=project_id, alias=alias)
        await self.take(alert)
        await self.tell()
        return alert

    async def tell(self) -> None:
        await NoticeTeller(self.db, self.service, self.clock).step()

    async def deliver(self, delivery: NoticeDelivery | None = None) -> int:
        """Deliver what is due, channel by channel; return how many attempts that took."""
        delivery = delivery or self.make_delivery()
        async with self.db.read(SYSTEM) as tx:
            channels = await self.service.list_waiting_channels(tx)
        attempts = 0
        for channel_id in channels:
            while await delivery.deliver_next(channel_id):
                attempts += 1
        return attempts

    async def list_notices(self, state: NoticeState | None = None) -> list[Notice]:
        async with self.db.read(self.mine) as tx:
            return list(await self.service.list_notices(tx, "", 100, state=state))

    async def list_states(self) -> list[NoticeState]:
        return [notice.state for notice in await self.list_notices()]


@asynccontextmanager
async def open_world(db: Database, clock: ManualClock, folder: Path) -> AsyncIterator[World]:
    """Open a project whose alerts are told at a webhook."""
    async with HookServer() as hooks, Background() as background:
        yield World(
            db=db,
            clock=clock,
            service=NotifyService(clock),
            projects=await stores.make_projects(db, clock),
            hooks=hooks,
            background=background,
            folder=folder,
        )
