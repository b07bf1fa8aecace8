"""The loops of notices: one decides what is to be told, one lane for each channel delivers it.

A lane of its own for each channel, so that one that hangs holds up nobody else; within a lane one
notice after the other, so that nobody hears that an alert is over before hearing of it.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.egress import EgressPolicy
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.notify.backends.email import EmailNotifier
from pilotage.monitoring.notify.backends.http_post import HttpPost
from pilotage.monitoring.notify.backends.log import LogNotifier
from pilotage.monitoring.notify.backends.pagerduty import PagerDutyNotifier
from pilotage.monitoring.notify.backends.secrets import SecretReader
from pilotage.monitoring.notify.backends.slack import SlackNotifier
from pilotage.monitoring.notify.backends.webhook import WebhookNotifier
from pilotage.monitoring.notify.ports import Notifier
from pilotage.monitoring.notify.rules import plan_notices
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.types import (
    LOG_CHANNEL,
    Channel,
    ChannelKind,
    ChannelSpec,
    Notice,
    NoticeState,
)

LIMIT_S = 10.0  # of one attempt, from the look-up of the name to the end of the reply
LOOK_EVERY_S = 0.5
FORGET_EVERY_S = 3600.0
LARGEST_SHARE = 0.2  # of the time that deciding for a project may take: thousands may fire at once
_BUILT_IN_LOG = ChannelSpec(kind=ChannelKind.LOG)
_LOG = logging.getLogger("pilotage.notices")


def make_notifiers(
    egress: EgressPolicy, clock: Clock, data_folder: Path
) -> dict[ChannelKind, Notifier]:
    """Return the ways to speak to each kind of channel."""
    secrets = SecretReader(data_folder)
    post = HttpPost(egress, clock, secrets)
    return {
        ChannelKind.LOG: LogNotifier(),
        ChannelKind.WEBHOOK: WebhookNotifier(post, clock, secrets),
        ChannelKind.SLACK: SlackNotifier(post),
        ChannelKind.PAGERDUTY: PagerDutyNotifier(post, secrets),
        ChannelKind.EMAIL: EmailNotifier(egress, secrets),
    }


class Sender:
    """Sends one notice to its channel, within a time limit."""

    def __init__(self, notifiers: Mapping[ChannelKind, Notifier], limit_s: float = LIMIT_S) -> None:
        self._notifiers = notifiers
        self.limit_s = limit_s

    async def send(self, spec: ChannelSpec, notice: Notice) -> tuple[str, ...]:
        """Send a notice; return the recipients that do not have it yet. Raise PilotageError."""
        try:
            async with asyncio.timeout(self.limit_s):
                return tuple(await self._notifiers[spec.kind].send(spec, notice))
        except TimeoutError:
            raise PilotageError(
                "unavailable", f"There was no answer within {self.limit_s:g} s."
            ) from None


class NoticeTeller:
    """Decides what is to be told, in every project that has alerts; rings when there is any."""

    def __init__(
        self, db: Database, service: NotifyService, clock: Clock, bell: Wakeup | None = None
    ) -> None:
        self._db = db
        self._service = service
        self._clock = clock
        self._bell = bell or Wakeup()
        self._rests_until_s: dict[str, float] = {}
        self._forgot_s: float | None = None

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the worker that does so."""
        return Worker("notices", self.step, wakeup, LOOK_EVERY_S)

    async def step(self) -> bool:
        """Tell what is due."""
        await self._forget()
        async with self._db.read(SYSTEM) as tx:
            projects = await self._service.list_busy_projects(tx)
        rests = self._rests_until_s
        self._rests_until_s = {name: rests[name] for name in projects if name in rests}
        for project_id in projects:
            began_s = self._clock.monotonic_s()
            if began_s >= self._rests_until_s.get(project_id, began_s):
                await self._tell(project_id)
                took_s = self._clock.monotonic_s() - began_s
                self._rests_until_s[project_id] = began_s + took_s / LARGEST_SHARE
        return False

    async def _tell(self, project_id: str) -> None:
        actor = replace(SYSTEM, project_id=project_id)
        async with self._db.read(actor) as tx:
            plan = plan_notices(await self._service.find_world(tx), tx.now_us)
        if plan.steps or plan.over:
            async with self._db.write(actor) as tx:
                written = await self._service.tell(tx)
            if written:
                self._bell.ring()

    async def _forget(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._forgot_s is None or now_s >= self._forgot_s + FORGET_EVERY_S:
            self._forgot_s = now_s
            async with self._db.write(SYSTEM) as tx:
                await self._service.forget_ended(tx)


class NoticeDelivery:
    """Delivers the notices that wait, each channel in a lane of its own.

    ``lease_s`` is how long after a claim nobody else tries: longer than an attempt may take.
    """

    def __init__(
        self,
        db: Database,
        service: NotifyService,
        sender: Sender,
        background: Background,
        lease_s: float | None = None,
    ) -> None:
        self._db = db
        self._service = service
        self._sender = sender
        self._background = background
        self._lease_us = round((2 * sender.limit_s if lease_s is None else lease_s) * 1e6)
        self._lanes: dict[str, tuple[asyncio.Task[None], Wakeup]] = {}

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the worker that opens and closes the lanes."""
        return Worker("notice lanes", self.step, wakeup, LOOK_EVERY_S)

    async def step(self) -> bool:
        """Open a lane for each channel that something waits for, and close the others."""
        async with self._db.read(SYSTEM) as tx:
            wanted = set(await self._service.list_waiting_channels(tx))
        for channel_id in wanted - set(self._lanes):
            bell = Wakeup()
            lane = Worker("notice lane", partial(self.deliver_next, channel_id), bell, LOOK_EVERY_S)
            task = self._background.start(lane.run(), f"notices of {channel_id}")
            self._lanes[channel_id] = task, bell
        for channel_id in set(self._lanes) - wanted:
            self._lanes.pop(channel_id)[0].cancel()
        for _, bell in self._lanes.values():
            bell.ring()
        return False

    async def deliver_next(self, channel_id: str) -> bool:
        """Try the next notice of a channel; return whether there was one."""
        async with self._db.read(SYSTEM) as tx:
            if await self._service.find_next(tx, channel_id) is None:
                return False
        async with self._db.write(SYSTEM) as tx:
            found = await self._service.find_next(tx, channel_id)
            if found is None:
                return False
            spec = await self._find_spec(found, await self._service.channels.find(tx, channel_id))
            if spec is None:
                await self._service.drop(tx, found, "The channel was deleted.")
                return True
            notice = await self._service.claim(tx, found, self._lease_us)
        await self._try(spec, notice)
        return True

    async def _find_spec(self, notice: Notice, channel: Channel | None) -> ChannelSpec | None:
        if channel is not None:
            return channel.spec
        return _BUILT_IN_LOG if notice.channel_id == LOG_CHANNEL else None

    async def _try(self, spec: ChannelSpec, notice: Notice) -> None:
        try:
            remaining = await self._sender.send(spec, notice)
        except PilotageError as failed:
            await self._record_failure(notice, failed, notice.remaining)
            return
        if remaining:
            refused = f"These recipients were refused: {', '.join(remaining)}"
            await self._record_failure(notice, PilotageError("unavailable", refused), remaining)
            return
        async with self._db.write(SYSTEM) as tx:
            await self._service.record_delivery(tx, notice)

    async def _record_failure(
        self, notice: Notice, failed: PilotageError, remaining: tuple[str, ...]
    ) -> None:
        asked_us = None if failed.retry_after_s is None else round(failed.retry_after_s * 1e6)
        async with self._db.write(SYSTEM) as tx:
            state = await self._service.record_failure(
                tx, notice, failed.detail, asked_us=asked_us, remaining=remaining
            )
        if state == NoticeState.FAILED:
            _LOG.error("%s is given up for %s: %s", notice.id, notice.channel, failed.detail)
        elif notice.attempts == 1:
            _LOG.warning(
                "%s waits for %s, and is tried again: %s", notice.id, notice.channel, failed.detail
            )
