"""Replicas as child processes of the supervisor, which is told over a pipe; and nobody at all."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from pilotage.endpoints.groups import ReplicaGroup
from pilotage.endpoints.types import Load, ReplicaStatus

LINE_BYTES = 64 << 20  # the longest line either side reads: all replicas of a large machine


class Desired(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="desired"):
    """Control process to supervisor: all deployments of which replicas shall run."""

    groups: list[ReplicaGroup]


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="seen"):
    """Supervisor to control process: all replicas there are, and what is asked of them."""

    statuses: list[ReplicaStatus]
    loads: list[Load] = []


class SupervisedFleet:
    """Speaks to the supervisor in JSON lines: whole states, so that nothing can be missed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._seen = Seen(statuses=[])
        self.has_reported = False
        self.on_change: Callable[[], None] = lambda: None

    is_present = True

    async def set_desired(self, groups: Sequence[ReplicaGroup]) -> None:
        """Send the whole desired state."""
        self._writer.write(msgspec.json.encode(Desired(groups=list(groups))) + b"\n")
        await self._writer.drain()

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return which replicas the supervisor saw last."""
        return self._seen.statuses

    def list_loads(self) -> Sequence[Load]:
        """Return what the supervisor last saw asked of them."""
        return self._seen.loads

    async def listen(self) -> None:
        """Take in what the supervisor sees, until it is gone."""
        while line := await self._reader.readline():
            self._seen = msgspec.json.decode(line, type=Seen)
            self.has_reported = True
            self.on_change()


class AbsentFleet:
    """No server runs, so no replica does; rows wait for the next ``pilotage up``."""

    is_present = False
    has_reported = False

    async def set_desired(self, groups: Sequence[ReplicaGroup]) -> None:
        """Do nothing: there is nobody to run them."""

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return nothing."""
        return ()

    def list_loads(self) -> Sequence[Load]:
        """Return nothing."""
        return ()
