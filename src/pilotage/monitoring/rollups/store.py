"""The tables of rollups, and all SQL on them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from pilotage.core.names import SHADOW_TENANT
from pilotage.kit.db import METADATA, Row, Tx
from pilotage.monitoring.rollups.packing import pack, unpack
from pilotage.monitoring.rollups.rules import Cells, Stretch, fit
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
_C = ROLLUP_CELL.c
_KEY = (_C.project_id, _C.tenant_id, _C.alias, _C.arm, _C.version_id, _C.model)
_PAGE = 500  # of spans in one statement


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
    for start in range(0, len(spans), _PAGE):
        page = set(spans[start : start + _PAGE])
        await _add_page(tx, level, {place: cells[place] for place in cells if place[0] in page})


async def list_cells(
    tx: Tx, stretch: Stretch, select: Selection | None
) -> Sequence[tuple[int, CellKey, Cell]]:
    """Return the cells of a stretch; without a selection those of copies too."""
    rows = await tx.all(_choose(tx.select(ROLLUP_CELL), stretch, select))
    return [(row["at_us"], _key(row), unpack(row["cell"])) for row in rows]


async def sum_cells(
    tx: Tx, stretch: Stretch, select: Selection, by: Sequence[Dimension]
) -> dict[tuple[str, ...], Counts]:
    """Return the plain sums of a stretch by group."""
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


async def _add_page(tx: Tx, level: Level, cells: Cells) -> None:
    spans = sorted({at_us for at_us, _ in cells})
    rows = await tx.all(tx.select(ROLLUP_CELL).where(_C.level == level, _C.at_us.in_(spans)))
    known = {(row["at_us"], _key(row)): row["cell"] for row in rows}
    changed: list[dict[str, object]] = []
    made: list[dict[str, object]] = []
    for place, cell in fit(cells, known).items():
        if place in known:
            grown = unpack(known[place])
            grown.merge(cell)
            changed.append(_values(level, place, grown, "b_"))
        else:
            made.append(_values(level, place, cell))
    same = [column == sa.bindparam(f"b_{column.name}") for column in (_C.level, _C.at_us, *_KEY)]
    grown_by = tx.update(ROLLUP_CELL).where(*same)
    for name in (*SUMS, "cell"):
        grown_by = grown_by.values({name: sa.bindparam(f"b_{name}")})
    await tx.change_many(grown_by, changed)
    await tx.insert_many(ROLLUP_CELL, made)


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
