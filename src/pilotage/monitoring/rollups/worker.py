"""The loop that counts the calls of the gateways' spools, each exactly once.

A batch's cells, whatever the sinks keep of it, and the place in the spool are one transaction, so a
crash at any point repeats the whole batch or none of it. A frame that cannot be read, or whose call
no table can hold, is counted and passed over.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilotage.core.frames import Begun, Compared, Ended, Feedback, Measured, decode_frame
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.spool_consumer import SpoolBatch, SpoolConsumer, SpoolHealth
from pilotage.kit.worker import Wakeup, Worker
from pilotage.monitoring.rollups.rules import Cells, add_up, check_call, settle_time
from pilotage.monitoring.rollups.service import CallBatch, CallSink, RollupService

BATCH = 20_000  # frames: a file of calls is made of each batch, and small ones cost more a call
_TEND_EVERY_S = 30.0
CURRENT_S = 10.0  # for so long after it found nothing more to read, a reader is up to date
HELD_UP_S = 300.0  # a spool that is held up for longer is not waited for any more
_LOG = logging.getLogger("pilotage.monitoring")


class RollupReader:
    """Follows every spool below a folder."""

    def __init__(
        self,
        db: Database,
        spool_root: Path,
        service: RollupService,
        clock: Clock,
        *,
        sinks: Sequence[CallSink] = (),
        batch: int = BATCH,
    ) -> None:
        self._db = db
        self._service = service
        self._clock = clock
        self._tended_at_s: float | None = None
        self._ended_at_s: float | None = None
        self._sinks = sinks
        self._spools = SpoolConsumer(spool_root, self._find_place, self._take, _LOG, batch, clock)

    async def step(self) -> bool:
        """Count a batch of each spool, and fold and drop what is due; say whether there is more."""
        has_more = await self._spools.step()
        now_s = self._clock.monotonic_s()
        if not has_more and not self._spools.is_held_up(HELD_UP_S):
            self._ended_at_s = now_s
        if self._tended_at_s is not None and now_s - self._tended_at_s < _TEND_EVERY_S:
            return has_more
        if await self._fold():
            return True
        self._tended_at_s = now_s
        return has_more

    @property
    def is_current(self) -> bool:
        """Whether all that there was a moment ago is counted.

        Spools that have been held up for longer than ``HELD_UP_S`` are left out: what is counted is
        about the others then.
        """
        ended_s = self._ended_at_s
        return ended_s is not None and self._clock.monotonic_s() - ended_s < CURRENT_S

    @property
    def health(self) -> SpoolHealth:
        """How reading goes."""
        return self._spools.health

    def read_until(self, folder: Path) -> int:
        """Return the last record of a spool that is needed no more."""
        return self._spools.taken_until(folder)

    async def close(self) -> None:
        """Close every file."""
        await self._spools.close()

    async def _fold(self) -> bool:
        """Fold the next hour or day, and drop what is old once there is none; say if there was."""
        async with self._db.read(SYSTEM) as tx:
            fold = await self._service.prepare_fold(tx)
        async with self._db.write(SYSTEM) as tx:
            if fold is None:
                await self._service.drop_old(tx)
            else:
                await self._service.write_fold(tx, fold)
        return fold is not None

    async def _find_place(self, spool: str, epoch: str) -> int:
        async with self._db.read(SYSTEM) as tx:
            return await self._service.get_place(tx, spool, epoch)

    async def _take(self, records: SpoolBatch) -> Mapping[int, Exception]:
        batch, cells = await asyncio.to_thread(_digest, records, self._clock.now_us())
        for sink in self._sinks:
            await sink.prepare(batch)
        async with self._db.write(SYSTEM) as tx:
            await self._service.record(tx, records, cells)
            for sink in self._sinks:
                await sink.write(tx)
        return batch.unreadable


def make_rollup_worker(reader: RollupReader, interval_s: float = 1.0) -> Worker:
    """Make the worker; it looks at the spools every ``interval_s``."""
    return Worker("rollups", reader.step, Wakeup(), interval_s)


def _digest(records: SpoolBatch, now_us: int) -> tuple[CallBatch, Cells]:
    batch = _decode(records, now_us)
    return batch, add_up(ended for _, ended in batch.ended)


def _decode(records: SpoolBatch, now_us: int) -> CallBatch:
    begun: list[Begun] = []
    ended: list[tuple[int, Ended]] = []
    measured: list[Measured] = []
    feedback: list[Feedback] = []
    compared: list[Compared] = []
    unreadable: dict[int, Exception] = {}
    for seq, payload in records.records:
        try:
            frame = settle_time(decode_frame(payload), now_us)
            if isinstance(frame, Ended):
                ended.append((seq, check_call(frame)))
            elif isinstance(frame, Begun):
                begun.append(frame)
            elif isinstance(frame, Measured):
                measured.append(frame)
            elif isinstance(frame, Feedback):
                feedback.append(frame)
            elif isinstance(frame, Compared):
                compared.append(frame)
        except ValueError as wrong:
            unreadable[seq] = wrong
    return CallBatch(
        records=records,
        begun=begun,
        ended=ended,
        measured=measured,
        feedback=feedback,
        compared=compared,
        unreadable=unreadable,
    )
