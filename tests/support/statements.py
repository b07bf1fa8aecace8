"""Collect the statements of a run, and find those that read a whole table.

    with collect_statements(database) as statements:
        ...  # call whatever a store can do
    assert await find_full_scans(database, statements, small={"project"}) == []

SQLite says SCAN for a table, or an index, that it reads from one end to the other. Postgres would
rather read a small table whole: it is told not to, and a sequential scan, or an index read without
a condition, is then what no index can spare.
"""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from pilotage.kit.db import SYSTEM, Database

_ASKS = re.compile(r"\s*(?:WITH|SELECT|UPDATE|DELETE)\b")
_SCAN = re.compile(r"SCAN (?:TABLE )?(\w+)")
_TAKES_ALL = {"Sort", "Hash", "Aggregate", "Materialize", "Bitmap Heap Scan"}
_LEADING = """SELECT index.relname, a.attname FROM pg_index i
    JOIN pg_class index ON index.oid = i.indexrelid
    JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum = 1"""


class Statement(NamedTuple):
    """What a driver was told to do: text and parameters."""

    text: str
    parameters: Any


@contextmanager
def collect_statements(database: Database) -> Iterator[list[Statement]]:
    """Collect what is asked of a database, each text once."""
    found: dict[str, Statement] = {}

    def hear(*told: Any) -> None:  # noqa: ANN401 - whatever SQLAlchemy tells
        _, _, text, parameters, _, is_many = told
        if _ASKS.match(text):
            first = parameters[0] if is_many and parameters else parameters
            found.setdefault(text, Statement(text, first))

    engines = {database.engine.sync_engine, database._reader.sync_engine}
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", hear)
    statements: list[Statement] = []
    try:
        yield statements
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", hear)
        statements += found.values()


async def find_full_scans(
    database: Database, statements: Collection[Statement], small: Collection[str] = ()
) -> list[str]:
    """Return the statements that read a table whole that is not small, each with its plan."""
    found = []
    async with database.read(SYSTEM) as tx:
        explain = _explain_sqlite
        if database.dialect == "postgresql":
            await tx.conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = _explain_postgres
        for statement in statements:
            found += [
                f"{scan}: {statement.text}"
                for table, scan in await explain(tx.conn, statement)
                if table not in small
            ]
    return found


async def _explain_sqlite(conn: AsyncConnection, statement: Statement) -> list[tuple[str, str]]:
    rows = await conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.text}", statement.parameters)
    scans = [(found[1], text) for row in rows if (found := _SCAN.match(text := str(row[-1])))]
    return [(table, text) for name, text in scans if (table := _resolve(name, statement.text))]


def _resolve(name: str, text: str) -> str:
    """Return the table of a name in a plan; nothing for a subquery, whose own plan is beside it."""
    alias = re.search(rf"\b(?:FROM|JOIN|UPDATE)\s+(\w+)\s+(?:AS\s+)?{name}\b", text)
    if alias:
        return alias[1]
    return "" if re.search(rf"\)\s+(?:AS\s+)?{name}\b", text) else name


async def _explain_postgres(conn: AsyncConnection, statement: Statement) -> list[tuple[str, str]]:
    rows = await conn.exec_driver_sql(
        f"EXPLAIN (FORMAT JSON) {statement.text}", statement.parameters
    )
    (plan,) = rows.one()
    indexes = (await conn.exec_driver_sql(_LEADING)).mappings()
    leading = {row["relname"]: row["attname"] for row in indexes}
    root = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return list(_list_scans(root, leading, ""))


def _list_scans(
    node: dict[str, Any], leading: dict[str, str], table: str, *, is_walk: bool = False
) -> Iterator[tuple[str, str]]:
    """List what is read whole; a walk along an index that ends when a page is full is not."""
    table = node.get("Relation Name", table)
    kind, index = node["Node Type"], node.get("Index Name", "")
    is_whole = kind == "Seq Scan"
    if index and not is_walk:  # without its first column an index is read from end to end
        is_whole = not re.search(rf"\b{leading[index]}\b", node.get("Index Cond", ""))
    if is_whole:
        yield table, f"{kind} of {table} {index}".rstrip()
    is_walk = kind == "Limit" or (is_walk and kind not in _TAKES_ALL)
    for below in node.get("Plans", ()):
        yield from _list_scans(below, leading, table, is_walk=is_walk)
