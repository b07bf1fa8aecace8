"""The verbs of rollups. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence

from pilotage.core.errors import PilotageError
from pilotage.kit.db import Tx
from pilotage.kit.spool_consumer import SpoolBatch
from pilotage.monitoring.rollups import store
from pilotage.monitoring.rollups.rules import (
    Cells,
    age,
    coarsen,
    cover,
    find_longest,
    find_next_fold,
    floor,
    mark_folded,
    spread,
)
from pilotage.monitoring.rollups.types import (
    FIELDS,
    Cell,
    CellKey,
    Counts,
    Dimension,
    Keep,
    Level,
    Marks,
    Point,
    Selection,
    Series,
)

_NOTHING = Counts()
_AS_USUAL = Keep()


class RollupService:
    """What calls add up to, by window and group.

    A window is widened to whole minutes, so that one of the last minute looks at the one before
    and at as much of the running one as there is; an old one to whole hours or days, where only
    those are kept.
    """

    def __init__(self, keep: Keep = _AS_USUAL) -> None:
        self._keep = keep

    async def read_cells(
        self,
        tx: Tx,
        select: Selection,
        since_us: int,
        until_us: int,
        by: Sequence[Dimension] = (),
    ) -> dict[tuple[str, ...], Cell]:
        """Return what the calls of a window add up to, by group; none has no calls."""
        found: dict[tuple[str, ...], Cell] = {}
        for stretch in cover(since_us, until_us, await store.find_marks(tx)):
            for _, key, cell in await store.list_cells(tx, stretch, select):
                found.setdefault(_labels(key, by), Cell()).merge(cell)
        return found

    async def read_counts(
        self,
        tx: Tx,
        select: Selection,
        since_us: int,
        until_us: int,
        by: Sequence[Dimension] = (),
    ) -> dict[tuple[str, ...], Counts]:
        """Return only the sums of a window by group: a tenth of the work, however long it is."""
        found: dict[tuple[str, ...], Counts] = {}
        for stretch in cover(since_us, until_us, await store.find_marks(tx)):
            for labels, counts in (await store.sum_cells(tx, stretch, select, by)).items():
                found[labels] = found.get(labels, _NOTHING).plus(counts)
        return found

    async def read_series(
        self,
        tx: Tx,
        select: Selection,
        since_us: int,
        until_us: int,
        step_us: int,
        by: Sequence[Dimension] = (),
    ) -> list[Series]:
        """Return the same step by step, ordered by labels.

        Steps begin at multiples of their length, which is a minute at least. Those without calls
        have no point.
        """
        step_us = max(Level.MINUTE.span_us, floor(step_us, Level.MINUTE))
        found: dict[tuple[str, ...], dict[int, Cell]] = {}
        marks = await store.find_marks(tx)
        for stretch in cover(since_us, until_us, marks, find_longest(step_us)):
            for at_us, key, cell in await store.list_cells(tx, stretch, select):
                points = found.setdefault(_labels(key, by), {})
                points.setdefault(at_us - at_us % step_us, Cell()).merge(cell)
        return [
            Series(
                labels=labels, points=[Point(at_us=at, cell=points[at]) for at in sorted(points)]
            )
            for labels, points in sorted(found.items())
        ]

    async def get_place(self, tx: Tx, spool: str, epoch: str) -> int:
        """Return the last record of a spool that is counted, 0 for none."""
        return await store.find_place(tx, spool, epoch)

    async def record(self, tx: Tx, batch: SpoolBatch, cells: Cells) -> None:
        """Add the cells of a batch and move the place in its spool.

        Raises ``conflict`` if another process moved it: then nothing here may be committed.
        """
        if not await store.advance_place(
            tx, batch.spool, batch.epoch, batch.after_seq, batch.last_seq
        ):
            raise PilotageError("conflict", f"The spool {batch.spool} is read by another process.")
        for level, more in spread(cells, await store.find_marks(tx)).items():
            await store.add_cells(tx, level, more)

    async def fold_next(self, tx: Tx) -> bool:
        """Make the next hour or day that is over of what it consists of; False if there is none.

        Raises ``conflict`` if another process does the same.
        """
        marks = await store.find_marks(tx)
        for level, below, done_us in (
            (Level.HOUR, Level.MINUTE, marks.hours_until_us),
            (Level.DAY, Level.HOUR, marks.days_until_us),
        ):
            first_us = await store.find_first(tx, below, done_us)
            stretch = find_next_fold(level, first_us, marks, tx.now_us)
            if stretch is not None:
                found = await store.list_cells(tx, stretch._replace(level=below), None)
                cells = {(at_us, key): cell for at_us, key, cell in found}
                await store.add_cells(tx, level, coarsen(cells, level))
                await _move(tx, marks, mark_folded(marks, stretch))
                return True
        return False

    async def drop_old(self, tx: Tx) -> int:
        """Forget the cells that are older than their level is kept; return how many."""
        old = await store.find_marks(tx)
        new = age(old, self._keep, tx.now_us)
        dropped = 0
        for level, before_us, since_us in (
            (Level.MINUTE, old.minutes_since_us, new.minutes_since_us),
            (Level.HOUR, old.hours_since_us, new.hours_since_us),
            (Level.DAY, old.days_since_us, new.days_since_us),
        ):
            if since_us > before_us:
                dropped += await store.drop_cells(tx, level, since_us)
        await _move(tx, old, new)
        return dropped


async def _move(tx: Tx, old: Marks, new: Marks) -> None:
    if not await store.move_marks(tx, old, new):
        raise PilotageError("conflict", "The rollups are folded by another process.")


def _labels(key: CellKey, by: Sequence[Dimension]) -> tuple[str, ...]:
    return tuple(getattr(key, FIELDS[dimension]) for dimension in by)
