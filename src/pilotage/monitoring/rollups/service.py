"""The verbs of rollups. Never commits: whoever opened the transaction does."""

from collections.abc import Sequence

from pilotage.core.errors import PilotageError
from pilotage.kit.db import Tx
from pilotage.kit.spool_consumer import SpoolBatch
from pilotage.monitoring.rollups import store
from pilotage.monitoring.rollups.rules import Cells, floor
from pilotage.monitoring.rollups.types import (
    SHADOW_TENANT,
    Cell,
    CellKey,
    Dimension,
    Level,
    Point,
    Selection,
    Series,
)

ANYBODY = Selection()
_FIELDS = {
    Dimension.PROJECT: "project_id",
    Dimension.TENANT: "tenant_id",
    Dimension.ALIAS: "alias",
    Dimension.ARM: "arm",
    Dimension.VERSION: "version_id",
    Dimension.MODEL: "model",
}


class RollupService:
    """What calls add up to, by window and group."""

    async def read_cells(
        self,
        tx: Tx,
        select: Selection,
        since_us: int,
        until_us: int,
        by: Sequence[Dimension] = (),
    ) -> dict[tuple[str, ...], Cell]:
        """Return what the calls of a window add up to, by group; groups without calls are absent.

        The window is widened to whole minutes, so that one of the last minute looks at the one
        before and at as much of the running one as there is.
        """
        found: dict[tuple[str, ...], Cell] = {}
        for _, key, cell in await self._list(tx, select, since_us, until_us):
            found.setdefault(_labels(key, by), Cell()).merge(cell)
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
        for at_us, key, cell in await self._list(tx, select, since_us, until_us):
            points = found.setdefault(_labels(key, by), {})
            points.setdefault(at_us - at_us % step_us, Cell()).merge(cell)
        return [
            Series(
                labels=labels,
                points=[Point(at_us=at, cell=points[at]) for at in sorted(points)],
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
        await store.add_cells(tx, Level.MINUTE, cells)

    async def _list(
        self, tx: Tx, select: Selection, since_us: int, until_us: int
    ) -> list[tuple[int, CellKey, Cell]]:
        since_us = floor(since_us, Level.MINUTE)
        found = await store.list_cells(tx, Level.MINUTE, since_us, until_us, select)
        wants_copies = select.tenant_id == SHADOW_TENANT
        return [item for item in found if (item[1].tenant_id == SHADOW_TENANT) is wants_copies]


def _labels(key: CellKey, by: Sequence[Dimension]) -> tuple[str, ...]:
    return tuple(getattr(key, _FIELDS[dimension]) for dimension in by)
