"""Follow every spool below a folder, batch by batch, from where a consumer says that it is.

The consumer keeps its own place and moves it in the transaction of whatever it makes of a batch, so
that a crash at any point repeats the whole batch or none of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pilotage.kit.spool_reader import SpoolDamage, SpoolReader, list_spools, read_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolBatch:
    """Records of one life (epoch) of a spool: those above ``after_seq`` up to ``last_seq``.

    There are none where the place only moves: forward behind records that are missing, or back to
    where a spool really ends.
    """

    spool: str
    epoch: str
    after_seq: int
    last_seq: int
    records: list[tuple[int, bytes]]


FindPlace = Callable[[str, str], Awaitable[int]]
"""Return the last record of a spool and epoch that was taken, 0 for none."""
TakeBatch = Callable[[SpoolBatch], Awaitable[None]]
"""Make something of a batch and move the place to its ``last_seq``, or raise and do neither."""


@dataclass(slots=True)
class _Follower:
    epoch: str
    reader: SpoolReader
    seq: int


class SpoolConsumer:
    """Hands the batches of every spool to ``take``.

    ``damaged`` counts places where records are missing.
    """

    def __init__(
        self, root: Path, find_place: FindPlace, take: TakeBatch, log: logging.Logger, batch: int
    ) -> None:
        self.damaged = 0
        self._root = root
        self._find_place = find_place
        self._take = take
        self._log = log
        self._batch = batch
        self._followers: dict[Path, _Follower] = {}
        self._failing: set[Path] = set()
        self._busy = asyncio.Lock()
        self._is_closed = False

    async def step(self) -> bool:
        """Hand on a batch of each spool; return whether one has more. Nothing once it is closed."""
        async with self._busy:
            return not self._is_closed and await self._step()

    def taken_until(self, folder: Path) -> int:
        """Return the last record of a spool that is needed no more, 0 if all may be needed."""
        follower = self._followers.get(folder)
        return follower.seq if follower else 0

    async def close(self) -> None:
        """Close every file for good, once nothing reads them."""
        async with self._busy:
            self._is_closed = True
            for folder in list(self._followers):
                self._forget(folder)

    async def _step(self) -> bool:
        has_more = False
        folders = list_spools(self._root)
        for gone in self._followers.keys() - set(folders):
            self._forget(gone)
        for folder in folders:
            try:
                has_more |= await self._read_on(folder)
            except OSError as failed:  # one spool that is held up holds up no other
                if folder not in self._failing:
                    self._log.error("the spool %s is held up: %s", folder.name, failed)
                self._failing.add(folder)
            else:
                self._failing.discard(folder)
        return has_more

    async def _read_on(self, folder: Path) -> bool:
        try:
            follower = await self._follow(folder)
            return await self._read_batch(folder, follower)
        except BaseException:  # the reader may be ahead of the consumer: start from there again
            self._forget(folder)
            raise

    async def _follow(self, folder: Path) -> _Follower:
        epoch = read_epoch(folder)
        follower = self._followers.get(folder)
        if follower is not None and follower.epoch == epoch:
            return follower
        self._forget(folder)
        seq = await self._find_place(folder.name, epoch)
        follower = self._followers[folder] = _Follower(epoch, SpoolReader(folder, seq), seq)
        return follower

    async def _read_batch(self, folder: Path, follower: _Follower) -> bool:
        try:
            records = await asyncio.to_thread(follower.reader.read, self._batch)
        except SpoolDamage as damage:
            await self._step_over(folder, follower, damage)
            return True
        if records:
            await self._hand_on(folder, follower, records[-1][0], records)
        return len(records) == self._batch

    async def _hand_on(
        self, folder: Path, follower: _Follower, seq: int, records: list[tuple[int, bytes]]
    ) -> None:
        await self._take(
            SpoolBatch(
                spool=folder.name,
                epoch=follower.epoch,
                after_seq=follower.seq,
                last_seq=seq,
                records=records,
            )
        )
        follower.seq = seq

    async def _step_over(self, folder: Path, follower: _Follower, damage: SpoolDamage) -> None:
        """Go on behind missing records, or before records that were numbered again.

        Numbers come again when a power cut took records that had been read: the place goes back
        to where the spool really ends, or what is written there next would be passed over.
        """
        self.damaged += 1
        self._log.error("reading goes on behind missing records: %s", damage)
        await self._hand_on(folder, follower, damage.next_seq - 1, [])
        follower.reader.close()
        follower.reader = SpoolReader(folder, damage.next_seq - 1)

    def _forget(self, folder: Path) -> None:
        follower = self._followers.pop(folder, None)
        if follower is not None:
            follower.reader.close()
