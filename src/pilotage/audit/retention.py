"""Pruning: entries that are old enough lose their texts, whole bundles at a time, oldest first.

Their hashes stay, so that every proof of a younger entry holds and the root is the same. What was
pruned is said in the log itself, before anything goes. Each bundle goes in a transaction that no
legal hold can be placed beside: once a hold is acknowledged, nothing goes any more.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pilotage.audit import store
from pilotage.audit.calls import place_block
from pilotage.audit.entries import (
    CallsEntry,
    RevisionEntry,
    read_block,
    read_entry,
    write_revision,
)
from pilotage.audit.holds import HoldService
from pilotage.audit.open_log import OpenLog, place_record
from pilotage.audit.service import PAGE, AuditService
from pilotage.audit.tiles import ENTRIES, TileFolder, place_tile
from pilotage.audit.tree import TILE_BITS, TILE_WIDTH
from pilotage.core.errors import PilotageError
from pilotage.kit.clock import rfc3339
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import append_revision, read_revisions
from pilotage.kit.worker import Wakeup, Worker

DAY_S = 86_400.0
PRUNED = "audit.log.pruned"


class Pruner:
    """Removes what is older than the policy says, unless a hold is in force."""

    def __init__(
        self, db: Database, service: AuditService, holds: HoldService, keep_us: int
    ) -> None:
        self._db = db
        self._service = service
        self._holds = holds
        self._keep_us = keep_us

    async def step(self) -> bool:
        """Prune what is due, if nobody holds it."""
        try:
            await self.prune(SYSTEM)
        except PilotageError as refused:
            if refused.code != "on_hold":
                raise
        return False

    async def prune(self, actor: Actor) -> int:
        """Remove the texts of old entries; return how many were removed now.

        Raise ``on_hold`` while a hold is in force; placed meanwhile, it keeps what is still there.
        """
        log = self._service.log
        async with self._db.write(actor) as tx:
            await self._holds.check_none(tx, "nothing is pruned")
            before = await count_pruned(tx, log)
            first_kept = await store.find_first_since(tx, tx.now_us - self._keep_us)
            upto = min(first_kept, log.size) >> TILE_BITS << TILE_BITS
            if upto > before:
                content = {"entries": upto, "before": rfc3339(tx.now_us - self._keep_us)}
                rev = await store.count_prunings(tx, log.name) + 1
                await append_revision(tx, PRUNED, log.name, rev, content)
        while await self._service.append_next():  # what an earlier pruning said, too
            pass
        await self._remove(upto)
        async with self._db.write(SYSTEM) as tx:
            await store.drop_index(tx, upto)
        return max(0, upto - before)

    async def _remove(self, upto: int) -> None:
        """Remove the bundles below a position; what is gone already is passed over."""
        log = self._service.log
        numbers = [n for n in range(upto >> TILE_BITS) if _place_bundle(log, n).exists()]
        records = _Records(log, numbers[0] << TILE_BITS if numbers else upto)
        for number in numbers:
            entries = await asyncio.to_thread(TileFolder(log.folder, log.size).read_entries, number)
            first = number << TILE_BITS
            named = set(_list_records(entries))
            if named:
                await records.read_on()
            async with self._db.write(SYSTEM) as tx:
                await self._holds.check_none(tx, "nothing more is pruned")
                loose = await records.find_loose(tx, named, first + TILE_WIDTH) if named else set()
                blocks = _list_blocks(log, entries, first)
                files = [*blocks, *(place_record(log.folder, sha256) for sha256 in loose)]
                await asyncio.to_thread(_unlink, [*files, _place_bundle(log, number)])


class _Records:
    """Which entries from a position on name a record that is kept beside the log.

    Changes that say the same share one record, so it may go only with the last of them.
    """

    def __init__(self, log: OpenLog, first: int) -> None:
        self._log = log
        self._next = first
        self._last: dict[str, int] = {}

    async def read_on(self) -> None:
        """Read what was appended since the last time."""
        while self._next < self._log.size:
            entries = await self._log.read_from(self._next, PAGE)
            for position, entry in enumerate(entries, self._next):
                self._last |= dict.fromkeys(_list_records([entry]), position)
            self._next += len(entries)

    async def find_loose(self, tx: Tx, named: set[str], end: int) -> set[str]:
        """Return those records that nothing from a position on needs, nor can before the end."""
        waiting = set()
        last = await store.find_last_revision(tx)
        while revisions := await read_revisions(tx, last, PAGE):
            waiting |= set(_list_records(write_revision(item).entry for item in revisions))
            last = revisions[-1].seq
        await self.read_on()
        return {item for item in named - waiting if self._last[item] < end}


async def count_pruned(tx: Tx, log: OpenLog) -> int:
    """Return how many entries have lost their texts, as the log itself says."""
    content = await store.find_pruning(tx, log.name)
    said: dict[str, Any] = msgspec.json.decode(content) if content else {}
    return int(said.get("entries", 0))


def _list_records(entries: Iterable[bytes]) -> Iterable[str]:
    """Return the records that entries name, by their hashes."""
    for entry in entries:
        said = read_entry(entry) if b'"record":{' in entry else None
        if isinstance(said, RevisionEntry) and said.record is not None:
            yield said.record.sha256


def _list_blocks(log: OpenLog, entries: Sequence[bytes], first: int) -> list[Path]:
    """Return the files of the calls that entries have sealed."""
    read = [(position, read_entry(entry)) for position, entry in enumerate(entries, first)]
    return [
        place_block(log.folder, read_block(position, said))
        for position, said in read
        if isinstance(said, CallsEntry)
    ]


def _place_bundle(log: OpenLog, number: int) -> Path:
    return log.folder / place_tile(ENTRIES, number)


def _unlink(paths: Sequence[Path]) -> None:
    """Remove files in order: the bundle that names the others goes last."""
    for path in paths:
        path.unlink(missing_ok=True)


def make_pruner_worker(pruner: Pruner) -> Worker:
    """Make the worker; it looks once a day."""
    return Worker("audit retention", pruner.step, Wakeup(), DAY_S)
