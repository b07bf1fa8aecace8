"""The segments of calls: written from the batches of the rollup reader, merged, dropped by age."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Flag
from pilotage.kit.clock import Clock
from pilotage.kit.db import SYSTEM, Database, Tx
from pilotage.monitoring.calls import rules, store
from pilotage.monitoring.calls.columns import CallRow, make_row
from pilotage.monitoring.calls.parquet import SUFFIX, DamagedFiles, SegmentWriter
from pilotage.monitoring.calls.rules import DAY_US
from pilotage.monitoring.calls.types import Segment
from pilotage.monitoring.rollups.service import CallBatch

GRACE_US = 900_000_000  # a file nobody lists is kept so long: a query may have it open
SWEEP_EVERY_S = 600.0
_LOG = logging.getLogger("pilotage.monitoring")

LabelUsers = Callable[[Tx, Collection[tuple[str, str, str]]], Awaitable[dict[tuple[str, str], str]]]
"""Return the tokens of (tenant, user) for (tenant, project, user)."""
IsHeld = Callable[[Tx], Awaitable[bool]]
"""Say whether a legal hold keeps everything where it is."""


@dataclass(slots=True)
class _Prepared:
    """The files of a batch, by project and day; they wait to be listed."""

    batch: int
    segments: dict[tuple[str, int], Segment] = field(default_factory=dict)


class CallSegments:
    """A sink of the rollup reader that keeps each call as a row of a Parquet file.

    A batch becomes a file for each project and day, listed in the transaction that counts it. A
    batch that comes again because it could not be counted finds the files that it has.
    """

    def __init__(
        self, db: Database, folder: Path, clock: Clock, *, label_users: LabelUsers
    ) -> None:
        self.folder = folder
        self._db = db
        self._clock = clock
        self._label_users = label_users
        self._writer = SegmentWriter()
        self._prepared: dict[str, _Prepared] = {}  # last of each spool, if it may not be listed
        self._last = _Prepared(0)
        self._damaged: set[str] = set()

    async def prepare(self, batch: CallBatch) -> None:
        """Write the files of a batch that it does not have yet.

        One that is not listed afterwards is swept up later, once its spool has another batch.
        """
        spool, identity = batch.records.spool, _identify(batch)
        prepared = self._prepared.get(spool)
        if prepared is None or prepared.batch != identity:
            prepared = self._prepared[spool] = _Prepared(identity)
        self._last = prepared
        if not batch.ended:
            return
        tokens = await self._find_tokens(batch)
        rows: dict[tuple[str, int], list[CallRow]] = defaultdict(list)
        for seq, ended in batch.ended:
            token = tokens.get((ended.tenant_id, ended.user), "")
            row = make_row(seq, batch.records.spool, batch.records.epoch, ended, token)
            project_id = ended.project_id.replace("\x00", "\N{REPLACEMENT CHARACTER}")
            rows[project_id, ended.at_us // DAY_US].append(row)
        for (project_id, day), some in rows.items():
            if (project_id, day) not in prepared.segments:
                prepared.segments[project_id, day] = await self._write(project_id, some)

    async def write(self, tx: Tx) -> None:
        """List the files that were prepared last."""
        await store.insert_segments(tx, list(self._last.segments.values()))

    async def merge_next(self) -> bool:
        """Merge the next segments that are worth it; False if none are.

        Those that cannot be read are told of and left alone until the next sweep.
        """
        async with self._db.read(SYSTEM) as tx:
            living = await store.list_living(tx)
        there = await asyncio.to_thread(self._list_files) - self._damaged
        found = rules.pick_merge(
            [segment for segment in living if segment.name in there], self._clock.now_us()
        )
        if not found:
            return False
        try:
            merged = await self._merge(found)
        except DamagedFiles as damaged:
            self._damaged |= {str(path.relative_to(self.folder)) for path in damaged.paths}
            _LOG.error("%s, one is %s: %s", damaged, damaged.paths[0], damaged.__cause__)
            return True
        async with self._db.write(SYSTEM) as tx:
            if not await store.replace_segments(tx, [segment.name for segment in found]):
                raise PilotageError("conflict", "Segments were merged by another process.")
            await store.insert_segments(tx, [merged])
        return True

    async def sweep(self, retention_us: int, *, is_held: IsHeld) -> None:
        """Put out of use what is older than its retention; remove files that nobody needs.

        Nothing is put out of use while ``is_held``. Files that are listed and missing are told of.
        """
        now_us = self._clock.now_us()
        async with self._db.write(SYSTEM) as tx:
            self._forget_listed(await store.list_names(tx))
            if not await is_held(tx):
                await store.expire_segments(tx, now_us - retention_us)
            await store.delete_replaced(tx, now_us - GRACE_US)
            listed = await store.list_names(tx)
        self._damaged = set()
        there = await asyncio.to_thread(self._drop_old, listed, now_us - GRACE_US)
        if missing := listed - there:
            _LOG.error("%d segments of calls are missing, one is %s", len(missing), min(missing))

    async def close(self) -> None:
        """Give back what the writing holds."""
        await asyncio.to_thread(self._writer.close)

    async def _find_tokens(self, batch: CallBatch) -> dict[tuple[str, str], str]:
        named = {
            (ended.tenant_id, ended.project_id, ended.user)
            for _, ended in batch.ended
            if ended.user and not _is_copy(ended)
        }
        if not named:
            return {}
        async with self._db.write(SYSTEM) as tx:
            return await self._label_users(tx, named)

    async def _write(self, project_id: str, rows: Sequence[CallRow]) -> Segment:
        name = self._make_name(project_id)
        size = await asyncio.to_thread(self._writer.write, self.folder / name, rows)
        times = [row.at_us for row in rows]
        return self._make_segment(name, project_id, 0, len(rows), size, (min(times), max(times)))

    async def _merge(self, parts: Sequence[Segment]) -> Segment:
        project_id = parts[0].project_id
        name = self._make_name(project_id)
        paths = [self.folder / part.name for part in parts]
        size = await asyncio.to_thread(self._writer.merge, self.folder / name, paths)
        level = max(part.level for part in parts) + 1
        times = min(part.first_at_us for part in parts), max(part.last_at_us for part in parts)
        rows = sum(part.rows for part in parts)
        return self._make_segment(name, project_id, level, rows, size, times)

    def _make_name(self, project_id: str) -> str:
        return f"{quote(project_id, safe='') or '~'}/{self._clock.new_id('seg')}{SUFFIX}"

    def _make_segment(
        self, name: str, project_id: str, level: int, rows: int, size: int, times: tuple[int, int]
    ) -> Segment:
        return Segment(
            name=name,
            project_id=project_id,
            level=level,
            rows=rows,
            size_bytes=size,
            first_at_us=times[0],
            last_at_us=times[1],
            created_at_us=self._clock.now_us(),
        )

    def _list_files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.glob(f"*/*{SUFFIX}")}

    def _forget_listed(self, listed: Collection[str]) -> None:
        """Forget batches that are counted: their files wait no more."""
        self._prepared = {
            spool: one
            for spool, one in self._prepared.items()
            if not any(item.name in listed for item in one.segments.values())
        }

    def _drop_old(self, listed: Collection[str], before_us: int) -> set[str]:
        """Remove old files that are not listed, halves of a crash too; return those that are."""
        there = set()
        prepared = list(self._prepared.values())
        waiting = {item.name for one in prepared for item in list(one.segments.values())}
        for path in self.folder.glob("*/*"):
            name = str(path.relative_to(self.folder))
            if name in listed:
                there.add(name)
            elif name not in waiting:
                with suppress(FileNotFoundError):  # a half that was a whole file a moment later
                    if path.stat().st_mtime_ns // 1000 < before_us:
                        path.unlink()
        return there


def _identify(batch: CallBatch) -> int:
    """Return what only the same calls have, with the same times."""
    return hash((batch.records.epoch, *((seq, ended.at_us) for seq, ended in batch.ended)))


def _is_copy(ended: Ended) -> bool:
    return Flag.SHADOW in ended.flags
