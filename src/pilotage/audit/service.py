"""The verbs of the audit log: append what happened, find it again, prove it.

The log is the only truth: its index in the database is made anew from it where it is behind. That
way nothing is in the log twice, wherever a process was killed, and nothing is acknowledged that is
not in it.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from pilotage.audit import store
from pilotage.audit.entries import (
    CallsEntry,
    Former,
    index_entry,
    read_block,
    read_entry,
    write_founding,
    write_revision,
)
from pilotage.audit.open_log import OpenLog
from pilotage.audit.types import Indexed, Proof
from pilotage.core.errors import PilotageError
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import get_last_seq, read_revisions

PAGE = 1_000


class Settled(NamedTuple):
    """A size of the log, and the newest revision in it then."""

    size: int
    last_seq: int


class AuditService:
    """Appends, finds and proves entries; one of them has a log open."""

    def __init__(self, db: Database, log: OpenLog) -> None:
        self._db = db
        self.log = log
        self._one = asyncio.Lock()
        self._last_seq = -1  # the newest revision in the log; -1: the index was not looked at yet
        self._problem: PilotageError | None = None  # why the newest change is not in the log

    # appending

    async def append_next(self, limit: int = PAGE) -> bool:
        """Append the revisions that are not in the log yet; return whether there may be more.

        Opens its own transactions: the log is written between them.
        """
        try:
            has_more = await self._append_revisions(limit)
        except PilotageError as failed:
            self._problem = failed
            raise
        except Exception as failed:
            self._problem = PilotageError("audit_unavailable", f"The audit log fails: {failed!r}.")
            raise
        self._problem = None
        return has_more

    async def settle(self) -> Settled:
        """Append everything there is; return how far log and revisions go together."""
        while await self.append_next():
            pass
        async with self._one:
            await self._recover()
            return Settled(self.log.size, self._last_seq)

    def check_writable(self, actor: Actor) -> None:
        """Raise ``audit_unavailable`` if the newest attempt to append a change has failed.

        What the installation does by itself goes on: it is appended later.
        """
        if self._problem is not None and actor.principal_id != SYSTEM.principal_id:
            raise PilotageError(
                "audit_unavailable",
                f"Nothing can be changed now, because it could not be audited. "
                f"{self._problem.detail}",
                hint=self._problem.hint,
            )

    async def append_entry(self, entry: bytes) -> int:
        """Append one entry of another kind than a revision; return its position."""
        async with self._one:
            await self._recover()
            return await self._append([entry])

    async def find_sealed_place(self, gateway: str, epoch: str) -> int:
        """Return the last record of a spool that is in a block in the log, 0 if none is."""
        async with self._one:
            await self._recover()
            async with self._db.read(SYSTEM) as tx:
                return await store.find_block_place(tx, gateway, epoch)

    # finding

    async def get_revision_entry(self, tx: Tx, revision_seq: int) -> Indexed:
        """Return the entry of a revision; raise ``not_found`` if it is not in the log."""
        found = await store.find_revision(tx, revision_seq)
        if found is None:
            raise PilotageError(
                "not_found",
                f"Revision {revision_seq} is not in the audit log.",
                hint="A change is in the log within a second: try again.",
            )
        return found

    async def get_entry(self, tx: Tx, position: int) -> Indexed:
        """Return where an entry is from and what it is of; raise ``not_found``."""
        found = await store.find_entry(tx, position)
        if found is None:
            raise PilotageError("not_found", f"There is no entry {position} in the audit log.")
        return found

    async def read_entry(self, position: int) -> bytes:
        """Return the log's own words; raise ``not_found`` for none there."""
        return (await self.read_entries([position]))[0]

    async def read_entries(self, positions: Sequence[int]) -> list[bytes]:
        """Return the log's own words at some positions; raise ``not_found`` for none there."""
        try:
            return await self.log.read_at(positions)
        except (FileNotFoundError, ValueError):
            raise PilotageError("not_found", "An entry of these has been pruned.") from None

    async def search(  # noqa: PLR0913 - a search has that many parts
        self,
        tx: Tx,
        *,
        after: int = 0,
        limit: int = 50,
        event_prefix: str = "",
        object_id: str | None = None,
        actor: str | None = None,
        project_id: str | None = None,
        text: str = "",
        since_us: int | None = None,
        until_us: int | None = None,
        is_newest: bool = False,
    ) -> Sequence[Indexed]:
        """Return the first entries from a position on, or the newest of them, in order."""
        return await store.search(
            tx,
            after=after,
            limit=limit,
            event_prefix=event_prefix,
            object_id=object_id,
            actor=actor,
            project_id=project_id,
            text=text,
            since_us=since_us,
            until_us=until_us,
            is_newest=is_newest,
        )

    # proving

    async def prove(self, position: int) -> Proof:
        """Return the proof that an entry is in the log; raise ``not_found`` for none there."""
        return (await self.prove_all([position]))[0]

    async def prove_all(self, positions: Sequence[int]) -> list[Proof]:
        """Return the proofs that entries are in the log, of one checkpoint all of them."""
        for position in positions:
            if not 0 <= position < self.log.size:
                raise PilotageError("not_found", f"There is no entry {position} in the audit log.")
        try:
            return await self.log.prove(positions)
        except FileNotFoundError:
            raise PilotageError("not_found", "An entry of these has been pruned.") from None

    async def prove_object(self, tx: Tx, object_id: str) -> Proof:
        """Return the proof that the newest change of an object is in the log."""
        newest = await store.search(tx, after=0, limit=1, object_id=object_id, is_newest=True)
        if not newest:
            raise PilotageError(
                "not_found",
                f"Nothing of {object_id[:80]!r} is in the audit log.",
                hint="Name an id: see pilotage audit list",
            )
        return await self.prove(newest[0].position)

    async def prove_revision(self, tx: Tx, revision_seq: int) -> Proof:
        """Return the proof that a revision is in the log; raise ``not_found`` if it is not."""
        return await self.prove((await self.get_revision_entry(tx, revision_seq)).position)

    # the index follows the log

    async def _append_revisions(self, limit: int) -> bool:
        async with self._one:
            await self._recover()
            async with self._db.read(SYSTEM) as tx:
                revisions = await read_revisions(tx, self._last_seq, limit)
            if not revisions:
                return False
            written = [write_revision(revision) for revision in revisions]
            for item in written:
                if item.record is not None:
                    await self.log.keep_record(item.record)
            await self._append([item.entry for item in written])
            self._last_seq = revisions[-1].seq
            return len(revisions) == limit

    async def _recover(self) -> None:
        """Found a new log; index what a killed process appended and did not index."""
        if self._last_seq >= 0:
            return
        async with self._db.read(SYSTEM) as tx:
            indexed = await store.count_indexed(tx)
            former = await store.find_former(tx)
            now_us = tx.now_us
            newest = await get_last_seq(tx)
        size = await self.log.count()
        if indexed > size or (indexed and not self.log.signed):
            raise PilotageError(
                "audit_broken",
                f"The audit log has {self.log.signed} signed entries of {size}, its index "
                f"{indexed}.",
                hint="The log's folder is older than the database: restore both of one backup.",
            )
        if not size:
            chain = Former(entries=former[0], head_hash=former[1]) if former else None
            await self.log.append([write_founding(now_us, self.log.name, chain)])
        if not self.log.signed:
            await self.log.publish()  # before anything is indexed, which says that there is one
        while indexed < self.log.size:
            entries = await self.log.read_from(indexed, PAGE)
            await self._index(indexed, entries)
            indexed += len(entries)
        async with self._db.read(SYSTEM) as tx:
            last = await store.find_last_revision(tx)
        if last > newest:
            raise PilotageError(
                "audit_broken",
                f"The audit log has change {last}, and the newest in the database is {newest}.",
                hint="The database is older than the log's folder: restore both of one backup.",
            )
        self._last_seq = last

    async def _append(self, entries: Sequence[bytes]) -> int:
        try:
            first = await self.log.append(entries)
            await self._index(first, entries)
        except BaseException:
            self._last_seq = -1  # look again where the log ends
            raise
        return first

    async def _index(self, first: int, entries: Sequence[bytes]) -> None:
        read = [(first + offset, read_entry(entry)) for offset, entry in enumerate(entries)]
        blocks = [
            read_block(place, entry) for place, entry in read if isinstance(entry, CallsEntry)
        ]
        async with self._db.write(SYSTEM) as tx:
            await store.insert_index(tx, [index_entry(*item) for item in read], blocks)
