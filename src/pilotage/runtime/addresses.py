"""The Targets file as the supervisor keeps it: what is ready, written again until it is written."""

import asyncio
import logging
from collections.abc import Collection, Sequence

from pilotage.gateway.targets import ReplicaTarget, Targets, TargetsFile
from pilotage.kit.clock import Clock
from pilotage.kit.resources import Background

_LOG = logging.getLogger("pilotage.fleet")
REWRITE_S = 1.0


class Addresses:
    """Where the replicas of this machine listen; at first none does."""

    def __init__(self, file: TargetsFile, clock: Clock, background: Background) -> None:
        self._file = file
        self._clock = clock
        self._background = background
        self._targets: dict[str, ReplicaTarget] = {}
        self._can_wake: list[str] | None = None
        self._n = clock.now_us()  # beyond any that a gateway may know from an earlier life
        self._rewriting: asyncio.Task[None] | None = None
        file.write(self._describe())

    def put(self, targets: Sequence[ReplicaTarget]) -> None:
        """Add addresses of replicas that are ready."""
        self._targets |= {target.id: target for target in targets}
        self._write()

    def drop(self, ids: Collection[str]) -> int:
        """Take addresses out; return the number of a file that has none of them."""
        if not self._targets.keys().isdisjoint(ids):
            self._targets = {key: t for key, t in self._targets.items() if key not in ids}
            self._write()
        return self._n

    def set_can_wake(self, deployment_ids: Sequence[str]) -> None:
        """Say which deployments calls may wait for; before that, it may be any."""
        if list(deployment_ids) != self._can_wake:
            self._can_wake = list(deployment_ids)
            self._write()

    def _write(self) -> None:
        self._n = max(self._n + 1, self._clock.now_us())
        if not self._can_write() and self._rewriting is None:
            self._rewriting = self._background.start(self._rewrite(), "targets")

    def _can_write(self) -> bool:
        try:
            self._file.write(self._describe())
        except OSError as failed:  # a full disk: gateways see the old targets until there is space
            if self._rewriting is None:
                _LOG.error("the Targets file cannot be written: %s", failed)
            return False
        return True

    async def _rewrite(self) -> None:
        """Try again until the file says what is true."""
        while True:
            await asyncio.sleep(REWRITE_S)
            if self._can_write():
                break
        self._rewriting = None

    def _describe(self) -> Targets:
        return Targets(replicas=list(self._targets.values()), can_wake=self._can_wake, n=self._n)
