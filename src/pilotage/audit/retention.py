"""Pruning: entries that are old enough lose their texts, whole bundles at a time, oldest first.

Their hashes stay, so that every proof of a younger entry holds and the root is the same. What was
pruned is said in the log itself, before anything goes.
"""

import asyncio
from typing import Any

import msgspec

from pilotage.audit import store
from pilotage.audit.calls import place_block
from pilotage.audit.entries import CallsEntry, RevisionEntry, read_block, read_entry
from pilotage.audit.holds import HoldService
from pilotage.audit.open_log import OpenLog, place_record
from pilotage.audit.service import AuditService
from pilotage.audit.tiles import ENTRIES, TileFolder, place_tile
from pilotage.audit.tree import TILE_BITS, TILE_WIDTH
from pilotage.kit.clock import rfc3339
from pilotage.kit.db import SYSTEM, Actor, Database, Tx
from pilotage.kit.outbox import append_revision
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
        async with self._db.read(SYSTEM) as tx:
            is_held = await self._holds.find_in_force(tx) is not None
        if not is_held:
            await self.prune(SYSTEM)
        return False

    async def prune(self, actor: Actor) -> int:
        """Remove the texts of old entries; return how many were removed now.

        Raise ``on_hold`` while a hold is in force.
        """
        async with self._db.write(actor) as tx:
            await self._holds.check_none(tx, "nothing is pruned")
            before = await count_pruned(tx, self._service.log)
            first_kept = await store.find_first_since(tx, tx.now_us - self._keep_us)
            upto = min(first_kept, self._service.log.size) >> TILE_BITS << TILE_BITS
            if upto > before:
                content = {"entries": upto, "before": rfc3339(tx.now_us - self._keep_us)}
                rev = await store.count_prunings(tx, self._service.log.name) + 1
                await append_revision(tx, PRUNED, self._service.log.name, rev, content)
        if upto > before:
            while await self._service.append_next():
                pass
        await asyncio.to_thread(_remove, self._service.log, upto)
        async with self._db.write(SYSTEM) as tx:
            await store.drop_index(tx, upto)
        return max(0, upto - before)


async def count_pruned(tx: Tx, log: OpenLog) -> int:
    """Return how many entries have lost their texts, as the log itself says."""
    content = await store.find_pruning(tx, log.name)
    said: dict[str, Any] = msgspec.json.decode(content) if content else {}
    return int(said.get("entries", 0))


def _remove(log: OpenLog, upto: int) -> None:
    """Remove files below a position; what is gone already is passed over."""
    reader = TileFolder(log.folder, log.size)
    for number in range(upto >> TILE_BITS):
        path = log.folder / place_tile(ENTRIES, number)
        if not path.exists():
            continue
        for position, entry in enumerate(reader.read_entries(number), number * TILE_WIDTH):
            said = read_entry(entry)
            if isinstance(said, CallsEntry):
                place_block(log.folder, read_block(position, said)).unlink(missing_ok=True)
            elif isinstance(said, RevisionEntry) and said.record is not None:
                place_record(log.folder, said.record.sha256).unlink(missing_ok=True)
        path.unlink()


def make_pruner_worker(pruner: Pruner) -> Worker:
    """Make the worker; it looks once a day."""
    return Worker("audit retention", pruner.step, Wakeup(), DAY_S)
