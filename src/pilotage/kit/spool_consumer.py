"""Follow every spool below a folder, batch by batch, from where a consumer says that it is.

The consumer keeps its own place and moves it in the transaction of whatever it makes of a batch, so
that a crash at any point repeats the whole batch or none of it. One spool that is held up holds up
no other, and is tried again more and more rarely; one record that can never be kept holds up none
that come behind it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.kit.clock import Clock
from pilotage.kit.db import refuses_values
from pilotage.kit.spool_reader import SpoolDamage, SpoolReader, list_spools, read_epoch
from pilotage.kit.worker import find_pause_s

_TRIES_ALONE = 3
_TOLD_AT = 2  # failures in a row
_OF_RECORDS = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)


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
TakeBatch = Callable[[SpoolBatch], Awaitable[Mapping[int, Exception]]]
"""Make something of a batch and move the place to its ``last_seq``, or raise and do neither.

Return the records that nothing could be made of, by number, and why.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolHealth:
    """How reading goes: spools held up now; records passed over and losses since the start."""

    held_up: int
    passed_over: int
    damaged: int


@dataclass(slots=True)
class _Follower:
    epoch: str
    reader: SpoolReader
    seq: int


@dataclass(slots=True)
class _Trouble:
    """What goes wrong with a spool; ``tried`` records of it, those that failed last, come again."""

    failures: int = 0  # in a row
    since_s: float = 0.0  # when the first of them was
    wait_until_s: float = 0.0
    tried: int = 0
    halvings: int = 0  # of batches, for what is in them


class SpoolConsumer:
    """Hands the batches of every spool to ``take``.

    A batch that cannot be kept for what is in it comes again in halves, until the record alone that
    is the reason has failed three times; it is passed over if the place can be moved behind it.
    Whatever else fails, such as a full disk, holds the spool up: the same batch comes again after
    a back-off (0.5 s doubling to 30 s).
    """

    def __init__(
        self,
        root: Path,
        find_place: FindPlace,
        take: TakeBatch,
        log: logging.Logger,
        batch: int,
        clock: Clock,
    ) -> None:
        self._root = root
        self._find_place = find_place
        self._take = take
        self._log = log
        self._batch = batch
        self._clock = clock
        self._followers: dict[Path, _Follower] = {}
        self._troubles: defaultdict[Path, _Trouble] = defaultdict(_Trouble)
        self._passed_over = 0
        self._damaged = 0
        self._busy = asyncio.Lock()
        self._is_closed = False

    async def step(self) -> bool:
        """Hand on a batch of each spool; return whether one has more. Nothing once it is closed."""
        async with self._busy:
            return not self._is_closed and await self._step()

    @property
    def health(self) -> SpoolHealth:
        """How reading goes."""
        held_up = sum(trouble.failures > 0 for trouble in self._troubles.values())
        return SpoolHealth(held_up=held_up, passed_over=self._passed_over, damaged=self._damaged)

    def is_held_up(self, within_s: float) -> bool:
        """Say whether a spool is held up that was not so long ago."""
        since_s = self._clock.monotonic_s() - within_s
        return any(one.failures and one.since_s > since_s for one in self._troubles.values())

    def taken_until(self, folder: Path) -> int:
        """Return the last record of a spool that is needed no more, 0 if all may be needed."""
        follower = self._followers.get(folder)
        try:
            return follower.seq if follower and follower.epoch == read_epoch(folder) else 0
        except (OSError, ValueError):
            return 0

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
        for gone in self._troubles.keys() - set(folders):
            del self._troubles[gone]
        for folder in folders:
            trouble = self._troubles[folder]
            if trouble.failures and self._clock.monotonic_s() < trouble.wait_until_s:
                continue
            try:
                has_more |= await self._read_on(folder)
            except Exception as failed:
                self._note_failure(folder, failed)
            else:
                trouble.failures = 0
        return has_more

    def _note_failure(self, folder: Path, failed: Exception) -> None:
        """Count a failure; tell of the second in a row, for one may be a race that was lost."""
        trouble, now_s = self._troubles[folder], self._clock.monotonic_s()
        if not trouble.failures:
            trouble.since_s = now_s
        trouble.failures += 1
        trouble.wait_until_s = now_s + find_pause_s(trouble.failures)
        if trouble.failures == _TOLD_AT:
            is_plain = isinstance(failed, OSError | PilotageError)
            self._log.error(
                "the spool %s is held up: %s",
                folder.name,
                failed,
                exc_info=None if is_plain else failed,
            )

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
        trouble = self._troubles[folder]
        limit = trouble.tried or max(1, self._batch >> trouble.halvings)
        try:
            records = await asyncio.to_thread(follower.reader.read, limit)
        except SpoolDamage as damage:
            await self._step_over(folder, follower, damage)
            return True
        if not records:
            return False
        trouble.tried = len(records)
        try:
            await self._hand_on(folder, follower, records[-1][0], records)
        except Exception as failed:
            if not isinstance(failed, _OF_RECORDS) and not refuses_values(failed):
                raise
            await self._narrow(folder, follower, records, failed)
            return True
        trouble.tried = 0
        trouble.halvings = max(0, trouble.halvings - 1)
        return follower.reader.was_cut

    async def _hand_on(
        self, folder: Path, follower: _Follower, seq: int, records: list[tuple[int, bytes]]
    ) -> None:
        batch = SpoolBatch(
            spool=folder.name,
            epoch=follower.epoch,
            after_seq=follower.seq,
            last_seq=seq,
            records=records,
        )
        unreadable = await self._take(batch)
        follower.seq = seq
        for passed, reason in unreadable.items():
            self._pass_over(folder, passed, reason)

    async def _narrow(
        self,
        folder: Path,
        follower: _Follower,
        records: list[tuple[int, bytes]],
        failed: Exception,
    ) -> None:
        """Let half as many records come next time, or pass over the one that was alone."""
        trouble = self._troubles[folder]
        trouble.tried = 0
        is_alone = self._batch.bit_length()  # after so many halvings
        if len(records) == 1 and trouble.halvings >= is_alone + _TRIES_ALONE - 1:
            await self._hand_on(folder, follower, records[0][0], [])
            self._pass_over(folder, records[0][0], failed)
            trouble.halvings = is_alone
        else:
            trouble.halvings += 1
        self._begin_behind(folder, follower, follower.seq)

    def _pass_over(self, folder: Path, seq: int, reason: Exception) -> None:
        self._passed_over += 1
        if self._passed_over == 1:
            self._log.error(
                "record %d of the spool %s is passed over, others are only counted: %s",
                seq,
                folder.name,
                reason,
            )

    async def _step_over(self, folder: Path, follower: _Follower, damage: SpoolDamage) -> None:
        """Go on behind missing records, or before records that were numbered again.

        Numbers come again when a power cut took records that had been read: the place goes back
        to where the spool really ends, or what is written there next would be passed over.
        """
        self._damaged += 1
        self._log.error("reading goes on behind missing records: %s", damage)
        await self._hand_on(folder, follower, damage.next_seq - 1, [])
        self._begin_behind(folder, follower, damage.next_seq - 1)

    def _begin_behind(self, folder: Path, follower: _Follower, seq: int) -> None:
        follower.reader.close()
        follower.reader = SpoolReader(folder, seq)

    def _forget(self, folder: Path) -> None:
        follower = self._followers.pop(folder, None)
        if follower is not None:
            follower.reader.close()
