"""Replicas as child processes of the supervisor, which is told over a pipe; and nobody at all."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from pilotage.endpoints.launch import ReplicaSpec
from pilotage.endpoints.types import ReplicaStatus

LINE_BYTES = 64 << 20  # the longest line either side reads: all replicas of a large machine


class Desired(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="desired"):
    """Control process to supervisor: all replicas that shall run."""

    replicas: list[ReplicaSpec]


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="seen"):
    """Supervisor to control process: all replicas there are."""

    statuses: list[ReplicaStatus]


class SupervisedFleet:
    """Speaks to the supervisor in JSON lines: whole states, so that nothing can be missed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._statuses: Sequence[ReplicaStatus] = ()
        self.has_reported = False
        self.on_change: Callable[[], None] = lambda: None

    is_present = True

    async def set_desired(self, replicas: Sequence[ReplicaSpec]) -> None:
        """Send the whole desired state."""
        self._writer.write(msgspec.json.encode(Desired(replicas=list(replicas))) + b"\n")
        await self._writer.drain()

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return what the supervisor said last."""
        return self._statuses

    async def listen(self) -> None:
        """Take in what the supervisor sees, until it is gone."""
        while line := await self._reader.readline():
            self._statuses = msgspec.json.decode(line, type=Seen).statuses
            self.has_reported = True
            self.on_change()


class AbsentFleet:
    """No server runs, so no replica does; rows wait for the next ``pilotage up``."""

    is_present = False
    has_reported = False

    async def set_desired(self, replicas: Sequence[ReplicaSpec]) -> None:
        """Do nothing: there is nobody to run them."""

    def list_statuses(self) -> Sequence[ReplicaStatus]:
        """Return nothing."""
        return ()
