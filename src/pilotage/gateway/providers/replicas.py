"""The pools of connections to the replicas that are ready, kept in step with the Targets file."""

import asyncio

from pilotage.core.errors import PilotageError
from pilotage.core.snapshot import ArmEntry
from pilotage.gateway.call import Call
from pilotage.gateway.providers.errors import translate_error
from pilotage.gateway.targets import ReplicaTarget, Targets
from pilotage.gateway.transport.upstream import Limits, Origin, Pool


class Replica:
    """One replica as the chain uses it: its pool, its request heads, how many calls it has."""

    __slots__ = ("_heads", "_lines", "busy", "is_retired", "pool", "target", "wire")

    def __init__(self, target: ReplicaTarget, limits: Limits) -> None:
        self.target = target
        self.wire = "openai"
        self.busy = 0
        self.is_retired = False
        self.pool = Pool(Origin(host=target.host, port=target.port), limits)
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

    def leave(self) -> None:
        """Count a call out; the last one of a retired replica closes its connections."""
        self.busy -= 1
        if self.is_retired and self.busy == 0:
            self.pool.close()

    def retire(self) -> None:
        """Take no new calls; close when the running ones have ended."""
        self.is_retired = True
        if self.busy == 0:
            self.pool.close()


class Replicas:
    """All replicas, by deployment; the least busy one that can be reached is taken."""

    def __init__(self, limits: Limits) -> None:

        self._limits = limits
        self._by_deployment: dict[str, list[Replica]] = {}

    def apply(self, targets: Targets) -> None:
        """Add what is new and drop what is gone; calls that run on a dropped replica go on."""
        known = {
            replica.target: replica for group in self._by_deployment.values() for replica in group
        }
        kept: dict[str, list[Replica]] = {}
        for target in targets.replicas:
            replica = known.pop(target, None) or Replica(target, self._limits)
            kept.setdefault(target.deployment_id, []).append(replica)
        self._by_deployment = kept
        for gone in known.values():
            gone.retire()

    def pick(self, arm: ArmEntry) -> Replica:
        """Return the least busy replica of an arm's deployment; raise ``no_replica``."""
        group = self._by_deployment.get(arm.id)
        if not group:
            raise PilotageError("no_replica", retry_after_s=1.0)
        if len(group) == 1:
            return group[0]
        now_s = asyncio.get_running_loop().time()
        return min(group, key=lambda replica: (replica.pool.shunned_until_s > now_s, replica.busy))

    def list_pools(self) -> list[Pool]:
        """Return the connections of every replica."""
        return [replica.pool for group in self._by_deployment.values() for replica in group]

    def close(self) -> None:
        """Close every connection."""
        for group in self._by_deployment.values():
            for replica in group:
                replica.pool.close()
        self._by_deployment = {}
