"""What works for samples: they are taken out of the gateways' spools, and dropped in time.

A batch and the place in its spool are one transaction, so each sample is taken exactly once; what
was taken is dropped from the spool at once, as it has been kept for long enough in one place.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.core.samples import Sampled, decode_sample
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.kit.spool import open_spool
from pilotage.kit.spool_consumer import SpoolBatch, SpoolConsumer
from pilotage.kit.spool_reader import drop_segments, list_spools
from pilotage.kit.worker import Wakeup, Worker
from pilotage.rollouts.samples.service import SampleService

BATCH = 500
DROP_EVERY_S = 60.0
_LOG = logging.getLogger("pilotage.rollouts")

IsHeld = Callable[[Tx], Awaitable[bool]]
"""Say whether a legal hold keeps everything as it is."""
DropOld = Callable[[Tx], Awaitable[int]]
"""Drop what was kept long enough, besides; return how much."""


class SampleReader:
    """Follows the spools of samples below a folder, and drops what is old."""

    def __init__(
        self,
        db: Database,
        root: Path,
        service: SampleService,
        clock: Clock,
        is_held: IsHeld,
        drop_others: DropOld | None = None,
    ) -> None:
        self._db = db
        self._root = root
        self._service = service
        self._clock = clock
        self._is_held = is_held
        self._drop_others = drop_others
        self._dropped_s = -DROP_EVERY_S
        self._spools = SpoolConsumer(root, self._find_place, self._take, _LOG, BATCH, clock)

    async def step(self) -> bool:
        """Take a batch of each spool; say whether there is more."""
        has_more = await self._spools.step()
        now_s = self._clock.monotonic_s()
        if now_s - self._dropped_s >= DROP_EVERY_S:
            self._dropped_s = now_s
            await self._drop_old()
        return has_more

    async def close(self) -> None:
        """Close every file."""
        await self._spools.close()

    async def _find_place(self, spool: str, epoch: str) -> int:
        async with self._db.read(SYSTEM) as tx:
            return await self._service.get_place(tx, spool, epoch)

    async def _take(self, batch: SpoolBatch) -> Mapping[int, Exception]:
        found: list[Sampled] = []
        unreadable: dict[int, Exception] = {}
        for seq, payload in batch.records:
            try:
                found.append(decode_sample(payload))
            except ValueError as wrong:
                unreadable[seq] = wrong
        async with self._db.write(SYSTEM) as tx:
            await self._service.record(tx, batch, found)
        return unreadable

    async def _drop_old(self) -> None:
        for folder in list_spools(self._root):
            with suppress(OSError):  # one that cannot be read has been told of
                _leave_segment(folder)
                drop_segments(folder, self._spools.taken_until(folder), self._clock.now_us())
        async with self._db.write(SYSTEM) as tx:
            if not await self._is_held(tx):
                await self._service.drop_old(tx)
                if self._drop_others is not None:
                    await self._drop_others(tx)


def _leave_segment(folder: Path) -> None:
    """Begin a segment where nobody writes: the newest is never dropped, so it shall be empty."""
    with suppress(PilotageError):  # somebody writes, and begins others
        open_spool(folder, segment_bytes=1, reserve_bytes=0, sync="none", lock_wait_s=0.0).close()


def make_sample_worker(reader: SampleReader) -> Worker:
    """Make the worker that takes samples."""
    return Worker("samples", reader.step, Wakeup(), 1.0)
