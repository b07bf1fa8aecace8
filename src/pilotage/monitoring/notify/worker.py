"""The loops of notices: one decides what is to be told, one lane for each channel delivers it.

A lane of its own for each channel, so that one that hangs holds up nobody else; within a lane one
notice after the other, so that nobody hears that an alert is over before hearing of it.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.resources import Background
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.notify.rules import plan_notices, say_absent
from pilotage.monitoring.notify.sender import Sender
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.types import (
    ChannelSpec,
    Notice,
    NoticeState,
)

LOOK_EVERY_S = 0.5
TIDY_EVERY_S = 60.0
LARGEST_SHARE = 0.2  # of the time that deciding for a project may take: thousands may fire at once
_LOG = logging.getLogger("pilotage.notices")


class NoticeTeller:
    """Decides what is to be told, in every project that has alerts; rings when there is any.

    Each project by a worker of its own: one that fails holds up no other.
    """

    def __init__(
        self, db: Database, service: NotifyService, clock: Clock, bell: Wakeup | None = None
    ) -> None:
        self._db = db
        self._service = service
        self._clock = clock
        self._bell = bell or Wakeup()
        self._projects: dict[str, Worker] = {}
        self._rests_until_s: dict[str, float] = {}
        self._tidied_s: float | None = None

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the worker that does so."""
        return Worker("notices", self.step, wakeup, LOOK_EVERY_S)

    def list_workers(self) -> list[Worker]:
        """Return the workers of projects that there are now."""
        return list(self._projects.values())

    async def step(self) -> bool:
        """Tell what is due."""
        await self._tidy()
        async with self._db.read(SYSTEM) as tx:
            busy = await self._service.list_busy_projects(tx)
        self._projects = {one: self._projects.get(one) or self._make_one(one) for one in busy}
        rests = self._rests_until_s
        self._rests_until_s = {one: rests[one] for one in busy if one in rests}
        for project_id, worker in self._projects.items():
            began_s = self._clock.monotonic_s()
            if began_s >= self._rests_until_s.get(project_id, began_s):
                await worker.try_step()
                ended_s = self._clock.monotonic_s()
                rest_s = max(worker.pause_s, (ended_s - began_s) / LARGEST_SHARE)
                self._rests_until_s[project_id] = began_s + rest_s
        return False

    def _make_one(self, project_id: str) -> Worker:
        return Worker(f"notices of {project_id}", partial(self._tell, project_id), Wakeup(), 0.0)

    async def _tell(self, project_id: str) -> bool:
        actor = replace(SYSTEM, project_id=project_id)
        async with self._db.read(actor) as tx:
            plan = plan_notices(await self._service.find_world(tx), tx.now_us)
        if plan.steps or plan.over:
            async with self._db.write(actor) as tx:
                written = await self._service.tell(tx)
            if written:
                self._bell.ring()
        return False

    async def _tidy(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._tidied_s is None or now_s >= self._tidied_s + TIDY_EVERY_S:
            self._tidied_s = now_s
            async with self._db.write(SYSTEM) as tx:
                given_up = await self._service.limit_waiting(tx)
                await self._service.forget_ended(tx)
            if given_up:
                _LOG.error("%d notices are given up: too many wait for their channels", given_up)


@dataclass(slots=True)
class _Lane:
    """Delivers what waits for one channel until it is told that nothing does."""

    worker: Worker
    bell: Wakeup
    is_wanted: bool = True


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
        self._lanes: dict[str, _Lane] = {}

    def make_worker(self, wakeup: Wakeup) -> Worker:
        """Return the worker that opens the lanes."""
        return Worker("notice lanes", self.step, wakeup, LOOK_EVERY_S)

    def list_workers(self) -> list[Worker]:
        """Return the workers of the lanes that are open now."""
        return [lane.worker for lane in self._lanes.values()]

    async def step(self) -> bool:
        """Open a lane for each channel that something waits for; the others end themselves."""
        async with self._db.read(SYSTEM) as tx:
            wanted = set(await self._service.list_waiting_channels(tx))
        for channel_id in wanted - set(self._lanes):
            deliver = partial(self.deliver_next, channel_id)
            name, bell = f"notices of {channel_id}", Wakeup()
            lane = _Lane(Worker(name, deliver, bell, LOOK_EVERY_S), bell)
            self._lanes[channel_id] = lane
            self._background.start(self._run(channel_id, lane), name)
        for channel_id, lane in self._lanes.items():
            lane.is_wanted = channel_id in wanted
            if not lane.worker.failures:
                lane.bell.ring()
        return False

    async def _run(self, channel_id: str, lane: _Lane) -> None:
        """Deliver; nobody but the lane itself ends it, so no attempt is cut short."""
        while True:
            if await lane.worker.try_step():
                await asyncio.sleep(0)
            elif lane.is_wanted:
                await lane.bell.wait(lane.worker.pause_s)
            else:
                break
        del self._lanes[channel_id]

    async def deliver_next(self, channel_id: str) -> bool:
        """Try the next notice of a channel; return whether there was one."""
        async with self._db.read(SYSTEM) as tx:
            if await self._service.find_next(tx, channel_id) is None:
                return False
        async with self._db.write(SYSTEM) as tx:
            found = await self._service.find_next(tx, channel_id)
            if found is None:
                return False
            spec = await self._service.find_channel(tx, found)
            if spec is None:
                await self._service.drop(tx, found, "The channel was deleted.")
                return True
            notice = await self._service.claim(tx, found, self._lease_us)
        await self._try(spec, notice)
        return True

    async def _try(self, spec: ChannelSpec, notice: Notice) -> None:
        try:
            arrival = await self._sender.send(spec, notice)
        except PilotageError as failed:
            async with self._db.write(SYSTEM) as tx:
                state = await self._service.record_failure(tx, notice, failed)
            problem = failed.detail
        else:
            async with self._db.write(SYSTEM) as tx:
                state = await self._service.record_arrival(tx, notice, arrival)
            problem = say_absent(arrival)
        _log(notice, state, problem)


def _log(notice: Notice, state: NoticeState, problem: str) -> None:
    if state == NoticeState.FAILED:
        _LOG.error("%s is given up for %s: %s", notice.id, notice.channel, problem)
    elif state == NoticeState.WAITING and notice.attempts == 1:
        _LOG.warning("%s waits for %s, and is tried again: %s", notice.id, notice.channel, problem)
    elif state == NoticeState.DELIVERED and problem:
        _LOG.warning("%s is delivered to %s, but: %s", notice.id, notice.channel, problem)
