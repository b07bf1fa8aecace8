"""The replicas that are ready, kept in step with the Targets file, and which of them takes a call.

Calls that begin alike go to the same replica, which has read that beginning before, as long as it
is not much busier than the others. Where a deployment sleeps, calls wait here for it to wake up.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call
from pilotage.gateway.providers.replica import Engine, Group, Replica
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.targets import ReplicaTarget, Targets
from pilotage.gateway.transport.upstream import Limits, Pool
from pilotage.kit.clock import Clock

MOST_WAITING = 256  # calls that wait for one deployment
MOST_WAITING_BYTES = 256 << 20  # of the bodies of all calls that wait
AHEAD = 2  # calls that a replica may have more than the least busy one, for what it has read before
_PREFIX_BYTES = 1024
_PROMPT = re.compile(rb'"(?:system|instructions|messages|input|prompt)"\s*:')


class Replicas:
    """All replicas, by deployment; ``on_wait`` is called when a call begins to wait for one.

    ``targets_n`` is the Targets file they follow; 0: nobody runs any here.
    """

    def __init__(self, limits: Limits, breakers: Breakers, clock: Clock) -> None:
        self.groups: dict[str, Group] = {}
        self.targets_n = 0
        self.on_wait: Callable[[], None] = lambda: None
        self._limits = limits
        self._breakers = breakers
        self._clock = clock
        self._leaving: list[Replica] = []  # not in the Targets any more, and calls are there still
        self._engines: dict[tuple[str, int, str], Engine] = {}
        self._can_wake: frozenset[str] | None = frozenset()
        self._waiting_bytes = 0

    def apply(self, targets: Targets) -> None:
        """Add what is new and drop what is gone; calls that run on a dropped replica go on."""
        known = {r.target: r for group in self.groups.values() for r in group.replicas}
        for group in self.groups.values():
            group.replicas = []
        for target in targets.replicas:
            group = self._find_group(target.deployment_id)
            replica = known.pop(target) if target in known else self._open(target, group)
            group.replicas.append(replica)
        for gone in known.values():
            self._retire(gone)
        self._leaving = [replica for replica in self.list_leaving() if replica.busy]
        self._leaving += [replica for replica in known.values() if replica.busy]
        self._can_wake = None if targets.can_wake is None else frozenset(targets.can_wake)
        self.targets_n = targets.n
        for name, group in list(self.groups.items()):
            if group.replicas:
                group.let_in()
            elif not self._is_expected(name):
                group.release(len(group.waiting))
                del self.groups[name]

    def pick(self, arm: ArmEntry, call: Call) -> Replica | None:
        """Return the replica that takes a call of an arm, None if one has to be waited for.

        Raises ``no_replica`` where none is ready and none can be had.
        """
        group = self.groups.get(arm.id)
        if group is None or not group.replicas:
            if arm.can_wake and self._is_expected(arm.id):
                return None
            raise PilotageError("no_replica", retry_after_s=1.0)
        group.calls += 1
        able: Sequence[Replica] = group.replicas
        if self._breakers.troubled:
            able = [one for one in able if not self._breakers.is_resting(one.id)]
        replicas = able or group.replicas
        replica = replicas[0] if len(replicas) == 1 else _choose(replicas, call)
        if able and replica.is_cold:  # one that rests will not be asked
            replica.flag(call)
        return replica

    async def wait(self, arm: ArmEntry, call: Call) -> Replica:
        """Return the replica that takes a call as soon as one is ready.

        Raises ``no_replica`` where none can be had, too many wait already, or none has room before
        an attempt has to have an answer; ``upstream_cold`` where none is ready by then.
        """
        began_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(call.first_byte_timeout_s) as limit:
                while True:
                    await self._wait(self._find_group(arm.id), call)
                    replica = self.pick(arm, call)
                    if replica is not None:
                        return replica
        except TimeoutError:
            if not limit.expired():
                raise
            is_awake = bool(self._find_group(arm.id).replicas)
            code, why = (
                ("no_replica", "had no room") if is_awake else ("upstream_cold", "did not wake up")
            )
            raise PilotageError(code, f"{arm.model} {why} in time.", retry_after_s=1.0) from None
        finally:
            waited_s = self._clock.monotonic_s() - began_s
            call.waited_s += waited_s
            call.queue_us = max(call.queue_us, 0) + round(waited_s * 1e6)

    def is_cold(self, deployment_id: str) -> bool:
        """Say whether a deployment has a cold replica, or none at all: what it takes says little.

        Whoever compares deployments asks this of all of them before a call is dealt to one.
        """
        group = self.groups.get(deployment_id)
        if group is None or not group.replicas:
            return True
        return any(replica.is_cold for replica in group.replicas)

    def list_leaving(self) -> Sequence[Replica]:
        """Return the replicas that have calls but take no new ones."""
        return self._leaving

    def list_pools(self) -> list[Pool]:
        """Return the connections of every replica."""
        return [engine.pool for engine in self._engines.values()]

    def close(self) -> None:
        """Close every connection."""
        for pool in self.list_pools():
            pool.close()
        self.groups, self._engines = {}, {}

    def _find_group(self, deployment_id: str) -> Group:
        return self.groups.setdefault(deployment_id, Group())

    def _open(self, target: ReplicaTarget, group: Group) -> Replica:
        place = _find_place(target)
        engine = self._engines.get(place)
        if engine is None:
            engine = self._engines[place] = Engine(target, self._limits)
        return Replica(target, group, engine, self._clock)

    def _retire(self, gone: Replica) -> None:
        gone.retire()
        if not gone.engine.sharers:
            del self._engines[_find_place(gone.target)]
        self._breakers.forget(gone.id)

    def _is_expected(self, deployment_id: str) -> bool:
        return self._can_wake is None or deployment_id in self._can_wake

    async def _wait(self, group: Group, call: Call) -> None:
        """Wait until a call may go on, or there is news of its deployment."""
        held_bytes = self._waiting_bytes + len(call.body)
        is_full = held_bytes > MOST_WAITING_BYTES and self._waiting_bytes > 0
        if is_full or len(group.waiting) >= MOST_WAITING:
            raise PilotageError(
                "no_replica", "Many calls wait for the model to wake up.", retry_after_s=2.0
            )
        waiting = asyncio.get_running_loop().create_future()
        group.waiting[waiting] = call
        self._waiting_bytes = held_bytes
        self.on_wait()
        try:
            await waiting
        except asyncio.CancelledError:
            if not waiting.cancelled():
                group.release(1)  # in the place of this one
            raise
        finally:
            del group.waiting[waiting]
            self._waiting_bytes -= len(call.body)


def _find_place(target: ReplicaTarget) -> tuple[str, int, str]:
    return target.host, target.port, target.key


def _choose(replicas: Sequence[Replica], call: Call) -> Replica:
    """Return the replica that the beginning of a prompt prefers (rendezvous hashing).

    Another one where that would have :data:`AHEAD` calls more than the least busy one. Replicas
    that could not be reached a moment ago are left alone while there are others.
    """
    now_s = asyncio.get_running_loop().time()
    able = [one for one in replicas if one.pool.shunned_until_s <= now_s] or replicas
    found = _PROMPT.search(call.body)
    start = found.start() if found else 0
    key = blake2b(call.tenant.id.encode() + call.body[start : start + _PREFIX_BYTES]).digest()

    def prefer(replica: Replica) -> bytes:
        return blake2b(replica.target.id.encode(), key=key, digest_size=8).digest()

    least = min(one.engine.busy for one in able)
    preferred = max(able, key=prefer)
    if preferred.engine.busy < least + AHEAD:
        return preferred
    return max((one for one in able if one.engine.busy == least), key=prefer)
