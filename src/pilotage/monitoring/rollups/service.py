"""The verbs of rollups. Never commits: whoever opened the transaction does."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Begun, Compared, Ended, Feedback, Measured
from pilotage.kit.db import Tx
from pilotage.kit.spool_consumer import SpoolBatch
from pilotage.monitoring.rollups import store
from pilotage.monitoring.rollups.rules import (
    Cells,
    Stretch,
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

MOST_READ = 100_000  # cells that one ask may be made of: some seconds of work
MOST_SHOWN = 20_000  # points of series
_NOTHING = Counts()
_AS_USUAL = Keep()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBatch:
    """The calls that ended in a batch of a spool, each with the number of its record.

    ``begun`` are those that were admitted, ``measured``, ``feedback`` and ``compared`` what became
    known of answers, to these calls or to others, and ``unreadable`` the records that are no frames
    or have numbers that no call has.
    """

    records: SpoolBatch
    ended: Sequence[tuple[int, Ended]]
    begun: Sequence[Begun] = ()
    measured: Sequence[Measured] = ()
    feedback: Sequence[Feedback] = ()
    compared: Sequence[Compared] = ()
    unreadable: Mapping[int, Exception] = field(default_factory=dict)


class CallSink(Protocol):
    """Keeps something else of the calls, exactly as often as they are counted."""

    async def prepare(self, batch: CallBatch) -> None:
        """Do what takes long, outside the transaction; done again where that fails."""
        ...

    async def write(self, tx: Tx) -> None:
        """Write what was prepared last, in the transaction that moves the place in the spool."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """An hour or day that is over, as it was read: what it consists of, ``calls`` in all."""

    stretch: Stretch
    below: Level
    marks: Marks
    cells: Cells
    calls: int


class RollupService:
    """What calls add up to, by window and group.

    A window is widened to whole minutes, so that one of the last minute looks at the one before
    and at as much of the running one as there is; an old one to whole hours or days, where only
    those are kept. Cells are decoded and merged page by page in threads.
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
            async for cells in store.stream_cells(tx, stretch, select):
                await asyncio.to_thread(_merge_groups, found, cells, by)
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
            async for cells in store.stream_cells(tx, stretch, select):
                await asyncio.to_thread(_merge_steps, found, cells, by, step_us)
                if sum(map(len, found.values())) > MOST_SHOWN:
                    raise _too_large(f"The series have more than {MOST_SHOWN:,} points.")
        return [
            Series(
                labels=labels, points=[Point(at_us=at, cell=points[at]) for at in sorted(points)]
            )
            for labels, points in sorted(found.items())
        ]

    async def check_size(
        self, tx: Tx, select: Selection, since_us: int, until_us: int, step_us: int = 0
    ) -> None:
        """Raise ``query_too_large`` if too many cells make up a window, or its steps."""
        longest = find_longest(step_us) if step_us else Level.DAY
        stretches = cover(since_us, until_us, await store.find_marks(tx), longest)
        if sum([await store.count_cells(tx, one, select) for one in stretches]) > MOST_READ:
            raise _too_large(f"The window has more than {MOST_READ:,} cells of calls.")

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
        await store.hold_cells(tx)
        for level, more in spread(cells, await store.find_marks(tx)).items():
            await store.add_cells(tx, level, more)

    async def prepare_fold(self, tx: Tx) -> Fold | None:
        """Read the next hour or day that is over from what it consists of; None if there is none.

        Only reads, for it takes long: what is read is written by :meth:`write_fold`.
        """
        marks = await store.find_marks(tx)
        for level, below, done_us in (
            (Level.HOUR, Level.MINUTE, marks.hours_until_us),
            (Level.DAY, Level.HOUR, marks.days_until_us),
        ):
            first_us = await store.find_first(tx, below, done_us)
            stretch = find_next_fold(level, first_us, marks, tx.now_us)
            if stretch is not None:
                folded: Cells = {}
                async for cells in store.stream_cells(tx, stretch._replace(level=below), None):
                    await asyncio.to_thread(coarsen, folded, cells, level)
                calls = sum(cell.calls for cell in folded.values())
                return Fold(stretch=stretch, below=below, marks=marks, cells=folded, calls=calls)
        return None

    async def write_fold(self, tx: Tx, fold: Fold) -> None:
        """Write an hour or day, and that it is folded.

        Raises ``conflict`` if it has got calls since it was read, or another process folded it.
        """
        await store.hold_cells(tx)
        now = await store.sum_cells(tx, fold.stretch._replace(level=fold.below), None, ())
        if now.get((), _NOTHING).calls != fold.calls:
            raise PilotageError("conflict", "Another process has counted calls meanwhile.")
        await _move(tx, fold.marks, mark_folded(fold.marks, fold.stretch))
        await store.add_cells(tx, fold.stretch.level, fold.cells)

    async def drop_old(self, tx: Tx) -> int:
        """Forget the cells that are older than their level is kept; return how many."""
        await store.hold_cells(tx)
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


def _merge_groups(
    found: dict[tuple[str, ...], Cell],
    cells: Sequence[tuple[int, CellKey, Cell]],
    by: Sequence[Dimension],
) -> None:
    for _, key, cell in cells:
        found.setdefault(_labels(key, by), Cell()).merge(cell)


def _merge_steps(
    found: dict[tuple[str, ...], dict[int, Cell]],
    cells: Sequence[tuple[int, CellKey, Cell]],
    by: Sequence[Dimension],
    step_us: int,
) -> None:
    for at_us, key, cell in cells:
        points = found.setdefault(_labels(key, by), {})
        points.setdefault(at_us - at_us % step_us, Cell()).merge(cell)


def _too_large(detail: str) -> PilotageError:
    return PilotageError(
        "query_too_large",
        detail,
        hint="Ask for a shorter window, for longer steps or fewer groups, or name an alias or a "
        "tenant with where.",
        param="window",
    )
