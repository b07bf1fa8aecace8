"""What the calls of this slot ask of replicas: summed up, and told to whoever runs these.

It is told at once when a call begins to wait, so that a sleeping deployment wakes up; else when
something has changed, and now and then so that nobody takes the slot for dead.
"""

import asyncio
import logging
from collections.abc import Collection

from msgspec.structs import replace

from pilotage.gateway.call import Call
from pilotage.gateway.demand import (
    TELL_AGAIN_S,
    TELL_EVERY_S,
    Demand,
    DemandFile,
    DeploymentDemand,
)
from pilotage.gateway.providers.replicas import Replicas
from pilotage.kit.clock import Clock

_LOG = logging.getLogger("pilotage.gateway")


class Needs:
    """Tells what ``calls``, the running ones, ask of replicas."""

    def __init__(
        self, file: DemandFile, calls: Collection[Call], replicas: Replicas, clock: Clock
    ) -> None:
        self._file = file
        self._calls = calls
        self._replicas = replicas
        self._clock = clock
        self._bell = asyncio.Event()
        self._told = Demand(at_us=0)
        self._told_s = -TELL_AGAIN_S
        self._is_failing = False
        replicas.on_wait = self._bell.set

    async def run(self) -> None:
        """Tell again and again until cancelled."""
        while True:
            self._bell.clear()
            await self.tell()
            try:
                async with asyncio.timeout(TELL_EVERY_S):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def tell(self) -> None:
        """Replace the file if there is something new, or nothing has been said for long."""
        now_s = self._clock.monotonic_s()
        demand = sum_up(self._calls, self._replicas, now_s)
        is_news = demand != replace(self._told, at_us=0)
        if not is_news and now_s - self._told_s < TELL_AGAIN_S:
            return
        said = replace(demand, at_us=self._clock.now_us())
        try:
            await asyncio.to_thread(self._file.write, said)
        except OSError as failed:  # a full disk: calls go on, and sleepers sleep on
            if not self._is_failing:
                _LOG.error("what calls ask of replicas cannot be told: %s", failed)
            self._is_failing = True
            return
        self._told, self._told_s, self._is_failing = said, now_s, False

    def close(self) -> None:
        """Take the file away: no call is left."""
        self._file.remove()


def sum_up(calls: Collection[Call], replicas: Replicas, now_s: float) -> Demand:
    """Return what calls ask of replicas now, without a time."""
    since = _find_oldest(calls, replicas)
    busy: dict[str, int] = {}
    at: dict[str, int] = {}
    there = [one for group in replicas.groups.values() for one in group.replicas]
    for replica in [*there, *replicas.list_leaving()]:
        if replica.busy:
            target = replica.target
            busy[target.deployment_id] = busy.get(target.deployment_id, 0) + replica.busy
            at[target.id] = at.get(target.id, 0) + replica.busy
    deployments = {}
    for name, group in replicas.groups.items():
        if group.calls or group.waiting:
            waited_s = now_s - since.get(name, now_s)
            deployments[name] = DeploymentDemand(
                in_flight=busy.get(name, 0),
                waiting=len(group.waiting),
                oldest_wait_ms=max(0, round(waited_s * 1e3)),
                calls=group.calls,
            )
    return Demand(at_us=0, targets_n=replicas.targets_n, deployments=deployments, replicas=at)


def _find_oldest(calls: Collection[Call], replicas: Replicas) -> dict[str, float]:
    """Return since when the oldest call of each deployment has been without content."""
    since: dict[str, float] = {}
    for name, group in replicas.groups.items():
        for call in group.waiting.values():
            since[name] = min(since.get(name, call.started_s), call.started_s)
    for call in calls:
        arm = call.arm
        if arm and not arm.upstream_id and call.request.stream and call.ttft_us < 0 < call.asked_s:
            since[arm.id] = min(since.get(arm.id, call.started_s), call.started_s)
    return since
