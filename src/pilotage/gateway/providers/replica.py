"""One replica of a deployment as the chain uses it, and the calls that wait for one."""

import asyncio
from itertools import islice

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.gateway.call import Call
from pilotage.gateway.providers.errors import translate_error
from pilotage.gateway.targets import ReplicaTarget
from pilotage.gateway.transport.upstream import Limits, Origin, Pool
from pilotage.kit.clock import Clock

COLD_S = 60.0  # a replica is cold for so long, and for so many calls
COLD_CALLS = 20
LONGEST_COLD_S = 600.0  # one that gets so few calls is as warm then as it will be


class Engine:
    """One process that answers: its connections, and its calls of all deployments that share it."""

    __slots__ = ("busy", "pool", "sharers")

    def __init__(self, target: ReplicaTarget, limits: Limits) -> None:
        self.pool = Pool(Origin(host=target.host, port=target.port), limits)
        self.busy = 0
        self.sharers = 0

    def close_if_left(self) -> None:
        """Close the connections if no call is there and none will come."""
        if not self.sharers and not self.busy:
            self.pool.close()


class Group:
    """The replicas of one deployment, the calls they were given, and those that wait for one."""

    __slots__ = ("calls", "replicas", "waiting")

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.calls = 0
        self.waiting: dict[asyncio.Future[None], Call] = {}

    def let_in(self) -> None:
        """Let as many waiting calls go on as are answered at once; others follow as calls leave.

        So a replica that is ready a moment later finds its share of them here.
        """
        room = 0
        for replica in self.replicas:
            slots = replica.target.slots
            room += max(1, slots - replica.engine.busy) if slots else len(self.waiting)
        self.release(room)

    def release(self, count: int) -> None:
        """Let the calls go on that have waited longest."""
        for waiting in islice((one for one in self.waiting if not one.done()), count):
            waiting.set_result(None)


class Replica:
    """Where calls of one deployment go: its request heads, how many calls it has.

    It is cold at first: what it loads and reads for the first time says nothing of its model. One
    that had been ready for long when it was seen first is not.
    """

    __slots__ = (
        "_calls", "_clock", "_group", "_heads", "_is_cold", "_lines", "adapters", "busy", "engine",
        "id", "is_retired", "pool", "target", "wire",
    )  # fmt: skip

    def __init__(self, target: ReplicaTarget, group: Group, engine: Engine, clock: Clock) -> None:
        self.target = target
        self.id = target.id
        self.wire = "openai"
        self.adapters = target.adapters
        self.busy = 0
        self.is_retired = False
        self.engine = engine
        self.pool = engine.pool
        engine.sharers += 1
        self._group = group
        self._clock = clock
        self._calls = 0
        self._is_cold = self._find_age_s() < COLD_S
        self._heads: dict[bytes, bytes] = {}
        self._lines = (
            f"host: {target.host}:{target.port}\r\n"
            f"content-type: application/json\r\naccept-encoding: identity\r\n"
            f"authorization: Bearer {target.key}\r\n"
        ).encode()

    async def make_head(self, path: bytes, call: Call) -> bytes:
        """Return the head of a request; replicas have their API below ``/v1``."""
        head = self._heads.get(path)
        if head is None:
            head = b"POST /v1%b HTTP/1.1\r\n%b" % (path, self._lines)
            self._heads[path] = head
        if call.trace_parent:
            return b"%btraceparent: %b\r\n" % (head, call.trace_parent.encode())
        return head

    async def renew_head(self, path: bytes, call: Call) -> bytes | None:
        """Return None: the key of a replica is the one of its start."""
        del path, call
        return None

    def translate_error(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> PilotageError:
        """Return our error for the replica's."""
        return translate_error(status, headers, body)

    def enter(self) -> None:
        """Count a call in."""
        self.busy += 1
        self.engine.busy += 1

    def leave(self) -> None:
        """Count a call out, for one that waits; the last one of a retired replica closes it."""
        self.busy -= 1
        self.engine.busy -= 1
        if self._group.waiting:
            self._group.release(1)
        if self.is_retired:
            self.engine.close_if_left()

    def retire(self) -> None:
        """Take no new calls; close when the running ones have ended."""
        self.is_retired = True
        self.engine.sharers -= 1
        self.engine.close_if_left()

    @property
    def is_cold(self) -> bool:
        """Whether it has only just become ready; once it is warm it stays so."""
        if self._is_cold:
            age_s, is_new = self._find_age_s(), self._calls < COLD_CALLS
            self._is_cold = age_s < COLD_S or (is_new and age_s < LONGEST_COLD_S)
        return self._is_cold

    def flag(self, call: Call) -> None:
        """Say of a call that this replica is cold, and count it; what a retry meets is not told."""
        self._calls += 1
        if call.attempts == 0:
            call.flags.add(Flag.COLD)

    def _find_age_s(self) -> float:
        return (self._clock.now_us() - self.target.ready_at_us) / 1e6
