"""The process that answers one query, and can reach nothing but the calls it is about.

Run as ``python -I -m pilotage.monitoring.calls.query_child`` with the limit of its CPU time in
seconds; a :class:`Question` comes as JSON on stdin. Writes one JSON object to stdout:
``{"found": {...}}``, ``{"refused": "why"}`` or ``{"too_large": "why"}``.

Files that cannot be read are left out of the answer and counted in it.

Whoever asks for one tenant must not learn of another by an error that a row of the other causes
before it is filtered out: the tenant's rows are copied first, and then there are no files at all.
"""

import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pilotage.monitoring.calls.columns import COLUMNS, list_shown
from pilotage.monitoring.calls.parquet import (
    CLOSED,
    DamagedFiles,
    find_damaged,
    quote,
    read_files,
)
from pilotage.monitoring.calls.rules import find_columns
from pilotage.monitoring.calls.types import Answer, Column, Question

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from duckdb import Error as DuckDBError

_ALL = frozenset(column.name for column in COLUMNS)
_ROOM_BYTES = 1 << 30  # of addresses: for the program, its threads, and rows on their way out
_NOWHERE = "/dev/null"  # for folders that DuckDB would look for in somebody's home, and tell of
_LARGEST = 2**63


def main() -> None:
    """Limit this process, then answer what it is asked."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, this goes first
    room = _ROOM_BYTES + 2 * (question.memory_mb << 20)
    for limited, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # it may write to its pipe, to no file
        (resource.RLIMIT_CPU, int(sys.argv[1])),
        (resource.RLIMIT_AS, room),
    ):
        resource.setrlimit(limited, (limit, limit))
    sys.stdout.buffer.write(msgspec.json.encode(_try(question)))


def answer(question: Question) -> Answer:
    """Return the rows of a query; raise ValueError for one that is not a readable SELECT.

    Raises MemoryError for one that takes more than it may.
    """
    import duckdb

    missing = 0
    while True:
        try:
            return _answer(question, missing)
        except duckdb.OutOfMemoryException as failed:
            raise MemoryError from failed
        except duckdb.Error as wrong:
            raise ValueError(str(wrong)) from wrong
        except DamagedFiles as damaged:
            left = [file for file in question.files if Path(file) not in damaged.paths]
            question = msgspec.structs.replace(question, files=left)
            missing += len(damaged.paths)


def _try(question: Question) -> dict[str, object]:
    try:
        return {"found": answer(question)}
    except ValueError as wrong:
        return {"refused": str(wrong)}
    except MemoryError:
        return {"too_large": f"it takes more than {question.memory_mb} MiB of memory"}


def _answer(question: Question, missing: int) -> Answer:
    import duckdb

    config = CLOSED | {
        "threads": question.threads,
        "memory_limit": f"{question.memory_mb}MB",
        "temp_directory": "",
        "home_directory": _NOWHERE,
        "secret_directory": _NOWHERE,
        "extension_directory": _NOWHERE,
    }
    with duckdb.connect(":memory:", config=config) as connection:
        _check(connection, question.sql)
        is_offered = False
        try:
            _offer(connection, question)
            is_offered = True
            columns, rows, is_cut = _ask(connection, question)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as failed:
            if not is_offered or _is_of_files(failed, question.files):
                _look_for_damage(question.files, failed)
            raise
    return Answer(columns=columns, rows=rows, is_cut=is_cut, missing=missing)


def _is_of_files(failed: "DuckDBError", files: Sequence[str]) -> bool:
    """Say whether files may be the reason: it names one, or is of no kind that a query causes."""
    import duckdb

    return type(failed) is duckdb.Error or any(file in str(failed) for file in files)


def _look_for_damage(files: Sequence[str], failed: "DuckDBError") -> None:
    """Raise :class:`DamagedFiles` if there are any; this reads all of all files."""
    if damaged := find_damaged(files):
        raise DamagedFiles(map(Path, damaged)) from failed


def _check(connection: "DuckDBPyConnection", sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type.name != "SELECT":
        raise ValueError("A query is one SELECT")


def _offer(connection: "DuckDBPyConnection", question: Question) -> None:
    """Make ``calls`` and shut every door."""
    if not question.files:
        kinds = ", ".join(f'"{column.name}" {column.type}' for column in COLUMNS)
        _run(connection, f"CREATE TABLE calls ({kinds})")
    elif question.tenant_id:
        wanted = find_columns(_parse(connection, question.sql), _ALL) or {"seq"}
        _run(connection, f"CREATE TABLE calls AS {_select(question, wanted)}")
    else:
        _run(connection, f"CREATE VIEW calls AS {_select(question, _ALL)}")
        _run(connection, f"SET allowed_paths = [{', '.join(map(quote, question.files))}]")
    _run(connection, "SET TimeZone = 'UTC'")
    _run(connection, "SET enable_external_access = false")
    _run(connection, "SET lock_configuration = true")


def _select(question: Question, wanted: "frozenset[str] | set[str]") -> str:
    conditions = []
    if question.tenant_id:
        conditions.append(f"tenant_id = {quote(question.tenant_id)}")
    if question.since_us:
        conditions.append(f"ended_at >= make_timestamp({question.since_us})")
    if question.until_us is not None:
        conditions.append(f"ended_at < make_timestamp({question.until_us})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {list_shown(wanted)} FROM {read_files(question.files)}{where}"  # noqa: S608


def _parse(connection: "DuckDBPyConnection", sql: str) -> object:
    found = connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]).fetchall()
    parsed = msgspec.json.decode(found[0][0])
    if parsed["error"]:
        raise ValueError(parsed["error_message"])
    return parsed


def _ask(
    connection: "DuckDBPyConnection", question: Question
) -> tuple[list[Column], list[msgspec.Raw], bool]:
    """Return columns and rows, and whether there were more."""
    connection.execute(question.sql)
    columns = [Column(str(item[0]), str(item[1])) for item in connection.description or ()]
    for column in columns:
        if "TIME ZONE" in column.type:
            raise ValueError(
                f"{column.name} has a time zone: write CAST({column.name} AS TIMESTAMP)"
            )
    rows: list[msgspec.Raw] = []
    size = 0
    while row := connection.fetchone():  # any one of them may be large
        encoded = msgspec.json.encode([_plain(value) for value in row], enc_hook=str)
        size += len(encoded)
        if len(rows) == question.most_rows or size > question.most_bytes:
            connection.abort()
            return columns, rows, True
        rows.append(msgspec.Raw(encoded))
    return columns, rows, False


def _plain(value: object) -> object:
    """Return a value that JSON can hold: decimals and whole numbers beyond 64 bits become texts."""
    if isinstance(value, Decimal):
        return f"{value:f}"  # 0.000000000, and not 0E-9
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        return str(value)
    return value


def _run(connection: "DuckDBPyConnection", statement: str) -> None:
    connection.execute(statement).fetchall()


if __name__ == "__main__":
    main()
