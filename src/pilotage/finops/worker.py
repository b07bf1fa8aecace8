"""The loop that writes the ledger from the gateways' spools, each call exactly once.

A batch's charges and the spool's cursor are one transaction, so a crash at any point repeats the
whole batch or none of it. A frame that cannot be read, or whose charge no table can hold, is
counted and passed over.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pilotage.core.frames import Ended, decode_frame
from pilotage.finops.rules import list_draws, make_charge
from pilotage.finops.service import FinopsService
from pilotage.finops.types import LedgerEntry, SpoolPlace
from pilotage.finops.users import Users
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.spool_consumer import SpoolBatch, SpoolConsumer, SpoolHealth
from pilotage.kit.spool_reader import drop_segments, list_spools
from pilotage.kit.worker import Wakeup, Worker

BATCH = 500
_DROP_EVERY_S = 60.0
_LOG = logging.getLogger("pilotage.finops")


@dataclass(slots=True)
class LedgerCounts:
    """What the worker did since it was made; ``repeated`` frames ended a call charged before."""

    written: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """What a batch of frames charges, and by call what it drew from limits' counters.

    ``unreadable`` are the records that are no frames or charge what no table can hold.
    """

    charges: list[LedgerEntry] = field(default_factory=list)
    draws: dict[str, dict[str, int]] = field(default_factory=dict)
    unreadable: dict[int, Exception] = field(default_factory=dict)


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
        self.is_level = False  # whether the ledger had all there was when it last looked
        self._db = db
        self._root = spool_root
        self._service = service
        self._users = users
        self._clock = clock
        self._retention_us = retention_us
        self._read_elsewhere = read_elsewhere
        self._dropped_at_s: float | None = None
        self._spools = SpoolConsumer(spool_root, self._find_place, self._take, _LOG, batch, clock)

    async def step(self) -> bool:
        """Read a batch of each spool; return whether one has more."""
        has_more = await self._spools.step()
        self.is_level = not has_more and not self.health.held_up
        await self._drop_old()
        return has_more

    @property
    def health(self) -> SpoolHealth:
        """How reading goes."""
        return self._spools.health

    async def close(self) -> None:
        """Close every file."""
        await self._spools.close()

    async def _find_place(self, spool: str, epoch: str) -> int:
        async with self._db.read(SYSTEM) as tx:
            return (await self._service.get_place(tx, spool, epoch)).seq

    async def _take(self, batch: SpoolBatch) -> Mapping[int, Exception]:
        found = _decode(batch.spool, batch.records)
        place = SpoolPlace(gateway=batch.spool, epoch=batch.epoch, seq=batch.after_seq)
        async with self._db.write(SYSTEM) as tx:
            charges = await self._users.label(tx, found.charges)
            recorded = await self._service.record(tx, place, batch.last_seq, charges, found.draws)
        self.counts.written += recorded.written
        self.counts.repeated += recorded.repeated
        return found.unreadable

    async def _drop_old(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._dropped_at_s is not None and now_s - self._dropped_at_s < _DROP_EVERY_S:
            return
        self._dropped_at_s = now_s
        for folder in list_spools(self._root):
            read = self._spools.taken_until(folder)
            if self._read_elsewhere is not None:
                read = min(read, self._read_elsewhere(folder))
            with suppress(OSError):  # one that cannot be read has been told of
                drop_segments(folder, read, self._clock.now_us() - self._retention_us)
        async with self._db.write(SYSTEM) as tx:
            await self._service.drop_past_counters(tx)


def make_ledger_worker(reader: LedgerReader, wakeup: Wakeup, interval_s: float = 1.0) -> Worker:
    """Make the worker; it looks at the spools every ``interval_s`` and when woken."""
    return Worker("ledger", reader.step, wakeup, interval_s)


def _decode(gateway: str, records: list[tuple[int, bytes]]) -> _Found:
    found = _Found()
    for seq, payload in records:
        try:
            frame = decode_frame(payload)
            if isinstance(frame, Ended):
                found.charges.append(make_charge(frame, gateway))
                found.draws.setdefault(found.charges[-1].call_id, list_draws(frame))
        except ValueError as wrong:
            found.unreadable[seq] = wrong
    return found
