"""The tables of rollups, and all SQL on them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from pilotage.core.names import SHADOW_TENANT
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.rollups.packing import pack, unpack
from pilotage.monitoring.rollups.rules import Cells, Place, Stretch, fit
from pilotage.monitoring.rollups.types import (
    FIELDS,
    Cell,
    CellKey,
    Counts,
    Dimension,
    Level,
    Marks,
    Selection,
)

SUMS = ("calls", "refusals", "errors", "tokens", "cost_nano")
ROLLUP_CELL = sa.Table(
    "rollup_cell",
    METADATA,
    sa.Column("level", sa.Text, primary_key=True),
    sa.Column("at_us", sa.BigInteger, primary_key=True),
    sa.Column("project_id", sa.Text, primary_key=True),  # no foreign keys: calls outlive everything
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("arm", sa.Text, primary_key=True),
    sa.Column("version_id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in SUMS),
    sa.Column("cell", sa.LargeBinary, nullable=False),
)
ROLLUP_CURSOR = sa.Table(
    "rollup_cursor",
    METADATA,
    sa.Column("spool", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
ROLLUP_MARK = sa.Table(
    "rollup_mark",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("at_us", sa.BigInteger, nullable=False),
)
Item = TypeVar("Item")
_C = ROLLUP_CELL.c
_KEY = (_C.project_id, _C.tenant_id, _C.alias, _C.arm, _C.version_id, _C.model)
_PAGE = 500  # spans, places or rows at a time
_GROWING = 7_310_587  # the lock of whoever adds to cells: they are read, grown and written back


async def hold_cells(tx: Tx) -> None:
    """Let no other process add to cells, or fold them, before this transaction ends."""
    await tx.lock(_GROWING)


async def find_place(tx: Tx, spool: str, epoch: str) -> int:
    """Return the last record of a spool that is in the cells, 0 for none."""
    row = await tx.find(
        tx.select(ROLLUP_CURSOR).where(
            ROLLUP_CURSOR.c.spool == spool, ROLLUP_CURSOR.c.epoch == epoch
        )
    )
    return int(row["seq"]) if row else 0


async def advance_place(tx: Tx, spool: str, epoch: str, after_seq: int, seq: int) -> bool:
    """Move a spool's cursor; False if it is no longer where it was thought to be."""
    guarded = tx.update(ROLLUP_CURSOR).where(
        ROLLUP_CURSOR.c.spool == spool,
        ROLLUP_CURSOR.c.epoch == epoch,
        ROLLUP_CURSOR.c.seq == after_seq,
    )
    if await tx.change(guarded.values(seq=seq)) == 1:
        return True
    if after_seq:
        return False
    try:
        await tx.insert(ROLLUP_CURSOR, spool=spool, epoch=epoch, seq=seq)
    except sa.exc.IntegrityError:
        return False
    return True


async def find_marks(tx: Tx) -> Marks:
    """Return how far the levels reach."""
    rows = await tx.all(tx.select(ROLLUP_MARK))
    return Marks(**{row["name"]: row["at_us"] for row in rows})


async def move_marks(tx: Tx, old: Marks, new: Marks) -> bool:
    """Write how far the levels reach; False if another process has moved them meanwhile."""
    for name, at_us in msgspec.structs.asdict(new).items():
        before = getattr(old, name)
        if at_us == before:
            continue
        guarded = tx.update(ROLLUP_MARK).where(
            ROLLUP_MARK.c.name == name, ROLLUP_MARK.c.at_us == before
        )
        if await tx.change(guarded.values(at_us=at_us)) == 1:
            continue
        if before:
            return False
        try:
            await tx.insert(ROLLUP_MARK, name=name, at_us=at_us)
        except sa.exc.IntegrityError:
            return False
    return True


async def find_first(tx: Tx, level: Level, since_us: int) -> int | None:
    """Return when the first cell of a level begins at or behind a time."""
    statement = tx.select(ROLLUP_CELL, sa.func.min(_C.at_us).label("first"))
    row = await tx.find(statement.where(_C.level == level, _C.at_us >= since_us))
    return int(row["first"]) if row and row["first"] is not None else None


async def drop_cells(tx: Tx, level: Level, before_us: int) -> int:
    """Forget the cells of a level that begin before a time; return how many."""
    return await tx.change(tx.delete(ROLLUP_CELL).where(_C.level == level, _C.at_us < before_us))


async def add_cells(tx: Tx, level: Level, cells: Cells) -> None:
    """Add cells to those of a level, which grow by what they count."""
    spans = sorted({at_us for at_us, _ in cells})
    for page in _split(spans):
        there = await _list_places(tx, level, page)
        more = {place: cell for place, cell in cells.items() if place[0] in set(page)}
        fitted = await asyncio.to_thread(fit, more, there)
        for places in _split(list(fitted)):
            await _grow(tx, level, {place: fitted[place] for place in places})


async def stream_cells(
    tx: Tx, stretch: Stretch, select: Selection | None
) -> AsyncIterator[list[tuple[int, CellKey, Cell]]]:
    """Yield the cells of a stretch page by page; without a selection those of copies too."""
    async for rows in tx.stream(_choose(tx.select(ROLLUP_CELL), stretch, select), _PAGE):
        yield await asyncio.to_thread(_unpack_all, rows)


async def count_cells(tx: Tx, stretch: Stretch, select: Selection) -> int:
    """Return how many cells a stretch has."""
    counted = tx.select(ROLLUP_CELL, sa.func.count().label("cells"))
    row = await tx.find(_choose(counted, stretch, select))
    return int(row["cells"]) if row else 0


async def sum_cells(
    tx: Tx, stretch: Stretch, select: Selection | None, by: Sequence[Dimension]
) -> dict[tuple[str, ...], Counts]:
    """Return the plain sums of a stretch by group; without a selection those of copies too."""
    columns = [_C[FIELDS[dimension]] for dimension in by]
    sums = [sa.func.sum(_C[name]).label(name) for name in SUMS]
    statement = _choose(tx.select(ROLLUP_CELL, *columns, *sums), stretch, select)
    if columns:
        statement = statement.group_by(*columns)
    rows = await tx.all(statement)
    return {
        tuple(str(row[column.name]) for column in columns): Counts(
            **{name: int(row[name]) for name in SUMS}
        )
        for row in rows
        if row["calls"] is not None
    }


def _choose(
    statement: sa.Select[Any], stretch: Stretch, select: Selection | None
) -> sa.Select[Any]:
    statement = statement.where(
        _C.level == stretch.level, _C.at_us >= stretch.since_us, _C.at_us < stretch.until_us
    )
    if select is None:
        return statement
    for column, wanted in (
        (_C.tenant_id, select.tenant_id),
        (_C.alias, select.alias),
        (_C.arm, select.arm),
        (_C.version_id, select.version_id),
        (_C.model, select.model),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if select.tenant_id is None:
        statement = statement.where(_C.tenant_id != SHADOW_TENANT)
    return statement


async def _list_places(tx: Tx, level: Level, spans: Collection[int]) -> set[Place]:
    """Return whose cells there are in some spans."""
    wanted = tx.select(ROLLUP_CELL, _C.at_us, *_KEY)
    wanted = wanted.where(_C.level == level, _C.at_us.in_(spans))
    return {(row["at_us"], _key(row)) async for rows in tx.stream(wanted, _PAGE) for row in rows}


async def _grow(tx: Tx, level: Level, cells: Cells) -> None:
    of_places = sa.tuple_(_C.at_us, *_KEY).in_([(at_us, *key) for at_us, key in cells])
    rows = await tx.all(tx.select(ROLLUP_CELL).where(_C.level == level, of_places))
    known = {(row["at_us"], _key(row)): row["cell"] for row in rows}
    changed, made = await asyncio.to_thread(_merge_all, level, cells, known)
    same = [column == sa.bindparam(f"b_{column.name}") for column in (_C.level, _C.at_us, *_KEY)]
    grown_by = tx.update(ROLLUP_CELL).where(*same)
    for name in (*SUMS, "cell"):
        grown_by = grown_by.values({name: sa.bindparam(f"b_{name}")})
    await tx.change_many(grown_by, changed)
    await tx.insert_many(ROLLUP_CELL, made)


def _merge_all(
    level: Level, cells: Cells, known: Mapping[Place, bytes]
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return the rows that change and those that are new."""
    changed: list[dict[str, object]] = []
    made: list[dict[str, object]] = []
    for place, cell in cells.items():
        if place in known:
            grown = unpack(known[place])
            grown.merge(cell)
            changed.append(_values(level, place, grown, "b_"))
        else:
            made.append(_values(level, place, cell))
    return changed, made


def _unpack_all(rows: Sequence[Row]) -> list[tuple[int, CellKey, Cell]]:
    return [(row["at_us"], _key(row), unpack(row["cell"])) for row in rows]


def _key(row: Row) -> CellKey:
    return CellKey(*(row[column.name] for column in _KEY))


def _values(
    level: Level, place: tuple[int, CellKey], cell: Cell, prefix: str = ""
) -> dict[str, object]:
    at_us, key = place
    values = {
        "level": level.value,
        "at_us": at_us,
        **key._asdict(),
        "calls": cell.calls,
        "refusals": cell.refusals,
        "errors": cell.errors,
        "tokens": cell.tokens.total,
        "cost_nano": cell.cost_nano,
        "cell": pack(cell),
    }
    return {f"{prefix}{name}": value for name, value in values.items()}


def _split(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield some at a time."""
    for start in range(0, len(items), _PAGE):
        yield items[start : start + _PAGE]
