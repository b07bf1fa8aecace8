"""The rows of every table in a form that both databases read: parts of msgpack, types exact."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from pilotage.core.errors import PilotageError
from pilotage.kit.db import Database, Tx

PART_BYTES = 4 << 20
MOST_PART_BYTES = 1 << 30
PAGE = 1_000
_ENCODE = msgspec.msgpack.Encoder().encode


class RowPart(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows of one table; each has its values in the order of the columns."""

    columns: list[str]
    rows: list[list[Any]]


async def dump_table(tx: Tx, table: sa.Table) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the rows of a table in parts of some megabytes: how many rows, and their bytes."""
    columns = [str(column.name) for column in table.columns]
    rows: list[list[Any]] = []
    size = 0
    ordered = tx.select(table).order_by(*table.primary_key.columns)
    async for page in tx.stream(ordered, PAGE):
        for row in page:
            values = [row[name] for name in columns]
            rows.append(values)
            size += sum(len(value) if isinstance(value, str | bytes) else 9 for value in values)
            if size >= PART_BYTES:
                yield len(rows), _ENCODE(RowPart(columns=columns, rows=rows))
                rows, size = [], 0
    if rows:
        yield len(rows), _ENCODE(RowPart(columns=columns, rows=rows))


def read_part(content: bytes) -> RowPart:
    """Read a part; raise ``invalid_backup`` if it is none."""
    try:
        return msgspec.msgpack.decode(content, type=RowPart)
    except msgspec.DecodeError as broken:
        raise PilotageError(
            "invalid_backup", f"Rows in the archive cannot be read: {broken}."
        ) from None


async def load_part(tx: Tx, table: sa.Table, part: RowPart) -> int:
    """Insert the rows of a part; return how many."""
    unknown = set(part.columns) - set(table.columns.keys())
    if unknown or any(len(row) != len(part.columns) for row in part.rows):
        raise PilotageError(
            "invalid_backup", f"The archive's rows do not fit the table {table.name}."
        )
    for start in range(0, len(part.rows), PAGE):
        page = part.rows[start : start + PAGE]
        await tx.insert_many(table, [dict(zip(part.columns, row, strict=True)) for row in page])
    return len(part.rows)


async def reflect_tables(db: Database) -> dict[str, sa.Table]:
    """Return the tables that a database has, parents before children."""

    def reflect(connection: sa.Connection) -> dict[str, sa.Table]:
        found = sa.MetaData()
        found.reflect(connection)
        return {table.name: table for table in found.sorted_tables}

    async with db.engine.connect() as conn:
        return await conn.run_sync(reflect)


async def empty_tables(tx: Tx, tables: Sequence[sa.Table]) -> None:
    """Remove the rows that migrations themselves put into new tables."""
    for table in reversed(tables):
        await tx.change(tx.delete(table))


async def move_sequences(tx: Tx, tables: Sequence[sa.Table]) -> None:
    """Let automatic numbers go on behind the highest that was loaded; SQLite does that itself."""
    if tx.dialect != "postgresql":
        return
    for table in tables:
        for column in table.primary_key.columns:
            if isinstance(column.type, sa.Integer) and column.server_default is not None:
                highest = sa.func.max(column).label("highest")
                row = await tx.find(tx.select(table, highest))
                last = int(row["highest"] or 0) if row else 0
                sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
                moved = sa.func.setval(sequence, max(last, 1), last > 0)
                await tx.find(tx.select(table, moved).limit(1))
