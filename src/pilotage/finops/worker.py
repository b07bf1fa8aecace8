"""The loop that writes the ledger from the gateways' spools, each call exactly once.

A batch's charges and the spool's cursor are one transaction, so a crash at any point repeats the
whole batch or none of it. A frame that cannot be read is counted and passed over.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pilotage.core.frames import Ended, decode_frame
from pilotage.finops.rules import list_draws, make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import LedgerEntry, SpoolPlace
from pilotage.finops.users import Users
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.spool_reader import (
    SpoolDamage,
    SpoolReader,
    drop_segments,
    list_spools,
    read_epoch,
)
from pilotage.kit.worker import Wakeup, Worker

BATCH = 500
_DROP_EVERY_S = 60.0
_LOG = logging.getLogger("pilotage.finops")


@dataclass(slots=True)
class LedgerCounts:
    """What the worker did since it was made.

    ``unreadable`` frames could not be decoded, ``repeated`` ones ended a call charged before,
    ``damaged`` counts places in spools where records are missing.
    """

    written: int = 0
    repeated: int = 0
    unreadable: int = 0
    damaged: int = 0


@dataclass(slots=True)
class _Follower:
    """One spool being followed: ``place`` is what the database says, the reader is as far."""

    folder: Path
    reader: SpoolReader
    place: SpoolPlace
    dropped_at_s: float


@dataclass(frozen=True, slots=True)
class _Found:
    """What a batch of frames charges, and by call what it drew from limits' counters."""

    charges: list[LedgerEntry] = field(default_factory=list)
    draws: dict[str, dict[str, int]] = field(default_factory=dict)


class LedgerReader:
    """Follows every spool below a folder, and drops what is old and read.

    ``read_elsewhere`` says how far another consumer has come in a spool.
    """

    def __init__(
        self,
        db: Database,
        spool_root: Path,
        *,
        service: FinopsService,
        users: Users,
        clock: Clock,
        retention_us: int,
        read_elsewhere: Callable[[Path], int] | None = None,
        batch: int = BATCH,
    ) -> None:
        self.counts = LedgerCounts()
        self._db = db
        self._root = spool_root
        self._service = service
        self._users = users
        self._clock = clock
        self._retention_us = retention_us
        self._read_elsewhere = read_elsewhere
        self._batch = batch
        self._followers: dict[Path, _Follower] = {}
        self._failing: set[Path] = set()

    async def step(self) -> bool:
        """Read a batch of each spool; return whether one has more."""
        has_more = False
        folders = list_spools(self._root)
        for gone in self._followers.keys() - set(folders):
            self._forget(gone)
        for folder in folders:
            try:
                has_more |= await self._read_on(folder)
            except OSError as failed:  # one folder that cannot be read holds no other up
                self._forget(folder)
                if folder not in self._failing:
                    _LOG.error("the spool %s cannot be read: %s", folder.name, failed)
                self._failing.add(folder)
            else:
                self._failing.discard(folder)
        return has_more

    def close(self) -> None:
        """Close every file."""
        for folder in list(self._followers):
            self._forget(folder)

    async def _read_on(self, folder: Path) -> bool:
        follower = await self._follow(folder)
        try:
            return await self._read_batch(follower)
        except BaseException:  # the reader may be ahead of the database: start from there again
            self._forget(folder)
            raise

    async def _follow(self, folder: Path) -> _Follower:
        epoch = read_epoch(folder)
        follower = self._followers.get(folder)
        if follower is not None and follower.place.epoch == epoch:
            return follower
        self._forget(folder)
        async with self._db.read(SYSTEM) as tx:
            place = await self._service.get_place(tx, folder.name, epoch)
        follower = _Follower(folder, SpoolReader(folder, place.seq), place, 0.0)
        self._followers[folder] = follower
        return follower

    async def _read_batch(self, follower: _Follower) -> bool:
        try:
            records = follower.reader.read(self._batch)
        except SpoolDamage as damage:
            await self._step_over(follower, damage)
            return True
        if records:
            found = self._decode(follower.folder.name, records)
            await self._record(follower, records[-1][0], found)
        await self._drop_old(follower)
        return len(records) == self._batch

    def _decode(self, gateway: str, records: list[tuple[int, bytes]]) -> _Found:
        found = _Found()
        for seq, payload in records:
            try:
                frame = decode_frame(payload)
                if isinstance(frame, Ended):
                    found.charges.append(make_charge(frame, gateway))
                    found.draws.setdefault(found.charges[-1].call_id, list_draws(frame))
            except ValueError as unreadable:
                self.counts.unreadable += 1
                if self.counts.unreadable == 1:
                    _LOG.error(
                        "record %d of the spool %s is passed over, others are only counted: %s",
                        seq,
                        gateway,
                        unreadable,
                    )
        return found

    async def _record(self, follower: _Follower, seq: int, found: _Found) -> None:
        place = follower.place
        async with self._db.write(SYSTEM) as tx:
            charges = await self._users.label(tx, found.charges)
            recorded = await self._service.record(tx, place, seq, charges, found.draws)
        follower.place = SpoolPlace(gateway=place.gateway, epoch=place.epoch, seq=seq)
        self.counts.written += recorded.written
        self.counts.repeated += recorded.repeated

    async def _step_over(self, follower: _Follower, damage: SpoolDamage) -> None:
        """Go on behind missing records, or before records that were numbered again.

        Numbers come again when a power cut took records that had been read: the place goes back
        to where the spool really ends, or what is written there next would be passed over.
        """
        self.counts.damaged += 1
        _LOG.error("the ledger goes on behind missing records: %s", damage)
        await self._record(follower, damage.next_seq - 1, _Found())
        follower.reader.close()
        follower.reader = SpoolReader(follower.folder, damage.next_seq - 1)

    async def _drop_old(self, follower: _Follower) -> None:
        now_s = self._clock.monotonic_s()
        if follower.dropped_at_s and now_s - follower.dropped_at_s < _DROP_EVERY_S:
            return
        follower.dropped_at_s = now_s
        read = follower.place.seq
        if self._read_elsewhere is not None:
            read = min(read, self._read_elsewhere(follower.folder))
        drop_segments(follower.folder, read, self._clock.now_us() - self._retention_us)
        async with self._db.write(SYSTEM) as tx:
            await self._service.drop_past_counters(tx)

    def _forget(self, folder: Path) -> None:
        follower = self._followers.pop(folder, None)
        if follower is not None:
            follower.reader.close()


def make_ledger_worker(reader: LedgerReader, wakeup: Wakeup, interval_s: float = 1.0) -> Worker:
    """Make the worker; it looks at the spools every ``interval_s`` and when woken."""
    return Worker("ledger", reader.step, wakeup, interval_s)
